// SPDX-License-Identifier: GPL-2.0
//! What happened to the disks, in the order in which it happened. The log has the data, but holds
//! back writes until they are flushed; the trace has the order, but no data. Each write is in both.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::rc::Rc;

use vmtest::guest::Entry;
use vmtest::guest::Request;
use vmtest::guest::Traced;

/// Main or spare. Numbered as in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Disk {
    Main,
    Spare,
}

/// The log's own device, in the trace.
const LOG: usize = 2;

/// A write that succeeded. Main comes first, the spare behind it.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) sector: u64,
    pub(crate) data: Rc<Vec<u8>>,
    pub(crate) fua: bool,
    pub(crate) disk: Disk,
}

impl Write {
    /// The sectors, each with its data.
    pub(crate) fn sectors(&self) -> impl Iterator<Item = (u64, &[u8])> {
        (self.sector..).zip(self.data.chunks(512))
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A write was issued, by its place in `writes`.
    Issued(usize),
    /// It was answered.
    Answered(usize),
    /// A flush was issued; each has its number.
    FlushIssued(Disk, usize),
    /// It was answered with success.
    FlushAnswered(usize),
    /// A step begins.
    Begin(usize),
    /// It has ended.
    End(usize),
}

/// All that happened.
pub(crate) struct Timeline {
    pub(crate) writes: Vec<Write>,
    pub(crate) events: Vec<Event>,
}

type Key = (u64, u64, bool);

impl Timeline {
    /// Puts trace and log together. They have to agree in everything.
    pub(crate) fn new(main_sectors: u64, traced: &[Traced], entries: Vec<Entry>) -> Self {
        let mut content: BTreeMap<Key, VecDeque<Vec<u8>>> = BTreeMap::new();
        let mut marks = VecDeque::new();
        for entry in entries {
            match entry {
                Entry::Write { sector, data, fua } => {
                    let key = (sector, data.len() as u64 / 512, fua);
                    content.entry(key).or_default().push_back(data);
                }
                Entry::Mark(text) => marks.push_back(text),
                Entry::Flush => (),
                Entry::Discard { .. } => panic!("nobody discards here: {entry:?}"),
            }
        }
        let mut this = Self {
            writes: Vec::new(),
            events: Vec::new(),
        };
        let mut under_way: BTreeMap<Key, VecDeque<usize>> = BTreeMap::new();
        let mut flushes: BTreeMap<usize, VecDeque<usize>> = BTreeMap::new();
        let mut flush_count = 0;
        for event in traced {
            match event {
                Traced::Mark(text) => {
                    assert_eq!(marks.pop_front().as_ref(), Some(text), "log and trace");
                    let (what, number) = text.split_once(':').expect("a mark of ours");
                    let number = number.parse().expect("a step's number");
                    this.events.push(match what {
                        "begin" => Event::Begin(number),
                        _ => Event::End(number),
                    });
                }
                Traced::Issued(request) if request.device == LOG && request.sectors > 0 => {
                    check(request);
                    let write = this.writes.len();
                    this.writes.push(Write {
                        sector: request.sector,
                        data: Rc::default(),
                        fua: request.fua,
                        disk: match request.sector < main_sectors {
                            true => Disk::Main,
                            false => Disk::Spare,
                        },
                    });
                    under_way.entry(key(request)).or_default().push_back(write);
                    this.events.push(Event::Issued(write));
                }
                Traced::Answered(request, well) if request.device == LOG && request.sectors > 0 => {
                    assert!(well, "nothing fails below the log: {request:?}");
                    let key = key(request);
                    let write = under_way.get_mut(&key).and_then(VecDeque::pop_front);
                    let write = write.expect("an answer to something");
                    let data = content.get_mut(&key).and_then(VecDeque::pop_front);
                    // The log has them in the order of the answers.
                    this.writes[write].data = Rc::new(data.expect("a write that the log has"));
                    this.events.push(Event::Answered(write));
                }
                Traced::Issued(request) if request.device != LOG && request.flush => {
                    check(request);
                    let disk = match request.device {
                        0 => Disk::Main,
                        _ => Disk::Spare,
                    };
                    let waiting = flushes.entry(request.device).or_default();
                    waiting.push_back(flush_count);
                    this.events.push(Event::FlushIssued(disk, flush_count));
                    flush_count += 1;
                }
                Traced::Answered(request, well) if request.device != LOG && request.flush => {
                    let waiting = flushes.get_mut(&request.device);
                    let flush = waiting.and_then(VecDeque::pop_front);
                    let flush = flush.expect("an answer to something");
                    if *well {
                        this.events.push(Event::FlushAnswered(flush));
                    }
                }
                Traced::Issued(_) | Traced::Answered(..) => (),
            }
        }
        assert!(
            content.values().all(VecDeque::is_empty),
            "the log has writes that the trace does not have"
        );
        assert!(
            under_way.values().all(VecDeque::is_empty),
            "writes without an answer"
        );
        this
    }
}

fn key(request: &Request) -> Key {
    (request.sector, request.sectors, request.fua)
}

fn check(request: &Request) {
    assert!(
        !(request.discard || request.flush && request.sectors > 0),
        "device mapper sends flushes by themselves, and nobody discards: {request:?}"
    );
}

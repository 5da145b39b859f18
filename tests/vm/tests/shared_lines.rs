// SPDX-License-Identifier: GPL-2.0
//! What processors share is not written to on the way of a bio (P10, P11), as each such write takes the cache
//! line away from all others.
//!
//! The processor itself tells: its debug registers count writes to four words at a time, those that change
//! nothing included. Each word of what the target keeps in memory is watched while all kinds of I/O are done.
//! Where that lies is found in the kernel's own image of its memory, by the set's UUID.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;

use vmtest::guest::load;
use vmtest::guest::message_here;
use vmtest::guest::timed;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::Need;
use vmtest::guest::NullBlk;

/// What the state of a device and a target with its instance are allocated as: objects of these sizes, aligned so.
const STATE_BYTES: u64 = 2048;
const INSTANCE_BYTES: u64 = 512;

/// At least as large is what device mapper has for a target.
const DM_TARGET_BYTES: u64 = 96;

/// Of the device: a size that no other has.
const SECTORS: u64 = (64 << 11) - 8 * 13;

const PAGE: u64 = 4096;

/// How many debug registers there are.
const REGISTERS: usize = 4;

/// Counts the writes to a word of the kernel's memory.
struct Watch(File);

impl Watch {
    fn new(address: u64) -> io::Result<Self> {
        // struct perf_event_attr, of the size that has all that is needed here.
        const SIZE: u32 = 112;
        let mut attributes = [0_u8; SIZE as usize];
        let mut put = |at: usize, bytes: &[u8]| {
            attributes[at..at + bytes.len()].copy_from_slice(bytes);
        };
        // PERF_TYPE_BREAKPOINT, of eight bytes, HW_BREAKPOINT_W.
        put(0, &5_u32.to_ne_bytes());
        put(4, &SIZE.to_ne_bytes());
        put(52, &2_u32.to_ne_bytes());
        put(56, &address.to_ne_bytes());
        put(64, &8_u64.to_ne_bytes());
        // SAFETY: the structure is as long as it says. For this thread, on whichever processor it is.
        let fd =
            unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0) };
        match i32::try_from(fd) {
            // SAFETY: the kernel has just made it.
            Ok(fd) if fd >= 0 => Ok(Self(unsafe { File::from_raw_fd(fd) })),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn writes(&mut self) -> u64 {
        let mut count = [0; 8];
        self.0.read_exact(&mut count).expect("a count");
        u64::from_ne_bytes(count)
    }
}

/// The kernel's memory, as ELF segments.
struct Kcore {
    file: File,
    segments: Vec<Segment>,
}

struct Segment {
    offset: u64,
    address: u64,
    physical: u64,
    length: u64,
}

impl Kcore {
    fn open() -> Self {
        let file = File::open("/proc/kcore").expect("kcore");
        let mut head = [0; 64];
        file.read_exact_at(&mut head, 0).expect("an ELF header");
        let long = |bytes: &[u8], at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
        };
        let count = u16::from_le_bytes([head[56], head[57]]);
        let mut segments = Vec::new();
        for number in 0..u64::from(count) {
            let mut program = [0; 56];
            file.read_exact_at(&mut program, long(&head, 32) + number * 56)
                .expect("a program header");
            let (physical, length) = (long(&program, 24), long(&program, 32));
            // PT_LOAD of memory that there is; the rest are windows on it.
            if program[0] == 1 && physical != u64::MAX && length <= 1 << 34 {
                segments.push(Segment {
                    offset: long(&program, 8),
                    address: long(&program, 16),
                    physical,
                    length,
                });
            }
        }
        Self { file, segments }
    }

    /// The words there that may be the address of something.
    fn pointers(&self, address: u64, bytes: u64) -> Vec<u64> {
        let segment = self
            .segments
            .iter()
            .find(|segment| (segment.address..segment.address + segment.length).contains(&address));
        let mut memory = vec![0; bytes as usize];
        let read = segment.map(|segment| {
            let offset = segment.offset + (address - segment.address);
            self.file.read_exact_at(&mut memory, offset)
        });
        match read {
            Some(Ok(())) => memory
                .chunks(8)
                .map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes")))
                .filter(|word| *word >> 56 == 0xff)
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Where a `struct dm_target` may be that begins at sector 0 and is so long: two pointers are in front of
    /// that.
    fn dm_targets(&self, sectors: u64) -> Vec<u64> {
        let area = [0_u64.to_ne_bytes(), sectors.to_ne_bytes()].concat();
        let places = self.find(&area, 8).into_iter();
        places.map(|place| place - 16).collect()
    }

    /// The addresses of all places in small objects, aligned to `align`, where these bytes are.
    fn find(&self, wanted: &[u8], align: usize) -> Vec<u64> {
        // A word for each page: bit 7 says that it is a slab.
        let flags = File::open("/proc/kpageflags").expect("kpageflags");
        let mut found = Vec::new();
        let (mut words, mut page) = (vec![0; 8 * 4096], vec![0; PAGE as usize]);
        for segment in &self.segments {
            for at in (0..segment.length).step_by(4096 * PAGE as usize) {
                let pages = 4096.min((segment.length - at) / PAGE);
                let words = &mut words[..8 * pages as usize];
                let first = (segment.physical + at) / PAGE;
                if flags.read_exact_at(words, first * 8).is_err() {
                    continue;
                }
                let slabs = words
                    .chunks(8)
                    .enumerate()
                    .filter(|(_, word)| word[0] >> 7 != 0);
                for (number, _) in slabs {
                    let at = at + number as u64 * PAGE;
                    if self
                        .file
                        .read_exact_at(&mut page, segment.offset + at)
                        .is_err()
                    {
                        continue;
                    }
                    let places = (0..page.len()).step_by(align);
                    let places = places.filter(|place| page[*place..].starts_with(wanted));
                    found.extend(places.map(|place| segment.address + at + place as u64));
                }
            }
        }
        found
    }
}

/// What is to be watched: from an address on, so many bytes.
type Object = (u64, u64);

/// What a target with a table line of this length keeps in memory, all of it reached from the kernel's own
/// structure, so that nothing is taken for it that merely lies beside or holds an old copy.
///
/// In turn: `struct dm_target`, of which there may be remains; `dm::Instance`, which it points to, and which
/// points back, with the target in it; and the device's state.
fn objects(kcore: &Kcore, sectors: u64, uuid: &[u8]) -> Vec<Object> {
    let start_of = |place: u64| place & !(STATE_BYTES - 1);
    let states: Vec<u64> = kcore.find(uuid, 1).into_iter().map(start_of).collect();
    let mut objects = Vec::new();
    for ti in kcore.dm_targets(sectors) {
        let pointers = kcore.pointers(ti, DM_TARGET_BYTES).into_iter();
        for instance in pointers.filter(|at| at % INSTANCE_BYTES == 0) {
            let pointers = kcore.pointers(instance, INSTANCE_BYTES);
            if !pointers.contains(&ti) {
                continue;
            }
            if let Some(state) = pointers.into_iter().find(|at| states.contains(at)) {
                objects.extend([
                    (state, STATE_BYTES),
                    (instance, INSTANCE_BYTES),
                    (ti, DM_TARGET_BYTES),
                ]);
            }
        }
    }
    objects
}

/// The words of an object that are written to while `work` is done, and how often.
fn written((object, size): Object, mut work: impl FnMut()) -> Vec<(u64, u64)> {
    let words: Vec<u64> = (object..object + size).step_by(8).collect();
    let mut written = Vec::new();
    for words in words.chunks(REGISTERS) {
        let watch = |word: &u64| Watch::new(*word).expect("a debug register");
        let mut watches: Vec<Watch> = words.iter().map(watch).collect();
        work();
        for (word, watch) in words.iter().zip(&mut watches) {
            let count = watch.writes();
            if count != 0 {
                written.push((word - object, count));
            }
        }
    }
    written
}

fn uuid(mapped: &Mapped) -> Vec<u8> {
    let status = mapped.message("metadata_status").expect("metadata_status");
    let uuid = status
        .split_whitespace()
        .find_map(|word| word.strip_prefix("set_uuid="));
    let digits: Vec<u8> = uuid
        .expect("a UUID")
        .bytes()
        .filter_map(|byte| char::from(byte).to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// Nothing that processors share is written to, be it for reads or writes, of what main serves or a slot.
#[test]
fn nothing_shared_is_written_on_the_way_of_a_bio() {
    vmtest::needs!(Need::DebugRegisters);
    let _test = vmtest::begin!();
    load();
    let main = NullBlk::inline(64, 4096);
    let spare = NullBlk::inline(16, 4096);
    let line = format!(
        "0 {SECTORS} dm-remap {} {}",
        main.path().display(),
        spare.path().display()
    );
    let mapped = Mapped::new(&line);
    mapped.message("remap 80000 64").expect("remap");
    let disk = Direct::open(&mapped.path());
    let data = vec![1; 4096];
    // A clean area; beside what is remapped; a slot; more than one block of both.
    let io = || {
        for (sector, blocks) in [(0, 1), (80064, 1), (80000, 1), (79992, 16)] {
            for _ in 0..5 {
                disk.read(sector, blocks * 8).expect("read");
                disk.write(sector, &data.repeat(blocks as usize))
                    .expect("write");
            }
        }
    };
    // The first write to the spare is noted down.
    io();

    let ((), took) = timed(io);
    println!("{took:?} for the I/O");
    let kcore = Kcore::open();
    let objects = objects(&kcore, SECTORS, &uuid(&mapped));
    println!("watched: {objects:x?}");
    assert_eq!(objects.len(), 3, "one of each kind");

    // What is written when blocks are moved is seen.
    let moving = written(objects[0], || {
        // By this thread, which is the one that is watched.
        message_here(mapped.name(), "remap 90000 8").expect("remap");
        message_here(mapped.name(), "remove_remap 90000 8").expect("remove_remap");
    });
    println!("{} words are written when blocks are moved", moving.len());
    assert!(moving.len() > 10, "{moving:?}");

    for object in objects {
        let words = written(object, io);
        assert!(words.is_empty(), "of {object:x?}, at {words:x?}");
    }
    drop(disk);
    mapped.remove();
}

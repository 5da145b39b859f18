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
use vmtest::guest::message;
use vmtest::guest::timed;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::NullBlk;

/// What the state of a device and a target's own memory are allocated as: objects of these sizes, aligned so.
const STATE_BYTES: u64 = 2048;
const TARGET_BYTES: u64 = 1024;

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

/// The objects of `size` around these places.
fn objects(places: &[u64], size: u64) -> Vec<u64> {
    let mut objects: Vec<u64> = places.iter().map(|place| place & !(size - 1)).collect();
    objects.dedup();
    objects
}

/// The words of an object that are written to while `work` is done, and how often.
fn written(object: u64, size: u64, mut work: impl FnMut()) -> Vec<(u64, u64)> {
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
    let _test = vmtest::begin!();
    load();
    let main = NullBlk::inline(64, 4096);
    let spare = NullBlk::inline(16, 4096);
    let line = format!(
        "0 {} dm-remap {} {}",
        64 << 11,
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
    let states = objects(&kcore.find(&uuid(&mapped), 1), STATE_BYTES);
    // The state is what most others point to: targets, workers, what is queued.
    let pointers = |object: &u64| (kcore.find(&object.to_ne_bytes(), 8), *object);
    let (places, state) = states
        .iter()
        .map(pointers)
        .max_by_key(|(places, _)| places.len())
        .expect("a state");
    let mut users = objects(&places, TARGET_BYTES);
    users.retain(|user| !(state..state + STATE_BYTES).contains(user));
    // Others are gone, or happen to lie beside something.
    users.retain(|user| !kcore.find(&user.to_ne_bytes(), 8).is_empty());
    assert!(!users.is_empty(), "no target");
    println!("the state is at {state:#x}, what points to it at {users:x?}");

    // What is written when blocks are moved is seen.
    let moving = written(state, STATE_BYTES, || {
        // By this thread, which is the one that is watched.
        message(mapped.name(), "remap 90000 8").expect("remap");
        message(mapped.name(), "remove_remap 90000 8").expect("remove_remap");
    });
    println!("{} words are written when blocks are moved", moving.len());
    assert!(moving.len() > 10, "{moving:?}");

    for (object, size) in [(state, STATE_BYTES)]
        .into_iter()
        .chain(users.iter().map(|user| (*user, TARGET_BYTES)))
    {
        let words = written(object, size, io);
        assert!(words.is_empty(), "of {object:#x}, at {words:x?}");
    }
    drop(disk);
    mapped.remove();
}

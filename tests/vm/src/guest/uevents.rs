// SPDX-License-Identifier: GPL-2.0
//! Uevents, as udev gets them from the kernel.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::time::Instant;

use super::wait::FOR_EVER;

/// Listens to the kernel's uevents, from when it is made.
pub struct Uevents {
    socket: OwnedFd,
}

/// The variables of a uevent.
#[derive(Clone, Debug, Default)]
pub struct Uevent(BTreeMap<String, String>);

impl Uevent {
    /// A variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// What happened, the worst first, and how often.
    pub fn events(&self) -> Vec<(&str, u64)> {
        let names = self.get("DM_REMAP_EVENT").unwrap_or("").split(',');
        let counts = self.get("DM_REMAP_COUNT").unwrap_or("").split(',');
        let counts = counts.map(|count| count.parse().unwrap_or(0));
        names.zip(counts).collect()
    }

    /// How often something happened.
    pub fn count(&self, event: &str) -> u64 {
        let events = self.events();
        let mut own = events.iter().filter(|(name, _)| *name == event);
        own.next().map_or(0, |(_, count)| *count)
    }

    fn parse(message: &[u8]) -> Self {
        // The first is a summary.
        let words = message.split(|byte| *byte == 0).skip(1);
        let pairs = words.filter_map(|word| {
            let word = String::from_utf8_lossy(word);
            let (name, value) = word.split_once('=')?;
            Some((name.to_string(), value.to_string()))
        });
        Self(pairs.collect())
    }
}

impl Uevents {
    /// Begins to listen.
    pub fn listen() -> Self {
        // SAFETY: There are no demands.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
                libc::NETLINK_KOBJECT_UEVENT,
            )
        };
        assert!(fd >= 0, "a socket: {}", io::Error::last_os_error());
        // SAFETY: It was just opened, and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: An address is good if it is zero.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        // What the kernel sends; group 2 is for what udev makes of it.
        address.nl_groups = 1;
        let size = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: The address is there, and as long as is said.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
        assert!(bound == 0, "bind: {}", io::Error::last_os_error());
        Self { socket }
    }

    /// The next one of any kind, if there is one within `patience`.
    fn next(&self, patience: Duration) -> Option<Uevent> {
        let mut poll = libc::pollfd {
            fd: self.socket.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let wait = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: This is one of them.
        if unsafe { libc::poll(&mut poll, 1, wait) } != 1 {
            return None;
        }
        let mut message = [0u8; 8192];
        // SAFETY: The buffer is as long as is said.
        let len = unsafe {
            libc::recv(
                self.socket.as_raw_fd(),
                message.as_mut_ptr().cast(),
                message.len(),
                0,
            )
        };
        let len = usize::try_from(len).unwrap_or_else(|_| panic!("{}", io::Error::last_os_error()));
        Some(Uevent::parse(&message[..len]))
    }

    /// The next one of ours within `patience`.
    fn next_own(&self, patience: Duration) -> Option<Uevent> {
        let begun = Instant::now();
        loop {
            let uevent = self.next(patience.saturating_sub(begun.elapsed()))?;
            if uevent.get("SUBSYSTEM") == Some("dm_remap") && uevent.get("ACTION") == Some("change")
            {
                return Some(uevent);
            }
        }
    }

    /// Waits for the next one in which this has happened. Tells what else was told before, if there is none.
    #[track_caller]
    pub fn wait_for(&self, event: &str) -> Uevent {
        let mut others = Vec::new();
        while let Some(uevent) = self.next_own(FOR_EVER) {
            if uevent.count(event) != 0 {
                return uevent;
            }
            others.push(uevent);
        }
        panic!("no {event}, but {others:?}");
    }

    /// Those of ours that have come.
    pub fn come(&self) -> Vec<Uevent> {
        std::iter::from_fn(|| self.next_own(Duration::ZERO)).collect()
    }

    /// All that have come, of any kind.
    pub fn all(&self) -> Vec<Uevent> {
        std::iter::from_fn(|| self.next(Duration::ZERO)).collect()
    }
}

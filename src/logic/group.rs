// SPDX-License-Identifier: GPL-2.0

//! Who shares a flush and a commit with whom?
//!
//! Each repair has to flush a spare and to write the slot table before it answers (P3), and both cost the same for one
//! block as for many. So whoever has its data on the slots *joins* the group. If nobody makes things durable for its
//! spares at the time, it *leads*: all who wait when it *closes* its batch are in that, and it flushes and commits for
//! them. Who joins later waits for the next batch, as its data may have come after the flush:
//!
//! ```text
//!            close         flushed            the leader has the writer's lock     durable, or failed
//!   Waiting ------> Closed -------> Flushed ------------------------------> Taken -----------------> Done
//!      ^               |              |                                                               ^
//!      |               +--------------|---------------------------------------------------------------+
//!      +------------------------------+     the flush failed
//!        the leader gives up, or there is no room for it
//! ```
//!
//! A batch is what has come together while the one before it was made durable. Whose time is over leaves, but not
//! while it is flushed for, which takes as long as a flush of its own would, and not once it is taken, as nobody
//! knows then what the spares have of it; a leader ends its lead before.
//!
//! What is shared are the spares that have taken the data: the *key*. So nobody waits for the flush of a spare that
//! hangs and has nothing of its own.

use core::ops::DerefMut;

use super::desk::JOBS;

/// How many can be in a group: all jobs at the desk, and one that moves blocks by message.
pub const SEATS: usize = JOBS + 1;

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits for a batch.
    Waiting,
    /// It is in a batch whose spares are being flushed.
    Closed,
    /// They were.
    Flushed,
    /// Its leader cannot go back any more.
    Taken,
    /// It is known what became of it.
    Done,
}

/// A seat in the group, and whoever has it.
pub type Seat<R> = Option<Waiter<R>>;

/// Somebody in the group, with a request.
#[derive(Debug)]
pub struct Waiter<R> {
    key: u8,
    progress: Progress,
    leads: bool,
    request: R,
}

/// Those who wait for a commit.
#[derive(Debug)]
pub struct Group<P> {
    seats: P,
}

impl<R, P: DerefMut<Target = [Seat<R>]>> Group<P> {
    /// A group with these seats, which nobody has.
    pub const fn new(seats: P) -> Self {
        Self { seats }
    }

    /// Comes with a request, whose data is where it should be. Returns the seat that it has; the request itself if
    /// there is none.
    pub fn join(&mut self, key: u8, request: R) -> Result<usize, R> {
        let mut seats = self.seats.iter_mut().enumerate();
        let Some((number, seat)) = seats.find(|(_, seat)| seat.is_none()) else {
            return Err(request);
        };
        *seat = Some(Waiter {
            key,
            progress: Progress::Waiting,
            leads: false,
            request,
        });
        Ok(number)
    }

    /// Leads the next batch of those who come with the same key, if nobody does. Whoever leads calls [`Group::end`] in
    /// the end.
    pub fn lead(&mut self, seat: usize) -> bool {
        let Some(key) = self.key_at(seat, Progress::Waiting) else {
            return false;
        };
        let mut waiters = self.seats.iter().flatten();
        if waiters.any(|waiter| waiter.leads && waiter.key == key) {
            return false;
        }
        if let Some(Some(own)) = self.seats.get_mut(seat) {
            own.leads = true;
        }
        true
    }

    /// Closes a leader's batch: all who wait now are in it.
    pub fn close(&mut self, leader: usize) {
        self.advance(leader, Progress::Waiting, |_| Progress::Closed);
    }

    /// Has `change` decide for each request of a leader's batch that is `from` what it is from here on; the leader's own
    /// comes first.
    pub fn advance(
        &mut self,
        leader: usize,
        from: Progress,
        mut change: impl FnMut(&mut R) -> Progress,
    ) {
        let Some(Some(own)) = self.seats.get(leader) else {
            return;
        };
        let key = own.key;
        let (before, rest) = self.seats.split_at_mut(leader);
        let (own, after) = rest.split_at_mut(1);
        let others = before.iter_mut().chain(after);
        for waiter in own.iter_mut().chain(others).flatten() {
            if waiter.key == key && waiter.progress == from {
                waiter.progress = change(&mut waiter.request);
            }
        }
    }

    /// Leads no more. Those of the batch that were not taken wait for another one.
    pub fn end(&mut self, leader: usize) {
        for from in [Progress::Closed, Progress::Flushed] {
            self.advance(leader, from, |_| Progress::Waiting);
        }
        if let Some(Some(own)) = self.seats.get_mut(leader) {
            own.leads = false;
        }
    }

    /// Leaves with the request if that is done, and nobody is led any more.
    pub fn done(&mut self, seat: usize) -> Option<R> {
        self.take_out(seat, |progress| progress == Progress::Done)
    }

    /// Leaves with the request, whatever became of it, unless it is being flushed for, or was taken.
    pub fn leave(&mut self, seat: usize) -> Option<R> {
        self.take_out(seat, |progress| {
            !matches!(progress, Progress::Closed | Progress::Taken)
        })
    }

    fn take_out(&mut self, seat: usize, may: impl Fn(Progress) -> bool) -> Option<R> {
        let seat = self.seats.get_mut(seat)?;
        let waiter = seat.take_if(|waiter| !waiter.leads && may(waiter.progress))?;
        Some(waiter.request)
    }

    fn key_at(&self, seat: usize, progress: Progress) -> Option<u8> {
        let waiter = self.seats.get(seat)?.as_ref()?;
        (waiter.progress == progress).then_some(waiter.key)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        vec,
        vec::Vec, //
    };

    use super::{
        Group,
        Progress,
        Seat,
        SEATS, //
    };

    fn group<R>() -> Group<Vec<Seat<R>>> {
        Group::new((0..SEATS).map(|_| None).collect())
    }

    #[test]
    fn a_batch_is_what_waits_when_it_begins() {
        let mut group = group();
        let first = group.join(1, 'a').unwrap();
        assert!(group.lead(first) && !group.lead(first));
        group.close(first);
        let second = group.join(1, 'b').unwrap();
        let third = group.join(1, 'c').unwrap();
        assert!(!group.lead(second), "one leads");
        let mut taken = Vec::new();
        group.advance(first, Progress::Closed, |request| {
            taken.push(*request);
            Progress::Taken
        });
        assert_eq!(taken, ['a']);
        assert_eq!(
            group.leave(first),
            None,
            "not before it is known what became of it"
        );
        group.advance(first, Progress::Taken, |_| Progress::Done);
        assert_eq!(group.done(first), None, "not while it leads");
        group.end(first);
        assert_eq!(group.done(first), Some('a'));
        assert!(group.lead(third));
        group.close(third);
        taken.clear();
        group.advance(third, Progress::Closed, |request| {
            taken.push(*request);
            Progress::Done
        });
        assert_eq!(taken, ['c', 'b'], "the leader is the first");
        assert_eq!(group.done(second), Some('b'));
        group.end(third);
        assert_eq!(group.done(third), Some('c'));
    }

    #[test]
    fn those_of_other_spares_are_not_waited_for() {
        let mut group = group();
        let [first, other, second] = [1, 2, 1].map(|key| group.join(key, key).unwrap());
        assert!(group.lead(first) && group.lead(other) && !group.lead(second));
        group.close(other);
        let mut taken = 0;
        group.advance(other, Progress::Closed, |_| {
            taken += 1;
            Progress::Done
        });
        assert_eq!(taken, 1);
        group.end(other);
        assert_eq!(group.done(other), Some(2));
    }

    #[test]
    fn whoever_is_late_leaves_and_the_others_go_on() {
        let mut group = group();
        let [leader, late, next] = [0, 1, 2].map(|number| group.join(1, number).unwrap());
        assert!(group.lead(leader));
        group.close(leader);
        assert_eq!(group.leave(late), None, "not while it is flushed for");
        group.advance(leader, Progress::Closed, |_| Progress::Flushed);
        assert_eq!(group.leave(late), Some(1), "from a batch that is not taken");
        assert_eq!(group.leave(leader), None, "not while it leads");
        group.end(leader);
        assert_eq!(group.leave(leader), Some(0));
        assert!(group.lead(next));
    }

    #[test]
    fn there_is_a_seat_for_each() {
        let mut group = group();
        let seats: Vec<usize> = (0..SEATS)
            .map(|number| group.join(1, number).unwrap())
            .collect();
        assert_eq!(group.join(1, 77), Err(77));
        assert_eq!(group.leave(seats[3]), Some(3));
        assert_eq!(group.join(1, 77), Ok(seats[3]));
    }

    /// How far a leader is.
    #[derive(Clone, Copy, PartialEq)]
    enum Lead {
        Begun,
        Closed,
        Taken,
    }

    /// Whoever is in the group, as a model has it: what a client does next is drawn.
    #[derive(Clone, Copy, Debug)]
    struct Client {
        seat: usize,
        key: u8,
        /// Which flush of its spares was the last to begin when it came.
        came: u32,
        number: usize,
    }

    /// What every schedule must keep: one leads for each key; no batch has anybody who came after its flush
    /// began; who is taken is told; all are served in the end, and each once.
    #[test]
    fn any_schedule() {
        let mut seed = 7u64;
        let mut below = |bound: usize| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) as usize % bound
        };
        let (mut served, mut shared, mut gone, mut failed) = (0, 0, 0, 0);
        for _ in 0..300 {
            let mut group = group();
            let mut clients: Vec<Client> = Vec::new();
            // The seat of each key's leader, and how far it is.
            let mut leaders: Vec<Option<(usize, Lead)>> = vec![None; 3];
            let mut flushes = [0u32; 3];
            let mut came = 0;
            for step in 0..400 {
                let comes = step < 300;
                match below(6) {
                    0 | 1 if comes && clients.len() < SEATS => {
                        let key = below(3) as u8;
                        let client = Client {
                            seat: 0,
                            key,
                            came: flushes[usize::from(key)],
                            number: came,
                        };
                        let seat = group.join(key, client).unwrap();
                        assert!(clients.iter().all(|other| other.seat != seat));
                        clients.push(Client { seat, ..client });
                        came += 1;
                    }
                    2 if !clients.is_empty() => {
                        let client = clients[below(clients.len())];
                        let leader = &mut leaders[usize::from(client.key)];
                        if group.lead(client.seat) {
                            assert!(leader.is_none(), "two lead");
                            *leader = Some((client.seat, Lead::Begun));
                        } else if let Some((seat, lead @ Lead::Begun)) = leader {
                            group.close(*seat);
                            flushes[usize::from(client.key)] += 1;
                            *lead = Lead::Closed;
                        }
                    }
                    3 => {
                        // A leader takes its batch, or some of it, or finds that its flush failed.
                        let key = below(3);
                        if let Some((seat, lead @ Lead::Closed)) = &mut leaders[key] {
                            let mut count = 0;
                            let fails = below(4) == 0;
                            let room = 1 + below(SEATS);
                            group.advance(*seat, Progress::Closed, |client| {
                                assert_eq!(usize::from(client.key), key);
                                assert!(client.came < flushes[key], "it came after the flush");
                                count += 1;
                                match (fails, count <= room) {
                                    (true, _) => Progress::Done,
                                    (false, true) => Progress::Taken,
                                    (false, false) => Progress::Closed,
                                }
                            });
                            shared += usize::from(count > 1);
                            failed += usize::from(fails);
                            *lead = Lead::Taken;
                        }
                    }
                    4 => {
                        let key = below(3);
                        if let Some((seat, lead)) = leaders[key] {
                            // One that gives up has taken nothing.
                            if lead == Lead::Taken {
                                group.advance(seat, Progress::Taken, |_| Progress::Done);
                            }
                            group.end(seat);
                            leaders[key] = None;
                        }
                    }
                    _ if !clients.is_empty() => {
                        let index = below(clients.len());
                        let client = clients[index];
                        let late = comes && below(8) == 0;
                        let left = match late {
                            true => group.leave(client.seat),
                            false => group.done(client.seat),
                        };
                        if let Some(left) = left {
                            assert_eq!(
                                left.number, client.number,
                                "everybody gets what they brought"
                            );
                            clients.swap_remove(index);
                            gone += usize::from(late);
                            served += usize::from(!late);
                        }
                    }
                    _ => (),
                }
            }
            // Nobody comes any more: all who are left are served by each leading in turn.
            for (seat, _) in leaders.iter().flatten() {
                group.advance(*seat, Progress::Taken, |_| Progress::Done);
                group.end(*seat);
            }
            for client in clients.drain(..) {
                if group.lead(client.seat) {
                    group.close(client.seat);
                    group.advance(client.seat, Progress::Closed, |_| Progress::Done);
                    group.end(client.seat);
                }
                assert!(group.done(client.seat).is_some());
            }
            assert!(group.seats.iter().all(Option::is_none));
        }
        // All of it was met.
        assert!(
            served.min(shared).min(gone).min(failed) > 100,
            "{served} {shared} {gone} {failed}"
        );
    }
}

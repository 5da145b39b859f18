// SPDX-License-Identifier: GPL-2.0

//! Making again what the metadata has lost of its redundancy, in the background.
//!
//! A resume does not wait for it, nor does who noticed the loss: what is to be copied may be millions of
//! blocks. It runs by itself, one short step after the other with the writer's lock, which others get in
//! between (M9a, P16), and has no range at the desk. Each step begins with what is there then. It ends with a
//! suspend, and the next table's restorer goes on.
//!
//! In this order: what is lost with dead spares is recorded on new ones; members that are lost and serve
//! nothing are given up, as all that was on them would be copied for nothing; replicas are made again; and
//! members that are back and have everything are used again, which may be places for more replicas.

use kernel::{
    new_work,
    prelude::*,
    sync::Arc,
    time::{
        delay::fsleep,
        Delta, //
    },
    workqueue::{
        impl_has_work,
        Work,
        WorkItem, //
    }, //
};

use crate::{
    abstractions::{
        sync,
        work, //
    },
    logic::format::MEMBERS_MAX,
    remap::{
        meta::{
            io::SpareIo,
            writer::{
                growth,
                Restored,
                Writer, //
            }, //
        },
        repair::{
            crew::Teller,
            serve, //
        },
        session::state::State,
        setup::spares::Spares, //
    }, //
};

/// After how long a take-over that failed goes on, in milliseconds, and how often is looked whether a suspend has come.
const AGAIN_MS: i64 = 1000;
const SLICE_MS: i64 = 20;

/// Restores redundancy for a table.
#[pin_data]
pub(in crate::remap) struct Restorer {
    state: Arc<State>,
    spares: Spares,
    /// Runs the teller.
    events: Arc<work::WorkQueue>,
    teller: Arc<Teller>,
    #[pin]
    work: Work<Restorer>,
}

impl_has_work! {
    impl HasWork<Self> for Restorer { self.work }
}

impl WorkItem for Restorer {
    type Pointer = Arc<Restorer>;

    fn run(this: Arc<Restorer>) {
        let _scope = sync::NoIoScope::enter();
        let result = this.restore();
        let tell = {
            let mut locked = this.state.meta.writer.lock();
            let writer = &mut locked.writer;
            if !this.is_stopping() {
                writer.end_restoring(result.is_err());
            }
            writer.copies_changed(&this.state.user)
        };
        if let Err(error) = result {
            if this.state.user.log.allow() {
                let name = &this.state.user.name;
                pr_warn!(
                    "{name}: the metadata has less redundancy than it could have: {error:?}\n"
                );
            }
        }
        if tell {
            this.tell();
        }
    }
}

impl Restorer {
    /// For the table that has these spares.
    pub(in crate::remap) fn new(
        state: &Arc<State>,
        spares: &Spares,
        events: &Arc<work::WorkQueue>,
        teller: &Arc<Teller>,
    ) -> Result<Arc<Self>> {
        let (events, teller) = (events.clone(), teller.clone());
        Arc::pin_init(
            try_pin_init!(Self {
                state: state.clone(),
                spares: spares.clone(),
                events,
                teller,
                work <- new_work!("dm_remap_restore"),
            }),
            GFP_KERNEL,
        )
    }

    /// Waits until it seems to have nothing to do.
    pub(in crate::remap) fn wait_until_idle(&self) {
        work::wait_until_idle(&self.work);
    }

    fn tell(&self) {
        self.teller.raise();
        self.teller.tell_soon(&self.events);
    }

    fn is_stopping(&self) -> bool {
        self.state.jobs.is_stopping()
    }

    fn restore(&self) -> Result {
        self.take_over()?;
        for index in 0..MEMBERS_MAX {
            if self.spares.get(index).is_some() {
                continue;
            }
            self.in_steps(|writer, io| {
                writer.give_up(&self.state.path, &self.state.repair, io, index)
            })?;
        }
        self.in_steps(|writer, io| writer.restore(&self.state.path, &self.state.repair, io, 0))?;
        for (index, _) in self.spares.iter() {
            self.in_steps(|writer, io| writer.take_back(io, index))?;
        }
        self.in_steps(|writer, io| writer.restore(&self.state.path, &self.state.repair, io, 0))
    }

    /// Has new spares record what is lost with the dead ones (see [`take_over`](crate::remap::session::take_over)).
    fn take_over(&self) -> Result {
        let is_due = || {
            let locked = self.state.meta.writer.lock();
            locked.writer.active && locked.writer.is_taking_over()
        };
        let begun = is_due();
        while is_due() && !self.is_stopping() {
            // The map gets entries.
            let grown = growth::grow(&self.state, None);
            self.state.meta.let_others_write();
            let done = grown.and_then(|()| {
                let state = &self.state;
                state.with_writer(&self.spares, |writer, io| {
                    writer.take_over(&state.path, &state.repair, io)
                })
            });
            if done.is_ok() {
                // Somebody may have the range of the next block.
                fsleep(Delta::from_millis(1));
                continue;
            }
            // Nothing is remapped before this is done, so it is tried until it is.
            self.state.meta.writer.lock().writer.end_restoring(true);
            for _ in 0..AGAIN_MS / SLICE_MS {
                if self.is_stopping() {
                    return Ok(());
                }
                fsleep(Delta::from_millis(SLICE_MS));
            }
        }
        // They had no slots so far.
        if begun && !self.is_stopping() && serve::set_noted_aside(&self.state, &self.spares) {
            self.tell();
        }
        Ok(())
    }

    /// Does one step after the other.
    fn in_steps(
        &self,
        mut step: impl FnMut(&mut Writer, &mut SpareIo<'_>) -> Result<Restored>,
    ) -> Result {
        while !self.is_stopping() {
            self.state.meta.let_others_write();
            let restored = self.state.with_writer(&self.spares, |writer, io| {
                match writer.active && writer.wants_restoring() {
                    true => step(writer, io),
                    false => Ok(Restored::Done),
                }
            })?;
            if restored == Restored::Done {
                break;
            }
        }
        Ok(())
    }
}

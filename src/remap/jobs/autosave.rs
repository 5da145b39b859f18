// SPDX-License-Identifier: GPL-2.0

//! Writing the counters to the spares while the device is in use, every `autosave_seconds`.
//!
//! Remaps are durable when they are made; counters get to the spares with a superblock only, which may be written for the
//! last time long before the power goes. A timer runs while the table is in use, and does no more than to queue the work,
//! which writes if something was counted since. A limit that is set anew counts from the timer's next run on, which is
//! [`LOOK_SECONDS`] away at the most.
//!
//! ```text
//! resume: start --> timer, no context of ours --> work: writer's lock, one superblock pass --> timer ...
//! postsuspend: stop, which waits for the timer, and then for the work
//! ```

use kernel::{
    impl_has_hr_timer,
    new_mutex,
    new_work,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        ArcBorrow,
        Mutex, //
    },
    time::{
        hrtimer::{
            ArcHrTimerHandle,
            HrTimer,
            HrTimerCallback,
            HrTimerCallbackContext,
            HrTimerPointer,
            HrTimerRestart,
            RelativeMode, //
        },
        Delta,
        Monotonic, //
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
        util,
        work, //
    },
    logic::limit::Limit,
    remap::{
        repair::crew::Teller,
        session::state::State,
        setup::spares::Spares, //
    }, //
};

/// How often is looked what the limit is by now, in seconds.
const LOOK_SECONDS: u32 = 10;

/// Saves the counters of a table that is in use.
#[pin_data]
pub(in crate::remap) struct Autosaver {
    state: Arc<State>,
    spares: Spares,
    events: Arc<work::WorkQueue>,
    teller: Arc<Teller>,
    /// When they were saved last, or found to be what the spares have, in milliseconds.
    saved_at: Atomic<u64>,
    #[pin]
    timer: HrTimer<Self>,
    #[pin]
    work: Work<Autosaver>,
}

impl_has_work! {
    impl HasWork<Self> for Autosaver { self.work }
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Autosaver {
        mode: RelativeMode<Monotonic>, field: self.timer
    }
}

impl HrTimerCallback for Autosaver {
    type Pointer<'a> = Arc<Self>;

    fn run(
        this: ArcBorrow<'_, Self>,
        mut context: HrTimerCallbackContext<'_, Self>,
    ) -> HrTimerRestart {
        let _ = this.events.enqueue(Arc::from(this));
        context.forward_now(this.look_after());
        HrTimerRestart::Restart
    }
}

impl WorkItem for Autosaver {
    type Pointer = Arc<Autosaver>;

    fn run(this: Arc<Autosaver>) {
        let _scope = sync::NoIoScope::enter();
        this.save_if_due();
    }
}

impl Autosaver {
    fn look_after(&self) -> Delta {
        let seconds = match self.state.user.limits.get(Limit::AutosaveSeconds) {
            0 => LOOK_SECONDS,
            seconds => seconds.min(LOOK_SECONDS),
        };
        Delta::from_secs(i64::from(seconds))
    }

    fn save_if_due(&self) {
        let state = &*self.state;
        let seconds = u64::from(state.user.limits.get(Limit::AutosaveSeconds));
        let now = util::monotonic_ms();
        let due = self
            .saved_at
            .load(Relaxed)
            .saturating_add(seconds.saturating_mul(1000));
        if seconds == 0 || now < due || state.jobs.is_stopping() {
            return;
        }
        self.saved_at.store(now, Relaxed);
        state.meta.let_others_write();
        let writes = state.with_writer(&self.spares, |writer, io| {
            let may = writer.active && writer.check_own().is_ok();
            let writes = may && writer.counters_are_newer(&state.user);
            if writes {
                // What fails is counted and told by the writer; the next commit has them, too.
                let _ = writer.sync(io);
            }
            writes
        });
        if writes {
            self.teller.tell_news(&self.events);
        }
    }
}

/// What a table has of it.
#[pin_data]
pub(in crate::remap) struct Autosave {
    saver: Arc<Autosaver>,
    /// While the table is in use.
    #[pin]
    running: Mutex<Option<ArcHrTimerHandle<Autosaver>>>,
}

impl Autosave {
    /// For the table that has these spares. Nothing is saved before [`Autosave::start`].
    pub(in crate::remap) fn new(
        state: &Arc<State>,
        spares: &Spares,
        events: &Arc<work::WorkQueue>,
        teller: &Arc<Teller>,
    ) -> Result<Pin<KBox<Self>>> {
        let (events, teller) = (events.clone(), teller.clone());
        let saver = Arc::pin_init(
            try_pin_init!(Autosaver {
                state: state.clone(),
                spares: spares.clone(),
                events,
                teller,
                saved_at: Atomic::new(0),
                timer <- HrTimer::new(),
                work <- new_work!("dm_remap_autosave"),
            }),
            GFP_KERNEL,
        )?;
        KBox::pin_init(
            try_pin_init!(Self {
                saver,
                running <- new_mutex!(None),
            }),
            GFP_KERNEL,
        )
    }

    /// The table is in use from now on. Sleeps for a moment.
    pub(in crate::remap) fn start(&self) {
        let saver = &self.saver;
        saver.saved_at.store(util::monotonic_ms(), Relaxed);
        let mut running = self.running.lock();
        // Dropping a handle stops the timer, whichever started it.
        *running = None;
        *running = Some(saver.clone().start(saver.look_after()));
    }

    /// It is not any more. Waits for what is being written.
    pub(in crate::remap) fn stop(&self) {
        // Dropping it waits for the timer.
        drop(self.running.lock().take());
        work::wait_until_idle(&self.saver.work);
    }
}

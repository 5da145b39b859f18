// SPDX-License-Identifier: GPL-2.0

//! A target that tests what dm-linear has no use for: bios that are split, taken over when they
//! failed, and tried again in parts or as a whole; I/O of its own; RCU, SRCU, work, events, messages, memory.
//!
//! ```text
//! <start> <len> retry_rust <main> <spare> slices|resubmit|deferred
//! ```
//!
//! All I/O goes to `main`. What fails there is done on `spare`, at the same sectors: block by block
//! (`slices`), or by sending the bio there (`resubmit`). `deferred` is like `resubmit`, but leaves the
//! first attempt to the worker, too. Nobody remembers what is where, so this is of no use for anything
//! but tests.

use core::fmt::Write;

use kernel::{
    impl_has_work,
    new_mutex,
    new_spinlock,
    new_work,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc,
        Mutex,
        SpinLock, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

use abstractions::{
    block::{
        self,
        BatchSlots,
        BioPool,
        BlkStatus,
        IoBuffer,
        Op,
        Opf, //
    },
    dm::{
        self,
        Args,
        BioContext,
        BioKind,
        BioList,
        Constructor,
        CtrError,
        CtrMessage,
        Device,
        DeviceVisitor,
        Ended,
        EndedBio,
        Events,
        Features,
        MapBio,
        Mapped,
        OwnedBio,
        Registration,
        ReplyBuffer,
        StatusBuffer,
        StatusKind,
        TargetInfo,
        TargetType, //
    },
    sync::{
        self,
        NoIoScope,
        Published,
        Srcu,
        SrcuReader, //
    },
    util::RateLimit,
    work::{
        self,
        WorkQueue, //
    }, //
};

#[path = "../../../src/abstractions/mod.rs"]
mod abstractions;

module! {
    type: RetryModule,
    name: "dm_retry_rust",
    authors: ["The dm-remap developers"],
    description: "Device-mapper target that tests the abstraction",
    license: "GPL",
}

/// Bios do not cross multiples of this.
const SPLIT_SECTORS: u64 = 64;

/// Words in the reply to `long`.
const LONG_WORDS: usize = 10_000;

/// What `slices` tries at a time.
const BLOCK_BYTES: u32 = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Slices,
    Resubmit,
    Deferred,
}

/// What accompanies a bio.
#[derive(Default)]
struct Companion {
    /// Whether the bio went to the spare already.
    resubmitted: bool,
}

/// What the target shares with its worker.
#[pin_data]
struct Shared {
    main: Device,
    spare: Device,
    mode: Mode,
    events: Events,
    failed: BioList<Retry>,
    /// A failed bio that has not been through a list.
    #[pin]
    single: SpinLock<Option<OwnedBio<Retry>>>,
    retried: Atomic<u64>,
    /// How often the message `long` came.
    long: Atomic<u64>,
    /// A domain that comes and goes, with a reader.
    #[pin]
    domain: Mutex<Option<(SrcuReader, Pin<KBox<Srcu>>)>>,
    /// Something to be read in `map` and replaced by the message `replace`. Writes are its readers, which
    /// the message `drain` waits for.
    #[pin]
    generation: Published<u64>,
    #[pin]
    pool: BioPool,
    #[pin]
    log: RateLimit,
    #[pin]
    work: Work<Shared>,
}

impl_has_work! {
    impl HasWork<Self> for Shared { self.work }
}

/// The queue stands first, so that it is dropped, and the worker done, before anything else.
struct Retry {
    queue: WorkQueue,
    shared: Arc<Shared>,
}

impl WorkItem for Shared {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let _scope = NoIoScope::enter();
        let single = this.single.lock().take();
        if let Some(bio) = single {
            this.serve(bio);
        }
        for bio in this.failed.take_all() {
            this.serve(bio);
        }
        this.events.raise();
    }
}

impl Shared {
    fn serve(&self, bio: OwnedBio<Retry>) {
        if bio.status().is_ok() {
            return self.submit_first(bio);
        }
        self.retried.fetch_add(1, Relaxed);
        match self.mode {
            Mode::Slices => self.retry_slices(bio),
            Mode::Resubmit | Mode::Deferred => self.resubmit(bio),
        }
    }

    /// Does what `map` left to the worker.
    fn submit_first(&self, bio: OwnedBio<Retry>) {
        if !bio.is_flush() {
            let sector = bio.target_sector();
            return bio.submit(&self.main, sector);
        }
        let device = match bio.target_bio_nr() {
            0 => &self.main,
            _ => &self.spare,
        };
        let status = self.pool.flush(device).err().unwrap_or(BlkStatus::OK);
        bio.complete(status);
    }

    fn resubmit(&self, mut bio: OwnedBio<Retry>) {
        bio.per_bio().resubmitted = true;
        let sector = bio.target_sector();
        bio.submit(&self.spare, sector);
    }

    fn retry_slices(&self, bio: OwnedBio<Retry>) {
        if self.log.allow() {
            pr_info!("{} at {} again\n", bio.status(), bio.sector());
        }
        let status = match self.try_slices(&bio) {
            Ok(()) => BlkStatus::OK,
            Err(status) => status,
        };
        bio.complete(status);
    }

    fn try_slices(&self, bio: &OwnedBio<Retry>) -> Result<(), BlkStatus> {
        let mut offset = 0;
        while offset < bio.bytes() {
            let len = BLOCK_BYTES.min(bio.bytes() - offset);
            let sector = bio.target_sector() + u64::from(offset / 512);
            let on = |device| match bio.op() {
                Op::Read => self.pool.read_slice(bio, offset, len, device, sector),
                Op::Write => {
                    let opf = Opf::WRITE.fua();
                    self.pool.write_slice(bio, offset, len, device, sector, opf)
                }
                _ => Err(BlkStatus::NOTSUPP),
            };
            on(&self.main).or_else(|_| on(&self.spare))?;
            offset += len;
        }
        Ok(())
    }

    /// Writes two blocks at a time to the spare, and some of it in parts, and looks at it again.
    fn test_pool(&self, sector: u64) -> Result {
        let size = 3 << 20;
        let mut buffer = IoBuffer::new(size, GFP_KERNEL)?;
        let mut again = IoBuffer::new(size, GFP_KERNEL)?;
        for (at, byte) in buffer.as_mut_slice().iter_mut().enumerate() {
            *byte = (at % 251) as u8;
        }
        let after = sector + (size as u64 >> 9);

        let mut slots = BatchSlots::new(3, GFP_KERNEL)?;
        self.pool.batch(&mut slots, |batch| -> Result {
            batch.write(&self.spare, sector, buffer.all(), Opf::WRITE)?;
            batch.write(
                &self.spare,
                after,
                buffer.slice(512..8192)?,
                Opf::WRITE.fua(),
            )?;
            batch.flush(&self.spare)?;
            let full = batch.flush(&self.spare);
            if full != Err(ENOSPC) {
                return Err(EINVAL);
            }
            Ok(())
        })?;
        slots.first_error().to_result()?;

        self.pool
            .read(&self.spare, sector, again.all_mut(), Opf::READ.sync())
            .map_err(|_| EIO)?;
        if buffer.as_slice() != again.as_slice() {
            return Err(EDOM);
        }
        let (first, rest) = again.all_mut().split_at(1024)?;
        self.pool.batch(&mut slots, |batch| -> Result {
            batch.read(&self.spare, after, first, Opf::READ)?;
            batch.read(&self.spare, after + 2, rest.split_at(6656)?.0, Opf::READ)?;
            Ok(())
        })?;
        slots.first_error().to_result()?;
        if buffer.as_slice().get(512..8192) != again.as_slice().get(..7680) {
            return Err(EDOM);
        }

        // Only writes can be on stable storage.
        for opf in [Opf::READ.fua(), Opf::READ.preflush()] {
            match self.pool.read(&self.spare, sector, again.all_mut(), opf) {
                Err(BlkStatus::INVAL) => {}
                _ => return Err(EINVAL),
            }
        }

        // Behind the end of the device.
        let end = self.spare.sectors();
        match self.pool.read(&self.spare, end, again.all_mut(), Opf::READ) {
            Err(BlkStatus::IOERR) => Ok(()),
            _ => Err(EINVAL),
        }
    }
}

impl Retry {
    fn new(ctor: &mut Constructor<'_>, args: Args<'_>) -> Result<Self, CtrError> {
        if ctor.is_suspended() {
            expect_noio("ctr");
        }
        let words = args.to_strs()?;
        let &[_, _, mode] = words.as_slice() else {
            return Err(CtrError::new(EINVAL, c"Invalid argument count"));
        };
        let mode = match mode {
            "slices" => Mode::Slices,
            "resubmit" => Mode::Resubmit,
            "deferred" => Mode::Deferred,
            _ => return Err(CtrError::new(EINVAL, c"Unknown mode")),
        };
        let path = |index| args.get(index).ok_or(EINVAL);
        let main = ctor.device(path(0)?).message(c"No main device")?;
        let spare = ctor.device(path(1)?).message(c"No spare device")?;
        if main == spare {
            return Err(CtrError::new(EINVAL, c"Main and spare are the same"));
        }
        let events = ctor.events();
        let generation = KBox::new(0, GFP_KERNEL)?;
        let shared = Arc::pin_init(
            try_pin_init!(Shared {
                main,
                spare,
                mode,
                events,
                failed: BioList::new(),
                single <- new_spinlock!(None),
                retried: Atomic::new(0),
                long: Atomic::new(0),
                domain <- new_mutex!(None),
                generation <- Published::new(generation),
                pool <- BioPool::new(4),
                log <- RateLimit::new(5, 3),
                work <- new_work!("dm_retry_rust"),
            }),
            GFP_KERNEL,
        )?;
        let queue = WorkQueue::new(c"dm_retry_rust", 1)?;
        ctor.set_num_bios(BioKind::Flush, 2);
        ctor.set_num_bios(BioKind::Discard, 1);
        Ok(Self { queue, shared })
    }
}

#[vtable]
impl dm::Target for Retry {
    type PerBio = Companion;
    const VERSION: [u32; 3] = [1, 0, 0];
    const FEATURES: Features = Features::NOWAIT;

    fn ctr(ctor: &mut Constructor<'_>, args: Args<'_>) -> impl PinInit<Self, CtrError> {
        Self::new(ctor, args)
    }

    #[inline(always)]
    fn map<'a>(&self, _ti: &TargetInfo, mut bio: MapBio<'a, Self>) -> Mapped<'a> {
        let shared = &*self.shared;
        if bio.is_flush() && shared.mode == Mode::Deferred {
            return self.defer(bio);
        }
        if bio.is_flush() {
            return match bio.target_bio_nr() {
                0 => bio.redirect(&shared.main),
                _ => bio.redirect(&shared.spare),
            };
        }
        let sector = bio.target_sector();
        let room = SPLIT_SECTORS - sector % SPLIT_SECTORS;
        if u64::from(bio.sectors()) > room && bio.accept_partial(room as u32).is_err() {
            return bio.kill();
        }
        let generation = *shared.generation.load(&rcu::read_lock());
        if generation == u64::MAX {
            return bio.complete(BlkStatus::IOERR);
        }
        // From here on, `end_io` sees the bio, and ends the reader.
        if shared.mode == Mode::Deferred {
            return self.defer(bio);
        }
        let write = bio.opf().is_write();
        let reader = write.then(|| shared.generation.readers().down_read());
        if let Some(reader) = &reader {
            if shared.generation.load_registered(reader) < Some(&generation) {
                pr_err!("an older generation than before\n");
            }
        }
        let context = BioContext {
            reader,
            ..BioContext::default()
        };
        bio.remap_with(&shared.main, sector, context)
    }

    fn end_io<'a>(&self, _ti: &TargetInfo, mut bio: EndedBio<'a, Self>) -> Ended<'a> {
        let again = matches!(
            bio.status(),
            BlkStatus::MEDIUM | BlkStatus::TARGET | BlkStatus::IOERR
        );
        if !again || bio.opf().is_preflush() || bio.per_bio().resubmitted {
            return bio.done();
        }
        let (bio, ended) = bio.take();
        let mut bio = Some(bio);
        if let Some(mut single) = self.shared.single.try_lock() {
            if single.is_none() {
                *single = bio.take();
            }
        }
        if let Some(bio) = bio {
            self.shared.failed.push(bio);
        }
        // If the worker is queued already, it finds the bio when it runs.
        let _ = self.queue.enqueue(self.shared.clone());
        ended
    }

    fn presuspend(&self, _ti: &TargetInfo) {
        expect_noio("presuspend");
    }

    fn postsuspend(&self, _ti: &TargetInfo) {
        expect_noio("postsuspend");
        work::wait_until_idle(&self.shared.work);
        self.queue.flush();
    }

    fn resume(&self, _ti: &TargetInfo) {
        expect_noio("resume");
    }

    fn preresume(&self, ti: &TargetInfo) -> Result {
        expect_noio("preresume");
        pr_info!("{:?} resumes\n", ti.device_name());
        Ok(())
    }

    fn status(&self, ti: &TargetInfo, kind: StatusKind, out: &mut StatusBuffer<'_>) {
        expect_noio("status");
        let shared = &*self.shared;
        let mode = match shared.mode {
            Mode::Slices => "slices",
            Mode::Resubmit => "resubmit",
            Mode::Deferred => "deferred",
        };
        let (main, spare) = (shared.main.number(), shared.spare.number());
        let retried = shared.retried.load(Relaxed);
        let _ = match kind {
            StatusKind::Info => write!(out, "{retried} {}", ti.is_read_only()),
            StatusKind::Table => write!(out, "{main} {spare} {mode}"),
            StatusKind::Ima => write!(out, ",main={main},spare={spare};"),
        };
    }

    fn message(&self, ti: &TargetInfo, args: Args<'_>, reply: &mut ReplyBuffer<'_>) -> Result {
        expect_noio("message");
        let shared = &*self.shared;
        match args.to_strs()?.as_slice() {
            // Written before the words are read for the last time: they share their memory.
            ["echo", words @ ..] => {
                for word in words {
                    write!(reply, "<{word}>").map_err(|_| EINVAL)?;
                }
                Ok(())
            }
            ["pool", sector] => shared.test_pool(sector.parse().map_err(|_| EINVAL)?),
            ["drain"] => {
                shared.generation.readers().synchronize();
                Ok(())
            }
            ["replace"] => {
                let old = *shared.generation.load(&rcu::read_lock());
                let next = sync::Replacement::new(old + 1, GFP_KERNEL)?;
                shared.generation.replace(next);
                // Not while a bio reads it, and none is waited for.
                let freed = shared.generation.reclaim();
                let name = ti.target_name().to_str()?;
                write!(reply, "{old} {name} freed={freed}").map_err(|_| EINVAL)
            }
            ["reclaim"] => {
                let freed = shared.generation.reclaim();
                write!(reply, "freed={freed}").map_err(|_| EINVAL)
            }
            ["event"] => {
                shared.events.raise();
                Ok(())
            }
            // More than `dmsetup` has room for at first.
            ["long"] => {
                let times = shared.long.fetch_add(1, Relaxed) + 1;
                for _ in 0..LONG_WORDS {
                    write!(reply, "{times} ").map_err(|_| EINVAL)?;
                }
                Ok(())
            }
            // Who waits gives up, and asks again: a callback of the domain's waits, and is to come once more.
            ["domain"] => {
                let domain = KBox::pin_init(Srcu::new(), GFP_KERNEL)?;
                let reader = domain.down_read();
                if (0..4).any(|_| domain.synchronize_within(0)) {
                    return Err(EINVAL);
                }
                *shared.domain.lock() = Some((reader, domain));
                Ok(())
            }
            ["no_domain"] => {
                let domain = shared.domain.lock().take();
                domain.map(drop).ok_or(EINVAL)
            }
            _ => Err(EINVAL),
        }
    }

    fn iterate_devices(&self, ti: &TargetInfo, devices: &mut DeviceVisitor<'_>) {
        expect_noio("iterate_devices");
        devices.visit(&self.shared.main, 0, ti.len());
        devices.visit(&self.shared.spare, 0, ti.len());
    }

    fn io_hints(&self, _ti: &TargetInfo, limits: &mut block::QueueLimits) {
        expect_noio("io_hints");
        limits.raise_io_min(4096);
    }
}

impl Retry {
    fn defer<'a>(&self, bio: MapBio<'a, Self>) -> Mapped<'a> {
        let (bio, mapped) = bio.take();
        if self.shared.failed.push(bio) {
            // If the worker is queued already, it finds the bio when it runs.
            let _ = self.queue.enqueue(self.shared.clone());
        }
        mapped
    }
}

impl Drop for Retry {
    fn drop(&mut self) {
        expect_noio("dtr");
    }
}

/// Says in the kernel log if memory might be got by I/O here, where the mapped device may be suspended.
fn expect_noio(name: &str) {
    // SAFETY: The current task exists while it runs this, and only it changes its flags.
    let flags = unsafe { (*kernel::bindings::get_current()).flags };
    if flags & kernel::bindings::PF_MEMALLOC_NOIO == 0 {
        pr_err!("{name} may do I/O for memory\n");
    }
}

static RETRY: TargetType<Retry> = TargetType::new(c"retry_rust");
static SECOND_NAME: TargetType<Retry> = TargetType::new(c"retry2_rust");

struct RetryModule {
    _names: [Registration; 2],
}

impl kernel::Module for RetryModule {
    fn init(module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _names: [RETRY.register(module)?, SECOND_NAME.register(module)?],
        })
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Where users look at a device: its folders in sysfs and debugfs.
//!
//! A *face* stands for a place in a mapped device, which is the first sector of a line of its tables. It is there from
//! when the first table that has a line of ours in that place was constructed, until the last one is destroyed: as a
//! table that is not resumed has its devices, and its state, too. Its folder is called `dm-MINOR`, or
//! `dm-MINOR-SECTOR` if the place is not the device's first sector. A load that fails drops what it has made.
//!
//! It shows the state of the table that was resumed last, or before any was, of the one that was loaded first. Tables
//! that share a state share the face, too, unless the line lies in another place, and then each has its own. As faces
//! come with constructors and go with destructors, no resume waits for sysfs.
//!
//! Locks, in the order in which they are taken:
//! 1. `making`: faces come and go one after the other, as there is one name for each place. Folders are removed with it,
//!    which waits for who reads or writes a file of them, so that none of these takes it.
//! 2. `list`, a mutex: which faces there are. Held for a moment.
//! 3. `label`, and then `shown`, mutexes of a face: held while text is made, and never for I/O.
//!
//! Below `shown`, the desk's lock is taken, RCU for a moment, and the writer's if it is free. So nobody waits here for who
//! waits for a disk.

use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

use crate::{
    abstractions::{
        dm,
        fs,
        sync, //
    },
    logic::format::MEMBERS_MAX,
    remap::{
        session::state::State,
        setup::spares::Spares, //
    }, //
};

use super::{
    debugfs::{
        DeviceFiles,
        DeviceRows, //
    },
    sysfs::{
        DeviceFolder,
        ModuleFolder, //
    }, //
};

static FILES: sync::Global<Option<Arc<Files>>> = sync::Global::new(None);

/// The files of the module, with those of all devices, until this is dropped.
pub(crate) struct Registration(());

impl Registration {
    /// Makes those of the module. To be dropped when there are no targets any more.
    pub(crate) fn new() -> Result<Self> {
        let files = Files::new()?;
        *FILES.lock() = Some(files);
        Ok(Self(()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let files = FILES.lock().take();
        drop(files);
    }
}

/// Everything that users see.
#[pin_data]
struct Files {
    /// One for all devices.
    _all: fs::RowFile<DeviceRows>,
    dir: fs::Dir,
    folder: fs::Folder<ModuleFolder>,
    faces: Arc<Faces>,
    #[pin]
    making: sync::IoMutex<()>,
}

impl Files {
    /// Finds the face of a place, for one more line.
    fn known(&self, place: (dm::MappedDeviceId, u64)) -> Option<(Arc<Face>, Arc<DeviceFolderRef>)> {
        let mut list = self.faces.list.lock();
        let listed = list.iter_mut().find(|listed| listed.face.place == place)?;
        listed.lines = listed.lines.saturating_add(1);
        Some((listed.face.clone(), listed.folder.clone()))
    }

    fn new() -> Result<Arc<Self>> {
        let faces = Arc::pin_init(Faces::new(), GFP_KERNEL)?;
        let folder = fs::Folder::in_kernel(c"dm_remap", ModuleFolder(faces.clone()))?;
        let dir = fs::Dir::new(c"dm_remap")?;
        let rows = DeviceRows(faces.clone());
        let all = fs::RowFile::new(&dir, c"remap_table", rows)?;
        Arc::pin_init(
            pin_init!(Self {
                _all: all,
                dir,
                folder,
                faces,
                making <- sync::IoMutex::new(new_mutex!((), "dm_remap_faces_making")),
            }),
            GFP_KERNEL,
        )
    }
}

/// The faces that there are.
#[pin_data]
pub(super) struct Faces {
    #[pin]
    list: Mutex<KVec<Listed>>,
    /// How many lines of tables have one.
    lines: Atomic<u64>,
}

/// A face, and what only who makes faces needs of it.
struct Listed {
    face: Arc<Face>,
    /// How many lines of tables have it.
    lines: u64,
    folder: Arc<DeviceFolderRef>,
    _files: DeviceFiles,
}

impl Faces {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_mutex!(KVec::new(), "dm_remap_faces"),
            lines: Atomic::new(0),
        })
    }

    /// How many lines of tables there are, in use or not.
    pub(super) fn lines(&self) -> u64 {
        self.lines.load(Relaxed)
    }

    /// The face with the smallest serial number from `first` on.
    pub(super) fn next(&self, first: u64) -> Option<Arc<Face>> {
        let list = self.list.lock();
        let later = list.iter().filter(|listed| listed.face.serial >= first);
        later
            .min_by_key(|listed| listed.face.serial)
            .map(|listed| listed.face.clone())
    }
}

/// See the [module](self).
#[pin_data]
pub(super) struct Face {
    /// Tells it from all that there were before.
    pub(super) serial: u64,
    place: (dm::MappedDeviceId, u64),
    /// The name of its folder.
    pub(super) name: CString,
    #[pin]
    shown: Mutex<Option<Shown>>,
}

/// What a face shows.
pub(super) struct Shown {
    table: dm::TableId,
    pub(super) state: Arc<State>,
    names: dm::DeviceNames,
    /// Where on their devices the spares begin that the table has.
    pub(super) starts: [Option<u64>; MEMBERS_MAX as usize],
}

impl Face {
    /// Calls `look` with what is shown, which stays until that returns. Fails with [`ENODEV`] if there is nothing.
    pub(super) fn look<R>(&self, look: impl FnOnce(&Shown) -> Result<R>) -> Result<R> {
        look(self.shown.lock().as_ref().ok_or(ENODEV)?)
    }

    /// Calls `with` with the name and the UUID that the mapped device has now.
    pub(super) fn names<R>(&self, with: impl FnOnce(&CStr, &CStr) -> R) -> Result<R> {
        let names = self.look(|shown| Ok(shown.names.clone()))?;
        names.read(with).map_err(|_| ENODEV)
    }
}

/// The folder of a device, which sends its uevents. Whoever has it gives it up before the line's [`FaceRef`], as the next
/// face in the place has the same name.
pub(in crate::remap) type DeviceFolderRef = fs::Folder<DeviceFolder>;

/// A line's use of its face, until it is dropped.
pub(in crate::remap) struct FaceRef {
    files: Arc<Files>,
    face: Arc<Face>,
    /// There until this is being dropped.
    folder: Option<Arc<DeviceFolderRef>>,
    table: dm::TableId,
    names: dm::DeviceNames,
}

impl FaceRef {
    /// Has a line's state shown, unless that of a table in use is.
    #[inline(never)]
    pub(in crate::remap) fn new(
        ctor: &dm::Constructor<'_>,
        state: &Arc<State>,
        spares: &Spares,
    ) -> Result<Self> {
        let files = FILES.lock().clone().ok_or(ENODEV)?;
        let place = (ctor.device_id(), ctor.begin());
        // Others wait for it who must not wait for I/O.
        let _scope = sync::NoIoScope::enter();
        let (face, folder) = match files.known(place) {
            // A reload waits for nobody who waits for readers.
            Some(known) => known,
            None => {
                let _making = files.making.lock();
                match files.known(place) {
                    Some(known) => known,
                    None => files.make(ctor, place)?,
                }
            }
        };
        files.faces.lines.fetch_add(1, Relaxed);
        let own = Self {
            files,
            face,
            folder: Some(folder),
            table: ctor.table_id(),
            names: ctor.device_names(),
        };
        let mut shown = own.face.shown.lock();
        if shown.is_none() {
            *shown = Some(own.shown(state, spares));
        }
        drop(shown);
        Ok(own)
    }

    /// The folder of the device.
    pub(in crate::remap) fn folder(&self) -> Option<Arc<DeviceFolderRef>> {
        self.folder.clone()
    }

    fn shown(&self, state: &Arc<State>, spares: &Spares) -> Shown {
        let start = |index| Some(spares.get(index as u8)?.start);
        Shown {
            table: self.table,
            state: state.clone(),
            names: self.names.clone(),
            starts: core::array::from_fn(start),
        }
    }

    /// Has the line's state shown, as its table is in use now.
    pub(in crate::remap) fn show(&self, state: &Arc<State>, spares: &Spares) {
        let shown = self.shown(state, spares);
        let before = self.face.shown.lock().replace(shown);
        drop(before);
    }
}

impl Files {
    /// Makes a face for who makes them.
    #[inline(never)]
    fn make(
        &self,
        ctor: &dm::Constructor<'_>,
        place: (dm::MappedDeviceId, u64),
    ) -> Result<(Arc<Face>, Arc<DeviceFolderRef>)> {
        static SERIAL: Atomic<u64> = Atomic::new(0);
        let number = ctor.device_name().to_str().unwrap_or("?");
        let minor = number.rsplit(':').next().unwrap_or(number);
        let name = match place.1 {
            0 => CString::try_from_fmt(fmt!("dm-{minor}"))?,
            begin => CString::try_from_fmt(fmt!("dm-{minor}-{begin}"))?,
        };
        let dir = self.dir.within(&name)?;
        let face = Arc::pin_init(
            pin_init!(Face {
                serial: SERIAL.fetch_add(1, Relaxed),
                place,
                name,
                shown <- new_mutex!(None, "dm_remap_face"),
            }),
            GFP_KERNEL,
        )?;
        self.faces.list.lock().reserve(1, GFP_KERNEL)?;
        let folder = fs::Folder::within(&self.folder, &face.name, DeviceFolder::new(&face)?)?;
        let folder = Arc::new(folder, GFP_KERNEL)?;
        let listed = Listed {
            face: face.clone(),
            lines: 1,
            folder: folder.clone(),
            _files: DeviceFiles::new(&dir, &face)?,
        };
        // There is room.
        let _ = self.faces.list.lock().push_within_capacity(listed);
        Ok((face, folder))
    }
}

impl Drop for FaceRef {
    fn drop(&mut self) {
        let _scope = sync::NoIoScope::enter();
        let _making = self.files.making.lock();
        let own = |shown: &mut Shown| shown.table == self.table;
        let shown = self.face.shown.lock().take_if(own);
        drop(shown);
        self.files.faces.lines.fetch_sub(1, Relaxed);
        let unused = {
            let mut list = self.files.faces.list.lock();
            let place = list
                .iter()
                .position(|listed| Arc::ptr_eq(&listed.face, &self.face));
            match place.and_then(|place| Some((place, list.get_mut(place)?))) {
                Some((place, listed)) if listed.lines <= 1 => list.remove(place).ok(),
                Some((_, listed)) => {
                    listed.lines = listed.lines.saturating_sub(1);
                    None
                }
                None => None,
            }
        };
        // Not under the list's lock: this waits for readers.
        drop(unused);
        drop(self.folder.take());
    }
}

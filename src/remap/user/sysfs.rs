// SPDX-License-Identifier: GPL-2.0

//! What is in `/sys/kernel/dm_remap`. Who may read and write what is in docs/dm-remap.rst.
//!
//! Nothing here waits for a disk: figures are read without a lock, and what users set is set in memory, so that a spare
//! that hangs keeps nobody from removing the folder.

use core::fmt::Write;

use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        atomic::Relaxed,
        Arc,
        Mutex, //
    }, //
};

use crate::{
    abstractions::{
        fs,
        util, //
    },
    logic::{
        figures::{
            self,
            Figure,
            Labels,
            FIGURES, //
        },
        limit::Limit,
        message::{
            self,
            Denial,
            Message, //
        }, //
    }, //
};

use super::face::{
    Face,
    Faces, //
};

/// The folder of the module.
pub(super) struct ModuleFolder(pub(super) Arc<Faces>);

/// A file of it.
#[derive(Clone, Copy)]
pub(super) enum ModuleFile {
    Version,
    Targets,
}

fn version() -> &'static str {
    let version = util::module_version();
    version.and_then(|text| text.to_str().ok()).unwrap_or("")
}

impl fs::Object for ModuleFolder {
    type Key = ModuleFile;

    const ATTRIBUTES: &'static [fs::Attribute<ModuleFile>] = &[
        fs::Attribute::new(c"version", ModuleFile::Version),
        fs::Attribute::new(c"targets", ModuleFile::Targets),
    ];

    fn show(&self, key: ModuleFile, out: &mut fs::TextPart<'_>) -> Result {
        match key {
            ModuleFile::Version => writeln!(out, "{}", version())?,
            ModuleFile::Targets => writeln!(out, "{}", self.0.lines())?,
        }
        Ok(())
    }
}

/// The folder of a device.
pub(in crate::remap) struct DeviceFolder {
    face: Arc<Face>,
    label: Pin<KBox<Mutex<Option<Label>>>>,
}

/// What the device was called when the first part of `all_stats` was read: the others say the same, so that they fit.
struct Label {
    name: CString,
    uuid: CString,
}

impl DeviceFolder {
    /// Makes that of a face.
    pub(super) fn new(face: &Arc<Face>) -> Result<Self> {
        Ok(Self {
            face: face.clone(),
            label: KBox::pin_init(new_mutex!(None, "dm_remap_label"), GFP_KERNEL)?,
        })
    }

    /// Writes everything in the text form of Prometheus.
    fn show_all(&self, out: &mut fs::TextPart<'_>) -> Result {
        let mut label = self.label.lock();
        if out.is_first() || label.is_none() {
            let named = self.face.names(|name, uuid| {
                Ok::<_, Error>(Label {
                    name: CString::try_from(name)?,
                    uuid: CString::try_from(uuid)?,
                })
            });
            *label = Some(named??);
        }
        let label = label.as_ref().ok_or(ENODEV)?;
        self.face.look(|shown| {
            let state = &shown.state;
            let labels = Labels {
                device: self.face.name.to_str().unwrap_or("?"),
                name: label.name.to_bytes(),
                uuid: label.uuid.to_bytes(),
                set: state.uuid,
                version: version(),
            };
            let limit = |limit| state.user.limits.get(limit);
            Ok(figures::write_prometheus(
                out,
                &labels,
                &state.user.status(&state.life),
                limit,
            )?)
        })
    }

    /// Does what a message would do.
    fn obey(&self, words: &[&str]) -> Result {
        self.face.look(|shown| {
            let state = &shown.state;
            let name = words.first().copied().unwrap_or("");
            let message = message::parse(words)
                .map_err(|error| state.user.refuse(name, &Denial::Words(error)))?;
            match message {
                // Not recorded: that may wait for a spare.
                Message::SetAutoRemap(on) => state.user.auto_remap.store(on, Relaxed),
                Message::Set(limit, value) => state.user.limits.set(limit, value),
                _ => return Err(EINVAL),
            }
            Ok(())
        })
    }
}

/// A file of the folder of a device.
#[derive(Clone, Copy)]
pub(in crate::remap) enum DeviceFile {
    Name,
    Uuid,
    SetUuid,
    Why,
    AllStats,
    Figure(&'static Figure),
    Limit(Limit),
}

impl fs::Object for DeviceFolder {
    type Key = DeviceFile;

    const ATTRIBUTES: &'static [fs::Attribute<DeviceFile>] = &{
        const OWN: usize = 4;
        const LIMITS: usize = OWN + FIGURES.len();
        const ALL: usize = LIMITS + Limit::ALL.len();
        let mut all = [const { fs::Attribute::new(c"name", DeviceFile::Name) }; ALL];
        all[1] = fs::Attribute::new(c"uuid", DeviceFile::Uuid);
        all[2] = fs::Attribute::new(c"set_uuid", DeviceFile::SetUuid);
        all[3] = fs::Attribute::new(c"why", DeviceFile::Why);
        let mut at = 0;
        while at < FIGURES.len() {
            let figure = &FIGURES[at];
            all[OWN + at] = match figure.settable {
                true => fs::Attribute::writable(figure.key, DeviceFile::Figure(figure)),
                false => fs::Attribute::new(figure.key, DeviceFile::Figure(figure)),
            };
            at += 1;
        }
        let mut at = 0;
        while at < Limit::ALL.len() {
            let limit = Limit::ALL[at];
            all[LIMITS + at] = fs::Attribute::writable(limit.key(), DeviceFile::Limit(limit));
            at += 1;
        }
        all
    };

    const LONG_ATTRIBUTES: &'static [fs::LongAttribute<Self>] =
        &[fs::LongAttribute::new(c"all_stats", DeviceFile::AllStats)];

    fn show(&self, key: DeviceFile, out: &mut fs::TextPart<'_>) -> Result {
        match key {
            DeviceFile::Name => self
                .face
                .names(|name, _| out.write_bytes(name.to_bytes()))?,
            DeviceFile::Uuid => self
                .face
                .names(|_, uuid| out.write_bytes(uuid.to_bytes()))?,
            DeviceFile::AllStats => return self.show_all(out),
            DeviceFile::SetUuid => self
                .face
                .look(|shown| Ok(write!(out, "{}", shown.state.uuid)?))?,
            DeviceFile::Why => self.face.look(|shown| {
                shown
                    .state
                    .user
                    .with_why(|why| out.write_bytes(why.as_bytes()));
                Ok(())
            })?,
            DeviceFile::Figure(figure) => self.face.look(|shown| {
                let value = figure.of(&shown.state.user.status(&shown.state.life));
                Ok(write!(out, "{value}")?)
            })?,
            DeviceFile::Limit(limit) => self.face.look(|shown| {
                let value = shown.state.user.limits.get(limit);
                Ok(write!(out, "{value}")?)
            })?,
        };
        out.write_bytes(b"\n");
        Ok(())
    }

    fn store(&self, key: DeviceFile, text: &str) -> Result {
        match key {
            DeviceFile::Figure(figure) if figure.settable => {
                // As it is shown, and as the message has it.
                let word = match text {
                    "on" => "1",
                    "off" => "0",
                    word => word,
                };
                self.obey(&["set_auto_remap", word])
            }
            DeviceFile::Limit(limit) => self.obey(&["set", limit.name(), text]),
            _ => Err(EIO),
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! What users say with `dmsetup message`.
//!
//! A message that succeeds has its reply printed. Of one that fails, device mapper hands on the errno only, so the
//! reason goes to the kernel log, and is kept for `why`.
//!
//! A new message gets a row in [`logic::message::table`](crate::logic::message::table), which is where name, help and
//! parsing come from, and an arm of [`carry_out`], which says what does it.

use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

use crate::{
    abstractions::{
        dm,
        sync, //
    },
    logic::{
        figures,
        message::{
            self,
            reply::Work,
            table,
            Denial,
            Message, //
        },
        status, //
    },
    remap::DmRemap, //
};

use super::{
    answer::{
        explain,
        Answer,
        Heard, //
    },
    metadata,
    moves,
    places,
    spares, //
};

/// Handles a message.
pub(in crate::remap) fn handle(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    args: dm::Args<'_>,
    reply: &mut dm::ReplyBuffer<'_>,
) -> Result {
    let words = match args.to_strs() {
        Ok(words) => words,
        Err(error) if error == EINVAL => {
            return Err(target.state.user.refuse("message", &Denial::NotText));
        }
        Err(error) => return Err(error),
    };
    let heard = match message::parse(&words) {
        Ok(message) => {
            // From here on, an allocation must not wait for I/O: that may wait for the writer's lock.
            let _scope = sync::NoIoScope::enter();
            carry_out(target, ti, message, &mut Answer(reply))
        }
        Err(error) => Err(Denial::Words(error)),
    };
    heard.map_err(|denial| {
        let denial = explain(target, ti, denial);
        let form = words.first().and_then(|name| table::find(name));
        let name = form.map_or("message", |form| form.name);
        target.state.user.refuse(name, &denial)
    })
}

/// Does what a message asks for. What has large values is not inlined here: for messages that move blocks, there is much
/// of the stack to be taken below this.
fn carry_out(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    message: Message,
    answer: &mut Answer<'_, '_>,
) -> Heard<'static> {
    let state = &**target.state;
    match message {
        Message::Ping => answer.line(format_args!("pong")),
        Message::Help => answer.line(format_args!("{}", table::Help)),
        Message::Status => answer.line(format_args!("{}", target.status_line())),
        Message::Stats => answer.line(format_args!("{}", figures::Report(&target.status_line()))),
        Message::Health => {
            answer.line(format_args!("{}", status::Diagnosis(&target.status_line())));
        }
        Message::Why => state.user.with_why(|why| match why {
            "" => answer.line(format_args!("no message was refused")),
            why => answer.line(format_args!("{why}")),
        }),
        Message::SetAutoRemap(on) => {
            state.user.auto_remap.store(on, Relaxed);
            let how = match metadata::record_auto_remap(target, ti, on) {
                Ok(()) => "",
                Err(_) => " (until the device is removed, as it could not be recorded)",
            };
            answer.line(format_args!("auto_remap={}{how}", u32::from(on)));
        }
        Message::Set(limit, value) => {
            state.user.limits.set(limit, value);
            answer.line(format_args!("{}={value}", limit.name()));
        }
        Message::ClearStats => {
            state.user.counters.clear_stats();
            answer.line(format_args!("statistics cleared"));
        }
        Message::Scan(_) => return Err(Denial::NotYet),
        Message::Verify { sector } => return places::verify(target, sector, answer),
        Message::List { kind, from } => return places::list(target, kind, from, answer),
        Message::MetadataStatus => metadata::status(target, answer),
        Message::Save => return metadata::save(target, ti, answer),
        Message::Sync => return metadata::sync(target, ti, answer),
        Message::Recheck => return metadata::recheck(target, ti, answer),
        Message::Remap(range) => return moves::ranges(target, ti, Work::Remap, range, answer),
        Message::RemoveRemap(range) => {
            return moves::ranges(target, ti, Work::RemoveRemap, range, answer);
        }
        Message::Zero(range) => return moves::ranges(target, ti, Work::Zero, range, answer),
        Message::Avoid(range) => return moves::avoid(target, ti, range, answer),
        Message::Retry(range) => return moves::retry(target, ti, range, answer),
        Message::ClearAll => return moves::clear_all(target, ti, answer),
        Message::AddRemap {
            main_sector,
            spare_sector,
            count,
        } => return moves::add_remap(target, ti, (main_sector, spare_sector, count), answer),
        Message::Evacuate { spare } => return spares::evacuate(target, ti, spare, answer),
        Message::UseSpare { spare } => return spares::use_again(target, ti, spare, answer),
        Message::ForgetSpare { spare } => return spares::forget(target, ti, spare, answer),
    }
    Ok(())
}

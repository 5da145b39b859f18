/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints as functions, for Rust: each is a branch that is patched in when somebody listens, and a call.
 * What they mean is said in mod.rs.
 */
#ifndef DM_RUST_TRACE_H
#define DM_RUST_TRACE_H

#include <linux/types.h>

void dm_rust_trace_bio_failed(u32 dev, u64 sector, u32 sectors, u32 op, s32 disk, s32 error);
void dm_rust_trace_verdict(u32 dev, u64 sector, u32 sectors, u32 op, u32 verdict, s32 error);
/* Whether somebody listens to one of the three events about slots: only then their places are looked up. */
bool dm_rust_traces_slots(void);
void dm_rust_trace_remap(u32 dev, u64 sector, u32 sectors, s32 disk, u64 disk_sector, u32 manual);
void dm_rust_trace_pending(u32 dev, u64 sector, u32 sectors);
void dm_rust_trace_move(u32 dev, u64 sector, u32 sectors, s32 from, u64 from_sector, s32 disk,
			u64 disk_sector);
void dm_rust_trace_commit(u32 dev, u64 sequence, s32 error);
void dm_rust_trace_restore(u32 dev, s32 disk, u32 replica, u32 block, s32 error);
void dm_rust_trace_breaker(u32 dev, s32 disk, u32 write, u32 open);
void dm_rust_trace_spare(u32 dev, s32 disk, u32 lost);
void dm_rust_trace_resize(u32 dev, u64 before, u64 after);

#endif /* DM_RUST_TRACE_H */

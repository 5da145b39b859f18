// SPDX-License-Identifier: GPL-2.0

#include "trace.h"

#define CREATE_TRACE_POINTS
#include "events.h"

void dm_rust_trace_bio_failed(u32 dev, u64 sector, u32 sectors, u32 op, s32 disk, s32 error)
{
	trace_dm_remap_bio_failed(dev, sector, sectors, op, disk, error);
}

void dm_rust_trace_verdict(u32 dev, u64 sector, u32 sectors, u32 op, u32 verdict, s32 error)
{
	trace_dm_remap_verdict(dev, sector, sectors, op, verdict, error);
}

bool dm_rust_traces_slots(void)
{
	return trace_dm_remap_remap_enabled() || trace_dm_remap_pending_enabled() ||
	       trace_dm_remap_move_enabled();
}

void dm_rust_trace_remap(u32 dev, u64 sector, u32 sectors, s32 disk, u64 disk_sector, u32 manual)
{
	trace_dm_remap_remap(dev, sector, sectors, disk, disk_sector, manual);
}

void dm_rust_trace_pending(u32 dev, u64 sector, u32 sectors)
{
	trace_dm_remap_pending(dev, sector, sectors);
}

void dm_rust_trace_move(u32 dev, u64 sector, u32 sectors, s32 from, u64 from_sector, s32 disk,
			u64 disk_sector)
{
	trace_dm_remap_move(dev, sector, sectors, from, from_sector, disk, disk_sector);
}

void dm_rust_trace_commit(u32 dev, u64 sequence, s32 error)
{
	trace_dm_remap_commit(dev, sequence, error);
}

void dm_rust_trace_restore(u32 dev, s32 disk, u32 replica, u32 block, s32 error)
{
	trace_dm_remap_restore(dev, disk, replica, block, error);
}

void dm_rust_trace_breaker(u32 dev, s32 disk, u32 write, u32 open)
{
	trace_dm_remap_breaker(dev, disk, write, open);
}

void dm_rust_trace_spare(u32 dev, s32 disk, u32 lost)
{
	trace_dm_remap_spare(dev, disk, lost);
}

void dm_rust_trace_resize(u32 dev, u64 before, u64 after)
{
	trace_dm_remap_resize(dev, before, after);
}

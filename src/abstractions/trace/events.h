/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The tracepoints: what docs/dm-remap.rst says of them, for the kernel's own macros.
 *
 * Sectors have 512 bytes. A disk is -1 for main, or the number of a spare.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM dm_remap

#if !defined(DM_RUST_TRACE_EVENTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define DM_RUST_TRACE_EVENTS_H

#include <linux/kdev_t.h>
#include <linux/tracepoint.h>

/* The numbers of block::Op. A flush is a write without sectors. */
#define dm_remap_show_op(op)						\
	__print_symbolic(op,						\
		{ 0, "read" }, { 1, "write" }, { 2, "discard" },	\
		{ 3, "secure_erase" }, { 4, "write_zeroes" }, { 5, "other" })

TRACE_EVENT(dm_remap_bio_failed,
	TP_PROTO(dev_t dev, u64 sector, u32 sectors, u32 op, s32 disk, s32 error),
	TP_ARGS(dev, sector, sectors, op, disk, error),
	TP_STRUCT__entry(
		__field(u64, sector)
		__field(u32, dev)
		__field(u32, sectors)
		__field(u32, op)
		__field(s32, disk)
		__field(s32, error)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->sector = sector;
		__entry->sectors = sectors;
		__entry->op = op;
		__entry->disk = disk;
		__entry->error = error;
	),
	TP_printk("%u,%u %s %llu + %u disk=%d error=%d",
		  MAJOR(__entry->dev), MINOR(__entry->dev), dm_remap_show_op(__entry->op),
		  __entry->sector, __entry->sectors, __entry->disk, __entry->error)
);

TRACE_EVENT(dm_remap_verdict,
	TP_PROTO(dev_t dev, u64 sector, u32 sectors, u32 op, u32 verdict, s32 error),
	TP_ARGS(dev, sector, sectors, op, verdict, error),
	TP_STRUCT__entry(
		__field(u64, sector)
		__field(u32, dev)
		__field(u32, sectors)
		__field(u32, op)
		__field(u32, verdict)
		__field(s32, error)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->sector = sector;
		__entry->sectors = sectors;
		__entry->op = op;
		__entry->verdict = verdict;
		__entry->error = error;
	),
	TP_printk("%u,%u %s %llu + %u %s error=%d",
		  MAJOR(__entry->dev), MINOR(__entry->dev), dm_remap_show_op(__entry->op),
		  __entry->sector, __entry->sectors,
		  __print_symbolic(__entry->verdict,
			{ 0, "passed_up" }, { 1, "repair" }, { 2, "served" }, { 3, "failed" }),
		  __entry->error)
);

TRACE_EVENT(dm_remap_remap,
	TP_PROTO(dev_t dev, u64 sector, u32 sectors, s32 disk, u64 disk_sector, u32 manual),
	TP_ARGS(dev, sector, sectors, disk, disk_sector, manual),
	TP_STRUCT__entry(
		__field(u64, sector)
		__field(u64, disk_sector)
		__field(u32, dev)
		__field(u32, sectors)
		__field(s32, disk)
		__field(u32, manual)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->sector = sector;
		__entry->sectors = sectors;
		__entry->disk = disk;
		__entry->disk_sector = disk_sector;
		__entry->manual = manual;
	),
	TP_printk("%u,%u %llu + %u disk=%d disk_sector=%llu %s",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->sector, __entry->sectors,
		  __entry->disk, __entry->disk_sector,
		  __print_symbolic(__entry->manual, { 0, "auto" }, { 1, "manual" }))
);

TRACE_EVENT(dm_remap_pending,
	TP_PROTO(dev_t dev, u64 sector, u32 sectors),
	TP_ARGS(dev, sector, sectors),
	TP_STRUCT__entry(
		__field(u64, sector)
		__field(u32, dev)
		__field(u32, sectors)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->sector = sector;
		__entry->sectors = sectors;
	),
	TP_printk("%u,%u %llu + %u",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->sector, __entry->sectors)
);

TRACE_EVENT(dm_remap_move,
	TP_PROTO(dev_t dev, u64 sector, u32 sectors, s32 from, u64 from_sector, s32 disk,
		 u64 disk_sector),
	TP_ARGS(dev, sector, sectors, from, from_sector, disk, disk_sector),
	TP_STRUCT__entry(
		__field(u64, sector)
		__field(u64, from_sector)
		__field(u64, disk_sector)
		__field(u32, dev)
		__field(u32, sectors)
		__field(s32, from)
		__field(s32, disk)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->sector = sector;
		__entry->sectors = sectors;
		__entry->from = from;
		__entry->from_sector = from_sector;
		__entry->disk = disk;
		__entry->disk_sector = disk_sector;
	),
	TP_printk("%u,%u %llu + %u from=%d from_sector=%llu disk=%d disk_sector=%llu",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->sector, __entry->sectors,
		  __entry->from, __entry->from_sector, __entry->disk, __entry->disk_sector)
);

TRACE_EVENT(dm_remap_commit,
	TP_PROTO(dev_t dev, u64 sequence, s32 error),
	TP_ARGS(dev, sequence, error),
	TP_STRUCT__entry(
		__field(u64, sequence)
		__field(u32, dev)
		__field(s32, error)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->sequence = sequence;
		__entry->error = error;
	),
	TP_printk("%u,%u sequence=%llu error=%d",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->sequence, __entry->error)
);

TRACE_EVENT(dm_remap_restore,
	TP_PROTO(dev_t dev, s32 disk, u32 replica, u32 block, s32 error),
	TP_ARGS(dev, disk, replica, block, error),
	TP_STRUCT__entry(
		__field(u32, dev)
		__field(s32, disk)
		__field(u32, replica)
		__field(u32, block)
		__field(s32, error)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->disk = disk;
		__entry->replica = replica;
		__entry->block = block;
		__entry->error = error;
	),
	TP_printk("%u,%u disk=%d replica=%u block=%u error=%d",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->disk, __entry->replica,
		  __entry->block, __entry->error)
);

TRACE_EVENT(dm_remap_breaker,
	TP_PROTO(dev_t dev, s32 disk, u32 write, u32 open),
	TP_ARGS(dev, disk, write, open),
	TP_STRUCT__entry(
		__field(u32, dev)
		__field(s32, disk)
		__field(u32, write)
		__field(u32, open)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->disk = disk;
		__entry->write = write;
		__entry->open = open;
	),
	TP_printk("%u,%u disk=%d %s %s",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->disk,
		  __print_symbolic(__entry->write, { 0, "read" }, { 1, "write" }),
		  __print_symbolic(__entry->open, { 0, "closed" }, { 1, "open" }))
);

TRACE_EVENT(dm_remap_spare,
	TP_PROTO(dev_t dev, s32 disk, u32 lost),
	TP_ARGS(dev, disk, lost),
	TP_STRUCT__entry(
		__field(u32, dev)
		__field(s32, disk)
		__field(u32, lost)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->disk = disk;
		__entry->lost = lost;
	),
	TP_printk("%u,%u disk=%d %s",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->disk,
		  __print_symbolic(__entry->lost, { 0, "back" }, { 1, "lost" }))
);

TRACE_EVENT(dm_remap_resize,
	TP_PROTO(dev_t dev, u64 before, u64 after),
	TP_ARGS(dev, before, after),
	TP_STRUCT__entry(
		__field(u64, before)
		__field(u64, after)
		__field(u32, dev)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->before = before;
		__entry->after = after;
	),
	TP_printk("%u,%u buckets %llu -> %llu",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->before, __entry->after)
);

#endif /* DM_RUST_TRACE_EVENTS_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE events
#include <trace/define_trace.h>

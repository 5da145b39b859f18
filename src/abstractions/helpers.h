/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C functions that Rust cannot call by themselves, because they are inline functions or macros.
 */
#ifndef DM_RUST_HELPERS_H
#define DM_RUST_HELPERS_H

#include <linux/blk_types.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/gfp_types.h>
#include <linux/mutex_types.h>
#include <linux/ratelimit_types.h>
#include <linux/srcu.h>
#include <linux/version.h>

/* SRCU, fast up/down flavour. What names a reader is never 0: see srcu.rs. */
int dm_rust_srcu_init(struct srcu_struct *srcu);
unsigned long dm_rust_srcu_down_read(struct srcu_struct *srcu);
void dm_rust_srcu_up_read(unsigned long reader);

void dm_rust_wait_for_io(struct completion *done);
void dm_rust_mutex_lock_io(struct mutex *mutex);

void dm_rust_global_lock(void);
void dm_rust_global_unlock(void);

unsigned int dm_rust_memalloc_noio_save(void);
void dm_rust_memalloc_noio_restore(unsigned int flags);

sector_t dm_rust_bdev_nr_sectors(struct block_device *bdev);
bool dm_rust_bdev_read_only(struct block_device *bdev);
bool dm_rust_bdev_write_cache(struct block_device *bdev);
bool dm_rust_bdev_same_disk(struct block_device *a, struct block_device *b);
struct queue_limits *dm_rust_bdev_limits(struct block_device *bdev);

struct bio *dm_rust_bio_slice(struct bio *source, struct block_device *bdev, unsigned int offset,
			      unsigned int len, sector_t sector, blk_opf_t opf,
			      struct bio_set *pool);
bool dm_rust_in_submission(void);
void dm_rust_invalidate_vmap(void *vaddr, unsigned int len);

u32 dm_rust_crc32c(const void *data, size_t len);

void dm_rust_warn(const char *message);
void dm_rust_ratelimit_init(struct ratelimit_state *state, int interval, int burst);

#ifdef __BINDGEN__
/* Values that bindgen does not see, because they are casts or expressions in the C headers. */
const gfp_t DM_GFP_NOIO = GFP_NOIO;
const unsigned int DM_BLK_OPEN_WRITE = (unsigned int)BLK_OPEN_WRITE;
const unsigned int DM_HZ = HZ;
const blk_features_t DM_FEAT_POLL = BLK_FEAT_POLL;
const blk_features_t DM_FEAT_DAX = BLK_FEAT_DAX;
const blk_features_t DM_FEAT_ZONED = BLK_FEAT_ZONED;
const blk_features_t DM_FEAT_ATOMIC_WRITES = BLK_FEAT_ATOMIC_WRITES;
const blk_features_t DM_FEAT_FUA = BLK_FEAT_FUA;

/*
 * Whether a reader of fast up/down SRCU is no more than an increment of per-CPU memory, which Rust then does
 * itself. Looked at in each of these versions: include/linux/srcutree.h and kernel/rcu/srcutree.c.
 */
const unsigned char DM_SRCU_IS_INCREMENT =
	LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0) &&
	LINUX_VERSION_CODE < KERNEL_VERSION(7, 4, 0) &&
	!IS_ENABLED(CONFIG_NEED_SRCU_NMI_SAFE);

const unsigned char DM_STS_OK = BLK_STS_OK;
const unsigned char DM_STS_NOTSUPP = (unsigned char)BLK_STS_NOTSUPP;
const unsigned char DM_STS_TIMEOUT = (unsigned char)BLK_STS_TIMEOUT;
const unsigned char DM_STS_NOSPC = (unsigned char)BLK_STS_NOSPC;
const unsigned char DM_STS_TRANSPORT = (unsigned char)BLK_STS_TRANSPORT;
const unsigned char DM_STS_TARGET = (unsigned char)BLK_STS_TARGET;
const unsigned char DM_STS_RESV_CONFLICT = (unsigned char)BLK_STS_RESV_CONFLICT;
const unsigned char DM_STS_MEDIUM = (unsigned char)BLK_STS_MEDIUM;
const unsigned char DM_STS_PROTECTION = (unsigned char)BLK_STS_PROTECTION;
const unsigned char DM_STS_RESOURCE = (unsigned char)BLK_STS_RESOURCE;
const unsigned char DM_STS_IOERR = (unsigned char)BLK_STS_IOERR;
const unsigned char DM_STS_DM_REQUEUE = (unsigned char)BLK_STS_DM_REQUEUE;
const unsigned char DM_STS_AGAIN = (unsigned char)BLK_STS_AGAIN;
const unsigned char DM_STS_DEV_RESOURCE = (unsigned char)BLK_STS_DEV_RESOURCE;
const unsigned char DM_STS_ZONE_OPEN_RESOURCE = (unsigned char)BLK_STS_ZONE_OPEN_RESOURCE;
const unsigned char DM_STS_ZONE_ACTIVE_RESOURCE = (unsigned char)BLK_STS_ZONE_ACTIVE_RESOURCE;
const unsigned char DM_STS_OFFLINE = (unsigned char)BLK_STS_OFFLINE;
const unsigned char DM_STS_DURATION_LIMIT = (unsigned char)BLK_STS_DURATION_LIMIT;
const unsigned char DM_STS_INVAL = (unsigned char)BLK_STS_INVAL;
#endif

#endif /* DM_RUST_HELPERS_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C functions that Rust cannot call by themselves, because they are inline functions or macros.
 */
#ifndef DM_RUST_HELPERS_H
#define DM_RUST_HELPERS_H

#include <linux/blk_types.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/kobject.h>
#include <linux/mutex_types.h>
#include <linux/ratelimit_types.h>
#include <linux/seq_file.h>
#include <linux/srcu.h>

int dm_rust_srcu_init(struct srcu_struct *srcu);

void dm_rust_wait_for_io(struct completion *done);
bool dm_rust_wait_for_io_timeout(struct completion *done, unsigned int ms);
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

/* What a file of debugfs is made by, where its inode points to. */
struct dm_rust_rows {
	const struct seq_operations *ops;
	/* Of what belongs to a file that is open, and begins with a pointer to this. */
	int reader_size;
};

struct dentry *dm_rust_rows_create(const char *name, struct dentry *dir,
				   const struct dm_rust_rows *rows);
void dm_rust_cond_resched(void);
const char *dm_rust_module_version(void);

struct kset *dm_rust_kset_create(const char *name);
void dm_rust_kset_put(struct kset *kset);

void dm_rust_warn(const char *message);
void dm_rust_ratelimit_init(struct ratelimit_state *state, int interval, int burst);

#endif /* DM_RUST_HELPERS_H */

// SPDX-License-Identifier: GPL-2.0

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/crc32.h>
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/ratelimit.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/srcu.h>

#include "helpers.h"

int dm_rust_srcu_init(struct srcu_struct *srcu)
{
	return init_srcu_struct_fast_updown(srcu);
}

/*
 * A disk may take as long as it likes. Who sleeps that long at one go is taken for a hung task, which may
 * be a reason to panic; so this sleeps in slices, as blk_wait_io() does. That goes by hung_task_timeout_secs,
 * which modules cannot read, and which is a second or more.
 */
void dm_rust_wait_for_io(struct completion *done)
{
	while (!wait_for_completion_io_timeout(done, HZ / 2))
		;
}

/* The same, for so long at most. Returns whether it is done. */
bool dm_rust_wait_for_io_timeout(struct completion *done, unsigned int ms)
{
	unsigned long left = msecs_to_jiffies(ms);

	do {
		unsigned long slice = min(left, HZ / 2UL);

		if (wait_for_completion_io_timeout(done, slice))
			return true;
		left -= slice;
	} while (left);
	return false;
}

/*
 * The same for a mutex whose holder waits for I/O. Who can be killed is not taken for hung, and workers never
 * are killed; for who is, the rest is done in slices.
 */
void dm_rust_mutex_lock_io(struct mutex *mutex)
{
	if (!mutex_lock_killable(mutex))
		return;
	while (!mutex_trylock(mutex))
		schedule_timeout_uninterruptible(1);
}

unsigned int dm_rust_memalloc_noio_save(void)
{
	return memalloc_noio_save();
}

void dm_rust_memalloc_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

sector_t dm_rust_bdev_nr_sectors(struct block_device *bdev)
{
	return bdev_nr_sectors(bdev);
}

bool dm_rust_bdev_read_only(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

bool dm_rust_bdev_write_cache(struct block_device *bdev)
{
	return bdev_write_cache(bdev);
}

bool dm_rust_bdev_same_disk(struct block_device *a, struct block_device *b)
{
	return a->bd_disk == b->bd_disk;
}

struct queue_limits *dm_rust_bdev_limits(struct block_device *bdev)
{
	return &bdev_get_queue(bdev)->limits;
}

/*
 * A bio of our own over a part of the data of @source, which stays as it is. The caller has checked
 * the range and allows to sleep, so this cannot fail: neither encryption contexts nor integrity
 * payloads, the only things whose cloning can, get as far as a target that does not ask for them.
 */
struct bio *dm_rust_bio_slice(struct bio *source, struct block_device *bdev, unsigned int offset,
			      unsigned int len, sector_t sector, blk_opf_t opf,
			      struct bio_set *pool)
{
	struct bio *bio = bio_alloc_clone(bdev, source, GFP_NOIO, pool);

	if (!bio)
		return NULL;
	bio->bi_opf = opf;
	bio_clear_flag(bio, BIO_REMAPPED);
	bio_advance(bio, offset);
	bio->bi_iter.bi_size = len;
	bio->bi_iter.bi_sector = sector;
	return bio;
}

/* Bios that are submitted inside of a map function start when it returns: no use to wait for them. */
bool dm_rust_in_submission(void)
{
	return current->bio_list;
}

void dm_rust_invalidate_vmap(void *vaddr, unsigned int len)
{
	invalidate_kernel_vmap_range(vaddr, len);
}

void dm_rust_ratelimit_init(struct ratelimit_state *state, int interval, int burst)
{
	ratelimit_state_init(state, interval, burst);
}

/* The standard CRC-32C of @data, which begins and ends with all bits inverted. */
u32 dm_rust_crc32c(const void *data, size_t len)
{
	return ~crc32c(~0U, data, len);
}

static int dm_rust_rows_open(struct inode *inode, struct file *file)
{
	const struct dm_rust_rows *rows = inode->i_private;
	const struct dm_rust_rows **reader = __seq_open_private(file, rows->ops, rows->reader_size);

	if (!reader)
		return -ENOMEM;
	*reader = rows;
	return 0;
}

/* Here, and not in Rust, as this needs to know its module. Debugfs looks at it as long as a file is open. */
static const struct file_operations dm_rust_rows_fops = {
	.owner = THIS_MODULE,
	.open = dm_rust_rows_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = seq_release_private,
};

struct dentry *dm_rust_rows_create(const char *name, struct dentry *dir,
				   const struct dm_rust_rows *rows)
{
	return debugfs_create_file(name, 0400, dir, (void *)rows, &dm_rust_rows_fops);
}

void dm_rust_cond_resched(void)
{
	cond_resched();
}

const char *dm_rust_module_version(void)
{
	return THIS_MODULE->version;
}

static void dm_rust_kset_release(struct kobject *object)
{
	kfree(to_kset(object));
}

static const struct kobj_type dm_rust_kset_type = {
	.release = dm_rust_kset_release,
};

/* A set that is in no folder itself: its name is the subsystem in the uevents of what is in it. */
struct kset *dm_rust_kset_create(const char *name)
{
	struct kset *kset = kzalloc(sizeof(*kset), GFP_KERNEL);

	if (!kset)
		return NULL;
	INIT_LIST_HEAD(&kset->list);
	spin_lock_init(&kset->list_lock);
	kobject_init(&kset->kobj, &dm_rust_kset_type);
	if (kobject_set_name(&kset->kobj, "%s", name)) {
		kset_put(kset);
		return NULL;
	}
	return kset;
}

void dm_rust_kset_put(struct kset *kset)
{
	kset_put(kset);
}

void dm_rust_warn(const char *message)
{
	WARN(1, "device-mapper target: %s\n", message);
}

/* One mutex for all values that targets share: Rust cannot initialise one at compile time. */
static DEFINE_MUTEX(dm_rust_global_mutex);

void dm_rust_global_lock(void)
{
	dm_rust_mutex_lock_io(&dm_rust_global_mutex);
}

void dm_rust_global_unlock(void)
{
	mutex_unlock(&dm_rust_global_mutex);
}

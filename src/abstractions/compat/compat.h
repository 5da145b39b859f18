/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The C side of compat: see mod.rs. What bindgen does not see in the kernel's headers, and what depends on a
 * kernel's version or configuration.
 */
#ifndef DM_RUST_COMPAT_H
#define DM_RUST_COMPAT_H

#include <linux/blk_types.h>
#include <linux/blkdev.h>
#include <linux/dm-ioctl.h>
#include <linux/gfp_types.h>
#include <linux/srcu.h>
#include <linux/version.h>

/* SRCU, fast up/down flavour. What names a reader is never 0: see srcu.rs. */
unsigned long dm_rust_srcu_down_read(struct srcu_struct *srcu);
void dm_rust_srcu_up_read(unsigned long reader);

#ifdef __BINDGEN__
/*
 * Whether a reader of fast up/down SRCU is no more than an increment of per-CPU memory, which Rust then does
 * itself. Looked at in each of these versions: include/linux/srcutree.h and kernel/rcu/srcutree.c.
 */
const unsigned char DM_SRCU_IS_INCREMENT =
	LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0) &&
	LINUX_VERSION_CODE < KERNEL_VERSION(7, 4, 0) &&
	!IS_ENABLED(CONFIG_NEED_SRCU_NMI_SAFE);

/* Values that bindgen does not see, because they are casts or expressions in the C headers. */
const gfp_t DM_GFP_NOIO = GFP_NOIO;
const unsigned int DM_NAME_BYTES = DM_NAME_LEN;
const unsigned int DM_UUID_BYTES = DM_UUID_LEN;
const unsigned int DM_BLK_OPEN_WRITE = (unsigned int)BLK_OPEN_WRITE;
const blk_opf_t DM_OP_MASK = (blk_opf_t)REQ_OP_MASK;

const blk_features_t DM_FEAT_POLL = BLK_FEAT_POLL;
const blk_features_t DM_FEAT_DAX = BLK_FEAT_DAX;
const blk_features_t DM_FEAT_ZONED = BLK_FEAT_ZONED;
const blk_features_t DM_FEAT_ATOMIC_WRITES = BLK_FEAT_ATOMIC_WRITES;
const blk_features_t DM_FEAT_FUA = BLK_FEAT_FUA;

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

#endif /* DM_RUST_COMPAT_H */

// SPDX-License-Identifier: GPL-2.0
/* What modinfo says and DKMS compares; `module!` has no word for it. */

#include <linux/module.h>

MODULE_VERSION(DM_REMAP_VERSION);

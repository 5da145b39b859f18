// SPDX-License-Identifier: GPL-2.0

#include <linux/build_bug.h>
#include <linux/irqflags.h>
#include <linux/srcu.h>

#include "compat.h"

#ifdef CONFIG_TREE_SRCU
/* What srcu.rs takes it for. */
static_assert(sizeof(struct srcu_ctr) == 2 * sizeof(atomic_long_t));
static_assert(sizeof(atomic_long_t) == sizeof(long));
static_assert(sizeof_field(struct srcu_data, srcu_ctrs) == 2 * sizeof(struct srcu_ctr));

unsigned long dm_rust_srcu_down_read(struct srcu_struct *srcu)
{
	return (unsigned long __force)srcu_down_read_fast(srcu);
}

/* Which domain it is only matters to checks that srcu_up_read_fast() makes. */
void dm_rust_srcu_up_read(unsigned long reader)
{
	__srcu_read_unlock_fast_updown(NULL, (struct srcu_ctr __percpu __force *)reader);
}
#else
/* There, a reader is the number of a counter, and giving it back needs the domain. */
static_assert(__alignof__(struct srcu_struct) > 1);

/* The counters are read and written, which an interrupt that gives a reader back must not come between. */
unsigned long dm_rust_srcu_down_read(struct srcu_struct *srcu)
{
	unsigned long flags, reader;

	local_irq_save(flags);
	reader = (unsigned long)srcu | __srcu_ptr_to_ctr(srcu, srcu_down_read_fast(srcu));
	local_irq_restore(flags);
	return reader;
}

void dm_rust_srcu_up_read(unsigned long reader)
{
	struct srcu_struct *srcu = (struct srcu_struct *)(reader & ~1UL);
	unsigned long flags;

	local_irq_save(flags);
	__srcu_read_unlock_fast_updown(srcu, __srcu_ctr_to_ptr(srcu, reader & 1));
	local_irq_restore(flags);
}
#endif

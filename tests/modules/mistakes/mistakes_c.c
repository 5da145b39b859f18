// SPDX-License-Identifier: GPL-2.0
/*
 * The mistakes of mistakes.rs that are made with the kernel's objects.
 */
#include <linux/bug.h>
#include <linux/errno.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>

int mistakes_plant(unsigned int number);

static void sleep_in_atomic_context(void)
{
	static DEFINE_SPINLOCK(lock);

	/* It does not sleep, but may. */
	spin_lock(&lock);
	kfree(kmalloc(8, GFP_KERNEL));
	spin_unlock(&lock);
}

static void lock_order_inversion(void)
{
	static DEFINE_MUTEX(first);
	static DEFINE_MUTEX(second);

	mutex_lock(&first);
	mutex_lock(&second);
	mutex_unlock(&second);
	mutex_unlock(&first);

	mutex_lock(&second);
	mutex_lock(&first);
	mutex_unlock(&first);
	mutex_unlock(&second);
}

static void nothing_timer(struct timer_list *timer)
{
}

static int free_active_timer(void)
{
	struct timer_list *timer = kzalloc(sizeof(*timer), GFP_KERNEL);

	if (!timer)
		return -ENOMEM;
	timer_setup(timer, nothing_timer, 0);
	mod_timer(timer, jiffies + 1000 * HZ);
	kfree(timer);
	return 0;
}

static void nothing_rcu(struct rcu_head *head)
{
}

static int call_rcu_twice(void)
{
	/* What becomes of it then is not known: it stays. */
	static struct rcu_head *head;

	head = kzalloc(sizeof(*head), GFP_KERNEL);
	if (!head)
		return -ENOMEM;
	rcu_read_lock();
	call_rcu(head, nothing_rcu);
	call_rcu(head, nothing_rcu);
	rcu_read_unlock();
	/* The code of the callback goes with the module. */
	rcu_barrier();
	return 0;
}

static int __rcu *protected;

static void rcu_outside_of_a_reader(void)
{
	int *value = rcu_dereference(protected);

	WARN_ON(value);
}

static int shift_too_far(void)
{
	unsigned int by = 40;

	OPTIMIZER_HIDE_VAR(by);
	return (1 << by) == 3;
}

int mistakes_plant(unsigned int number)
{
	switch (number) {
	case 4:
		sleep_in_atomic_context();
		return 0;
	case 5:
		lock_order_inversion();
		return 0;
	case 6:
		return free_active_timer();
	case 7:
		return call_rcu_twice();
	case 8:
		rcu_outside_of_a_reader();
		return 0;
	case 9:
		shift_too_far();
		return 0;
	case 10:
		BUG();
	}
	return -EINVAL;
}

/* SPDX-License-Identifier: MIT */
/*
 * Lock order: mm_lock < log_lock, flush_lock < log_lock, iommu_lock < log_lock; no two of the first three are held together.
 * log_lock is a leaf: nothing is taken under it. The NMI and machine-check handlers take no lock.
 */
#ifndef SPINLOCK_H
#define SPINLOCK_H

#include "instructions.h"

struct spinlock {
	volatile u32 taken;
};

static inline void spin_lock(struct spinlock *lock)
{
	while (__atomic_exchange_n(&lock->taken, 1, __ATOMIC_ACQUIRE))
		while (lock->taken)
			pause();
}

static inline void spin_unlock(struct spinlock *lock)
{
	__atomic_store_n(&lock->taken, 0, __ATOMIC_RELEASE);
}

#endif

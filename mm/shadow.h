/* SPDX-License-Identifier: MIT */
/*
 * EPT02s of one CPU: what the CPU walks in place of the page tables (EPT12) that the host made for a VM of its. Like a TLB they
 * are filled at violations, and emptied at once when a frame that they name leaves the host. docs/nested.md, "EPT02".
 */
#ifndef SHADOW_H
#define SHADOW_H

#include "types.h"

#define SHADOW_ROOTS 4

struct mm;

/* Under mm_lock: root, first, last, must_invept. The owner's alone, without a lock: eptp12, age, used, tables. */
struct shadow {
	u64 *root[SHADOW_ROOTS]; /* pages of the pool: mapped in root and in the monitor view alike */
	u16 first[SHADOW_ROOTS], last[SHADOW_ROOTS]; /* entries of it that may be present; first > last: none */
	u64 eptp12[SHADOW_ROOTS]; /* whose shadow it is; 0: nobody's */
	u64 age[SHADOW_ROOTS]; /* for replacing the one that was used longest ago */
	u64 clock;
	u64 *tables; /* linear address of this CPU's share of kvm_pool */
	hpa_t tables_hpa;
	u64 count; /* pages in the share */
	u64 used; /* tables handed out since the last shadow_restart() that found all roots empty */
	bool must_invept; /* the owner executes INVEPT before it hands out a table again, or enters */
	struct shadow *next; /* the next CPU's; mm->shadows is the first */
};

/* A leaf of EPT12. gpa, hpa: of its first byte. rights: EPT_*. type: MEMORY_TYPE_*. level: 1 or 2. */
struct leaf12 {
	u64 gpa, hpa;
	u8 rights, type, level;
};

enum shadow_result {
	SHADOW_FILLED,
	SHADOW_DRY, /* tables are used up, or must_invept: shadow_reset(), INVEPT, shadow_restart(), and again */
	SHADOW_REFUSED, /* a frame is neither HOST nor DEVICE, or the host view does not allow the access */
};

/* Adds a CPU's, whose roots and tables are there, all zeros. must_invept is set. At start, before any other CPU runs. */
void shadow_add(struct mm *mm, struct shadow *shadow);

/* A frame that leaf entries may name leaves the host: every root of every CPU becomes empty. In the gate, too. mm_lock. */
void shadow_drop_all(struct mm *mm);

/* The owner's own: root `root`, or all of them, become empty, and must_invept is set; by the other drops, too. mm_lock. */
void shadow_drop(struct shadow *shadow, unsigned root);
void shadow_reset(struct shadow *shadow);

/* The root of an EPT12, marked as the one used last; SHADOW_ROOTS: there is none. Owner only, no lock. */
unsigned shadow_find(struct shadow *shadow, u64 eptp12);

/* A root for an EPT12 that has none: the one used longest ago is dropped for it. mm_lock. */
unsigned shadow_assign(struct shadow *shadow, u64 eptp12);

/*
 * Enters the 4 KiB, or the 2 MiB, around gpa, in leaf's range, into a root. access: the EPT_* rights that must result (0:
 * whatever results will do). A change of size sets must_invept. After SHADOW_DRY for what was filled along only, the caller stops:
 * to reset would drop what L2 waits for. mm_lock.
 */
enum shadow_result shadow_fill(struct mm *mm, struct shadow *shadow, unsigned root, const struct leaf12 *leaf, u64 gpa,
			       u64 access);

/* After an INVEPT since which the owner has not entered: must_invept is over; tables are free if all roots are empty. mm_lock. */
void shadow_restart(struct shadow *shadow);

#endif

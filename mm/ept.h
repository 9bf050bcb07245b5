/* SPDX-License-Identifier: MIT */
/* Extended page tables: the host view, and each guest's view. No VMX instruction; builds for the build machine too. */
#ifndef EPT_H
#define EPT_H

#include "types.h"
#include "page_pool.h"

#define EPT_READ BIT(0)
#define EPT_WRITE BIT(1)
#define EPT_EXECUTE BIT(2)
#define EPT_RWX (EPT_READ | EPT_WRITE | EPT_EXECUTE)
#define EPT_MEMORY_TYPE_SHIFT 3
#define EPT_LARGE BIT(7)
/*
 * A leaf on its way into a view: bits 2:0 are 0, so that the CPU ignores the entry, and these hold what they will be.
 */
#define EPT_PENDING_SHIFT 52
/* Of an EPT pointer: write-back tables, no accessed and dirty flags. */
#define EPTP_FLAGS(levels) (((levels)-1ULL) << 3 | 6)
#define EPT_ADDRESS 0x000ffffffffff000ULL

/* Starts an empty hierarchy. Returns false if the pool is dry. */
bool ept_init(struct ept *ept, struct page_pool *pool, unsigned levels, unsigned largest_leaf);

/*
 * The entry for gpa in the table of `level` (1: page table ... 3: page-directory-pointer table). Makes the tables on
 * the way and splits larger leaves, which changes no translation. NULL: the pool is dry.
 */
u64 *ept_entry(struct ept *ept, gpa_t gpa, unsigned level);

/*
 * Writes a leaf, or 0, to an entry that ept_entry() gave. Tables below it go back to the pool, through its quarantine.
 */
void ept_set_entry(struct ept *ept, u64 *entry, unsigned level, u64 value);

/*
 * If the table of `level` for gpa maps one contiguous, aligned range with equal attributes, a leaf takes its place.
 * Returns whether it did. The table goes back to the pool, through its quarantine.
 */
bool ept_merge(struct ept *ept, gpa_t gpa, unsigned level);

/* Takes the table of `level` for gpa, which must be empty, out of the view. Does nothing if there is none. */
void ept_drop_table(struct ept *ept, gpa_t gpa, unsigned level);

/*
 * First gpa at or above `from` whose entry is not 0; *found tells whether there is one. Else the gpa where the search
 * stopped: where another table begins than the one in which it started, so that the caller can drop that; at the end;
 * or because *budget, which each entry looked at takes one from, is used up.
 */
gpa_t ept_next(const struct ept *ept, gpa_t from, u64 *budget, bool *found);

/* Whether nothing is mapped, nor on its way, in [gpa, gpa + count pages). */
bool ept_is_empty(const struct ept *ept, gpa_t gpa, u64 count);

/* How many of the `count` pages from gpa on lie in the same page table. */
u64 ept_in_table(gpa_t gpa, u64 count);

/*
 * Writes `count` entries of the page table for gpa, which ept_entry() would find or could make: value, and each next
 * one a page further; or all 0. None of them is mapped, or all are. All lie in one table.
 */
void ept_set_run(struct ept *ept, gpa_t gpa, u64 count, u64 value);

/* A leaf, or consecutive leaves of one page table, that map consecutive frames with equal attributes. */
struct ept_run {
	u64 entry; /* the first one's */
	u64 frame, frames; /* frames: 0 if nothing is mapped or on its way there */
	unsigned level;
};

/* The run that begins at gpa, with at most `limit` frames. If the leaf is a large one, gpa may lie within it. */
struct ept_run ept_run(const struct ept *ept, gpa_t gpa, u64 limit);

/* Bytes that an entry in a table of `level` maps. */
u64 ept_level_size(unsigned level);

/* Value for the VMCS field EPT pointer: write-back tables, no accessed and dirty flags. */
u64 ept_pointer(const struct ept *ept);

#endif

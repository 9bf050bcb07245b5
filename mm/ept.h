/* SPDX-License-Identifier: MIT */
/* Extended page tables: the host view, and later each guest's view. No VMX instruction; builds for the build host too. */
#ifndef EPT_H
#define EPT_H

#include "types.h"

/* Zeroed 4 KiB pages for tables, handed out once, from one physically contiguous range that is linearly mapped. */
struct page_pool {
	u8 *linear; /* where the range is mapped */
	hpa_t base; /* the same byte's host-physical address; page-aligned */
	u64 size; /* bytes */
	u64 used; /* bytes */
};

/* A zeroed page from the pool: its linear address, or NULL if the pool is dry. */
void *page_pool_take(struct page_pool *pool);

/* Linear address of a page that came from the pool; NULL if hpa is not in it. */
void *page_pool_linear(const struct page_pool *pool, hpa_t hpa);

/* Host-physical address of a page that came from the pool. */
hpa_t page_pool_hpa(const struct page_pool *pool, const void *page);

#define EPT_READ BIT(0)
#define EPT_WRITE BIT(1)
#define EPT_EXECUTE BIT(2)
#define EPT_RWX (EPT_READ | EPT_WRITE | EPT_EXECUTE)
#define EPT_MEMORY_TYPE_SHIFT 3
#define EPT_LARGE BIT(7)
#define EPT_ADDRESS 0x000ffffffffff000ULL

struct ept {
	struct page_pool *pool;
	u64 *root; /* linear */
	unsigned levels; /* 4 or 5 */
	unsigned largest_leaf; /* level of the largest leaf: 1 = 4 KiB, 2 = 2 MiB, 3 = 1 GiB */
	u64 leaves[4]; /* leaves by level, [1] to [3] */
};

/*
 * Table pages that an identity map of 2^physical_address_bits bytes takes at most, with a reserve for ranges that force
 * smaller pages (MTRR boundaries, the monitor's own range). For the loader, which reserves the memory.
 */
u64 ept_tables_needed(unsigned physical_address_bits, bool has_1g_pages);

/* Starts an empty hierarchy. Returns false if the pool is dry. */
bool ept_init(struct ept *ept, struct page_pool *pool, unsigned levels, unsigned largest_leaf);

/*
 * Maps [gpa, gpa + size) to [hpa, hpa + size) with the largest pages that fit. All three page-aligned; permissions is an OR
 * of EPT_READ, EPT_WRITE, EPT_EXECUTE; memory_type as in an MTRR. The range must not be mapped yet. Returns false, with a part
 * of the range possibly mapped, if the pool is dry or something is mapped there. Does not flush: nothing was mapped before.
 */
bool ept_map(struct ept *ept, gpa_t gpa, hpa_t hpa, u64 size, u64 permissions, u64 memory_type);

/* The leaf entry that maps gpa, with its level in *level (0: none; the value is then 0). */
u64 ept_lookup(const struct ept *ept, gpa_t gpa, unsigned *level);

/* Value for the VMCS field EPT pointer: write-back tables, no accessed and dirty flags. */
u64 ept_pointer(const struct ept *ept);

#endif

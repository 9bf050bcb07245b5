/* SPDX-License-Identifier: MIT */
/* The monitor's page tables, as boot_info.h draws them. No EFI types: it builds for the build machine too. */
#ifndef PAGETABLE_H
#define PAGETABLE_H

#include "types.h"

#define PTE_PRESENT BIT(0)
#define PTE_WRITE BIT(1)
#define PTE_PWT BIT(3)
#define PTE_PCD BIT(4)
#define PTE_ACCESSED BIT(5)
#define PTE_DIRTY BIT(6)
#define PTE_LARGE BIT(7)
#define PTE_NX BIT(63)
#define PTE_ADDRESS 0x000ffffffffff000ULL

#define PAGETABLE_SMALL_PAGES (16ULL << 20) /* bytes at the region's start that are mapped with 4 KiB pages, at least */
#define PAGETABLE_BOOT_PAGES 4 /* table pages that pagetable_build_boot() takes */
#define PAGETABLE_REGION_MAX (511ULL << 30) /* bytes; the APIC's page lies in the slot's last GiB */

/* Physically contiguous pages for tables. */
struct pagetable_pool {
	void *linear; /* where the first page is mapped; page-aligned */
	u64 hpa; /* the same byte's host-physical address */
	u64 pages;
	u64 used; /* pages */
};

struct pagetable_layout {
	u64 region_base; /* hpa, 2 MiB-aligned */
	u64 region_size; /* bytes, a multiple of 2 MiB */
	u64 text_end; /* [0, text_end) of the region: R+X */
	u64 rodata_end; /* [text_end, rodata_end): R; the rest R+W. Both page-aligned, at most small_size */
	u64 apic; /* hpa of the local APIC's page */
	u64 trampoline; /* hpa of the low pages: code, then data */
	u64 small_size; /* bytes at the region's start that are mapped with 4 KiB pages: a multiple of 2 MiB, or more than the region has */
};

/* Table pages that pagetable_build_final() takes for a region of that many bytes, with small_size as above. */
u64 pagetable_pages(u64 region_size, u64 small_size);

/*
 * Pages that the EPT of an identity map of 2^physical_address_bits bytes takes at most, with a reserve for ranges that
 * force smaller pages (MTRR boundaries, the monitor's own range).
 */
u64 pagetable_ept_pages(unsigned physical_address_bits, bool has_1g_pages);

/* Builds the final tables. Returns the hpa of their PML4, 0 if the layout breaks its rules or the pool is too small. */
u64 pagetable_build_final(struct pagetable_pool *pool, const struct pagetable_layout *layout);

/*
 * Builds the boot tables in a pool below 4 GiB: what the final ones map, and the low pages at their own address (code
 * R+X, data R+W). final_pml4 is where the final PML4 is mapped. Returns the PML4's hpa, 0 as above.
 */
u64 pagetable_build_boot(struct pagetable_pool *pool, const struct pagetable_layout *layout, const u64 *final_pml4);

#endif

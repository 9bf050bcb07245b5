/* SPDX-License-Identifier: MIT */
/* The monitor's own page tables, and each CPU's window on a frame. */
#ifndef ADDRESS_SPACE_H
#define ADDRESS_SPACE_H

#include "cpu.h"

/* Entries of the monitor's own page tables, as the loader builds them: accessed and dirty are set from the start. */
#define PTE_TABLE (BIT(0) | BIT(1) | BIT(5)) /* present, writable, accessed */
#define PTE_LARGE BIT(7)
#define PTE_2M_SHIFT 21 /* 2^21 bytes: what one large entry maps */
#define PTE_UNCACHED (BIT(3) | BIT(4))
#define PTE_RW (PTE_TABLE | BIT(6) | BIT(63)) /* of a page of data */

/*
 * The entry of the monitor's own page tables for a page of 2^last bytes at a linear address that no other CPU uses; it
 * may be 0. NULL if there is no table for it. make: tables that lack are made, if the pool has pages; that needs
 * mm_lock. Whoever changes what is mapped flushes it from this CPU's TLB.
 */
volatile u64 *own_page_entry(u64 linear, unsigned last, bool make);

/*
 * Takes a 4 KiB page out of the monitor's own page tables, and out of this CPU's TLB: for a page that no other CPU
 * uses. False if a large page maps it.
 */
bool unmap_own_page(const void *page);

/* Sets up this CPU's window, through which it works on frames: one page of linear addresses, mapped only meanwhile. */
void window_init(struct cpu *cpu);

/* Maps a frame in this CPU's window, with these flags in its entry; 0, 0: nothing. Nothing else may be in it. */
u8 *set_window(u64 frame, u64 flags);

#endif

/* SPDX-License-Identifier: MIT */
/* Walks page tables of a guest's, or of the host's. Pure. */
#ifndef PAGING_H
#define PAGING_H

#include "types.h"

/*
 * The guest-physical address of a linear one, in whatever paging mode the guest is. It is for an access that the CPU has
 * made already: rights are not looked at, nothing is marked as accessed. memory_read_guest(), of which the tests have one of
 * their own, reads entries of 4 or 8 bytes, aligned. False: not mapped, a reserved bit is set, or a read failed.
 */
bool guest_translate(u64 handle, u64 linear, u64 cr0, u64 cr3, u64 cr4, u64 efer, u64 *gpa);

enum translation {
	TRANSLATED,
	TRANSLATION_FAULT, /* a page fault */
	TRANSLATION_REFUSED, /* a table lies in a frame that is not the host's */
};

/* What decides how the host's CPU translates in 64-bit mode. */
struct paging {
	u64 cr0, cr3, cr4, efer, rflags;
	unsigned physical_address_bits;
};

/*
 * Walks the host's page tables, of 4 or 5 levels, for a supervisor access to data at a canonical linear address. Nothing
 * is marked as accessed. *gpa: of the address, or of the entry that is refused; *error_code: of the page fault. SDM,
 * "Determination of Access Rights", but for protection keys; 1 GiB pages are taken for granted.
 */
enum translation host_translate(const struct paging *paging, u64 linear, bool write, u64 *gpa, u32 *error_code);

#endif

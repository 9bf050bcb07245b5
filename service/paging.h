/* SPDX-License-Identifier: MIT */
/* Walks a guest's page tables. Pure. */
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

/*
 * Walks the host's page tables, in 64-bit mode with 4 or 5 levels, for a supervisor access to data at a canonical linear
 * address, with the VMCS of the host current. Nothing is marked as accessed. *error_code: of the page fault. SDM,
 * "Determination of Access Rights", but for protection keys.
 */
enum translation host_translate(u64 linear, bool write, u64 *gpa, u32 *error_code);

#endif

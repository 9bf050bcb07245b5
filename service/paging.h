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

#endif

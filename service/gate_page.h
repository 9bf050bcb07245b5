/* SPDX-License-Identifier: MIT */
/*
 * The bytes of the gate's airlock page, and the check that no byte offset of it gives an attacker anything. No VMX
 * instruction; builds for the build machine. docs/gate.md says why each rule is there.
 */
#ifndef GATE_PAGE_H
#define GATE_PAGE_H

#include "types.h"

/*
 * What the fill adds to its own end to reach slot 2 of the EPTP list. As code these bytes do nothing: nop, cdqe, nop,
 * nop.
 */
#define GATE_DISPLACEMENT 0x90909890u
/* PCID of the gate's CR3. As code: add al, ..., and a byte of the kind X9. Linux uses 1 to 6 and 0x801 to 0x806. */
#define GATE_PCID 0x904u

/* Offset of the first byte after the VMFUNC that leaves the airlock: where the landing begins in the monitor view. */
#define GATE_LANDING 0x797

/*
 * Writes the airlock's page of code. cr3: the value that it loads; monitor_eptp: what it fills slot 2 with, below
 * 2 GiB.
 */
void gate_page_fill(u8 page[PAGE_SIZE], u32 cr3, u32 monitor_eptp);

/*
 * Whether the page, as it is in memory, holds exactly the instructions of gate_page_fill() for these values, and at no
 * offset begins another one that stores, loads a segment, control or debug register, changes the interrupt flag, calls,
 * pushes, or is not known to be harmless.
 */
bool gate_page_is_safe(const u8 page[PAGE_SIZE], u32 cr3, u32 monitor_eptp);

/*
 * Whether a page at host-physical address `root` can be the root of a monitor view, whatever CR3 will be. Also for the
 * loader, which looks for memory where there are such pages.
 */
bool gate_root_is_safe(u64 root, u8 scratch[PAGE_SIZE]);

/* Linear address of the EPTP list's page in the airlock, for the gate page at linear address `gate`. */
u64 gate_list_linear(u64 gate);

#endif

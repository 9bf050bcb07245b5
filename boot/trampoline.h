/* SPDX-License-Identifier: MIT */
/*
 * The low pages through which every CPU enters the monitor; boot/trampoline.asm is their code.
 *
 *   low_base                 code page: an application processor starts here in real mode (its SIPI vector is
 *                            low_base >> 12)
 *   low_base + PAGE_SIZE     data page: struct trampoline_data; for the monitor at MONITOR_TRAMPOLINE_DATA_VA
 *   low_base + 2 PAGE_SIZE   boot page tables, the PML4 first
 */
#ifndef TRAMPOLINE_H
#define TRAMPOLINE_H

#include "boot_info.h"

/*
 * Near the start of the code page. The assembler leaves offsets from the start of the page in the fields marked +, to
 * which the loader adds low_base; it fills the fields marked =.
 */
#define TRAMPOLINE_PARAMETERS 8
struct trampoline_parameters {
	u64 entry; /* = linear address of the monitor's entry point */
	u64 boot_info; /* = linear address of the boot information */
	u32 cr3; /* = hpa of the boot PML4 */
	u32 cpu_slots; /* = */
	u32 boot_entry; /* + the boot CPU jumps here, in 64-bit mode on the firmware's page tables */
	u32 protected_entry; /* + far pointer: offset, selector */
	u16 protected_selector;
	u16 reserved0;
	u32 long_entry; /* + the same */
	u16 long_selector;
	u16 gdt_limit;
	u32 gdt_base; /* + */
};

#endif

// SPDX-License-Identifier: MIT
/* Offsets for the assembly, generated at build time: the compiler's output of this file becomes NASM's %defines. */
#include "boot_info.h"
#include "hyperps/abi.h"
#include "trampoline.h"
#include "x86.h"

#define DEFINE(name, value) asm volatile("\n#define " #name " %0" ::"i"(value))

void asm_offsets(void);

void asm_offsets(void)
{
	DEFINE(BOOT_CPU_RIP, offsetof(struct boot_info, boot_cpu.rip));
	DEFINE(BOOT_CPU_RSP, offsetof(struct boot_info, boot_cpu.rsp));
	DEFINE(BOOT_CPU_RFLAGS, offsetof(struct boot_info, boot_cpu.rflags));
	DEFINE(DATA_NEXT_SLOT, PAGE_SIZE + offsetof(struct trampoline_data, next_slot));
	DEFINE(DATA_EXCESS, PAGE_SIZE + offsetof(struct trampoline_data, excess));
	DEFINE(PARAMETERS, TRAMPOLINE_PARAMETERS);
	DEFINE(PARAMETERS_SIZE, sizeof(struct trampoline_parameters));
	DEFINE(PARAMETER_ENTRY, TRAMPOLINE_PARAMETERS + offsetof(struct trampoline_parameters, entry));
	DEFINE(PARAMETER_BOOT_INFO, TRAMPOLINE_PARAMETERS + offsetof(struct trampoline_parameters, boot_info));
	DEFINE(PARAMETER_CR3, TRAMPOLINE_PARAMETERS + offsetof(struct trampoline_parameters, cr3));
	DEFINE(PARAMETER_CPU_SLOTS, TRAMPOLINE_PARAMETERS + offsetof(struct trampoline_parameters, cpu_slots));
	DEFINE(PARAMETER_PROTECTED, TRAMPOLINE_PARAMETERS + offsetof(struct trampoline_parameters, protected_entry));
	DEFINE(PARAMETER_LONG, TRAMPOLINE_PARAMETERS + offsetof(struct trampoline_parameters, long_entry));
	DEFINE(PARAMETER_GDT, TRAMPOLINE_PARAMETERS + offsetof(struct trampoline_parameters, gdt_limit));
	DEFINE(CR0_FOR_PROTECTED, CR0_PE | CR0_ET | CR0_NE);
	DEFINE(CR0_FOR_LONG, CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG);
	DEFINE(CR4_FOR_LONG, CR4_PAE);
	DEFINE(EFER_MSR, MSR_IA32_EFER);
	DEFINE(EFER_FOR_LONG, EFER_LME | EFER_NXE);
	DEFINE(EFER_NXE_BIT, EFER_NXE);
	DEFINE(CALL_TAKE_CPUS, HYPERPS_CALL_TAKE_CPUS);
}

// SPDX-License-Identifier: MIT
/* Offsets for the assembly, generated at build time: the compiler's output of this file becomes NASM's %defines. */
#include "cpu.h"
#include "gate_page.h"
#include "host_cpu.h"

#define DEFINE(name, value) asm volatile("\n#define " #name " %0" ::"i"(value))

void asm_offsets(void);

void asm_offsets(void)
{
	DEFINE(BOOT_INFO_FINAL_CR3, offsetof(struct boot_info, final_cr3));
	DEFINE(BOOT_INFO_CPU_AREA, offsetof(struct boot_info, cpu_area));
	DEFINE(CPU_AREA_SIZE, sizeof(struct cpu_area));
	DEFINE(CPU_AREA_STACK_TOP, offsetof(struct cpu_area, stack) + sizeof(((struct cpu_area *)0)->stack));
	DEFINE(CPU_AREA_CPU, offsetof(struct cpu_area, cpu));
	DEFINE(CPU_EXITS_CPUID, offsetof(struct cpu, exits) + EXIT_CPUID * sizeof(u64));
	DEFINE(REASON_CPUID, EXIT_CPUID);
	DEFINE(FILTERED_LEAVES, CPUID_FILTERED_LEAVES);
	DEFINE(FIELD_EXIT_REASON, VMCS_EXIT_REASON.encoding);
	DEFINE(FIELD_EXIT_INSTRUCTION_LENGTH, VMCS_EXIT_INSTRUCTION_LENGTH.encoding);
	DEFINE(FIELD_HOST_RSP, VMCS_HOST_RSP.encoding);
	DEFINE(FIELD_GUEST_RIP, VMCS_GUEST_RIP.encoding);
	DEFINE(FIELD_GUEST_RFLAGS, VMCS_GUEST_RFLAGS.encoding);
	DEFINE(FIELD_GUEST_INTERRUPTIBILITY, VMCS_GUEST_INTERRUPTIBILITY.encoding);
	DEFINE(RFLAGS_TF_BIT, RFLAGS_TF);
	DEFINE(SELECTOR_CODE_VALUE, SELECTOR_CODE);
	DEFINE(SELECTOR_DATA_VALUE, SELECTOR_DATA);
	DEFINE(SELECTOR_TSS_VALUE, SELECTOR_TSS);
	DEFINE(MONITOR_VA_VALUE, MONITOR_VA);
	DEFINE(LOG_SIZE_VALUE, LOG_SIZE);
	DEFINE(GATE_FRAME_HOST_IDTR, offsetof(struct gate_frame, host_idtr));
	DEFINE(GATE_FRAME_EMPTY_IDTR, offsetof(struct gate_frame, empty_idtr));
	DEFINE(GATE_FRAME_HOST_RSP, offsetof(struct gate_frame, host_rsp));
	DEFINE(GATE_FRAME_NULL_SELECTOR, offsetof(struct gate_frame, null_selector));
	DEFINE(GATE_FRAME_SLOT_2,
	       offsetof(struct gate_area, list) - offsetof(struct gate_area, frame) + 2 * sizeof(u64));
	DEFINE(GATE_LANDING_VALUE, GATE_LANDING);
	DEFINE(GATE_RETURN_VALUE, HYPERPS_GATE_RETURN);
}

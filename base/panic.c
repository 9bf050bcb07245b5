// SPDX-License-Identifier: MIT
#include "monitor.h"
#include "stop.h"

void vmcs_field_failed(vmcs_field_t field)
{
	panic("VMREAD or VMWRITE of field %x failed", field.encoding);
}

void vmx_instruction_failed(const char *instruction)
{
	panic("%s failed", instruction);
}

static void dump_vmcs(void)
{
	log_line(LOG_ERROR, "exit reason %lx qualification %lx instruction error %lu", vmread_or_zero(VMCS_EXIT_REASON),
		 vmread_or_zero(VMCS_EXIT_QUALIFICATION), vmread_or_zero(VMCS_INSTRUCTION_ERROR));
	log_line(LOG_ERROR, "host rip %016lx rsp %016lx rflags %lx cs %lx/%lx", vmread_or_zero(VMCS_GUEST_RIP),
		 vmread_or_zero(VMCS_GUEST_RSP), vmread_or_zero(VMCS_GUEST_RFLAGS),
		 vmread_or_zero(VMCS_GUEST_SELECTOR(SEGMENT_CS)), vmread_or_zero(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS)));
	log_line(LOG_ERROR, "host cr0 %lx cr3 %lx cr4 %lx efer %lx", vmread_or_zero(VMCS_GUEST_CR0),
		 vmread_or_zero(VMCS_GUEST_CR3), vmread_or_zero(VMCS_GUEST_CR4), vmread_or_zero(VMCS_GUEST_IA32_EFER));
	log_line(LOG_ERROR, "activity %lu interruptibility %lx entry event %lx vectoring %lx entry controls %lx",
		 vmread_or_zero(VMCS_GUEST_ACTIVITY_STATE), vmread_or_zero(VMCS_GUEST_INTERRUPTIBILITY),
		 vmread_or_zero(VMCS_ENTRY_INTERRUPTION_INFO), vmread_or_zero(VMCS_IDT_VECTORING_INFO),
		 vmread_or_zero(VMCS_ENTRY_CONTROLS));
}

void panic_stop(void)
{
	static bool cleared;
	struct cpu *cpu = this_cpu();

	/* Not a guest's: the host reads the log. */
	if (cpu->vmcs_current && cpu->primary == cpu->capabilities.primary)
		dump_vmcs();
	log_line(LOG_ERROR, "%s stopped for good; reset the machine",
		 this_cpu_stops_others() ? "the machine is" : "this CPU is");
	log_release();
	/* Whoever resets it does not find in the RAM what the host must not have. A panic in the middle ends here, too. */
	if (this_cpu_stops_others() && !cleared) {
		cleared = true;
		memory_clear();
	}
	stop_this_cpu();
}

// SPDX-License-Identifier: MIT
#include "core.h"
#include "x86.h"
#include "vmx.h"

/* Some fields can't be read in some states; a failing VMREAD here must not panic again. */
static u64 field_or_zero(vmcs_field_t field)
{
	u64 value = 0;
	bool failed;

	asm volatile("vmread %2, %1" : "=@ccbe"(failed), "+r"(value) : "r"((u64)field.encoding) : "memory");
	return failed ? 0 : value;
}

static void dump_vmcs(void)
{
	log_line(LOG_ERROR, "exit reason %lx qualification %lx instruction error %lu", field_or_zero(VMCS_EXIT_REASON),
		 field_or_zero(VMCS_EXIT_QUALIFICATION), field_or_zero(VMCS_INSTRUCTION_ERROR));
	log_line(LOG_ERROR, "host rip %016lx rsp %016lx rflags %lx cs %lx/%lx", field_or_zero(VMCS_GUEST_RIP),
		 field_or_zero(VMCS_GUEST_RSP), field_or_zero(VMCS_GUEST_RFLAGS),
		 field_or_zero(VMCS_GUEST_SELECTOR(SEGMENT_CS)), field_or_zero(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS)));
	log_line(LOG_ERROR, "host cr0 %lx cr3 %lx cr4 %lx efer %lx", field_or_zero(VMCS_GUEST_CR0),
		 field_or_zero(VMCS_GUEST_CR3), field_or_zero(VMCS_GUEST_CR4), field_or_zero(VMCS_GUEST_IA32_EFER));
	log_line(LOG_ERROR, "activity %lu interruptibility %lx entry event %lx vectoring %lx entry controls %lx",
		 field_or_zero(VMCS_GUEST_ACTIVITY_STATE), field_or_zero(VMCS_GUEST_INTERRUPTIBILITY),
		 field_or_zero(VMCS_ENTRY_INTERRUPTION_INFO), field_or_zero(VMCS_IDT_VECTORING_INFO),
		 field_or_zero(VMCS_ENTRY_CONTROLS));
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

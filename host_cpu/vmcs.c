// SPDX-License-Identifier: MIT
/* The host's VMCS. */
#include "host_cpu.h"
#include "monitor.h"
#include "vmcs.h"

#define VPID_HOST 1

void vmx_exit(void);
void nested_exit_entry(void);

void host_load_sipi_state(u64 vector, u64 cr0_kept)
{
	struct boot_cpu_state state = reset_state;

	state.cr0 |= cr0_kept;
	state.segment[SEGMENT_CS].selector = (u16)(vector << 8);
	state.segment[SEGMENT_CS].base = vector << 12;
	vmcs_write_state(&state);
	vmwrite(VMCS_GUEST_DR7, DR7_RESET);
	vmwrite(VMCS_GUEST_IA32_DEBUGCTL, 0);
	WRITE_REGISTER(dr0, 0);
	WRITE_REGISTER(dr1, 0);
	WRITE_REGISTER(dr2, 0);
	WRITE_REGISTER(dr3, 0);
	WRITE_REGISTER(cr2, 0);
	WRITE_REGISTER(dr6, DR6_RESET);
}

void host_vmcs_init(struct cpu *cpu, const struct boot_cpu_state *state)
{
	const struct vmx_capabilities *capabilities = &cpu->capabilities;

	vmcs_write_defaults(capabilities->secondary);
	vmwrite(VMCS_PIN_CONTROLS, capabilities->pin);
	vmwrite(VMCS_PRIMARY_CONTROLS, capabilities->primary);
	/* A machine check must not look for an IDT in the middle of the gate. */
	vmwrite(VMCS_EXCEPTION_BITMAP, BIT(VECTOR_MC));
	vmwrite(VMCS_MSR_BITMAP, hpa_of(monitor.msr_bitmap).value);
	port_write_bitmaps();
	vmwrite(VMCS_EPTP, monitor.host_eptp);
	if (capabilities->secondary & SECONDARY_VPID)
		vmwrite(VMCS_VPID, VPID_HOST);
	if (capabilities->secondary & SECONDARY_XSAVES)
		vmwrite(VMCS_XSS_EXITING_BITMAP, 0);
	/*
	 * The monitor owns CR4.VMXE, which VMX fixes to 1 and the host reads as 0, and every CR4 bit that is not listed
	 * as harmless: setting one exits and is refused.
	 */
	vmwrite(VMCS_CR0_MASK, CR0_OWNED);
	vmwrite(VMCS_CR4_MASK, CR4_OWNED);
	vmcs_write_root_state(cpu, (u64)vmx_exit);
	vmwrite(VMCS_GUEST_IA32_PAT, rdmsr(MSR_IA32_PAT));
	if (state) {
		vmcs_write_state(state);
	} else {
		host_load_sipi_state(0, CR0_CD | CR0_NW);
		vmwrite(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_WAIT_FOR_SIPI);
	}
	cpu->exit_rip_l2 = (u64)nested_exit_entry;
	cpu->primary = cpu->capabilities.primary;
	cpu->vmcs_current = true;
}

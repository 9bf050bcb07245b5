// SPDX-License-Identifier: MIT
#include "vmcs.h"
#include "monitor.h"
#include "stop.h"

void vmx_switch_on(struct cpu *cpu)
{
	struct cpu_area *area = cpu_area_of(cpu);
	u64 feature_control = rdmsr(MSR_IA32_FEATURE_CONTROL);

	if (!(feature_control & FEATURE_CONTROL_LOCK))
		wrmsr(MSR_IA32_FEATURE_CONTROL, feature_control | FEATURE_CONTROL_VMX | FEATURE_CONTROL_LOCK);
	CHECK(rdmsr(MSR_IA32_FEATURE_CONTROL) & FEATURE_CONTROL_VMX);
	/* Root's own control registers, whatever the firmware left. It executes XSETBV for the host, hence OSXSAVE. */
	WRITE_REGISTER(cr0, (CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE | cpu->capabilities.cr0_fixed0) &
				    cpu->capabilities.cr0_fixed1);
	/* OSFXSR: FXSAVE then has the SSE registers, which a CPU without XSAVE needs for guests. */
	WRITE_REGISTER(cr4, (CR4_PAE | CR4_MCE | CR4_VMXE | CR4_OSFXSR | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP |
			     cpu->capabilities.cr4_fixed0) &
				    cpu->capabilities.cr4_fixed1);
	*(u32 *)area->vmxon = *(u32 *)area->vmcs = cpu->capabilities.basic & VMX_BASIC_REVISION;
	vmxon(hpa_of(area->vmxon));
	vmclear(hpa_of(area->vmcs));
	vmptrld(hpa_of(area->vmcs));
	invept_all();
	if (cpu->capabilities.secondary & SECONDARY_VPID)
		invvpid_all();
}

void vmcs_write_root_state(struct cpu *cpu, u64 rip)
{
	struct cpu_area *area = cpu_area_of(cpu);

	vmwrite(VMCS_HOST_CR0, READ_REGISTER(cr0));
	vmwrite(VMCS_HOST_CR4, READ_REGISTER(cr4));
	vmwrite(VMCS_HOST_GS_BASE, (u64)cpu);
	vmwrite(VMCS_HOST_TR_BASE, (u64)&cpu->tss);
	vmwrite(VMCS_HOST_GDTR_BASE, (u64)cpu->gdt);
	vmwrite(VMCS_HOST_RSP, (u64)(area->stack + sizeof(area->stack)));
	vmwrite(VMCS_HOST_RIP, rip);
}

void vmcs_write_defaults(u32 secondary)
{
	static const vmcs_field_t zero[] = {
		VMCS_PAGE_FAULT_MASK,         VMCS_PAGE_FAULT_MATCH,    VMCS_CR3_TARGET_COUNT,
		VMCS_EXIT_MSR_STORE_COUNT,    VMCS_EXIT_MSR_LOAD_COUNT, VMCS_ENTRY_MSR_LOAD_COUNT,
		VMCS_ENTRY_INTERRUPTION_INFO, VMCS_GUEST_IA32_DEBUGCTL, VMCS_GUEST_SYSENTER_CS,
		VMCS_GUEST_SYSENTER_ESP,      VMCS_GUEST_SYSENTER_EIP,  VMCS_GUEST_PENDING_DEBUG,
		VMCS_GUEST_INTERRUPTIBILITY,  VMCS_HOST_FS_BASE,        VMCS_HOST_SYSENTER_CS,
		VMCS_HOST_SYSENTER_ESP,       VMCS_HOST_SYSENTER_EIP
	};
	static const u16 selector[] = {
		SELECTOR_DATA, SELECTOR_CODE, SELECTOR_DATA, SELECTOR_DATA, 0, 0
	}; /* ES to GS */

	for (unsigned i = 0; i < ARRAY_SIZE(zero); i++)
		vmwrite(zero[i], 0);
	vmwrite(VMCS_SECONDARY_CONTROLS, secondary);
	vmwrite(VMCS_EXIT_CONTROLS, monitor.boot->capabilities.exit);
	vmwrite(VMCS_LINK_POINTER, ~0ULL);
	if (secondary & SECONDARY_ENCLS_EXITING)
		vmwrite(VMCS_ENCLS_EXITING_BITMAP, ~0ULL);
	vmwrite(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_ACTIVE);
	vmwrite(VMCS_GUEST_DR7, DR7_RESET);
	/* Of root's state, what is the same on all CPUs. */
	for (unsigned i = 0; i < ARRAY_SIZE(selector); i++)
		vmwrite(VMCS_HOST_SELECTOR(i), selector[i]);
	vmwrite(VMCS_HOST_TR_SELECTOR, SELECTOR_TSS);
	vmwrite(VMCS_HOST_CR3, monitor.boot->final_cr3);
	vmwrite(VMCS_HOST_IDTR_BASE, (u64)idt);
	vmwrite(VMCS_HOST_IA32_PAT, PAT_RESET);
	vmwrite(VMCS_HOST_IA32_EFER, EFER_LME | EFER_LMA | EFER_NXE);
}

const struct boot_cpu_state reset_state = {
	.cr0 = CR0_ET,
	.gdt_limit = 0xffff,
	.idt_limit = 0xffff,
	.segment = { [SEGMENT_ES] = { .limit = 0xffff, .access_rights = 0x93 },
		     [SEGMENT_CS] = { .limit = 0xffff, .access_rights = 0x9b },
		     [SEGMENT_SS... SEGMENT_GS] = { .limit = 0xffff, .access_rights = 0x93 },
		     [SEGMENT_LDTR] = { .limit = 0xffff, .access_rights = 0x82 },
		     [SEGMENT_TR] = { .limit = 0xffff, .access_rights = 0x8b } },
};

void vmcs_write_state(const struct boot_cpu_state *state)
{
	/* A CR4 bit that the firmware set and the host may not change would make the kernel's first write a refusal. */
	u64 cr4 = state->cr4 & CR4_ALLOWED, entry = monitor.boot->capabilities.entry;

	for (unsigned i = 0; i < SEGMENTS; i++) {
		vmwrite(VMCS_GUEST_SELECTOR(i), state->segment[i].selector);
		vmwrite(VMCS_GUEST_BASE(i), state->segment[i].base);
		vmwrite(VMCS_GUEST_LIMIT(i), state->segment[i].limit);
		vmwrite(VMCS_GUEST_ACCESS_RIGHTS(i), state->segment[i].access_rights);
	}
	vmwrite(VMCS_GUEST_GDTR_BASE, state->gdt_base);
	vmwrite(VMCS_GUEST_GDTR_LIMIT, state->gdt_limit);
	vmwrite(VMCS_GUEST_IDTR_BASE, state->idt_base);
	vmwrite(VMCS_GUEST_IDTR_LIMIT, state->idt_limit);
	/* NE is fixed to 1 in VMX operation; whoever runs sees what it wrote, by the read shadow. */
	vmwrite(VMCS_GUEST_CR0, (state->cr0 & ~CR0_OWNED) | CR0_NE);
	vmwrite(VMCS_CR0_READ_SHADOW, state->cr0);
	vmwrite(VMCS_GUEST_CR3, state->cr3);
	vmwrite(VMCS_GUEST_CR4, cr4 | monitor.boot->capabilities.cr4_fixed0 | CR4_VMXE | CR4_MCE);
	vmwrite(VMCS_CR4_READ_SHADOW, cr4);
	vmwrite(VMCS_GUEST_IA32_EFER, state->efer);
	vmwrite(VMCS_ENTRY_CONTROLS, state->efer & EFER_LMA ? entry : entry & ~ENTRY_IA32E_GUEST);
	vmwrite(VMCS_GUEST_RSP, state->rsp);
	vmwrite(VMCS_GUEST_RIP, state->rip);
	vmwrite(VMCS_GUEST_RFLAGS, (state->rflags & ~RFLAGS_IF) | RFLAGS_RESERVED);
}

void vmcs_load_host(struct cpu *cpu)
{
	cpu->vmcs_current = false;
	vmptrld(hpa_of(cpu_area_of(cpu)->vmcs));
	cpu->primary = cpu->capabilities.primary;
	cpu->timer_wakes = false;
	cpu->vmcs_current = true;
}

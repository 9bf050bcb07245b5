// SPDX-License-Identifier: MIT
/* The host's VMCS. */
#include "core.h"
#include "host.h"
#include "x86.h"

#define PAT_RESET 0x0007040600070406ULL
#define CR0_RESET                                                                                                      \
	(CR0_ET | CR0_NE) /* NE is fixed to 1 in VMX operation; the host sees what it wrote, by the read shadow */
#define VPID_HOST 1

void vmx_exit(void);

void vmcs_field_failed(vmcs_field_t field)
{
	panic("VMREAD or VMWRITE of field %x failed", field.encoding);
}

void vmx_switch_on(struct cpu *cpu)
{
	struct cpu_area *area = (struct cpu_area *)((u8 *)cpu - offsetof(struct cpu_area, cpu));
	u32 revision = cpu->capabilities.basic & 0x7fffffff;
	u64 feature_control = rdmsr(MSR_IA32_FEATURE_CONTROL);
	enum vmx_result result;

	if (!(feature_control & FEATURE_CONTROL_LOCK))
		wrmsr(MSR_IA32_FEATURE_CONTROL, feature_control | FEATURE_CONTROL_VMX | FEATURE_CONTROL_LOCK);
	/* Root's own control registers, whatever the firmware left. It executes XSETBV for the host, hence OSXSAVE. */
	write_cr0((CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE | cpu->capabilities.cr0_fixed0) &
		  cpu->capabilities.cr0_fixed1);
	/* OSFXSR: FXSAVE then has the SSE registers, which a CPU without XSAVE needs for guests. */
	write_cr4((CR4_PAE | CR4_MCE | CR4_VMXE | CR4_OSFXSR | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP |
		   cpu->capabilities.cr4_fixed0) &
		  cpu->capabilities.cr4_fixed1);
	*(u32 *)area->vmxon = revision;
	*(u32 *)area->vmcs = revision;
	result = vmxon(hpa_of(area->vmxon));
	if (result != VMX_OK)
		panic("VMXON failed (%u)", result);
	if (vmclear(hpa_of(area->vmcs)) != VMX_OK || vmptrld(hpa_of(area->vmcs)) != VMX_OK)
		panic("VMCLEAR or VMPTRLD failed");
	if (invept_all() != VMX_OK)
		panic("INVEPT failed");
	if ((cpu->capabilities.secondary & SECONDARY_VPID) && invvpid_all() != VMX_OK)
		panic("INVVPID failed");
}

void vmcs_write_segment(enum vmcs_segment segment, const struct boot_segment *value)
{
	vmwrite(VMCS_GUEST_SELECTOR(segment), value->selector);
	vmwrite(VMCS_GUEST_BASE(segment), value->base);
	vmwrite(VMCS_GUEST_LIMIT(segment), value->limit);
	vmwrite(VMCS_GUEST_ACCESS_RIGHTS(segment), value->access_rights);
}

void vmcs_write_root_state(struct cpu *cpu, u64 rip)
{
	struct cpu_area *area = (struct cpu_area *)((u8 *)cpu - offsetof(struct cpu_area, cpu));
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) idtr;

	asm volatile("sidt %0" : "=m"(idtr));
	vmwrite(VMCS_HOST_CR0, read_cr0());
	vmwrite(VMCS_HOST_CR3, monitor.boot->final_cr3);
	vmwrite(VMCS_HOST_CR4, read_cr4());
	vmwrite(VMCS_HOST_ES_SELECTOR, SELECTOR_DATA);
	vmwrite(VMCS_HOST_CS_SELECTOR, SELECTOR_CODE);
	vmwrite(VMCS_HOST_SS_SELECTOR, SELECTOR_DATA);
	vmwrite(VMCS_HOST_DS_SELECTOR, SELECTOR_DATA);
	vmwrite(VMCS_HOST_FS_SELECTOR, 0);
	vmwrite(VMCS_HOST_GS_SELECTOR, 0);
	vmwrite(VMCS_HOST_TR_SELECTOR, SELECTOR_TSS);
	vmwrite(VMCS_HOST_FS_BASE, 0);
	vmwrite(VMCS_HOST_GS_BASE, (u64)cpu);
	vmwrite(VMCS_HOST_TR_BASE, (u64)&cpu->tss);
	vmwrite(VMCS_HOST_GDTR_BASE, (u64)cpu->gdt);
	vmwrite(VMCS_HOST_IDTR_BASE, idtr.base);
	vmwrite(VMCS_HOST_SYSENTER_CS, 0);
	vmwrite(VMCS_HOST_SYSENTER_ESP, 0);
	vmwrite(VMCS_HOST_SYSENTER_EIP, 0);
	vmwrite(VMCS_HOST_IA32_PAT, PAT_RESET);
	vmwrite(VMCS_HOST_IA32_EFER, EFER_LME | EFER_LMA | EFER_NXE);
	vmwrite(VMCS_HOST_RSP, (u64)(area->stack + sizeof(area->stack)));
	vmwrite(VMCS_HOST_RIP, rip);
}

void vmcs_write_defaults(u32 secondary)
{
	vmwrite(VMCS_SECONDARY_CONTROLS, secondary);
	vmwrite(VMCS_EXIT_CONTROLS, monitor.capabilities.exit);
	vmwrite(VMCS_PAGE_FAULT_MASK, 0);
	vmwrite(VMCS_PAGE_FAULT_MATCH, 0);
	vmwrite(VMCS_CR3_TARGET_COUNT, 0);
	vmwrite(VMCS_EXIT_MSR_STORE_COUNT, 0);
	vmwrite(VMCS_EXIT_MSR_LOAD_COUNT, 0);
	vmwrite(VMCS_ENTRY_MSR_LOAD_COUNT, 0);
	vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, 0);
	vmwrite(VMCS_LINK_POINTER, ~0ULL);
	if (secondary & SECONDARY_ENCLS_EXITING)
		vmwrite(VMCS_ENCLS_EXITING_BITMAP, ~0ULL);
	vmwrite(VMCS_GUEST_IA32_DEBUGCTL, 0);
	vmwrite(VMCS_GUEST_SYSENTER_CS, 0);
	vmwrite(VMCS_GUEST_SYSENTER_ESP, 0);
	vmwrite(VMCS_GUEST_SYSENTER_EIP, 0);
	vmwrite(VMCS_GUEST_PENDING_DEBUG, 0);
	vmwrite(VMCS_GUEST_INTERRUPTIBILITY, 0);
	vmwrite(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_ACTIVE);
	vmwrite(VMCS_GUEST_DR7, DR7_RESET);
}

static void write_controls(const struct vmx_capabilities *capabilities)
{
	vmcs_write_defaults(capabilities->secondary);
	vmwrite(VMCS_PIN_CONTROLS, capabilities->pin);
	vmwrite(VMCS_PRIMARY_CONTROLS, capabilities->primary);
	vmwrite(VMCS_ENTRY_CONTROLS, capabilities->entry);
	vmwrite(VMCS_EXCEPTION_BITMAP, 0);
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
	vmwrite(VMCS_CR0_MASK, HOST_CR0_OWNED);
	vmwrite(VMCS_CR4_MASK, ~HOST_CR4_ALLOWED);
}

void host_load_reset_state(struct cpu *cpu, u64 cr0_kept)
{
	static const struct boot_segment data = { 0, 0xffff, 0x93, 0, { 0 } };
	static const struct boot_segment code = { 0xffff0000, 0xffff, 0x9b, 0xf000, { 0 } };
	static const struct boot_segment ldtr = { 0, 0xffff, 0x82, 0, { 0 } };
	static const struct boot_segment tr = { 0, 0xffff, 0x8b, 0, { 0 } };

	for (unsigned segment = SEGMENT_ES; segment <= SEGMENT_GS; segment++)
		vmcs_write_segment(segment, segment == SEGMENT_CS ? &code : &data);
	vmcs_write_segment(SEGMENT_LDTR, &ldtr);
	vmcs_write_segment(SEGMENT_TR, &tr);
	vmwrite(VMCS_GUEST_GDTR_BASE, 0);
	vmwrite(VMCS_GUEST_GDTR_LIMIT, 0xffff);
	vmwrite(VMCS_GUEST_IDTR_BASE, 0);
	vmwrite(VMCS_GUEST_IDTR_LIMIT, 0xffff);
	vmwrite(VMCS_GUEST_CR0, CR0_RESET);
	vmwrite(VMCS_CR0_READ_SHADOW, CR0_ET | cr0_kept);
	vmwrite(VMCS_GUEST_CR3, 0);
	vmwrite(VMCS_GUEST_CR4, cpu->capabilities.cr4_fixed0 | CR4_VMXE);
	vmwrite(VMCS_CR4_READ_SHADOW, 0);
	vmwrite(VMCS_GUEST_IA32_EFER, 0);
	vmwrite(VMCS_ENTRY_CONTROLS, cpu->capabilities.entry & ~ENTRY_IA32E_GUEST);
	vmwrite(VMCS_GUEST_DR7, DR7_RESET);
	vmwrite(VMCS_GUEST_IA32_DEBUGCTL, 0);
	asm volatile(
		"mov %0, %%dr0; mov %0, %%dr1; mov %0, %%dr2; mov %0, %%dr3; mov %0, %%cr2; mov %1, %%dr6" ::"r"(0ULL),
		"r"(DR6_RESET));
	vmwrite(VMCS_GUEST_RSP, 0);
	vmwrite(VMCS_GUEST_RIP, 0xfff0);
	vmwrite(VMCS_GUEST_RFLAGS, RFLAGS_RESERVED);
	vmwrite(VMCS_GUEST_PENDING_DEBUG, 0);
	vmwrite(VMCS_GUEST_INTERRUPTIBILITY, 0);
	vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, 0);
}

static void load_boot_state(const struct boot_cpu_state *state)
{
	vmcs_write_segment(SEGMENT_ES, &state->es);
	vmcs_write_segment(SEGMENT_CS, &state->cs);
	vmcs_write_segment(SEGMENT_SS, &state->ss);
	vmcs_write_segment(SEGMENT_DS, &state->ds);
	vmcs_write_segment(SEGMENT_FS, &state->fs);
	vmcs_write_segment(SEGMENT_GS, &state->gs);
	vmcs_write_segment(SEGMENT_LDTR, &state->ldtr);
	vmcs_write_segment(SEGMENT_TR, &state->tr);
	vmwrite(VMCS_GUEST_GDTR_BASE, state->gdt_base);
	vmwrite(VMCS_GUEST_GDTR_LIMIT, state->gdt_limit);
	vmwrite(VMCS_GUEST_IDTR_BASE, state->idt_base);
	vmwrite(VMCS_GUEST_IDTR_LIMIT, state->idt_limit);
	vmwrite(VMCS_GUEST_CR0, (state->cr0 & ~HOST_CR0_OWNED) | CR0_NE);
	vmwrite(VMCS_CR0_READ_SHADOW, state->cr0);
	vmwrite(VMCS_GUEST_CR3, state->cr3);
	/*
	 * A bit that the firmware set and the host may not change would make the kernel's first write of CR4 a refusal.
	 */
	vmwrite(VMCS_GUEST_CR4, (state->cr4 & HOST_CR4_ALLOWED) | CR4_VMXE);
	vmwrite(VMCS_CR4_READ_SHADOW, state->cr4 & HOST_CR4_ALLOWED);
	vmwrite(VMCS_GUEST_IA32_EFER, state->efer);
	vmwrite(VMCS_GUEST_RSP, state->rsp);
	vmwrite(VMCS_GUEST_RIP, state->rip);
	vmwrite(VMCS_GUEST_RFLAGS, (state->rflags & ~RFLAGS_IF) | RFLAGS_RESERVED);
}

void host_vmcs_load(struct cpu *cpu)
{
	struct cpu_area *area = (struct cpu_area *)((u8 *)cpu - offsetof(struct cpu_area, cpu));

	if (vmptrld(hpa_of(area->vmcs)) != VMX_OK)
		panic("VMPTRLD of the host's VMCS failed");
	cpu->primary = cpu->capabilities.primary;
	cpu->vmcs_current = true;
}

void host_vmcs_init(struct cpu *cpu, const struct boot_cpu_state *state)
{
	write_controls(&cpu->capabilities);
	vmcs_write_root_state(cpu, (u64)vmx_exit);
	vmwrite(VMCS_GUEST_IA32_PAT, rdmsr(MSR_IA32_PAT));
	if (state) {
		load_boot_state(state);
	} else {
		host_load_reset_state(cpu, CR0_CD | CR0_NW);
		vmwrite(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_WAIT_FOR_SIPI);
	}
	cpu->primary = cpu->capabilities.primary;
	cpu->vmcs_current = true;
}

// SPDX-License-Identifier: MIT
/* VM exits of the host's VMs: which of them the host sees, and what it sees; docs/nested.md, "Exits of L2". */
#include "emulate.h"
#include "event.h"
#include "monitor.h"
#include "nested.h"
#include "stop.h"
#include "vmcs.h"

/* SDM, "Loading Host Segment and Descriptor-Table Registers": segments after a VM exit. */
#define CODE_ACCESS_RIGHTS 0xa09b
#define DATA_ACCESS_RIGHTS 0xc093
#define TSS_ACCESS_RIGHTS 0x8b
#define UNUSABLE BIT(16)
#define TSS_LIMIT 0x67

/* What VMCS12 gets of an exit, beside what nested_show() is told. */
static const vmcs_field_t exit_information[] = { NESTED_INFORMATION, VMCS_INSTRUCTION_INFO };

/* VMCS01 is current. pat, efer: what the CPU has of them where L1 does not load its own. */
static void load_host_state(const struct nested *n, u64 pat, u64 efer)
{
	const u64 *page = n->page;
	u64 exit = vmcs12_get(page, VMCS_EXIT_CONTROLS);
	u64 l1_cr0 = vmcs12_get(page, VMCS_HOST_CR0), l1_cr4 = vmcs12_get(page, VMCS_HOST_CR4);

	UNROLL
	for (unsigned i = SEGMENT_ES; i <= SEGMENT_GS; i++) {
		u64 selector = vmcs12_get(page, VMCS_HOST_SELECTOR(i));
		u64 rights = selector || i == SEGMENT_SS ? DATA_ACCESS_RIGHTS : UNUSABLE;

		vmwrite(VMCS_GUEST_SELECTOR(i), selector);
		vmwrite(VMCS_GUEST_LIMIT(i), ~0U);
		vmwrite(VMCS_GUEST_ACCESS_RIGHTS(i), i == SEGMENT_CS ? CODE_ACCESS_RIGHTS : rights);
		vmwrite(VMCS_GUEST_BASE(i), i == SEGMENT_FS   ? vmcs12_get(page, VMCS_HOST_FS_BASE)
					    : i == SEGMENT_GS ? vmcs12_get(page, VMCS_HOST_GS_BASE)
							      : 0);
	}
	/* All else of LDTR is undefined. */
	vmwrite(VMCS_GUEST_SELECTOR(SEGMENT_LDTR), 0);
	vmwrite(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_LDTR), UNUSABLE);
	vmwrite(VMCS_GUEST_LIMIT(SEGMENT_TR), TSS_LIMIT);
	vmwrite(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_TR), TSS_ACCESS_RIGHTS);
	vmwrite(VMCS_GUEST_GDTR_LIMIT, 0xffff);
	vmwrite(VMCS_GUEST_IDTR_LIMIT, 0xffff);
	vmwrite(VMCS_GUEST_RFLAGS, RFLAGS_RESERVED);
	vmwrite(VMCS_GUEST_DR7, DR7_RESET);
	vmwrite(VMCS_GUEST_IA32_DEBUGCTL, 0);
	vmwrite(VMCS_GUEST_PENDING_DEBUG, 0);
	vmwrite(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_ACTIVE);
	vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, 0);
	vmwrite(VMCS_GUEST_SELECTOR(SEGMENT_TR), vmcs12_get(page, VMCS_HOST_TR_SELECTOR));
	vmwrite(VMCS_GUEST_BASE(SEGMENT_TR), vmcs12_get(page, VMCS_HOST_TR_BASE));
	vmwrite(VMCS_GUEST_GDTR_BASE, vmcs12_get(page, VMCS_HOST_GDTR_BASE));
	vmwrite(VMCS_GUEST_IDTR_BASE, vmcs12_get(page, VMCS_HOST_IDTR_BASE));
	vmwrite(VMCS_GUEST_CR3, vmcs12_get(page, VMCS_HOST_CR3));
	vmwrite(VMCS_GUEST_RSP, vmcs12_get(page, VMCS_HOST_RSP));
	vmwrite(VMCS_GUEST_RIP, vmcs12_get(page, VMCS_HOST_RIP));
	vmwrite(VMCS_GUEST_SYSENTER_CS, vmcs12_get(page, VMCS_HOST_SYSENTER_CS));
	vmwrite(VMCS_GUEST_SYSENTER_ESP, vmcs12_get(page, VMCS_HOST_SYSENTER_ESP));
	vmwrite(VMCS_GUEST_SYSENTER_EIP, vmcs12_get(page, VMCS_HOST_SYSENTER_EIP));
	vmwrite(VMCS_GUEST_CR0, (l1_cr0 & ~CR0_OWNED) | CR0_NE);
	vmwrite(VMCS_CR0_READ_SHADOW, l1_cr0);
	vmwrite(VMCS_GUEST_CR4, (l1_cr4 & CR4_ALLOWED) | monitor.boot->capabilities.cr4_fixed0 | CR4_VMXE | CR4_MCE);
	vmwrite(VMCS_CR4_READ_SHADOW, (l1_cr4 & CR4_ALLOWED) | CR4_VMXE);
	vmwrite(VMCS_GUEST_IA32_EFER,
		exit & EXIT_LOAD_EFER ? vmcs12_get(page, VMCS_HOST_IA32_EFER) : efer | EFER_LMA | EFER_LME);
	vmwrite(VMCS_GUEST_IA32_PAT, exit & EXIT_LOAD_PAT ? vmcs12_get(page, VMCS_HOST_IA32_PAT) : pat);
}

/* MSRs of an exit ("Saving MSRs", "Loading MSRs"). False: a VMX abort. */
static bool switch_msrs(const struct nested *n, bool failed)
{
	if (!failed &&
	    nested_store_msrs(nested_get(n, VMCS_EXIT_MSR_STORE_ADDRESS), nested_get(n, VMCS_EXIT_MSR_STORE_COUNT)))
		return false;
	/* Bits that check_host() let pass and the CPU refuses are no reason to reset a host. */
	if ((nested_get(n, VMCS_EXIT_CONTROLS) & EXIT_LOAD_PERF_GLOBAL_CTRL) &&
	    !wrmsr_checked(MSR_IA32_PERF_GLOBAL_CTRL, nested_get(n, VMCS_HOST_IA32_PERF_GLOBAL_CTRL)))
		wrmsr(MSR_IA32_PERF_GLOBAL_CTRL, 0);
	return !nested_load_msrs(nested_get(n, VMCS_EXIT_MSR_LOAD_ADDRESS), nested_get(n, VMCS_EXIT_MSR_LOAD_COUNT));
}

/* information: VM-exit interruption information. */
static enum nested_next show(struct nested *n, u32 reason, u64 qualification, u64 information)
{
	struct cpu *cpu = this_cpu();
	bool failed = reason & EXIT_REASON_ENTRY_FAILURE;
	bool is_nmi = reason == EXIT_EXCEPTION_OR_NMI && (information & EVENT_TYPE) == EVENT_TYPE_NMI;
	u64 pat = vmread(VMCS_GUEST_IA32_PAT), efer = vmread(VMCS_GUEST_IA32_EFER), blocking, *page = n->page;

	if (!failed) {
		nested_save(n);
		UNROLL
		for (unsigned i = 0; i < ARRAY_SIZE(exit_information); i++)
			page[nested_word(exit_information[i].encoding)] = vmread(exit_information[i]);
		nested_set(n, VMCS_EXIT_INTERRUPTION_INFO, information);
	}
	n->dirty |= failed;
	nested_set(n, VMCS_EXIT_REASON, reason);
	nested_set(n, VMCS_EXIT_QUALIFICATION, qualification);
	nested_shadow_write(cpu, n);
	vmcs_load_host(cpu);
	load_host_state(n, pat, efer);
	/* An entry that failed leaves L1's blocking of NMIs as it was. */
	blocking = is_nmi ? INTERRUPTIBILITY_NMI : failed ? vmread(VMCS_GUEST_INTERRUPTIBILITY) : 0;
	vmwrite(VMCS_GUEST_INTERRUPTIBILITY, blocking & INTERRUPTIBILITY_NMI);
	n->state = NESTED_ROOT;
	/* Without VPIDs an exit flushes what L1 and L2 share. */
	if (!nested_l1_vpid(n))
		nested_flush_vpid(n, 0);
	/* L1 takes IBRS for what keeps its VMs' predictions from it; to the CPU both are non-root. */
	if (n->has_ibpb)
		wrmsr(MSR_IA32_PRED_CMD, PRED_CMD_IBPB);
	if (!switch_msrs(n, failed))
		n->state = NESTED_ABORTED;
	return NESTED_SHOWN;
}

enum nested_next nested_show(struct nested *n, u32 reason, u64 qualification)
{
	return show(n, reason, qualification, vmread(VMCS_EXIT_INTERRUPTION_INFO));
}

static enum nested_next resume(const struct cpu *cpu)
{
	nested_wake(cpu);
	return NESTED_RESUME;
}

/* An exception of L2's, which L1 sees if it wants to. Entry and exit information have the same format. */
static enum nested_next refuse(struct cpu *cpu, struct nested *n, u32 vector)
{
	inject_exception(vector);
	if (!(nested_get(n, VMCS_EXCEPTION_BITMAP) & BIT(vector)))
		return resume(cpu);
	show(n, EXIT_EXCEPTION_OR_NMI, 0, vmread(VMCS_ENTRY_INTERRUPTION_INFO));
	nested_shadow_off(cpu, n);
	nested_set(n, VMCS_EXIT_INTERRUPTION_ERROR_CODE, 0);
	nested_shadow_on(cpu, n);
	return NESTED_SHOWN;
}

static enum nested_next exit_event(struct cpu *cpu, struct nested *n, u64 qualification)
{
	u64 information = vmread(VMCS_EXIT_INTERRUPTION_INFO), vector = information & EVENT_VECTOR;
	bool is_nmi = (information & EVENT_TYPE) == EVENT_TYPE_NMI;

	if (is_nmi || vector == VECTOR_MC) {
		latch_exit(cpu);
		if (take_latched(cpu, is_nmi ? LATCHED_NMI : LATCHED_MACHINE_CHECK))
			return nested_show(n, EXIT_EXCEPTION_OR_NMI, qualification);
		deliver_again();
		return resume(cpu);
	}
	/* That of a page fault does not say alone whether it exits. */
	if (!(nested_get(n, VMCS_EXCEPTION_BITMAP) & BIT(vector & 31)) && reflect_exception())
		return resume(cpu);
	return nested_show(n, EXIT_EXCEPTION_OR_NMI, qualification);
}

/* Something waits for L1, or did. In this order: what comes after the write sets the timer again. */
static enum nested_next exit_timer(struct cpu *cpu, struct nested *n)
{
	vmwrite(VMCS_PREEMPTION_TIMER, NESTED_TIMER_OFF);
	if (take_latched(cpu, LATCHED_MACHINE_CHECK))
		return show(n, EXIT_EXCEPTION_OR_NMI, 0, EVENT_VALID | EVENT_TYPE_EXCEPTION | VECTOR_MC);
	if (take_latched(cpu, LATCHED_NMI))
		return show(n, EXIT_EXCEPTION_OR_NMI, 0, EVENT_VALID | EVENT_TYPE_NMI | VECTOR_NMI);
	return resume(cpu);
}

/* L1's, or a write of bits that only the monitor owns: as exit_cr_access(). */
static enum nested_next exit_control_register(struct cpu *cpu, struct nested *n, const struct registers *regs,
					      u64 qualification)
{
	u64 number = CR_NUMBER(qualification), reg = CR_REGISTER(qualification), value, changed;
	vmcs_field_t shadow = number == 0 ? VMCS_CR0_READ_SHADOW : VMCS_CR4_READ_SHADOW;

	if (CR_ACCESS_TYPE(qualification) != CR_ACCESS_MOV_TO || (number != 0 && number != 4))
		return nested_show(n, EXIT_CR_ACCESS, qualification);
	value = reg == REGISTER_RSP ? vmread(VMCS_GUEST_RSP) : regs->value[reg];
	value = is_64bit() ? value : (u32)value;
	if ((value ^ nested_get(n, shadow)) & nested_get(n, number == 0 ? VMCS_CR0_MASK : VMCS_CR4_MASK))
		return nested_show(n, EXIT_CR_ACCESS, qualification);
	/* The CPU, too, lets nobody change NE and VMXE in VMX operation. */
	changed = value ^ vmread(shadow);
	if (number == 0 ? (changed & CR0_NE) || ((value & CR0_NW) && !(value & CR0_CD))
			: changed & CR4_OWNED & ~CR4_MCE)
		return refuse(cpu, n, VECTOR_GP);
	follow(shadow, number == 0 ? CR0_OWNED : CR4_MCE, value);
	return resume(cpu);
}

static enum nested_next exit_ept_violation_of_l2(struct cpu *cpu, struct nested *n, u64 qualification)
{
	u64 shown_qualification = qualification;
	u32 reason = EXIT_EPT_VIOLATION;

	if (nested_ept_violation(n, &reason, &shown_qualification) != NESTED_RESUME)
		return nested_show(n, reason, shown_qualification);
	block_nmi_again(qualification, vmread(VMCS_IDT_VECTORING_INFO));
	deliver_again();
	return resume(cpu);
}

/* Nothing has changed in VMCS02 (SDM, "VM-Entry Failures During or After Loading Guest State"). */
static enum nested_next exit_failed_entry(struct cpu *cpu, struct nested *n, u32 reason, u64 qualification)
{
	u64 rip = vmread(VMCS_GUEST_RIP);

	/* L2 may have run since L1's entry, which then did not fail: once more, with an exit right behind it. */
	if (reason == EXIT_ENTRY_FAILED_MACHINE_CHECK) {
		__atomic_fetch_or(&cpu->latched, LATCHED_MACHINE_CHECK, __ATOMIC_SEQ_CST);
		return resume(cpu);
	}
	/* As in exit_dispatch(): not L1's RIP, but one that an exit left there which L1 does not know of. */
	if (reason == EXIT_ENTRY_FAILED_GUEST_STATE && !is_64bit() && rip >> 32 &&
	    rip != nested_get(n, VMCS_GUEST_RIP)) {
		vmwrite(VMCS_GUEST_RIP, (u32)rip);
		return resume(cpu);
	}
	return nested_show(n, EXIT_REASON_ENTRY_FAILURE | reason, qualification);
}

enum nested_next nested_exit(struct cpu *cpu, struct registers *regs)
{
	struct nested *n = cpu->nested;
	u64 full_reason = vmread(VMCS_EXIT_REASON), qualification = vmread(VMCS_EXIT_QUALIFICATION);
	u32 reason = full_reason & 0xffff;

	if (reason < HYPERPS_EXIT_REASONS)
		n->exits[reason]++;
	if (full_reason & EXIT_REASON_ENTRY_FAILURE)
		return exit_failed_entry(cpu, n, reason, qualification);
	n->launched = true;
	n->page[VMCS12_LAUNCH_STATE] = 1;
	switch (reason) {
	case EXIT_EXCEPTION_OR_NMI:
		return exit_event(cpu, n, qualification);
	case EXIT_INIT:
		nested_reset(cpu);
		return NESTED_EVENT;
	case EXIT_CR_ACCESS:
		return exit_control_register(cpu, n, regs, qualification);
	case EXIT_EPT_VIOLATION:
		return exit_ept_violation_of_l2(cpu, n, qualification);
	case EXIT_EPT_MISCONFIGURATION:
		panic("EPT of a VM of the host's: misconfigured at %016lx", vmread(VMCS_GUEST_PHYSICAL_ADDRESS));
	case EXIT_PREEMPTION_TIMER:
		return exit_timer(cpu, n);
	/* The host has none of these either. */
	case EXIT_VMFUNC:
	case EXIT_ENCLS:
	case EXIT_SEAMCALL:
	case EXIT_TDCALL:
	case EXIT_RDMSR_IMMEDIATE:
	case EXIT_WRMSRNS_IMMEDIATE:
		return refuse(cpu, n, VECTOR_UD);
	default:
		return nested_show(n, reason, qualification);
	}
}

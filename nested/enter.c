// SPDX-License-Identifier: MIT
/* VM entries of the host's VMs: VMCS02 is made of VMCS12 by the table of docs/nested.md, "Fields", whatever VMCS12 holds. */
#include "cpu_features.h"
#include "ept.h"
#include "event.h"
#include "memory_service.h"
#include "nested.h"
#include "vmcs.h"

/* SDM, "VM-Instruction Error Numbers". */
#define ERROR_INVALID_CONTROLS 7

/* A register that L1 and the monitor each own bits of: they exit, and read as in the shadow. */
static const struct control_register {
	vmcs_field_t guest, mask, shadow;
	u64 owned;
} cr0 = { VMCS_GUEST_CR0, VMCS_CR0_MASK, VMCS_CR0_READ_SHADOW, CR0_OWNED },
  cr4 = { VMCS_GUEST_CR4, VMCS_CR4_MASK, VMCS_CR4_READ_SHADOW, CR4_OWNED };

/* Guest state whose checks have passed, and which goes to VMCS02 and back as it is, beside the copied fields. */
static const vmcs_field_t checked_state[] = { VMCS_GUEST_IA32_DEBUGCTL, VMCS_GUEST_ACTIVITY_STATE };

static const vmcs_field_t hot_written[] = { NESTED_HOT }, hot[] = { NESTED_HOT, NESTED_HOT_READ };

/* The one way to VMCS02, as vmcs_load_host() is to VMCS01: an NMI in between only latches what it brings. */
static void load_vmcs02(struct cpu *cpu)
{
	cpu->vmcs_current = false;
	vmptrld(hpa_of(cpu->nested->vmcs02));
	cpu->timer_wakes = true;
	cpu->vmcs_current = true;
}

/* What is the same for every L2. */
static void prepare_vmcs02(struct cpu *cpu, struct nested *n)
{
	const struct vmx_capabilities *capabilities = &cpu->capabilities;

	n->has_ibpb = cpuid_or_zero(7).edx & BIT(CPUID_IBPB);
	n->has_shadowing = (rdmsr(MSR_IA32_VMX_PROCBASED_CTLS2) >> 32 & SECONDARY_VMCS_SHADOWING) &&
			   (rdmsr(MSR_IA32_VMX_MISC) & VMX_MISC_WRITE_INFORMATION);
	*n->shadow_vmcs = (capabilities->basic & VMX_BASIC_REVISION) | VMCS_SHADOW_INDICATOR;
	if (n->has_shadowing)
		vmclear(n->shadow_vmcs_hpa);
	*(u32 *)n->vmcs02 = capabilities->basic & VMX_BASIC_REVISION;
	vmclear(hpa_of(n->vmcs02));
	load_vmcs02(cpu);
	vmcs_write_defaults(capabilities->secondary);
	vmcs_write_root_state(cpu, cpu->exit_rip_l2);
	vmwrite(VMCS_PIN_CONTROLS, capabilities->guest_pin);
	vmwrite(VMCS_EXIT_CONTROLS, capabilities->exit | EXIT_ACKNOWLEDGE_INTERRUPT);
	vmwrite(VMCS_MSR_BITMAP, hpa_of(n->msr_bitmap).value);
	if (capabilities->secondary & SECONDARY_VPID)
		vmwrite(VMCS_VPID, NESTED_VPID);
	if (capabilities->secondary & SECONDARY_XSAVES)
		vmwrite(VMCS_XSS_EXITING_BITMAP, 0);
	vmcs_load_host(cpu);
	n->ready = true;
}

void nested_begin(struct cpu *cpu)
{
	struct nested *n = cpu->nested;

	if (!n->ready)
		prepare_vmcs02(cpu, n);
	nested_drop_all(n);
	nested_flush_vpid(n, 0);
}

void nested_end(struct nested *n)
{
	nested_shadow_off(this_cpu(), n);
	n->state = NESTED_OFF;
	n->cold_in_02 = false;
	n->current = n->last_violation = NO_ADDRESS;
}

void nested_reset(struct cpu *cpu)
{
	if (cpu->timer_wakes)
		vmcs_load_host(cpu);
	nested_end(cpu->nested);
}

void nested_flush_vpid(struct nested *n, u16 vpid)
{
	if ((!vpid || vpid != n->last_vpid) && (this_cpu()->capabilities.secondary & SECONDARY_VPID))
		invvpid_all();
	n->last_vpid = vpid;
}

/* The EPT02, with nothing in it that L1 or a frame's way out of the host has asked this CPU to forget. */
static void choose_root(struct nested *n)
{
	u64 eptp12 = nested_get(n, VMCS_EPTP);

	n->root = shadow_find(&n->shadow, eptp12);
	if (n->root == SHADOW_ROOTS) {
		memory_lock();
		n->root = shadow_assign(&n->shadow, eptp12);
		memory_unlock();
	}
	nested_flush(n);
	nested_fill_last_violation(n);
	nested_flush_vpid(n, nested_l1_vpid(n));
}

u16 nested_l1_vpid(const struct nested *n)
{
	return nested_get(n, VMCS_SECONDARY_CONTROLS) & SECONDARY_VPID ? (u16)nested_get(n, VMCS_VPID) : 0;
}

/* What of a control word of L1's is offered, which its check has found already. */
static u64 offered(u32 msr, u64 word)
{
	u64 offer = 0;

	nested_msr(msr, &offer);
	return (word & offer >> 32) | (u32)offer;
}

/* fixed: what is on whatever L1 wants. L2 reads its own values of the bits that the monitor owns, but L1's of those of L1's. */
static void write_control_register(const struct nested *n, const struct control_register *r, u64 fixed)
{
	u64 value = nested_get(n, r->guest), mask = nested_get(n, r->mask);

	vmwrite(r->guest, (value & ~r->owned) | fixed);
	vmwrite(r->mask, mask | r->owned);
	vmwrite(r->shadow, (nested_get(n, r->shadow) & mask) | (value & ~mask));
}

static void save_control_register(struct nested *n, const struct control_register *r)
{
	u64 old = nested_get(n, r->guest), mask = nested_get(n, r->mask);

	nested_set(n, r->guest,
		   (vmread(r->guest) & ~r->owned) | (old & r->owned & mask) | (vmread(r->shadow) & r->owned & ~mask));
}

/* What only a VMWRITE changes, or another VMCS12. */
static void write_cold(const struct cpu *cpu, const struct nested *n)
{
	const struct vmx_capabilities *capabilities = &cpu->capabilities;
	u64 secondary = nested_get(n, VMCS_SECONDARY_CONTROLS);

	vmwrite(VMCS_SECONDARY_CONTROLS,
		offered(MSR_IA32_VMX_PROCBASED_CTLS2, secondary) | SECONDARY_EPT |
			(capabilities->secondary & (SECONDARY_VPID | SECONDARY_ENCLS_EXITING)));
	vmwrite(VMCS_ENTRY_CONTROLS,
		(capabilities->entry & ~ENTRY_IA32E_GUEST) | (nested_get(n, VMCS_ENTRY_CONTROLS) & ENTRY_IA32E_GUEST));
	for (unsigned i = 0; i < nested_field_count; i++) {
		const struct nested_field *f = &nested_fields[i];

		/* A CPU without the control has no such fields. */
		if (f->kind != NESTED_COPY ||
		    (f->first == VMCS_PLE_GAP.encoding && !(secondary & SECONDARY_PAUSE_LOOP_EXITING)))
			continue;
		for (u32 encoding = f->first; encoding <= f->last; encoding += 2)
			vmwrite(VMCS_FIELD(encoding), nested_get(n, VMCS_FIELD(encoding)));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(checked_state); i++)
		vmwrite(checked_state[i], nested_get(n, checked_state[i]));
	/* Two that an L2 could raise for ever while one of them is delivered, and one that is the machine's. */
	vmwrite(VMCS_EXCEPTION_BITMAP,
		nested_get(n, VMCS_EXCEPTION_BITMAP) | BIT(VECTOR_DB) | BIT(VECTOR_AC) | BIT(VECTOR_MC));
	write_control_register(n, &cr0, CR0_NE);
	write_control_register(n, &cr4, CR4_MCE | CR4_VMXE | capabilities->cr4_fixed0);
}

/* VMCS01 is current, at the end VMCS02. */
static void write_vmcs02(struct cpu *cpu, struct nested *n)
{
	u64 entry = nested_get(n, VMCS_ENTRY_CONTROLS), event = nested_get(n, VMCS_ENTRY_INTERRUPTION_INFO);
	u64 pat = vmread(VMCS_GUEST_IA32_PAT), efer = vmread(VMCS_GUEST_IA32_EFER) & ~(EFER_LMA | EFER_LME);
	u64 primary = nested_get(n, VMCS_PRIMARY_CONTROLS);
	const u64 *page = n->page;

	if (entry & ENTRY_IA32E_GUEST)
		efer |= EFER_LMA | EFER_LME;
	if (entry & ENTRY_LOAD_PAT)
		pat = vmcs12_get(page, VMCS_GUEST_IA32_PAT);
	if (entry & ENTRY_LOAD_EFER)
		efer = vmcs12_get(page, VMCS_GUEST_IA32_EFER);

	load_vmcs02(cpu);
	vmwrite(VMCS_PREEMPTION_TIMER, NESTED_TIMER_OFF);
	if (n->dirty)
		write_cold(cpu, n);
	if (n->dirty || n->primary != primary)
		vmwrite(VMCS_PRIMARY_CONTROLS, offered(MSR_IA32_VMX_TRUE_PROCBASED_CTLS, primary) | PRIMARY_IO_EXITING |
						       PRIMARY_USE_MSR_BITMAPS | PRIMARY_SECONDARY_CONTROLS);
	if (n->dirty || n->root != n->root_in_02)
		vmwrite(VMCS_EPTP, hpa_of(n->shadow.root[n->root]).value | EPTP_FLAGS(4));
	n->primary = primary;
	n->root_in_02 = n->root;
	n->dirty = false;
	UNROLL
	for (unsigned i = 0; i < ARRAY_SIZE(hot_written); i++)
		vmwrite(hot_written[i], vmcs12_get(page, hot_written[i]));
	/* The monitor, too, injects events by these, and the CPU clears the valid bit. */
	vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, event);
	if (event & EVENT_VALID) {
		vmwrite(VMCS_ENTRY_EXCEPTION_ERROR_CODE, vmcs12_get(page, VMCS_ENTRY_EXCEPTION_ERROR_CODE));
		vmwrite(VMCS_ENTRY_INSTRUCTION_LENGTH, vmcs12_get(page, VMCS_ENTRY_INSTRUCTION_LENGTH));
	}
	vmwrite(VMCS_GUEST_IA32_PAT, pat);
	vmwrite(VMCS_GUEST_IA32_EFER, efer);
}

void nested_enter(struct nested *n)
{
	struct cpu *cpu = this_cpu();
	u64 qualification, entry = nested_get(n, VMCS_ENTRY_CONTROLS);
	u32 error;

	/* One that came in the gate. It is served before the host's next instruction. */
	if (cpu->latched & LATCHED_INIT)
		return;
	nested_shadow_read(cpu, n);
	if (n->dirty)
		nested_fetch(n);
	error = check_controls(n);
	if (!error)
		error = check_host(n);
	if (error) {
		nested_fail(n, error);
		return;
	}
	if (!check_guest(n, &qualification)) {
		nested_show(n, EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_FAILED_GUEST_STATE, qualification);
		return;
	}
	choose_root(n);
	nested_merge_msrs(n);
	if ((entry & ENTRY_LOAD_PERF_GLOBAL_CTRL) &&
	    !wrmsr_checked(MSR_IA32_PERF_GLOBAL_CTRL, nested_get(n, VMCS_GUEST_IA32_PERF_GLOBAL_CTRL))) {
		nested_show(n, EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_FAILED_GUEST_STATE, 0);
		return;
	}
	error = nested_load_msrs(nested_get(n, VMCS_ENTRY_MSR_LOAD_ADDRESS), nested_get(n, VMCS_ENTRY_MSR_LOAD_COUNT));
	if (error) {
		nested_show(n, EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_FAILED_MSRS, error);
		return;
	}
	write_vmcs02(cpu, n);
	n->state = NESTED_L2;
	nested_wake(cpu);
}

void nested_wake(const struct cpu *cpu)
{
	/* What comes after this look makes L2 exit by latch_event(). */
	if (cpu->latched)
		vmwrite(VMCS_PREEMPTION_TIMER, 0);
}

void nested_save(struct nested *n)
{
	u64 exit = nested_get(n, VMCS_EXIT_CONTROLS), entry = nested_get(n, VMCS_ENTRY_CONTROLS), *page = n->page;

	UNROLL
	for (unsigned i = 0; i < ARRAY_SIZE(hot); i++)
		page[nested_word(hot[i].encoding)] = vmread(hot[i]);
	if (exit & EXIT_SAVE_PAT)
		nested_set(n, VMCS_GUEST_IA32_PAT, vmread(VMCS_GUEST_IA32_PAT));
	if (exit & EXIT_SAVE_EFER)
		nested_set(n, VMCS_GUEST_IA32_EFER, vmread(VMCS_GUEST_IA32_EFER));
	nested_set(n, VMCS_ENTRY_CONTROLS,
		   (entry & ~ENTRY_IA32E_GUEST) | (vmread(VMCS_ENTRY_CONTROLS) & ENTRY_IA32E_GUEST));
	nested_set(n, VMCS_ENTRY_INTERRUPTION_INFO, nested_get(n, VMCS_ENTRY_INTERRUPTION_INFO) & ~EVENT_VALID);
	n->cold_in_02 = true;
}

void nested_fetch(struct nested *n)
{
	struct cpu *cpu = this_cpu();

	if (!n->cold_in_02)
		return;
	load_vmcs02(cpu);
	for (unsigned i = 0; i < nested_field_count; i++) {
		const struct nested_field *f = &nested_fields[i];

		if (f->kind != NESTED_COPY || (f->flags & (NESTED_SAVED | NESTED_SHADOW_WRITE)) != NESTED_SAVED)
			continue;
		for (u32 encoding = f->first; encoding <= f->last; encoding += 2)
			nested_set(n, VMCS_FIELD(encoding), vmread(VMCS_FIELD(encoding)));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(checked_state); i++)
		nested_set(n, checked_state[i], vmread(checked_state[i]));
	save_control_register(n, &cr0);
	save_control_register(n, &cr4);
	vmcs_load_host(cpu);
	n->cold_in_02 = false;
}

bool nested_entry_failed(struct cpu *cpu)
{
	struct nested *n = cpu->nested;

	if (!n || n->state != NESTED_L2 || vmread(VMCS_INSTRUCTION_ERROR) != ERROR_INVALID_CONTROLS)
		return false;
	vmcs_load_host(cpu);
	n->state = NESTED_ROOT;
	n->dirty = true;
	nested_fail(n, ERROR_INVALID_CONTROLS);
	return true;
}

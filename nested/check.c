// SPDX-License-Identifier: MIT
/* VM entry of L1's: the checks of VMCS12. Each is a line of docs/nested.md, "Fields"; the CPU makes the others on VMCS02. */
#include "ept.h"
#include "nested.h"
#include "vmcs.h"

#define ERROR_CONTROLS 7
#define ERROR_HOST_STATE 8

#define PAT_UC_MINUS 7
#define SELECTOR_RPL_TI 7 /* of L1's in VMX root: both are 0 */

/* Whether `bytes` at a multiple of `align` lie within the physical width. */
static bool is_physical(u64 address, u64 bytes, u64 align)
{
	return !(address % align) &&
	       !((address | (address + bytes - 1)) >> this_cpu()->capabilities.physical_address_bits);
}

static bool eptp12_is_valid(u64 eptp12)
{
	return (eptp12 & (PAGE_SIZE - 1)) == EPTP_FLAGS(4) &&
	       is_physical(ALIGN_DOWN(eptp12, PAGE_SIZE), PAGE_SIZE, PAGE_SIZE);
}

/* A word of controls against the capability MSR: must in 31:0, may in 63:32. */
static bool is_offered(const struct nested *n, vmcs_field_t field, u32 msr)
{
	u64 offer, value = nested_get(n, field);

	return nested_msr(msr, &offer) && !(value & ~(offer >> 32)) && !((u32)offer & ~value);
}

static bool list_is_valid(const struct nested *n, vmcs_field_t count_field, vmcs_field_t address)
{
	u64 count = nested_get(n, count_field);

	return !count || (count <= VMCS12_LISTS_MOST && is_physical(nested_get(n, address), count * 16, 16));
}

static bool event_is_valid(u64 event)
{
	return !(event & EVENT_VALID) || (!(event & EVENT_RESERVED) && (event & EVENT_TYPE) != EVENT_TYPE_RESERVED &&
					  (event & EVENT_TYPE) != EVENT_TYPE_OTHER);
}

u32 check_controls(const struct nested *n)
{
	u64 primary = nested_get(n, VMCS_PRIMARY_CONTROLS), secondary = nested_get(n, VMCS_SECONDARY_CONTROLS);

	if (!event_is_valid(nested_get(n, VMCS_ENTRY_INTERRUPTION_INFO)))
		return ERROR_CONTROLS;
	/* All else is as it was when it passed. */
	if (!n->dirty && primary == n->primary)
		return 0;
	if (!is_offered(n, VMCS_PIN_CONTROLS, MSR_IA32_VMX_TRUE_PINBASED_CTLS) ||
	    !is_offered(n, VMCS_PRIMARY_CONTROLS, MSR_IA32_VMX_TRUE_PROCBASED_CTLS) ||
	    !is_offered(n, VMCS_SECONDARY_CONTROLS, MSR_IA32_VMX_PROCBASED_CTLS2) ||
	    !is_offered(n, VMCS_EXIT_CONTROLS, MSR_IA32_VMX_TRUE_EXIT_CTLS) ||
	    !is_offered(n, VMCS_ENTRY_CONTROLS, MSR_IA32_VMX_TRUE_ENTRY_CTLS))
		return ERROR_CONTROLS;
	if (!(primary & PRIMARY_SECONDARY_CONTROLS) || !(secondary & SECONDARY_EPT) ||
	    !eptp12_is_valid(nested_get(n, VMCS_EPTP)) || ((secondary & SECONDARY_VPID) && !nested_get(n, VMCS_VPID)) ||
	    ((primary & PRIMARY_USE_MSR_BITMAPS) &&
	     !is_physical(nested_get(n, VMCS_MSR_BITMAP), PAGE_SIZE, PAGE_SIZE)) ||
	    nested_get(n, VMCS_CR3_TARGET_COUNT) ||
	    !list_is_valid(n, VMCS_EXIT_MSR_STORE_COUNT, VMCS_EXIT_MSR_STORE_ADDRESS) ||
	    !list_is_valid(n, VMCS_EXIT_MSR_LOAD_COUNT, VMCS_EXIT_MSR_LOAD_ADDRESS) ||
	    !list_is_valid(n, VMCS_ENTRY_MSR_LOAD_COUNT, VMCS_ENTRY_MSR_LOAD_ADDRESS))
		return ERROR_CONTROLS;
	return 0;
}

/* A control register against IA32_VMX_CRn_FIXED0, and FIXED1 behind it; bits of `unchecked` may also be 0. */
static bool is_fixed(u64 value, u32 fixed0, u64 unchecked)
{
	u64 must, may;

	return nested_msr(fixed0, &must) && nested_msr(fixed0 + 1, &may) && !(must & ~unchecked & ~value) &&
	       !(value & ~may);
}

static bool pat_is_valid(u64 value)
{
	for (unsigned i = 0; i < 8; i++, value >>= 8)
		if ((value & 0xff) != PAT_UC_MINUS && !memory_type_is_defined(value & 0xff))
			return false;
	return true;
}

/* Which bits it has the CPU knows best: the value is tried, and taken back. */
static bool perf_global_ctrl_is_valid(u64 value)
{
	u64 old;

	if (!rdmsr_checked(MSR_IA32_PERF_GLOBAL_CTRL, &old) || !wrmsr_checked(MSR_IA32_PERF_GLOBAL_CTRL, value))
		return false;
	wrmsr(MSR_IA32_PERF_GLOBAL_CTRL, old);
	return true;
}

/* The exit may change LA57, as VM entries of VMCS01 may: gate_check() looks at it, nothing else depends on it. */
static bool is_canonical(const struct nested *n, vmcs_field_t field)
{
	unsigned shift = 64 - (nested_get(n, VMCS_HOST_CR4) & CR4_LA57 ? 57 : 48);
	u64 address = nested_get(n, field);

	return (u64)((s64)(address << shift) >> shift) == address;
}

u32 check_host(const struct nested *n)
{
	static const vmcs_field_t canonical[] = { VMCS_HOST_TR_BASE, VMCS_HOST_GDTR_BASE,    VMCS_HOST_IDTR_BASE,
						  VMCS_HOST_RIP,     VMCS_HOST_SYSENTER_ESP, VMCS_HOST_SYSENTER_EIP };
	u64 cr4 = nested_get(n, VMCS_HOST_CR4), exit = nested_get(n, VMCS_EXIT_CONTROLS);
	u64 efer = nested_get(n, VMCS_HOST_IA32_EFER), tr = nested_get(n, VMCS_HOST_TR_SELECTOR);

	if (!is_canonical(n, VMCS_HOST_FS_BASE) || !is_canonical(n, VMCS_HOST_GS_BASE) ||
	    (nested_get(n, VMCS_HOST_SELECTOR(SEGMENT_FS)) & SELECTOR_RPL_TI) ||
	    (nested_get(n, VMCS_HOST_SELECTOR(SEGMENT_GS)) & SELECTOR_RPL_TI))
		return ERROR_HOST_STATE;
	if (!n->dirty)
		return 0;
	for (unsigned i = SEGMENT_ES; i < SEGMENT_FS; i++)
		if (nested_get(n, VMCS_HOST_SELECTOR(i)) & SELECTOR_RPL_TI)
			return ERROR_HOST_STATE;
	for (unsigned i = 0; i < ARRAY_SIZE(canonical); i++)
		if (!is_canonical(n, canonical[i]))
			return ERROR_HOST_STATE;
	if (!is_fixed(nested_get(n, VMCS_HOST_CR0), MSR_IA32_VMX_CR0_FIXED0, 0) ||
	    !is_fixed(cr4, MSR_IA32_VMX_CR4_FIXED0, 0) || !(cr4 & CR4_PAE) ||
	    !is_physical(nested_get(n, VMCS_HOST_CR3), 1, 1))
		return ERROR_HOST_STATE;
	if (!nested_get(n, VMCS_HOST_SELECTOR(SEGMENT_CS)) || !tr || (tr & SELECTOR_RPL_TI))
		return ERROR_HOST_STATE;
	if (((exit & EXIT_LOAD_PAT) && !pat_is_valid(nested_get(n, VMCS_HOST_IA32_PAT))) ||
	    ((exit & EXIT_LOAD_EFER) && ((efer & ~EFER_ALLOWED) || !(efer & EFER_LME) || !(efer & EFER_LMA))) ||
	    ((exit & EXIT_LOAD_PERF_GLOBAL_CTRL) &&
	     !perf_global_ctrl_is_valid(nested_get(n, VMCS_HOST_IA32_PERF_GLOBAL_CTRL))))
		return ERROR_HOST_STATE;
	return 0;
}

bool check_guest(const struct nested *n, u64 *qualification)
{
	u64 entry = nested_get(n, VMCS_ENTRY_CONTROLS);

	*qualification = 0;
	if (nested_get(n, VMCS_GUEST_INTERRUPTIBILITY) & ~(INTERRUPTIBILITY_SHADOWS | INTERRUPTIBILITY_NMI))
		return false;
	/* Of all else VMCS02 has what passed, and what L2 has made of it. */
	if (!n->dirty)
		return true;
	if (nested_get(n, VMCS_LINK_POINTER) != NO_ADDRESS)
		*qualification = ENTRY_FAILURE_LINK_POINTER;
	return !*qualification && is_fixed(nested_get(n, VMCS_GUEST_CR0), MSR_IA32_VMX_CR0_FIXED0, CR0_PE | CR0_PG) &&
	       is_fixed(nested_get(n, VMCS_GUEST_CR4), MSR_IA32_VMX_CR4_FIXED0, 0) &&
	       !(nested_get(n, VMCS_GUEST_IA32_DEBUGCTL) & ~DEBUGCTL_ALLOWED) &&
	       (!(entry & ENTRY_LOAD_EFER) || !(nested_get(n, VMCS_GUEST_IA32_EFER) & ~EFER_ALLOWED)) &&
	       (!(entry & ENTRY_LOAD_PAT) || pat_is_valid(nested_get(n, VMCS_GUEST_IA32_PAT))) &&
	       nested_get(n, VMCS_GUEST_ACTIVITY_STATE) <= ACTIVITY_HLT;
}

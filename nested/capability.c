// SPDX-License-Identifier: MIT
/* The VMX capability MSRs that the host reads: docs/nested.md, "MSRs", has the reason of each bit. */
#include "nested.h"
#include "vmcs.h"

/* What L2 can't do without; and what kvm_intel refuses to load without. Loader and monitor need the rest for guests. */
#define PRIMARY_NEEDED                                                                                                 \
	(PRIMARY_INTERRUPT_WINDOW_EXITING | PRIMARY_TSC_OFFSETTING | PRIMARY_HLT_EXITING | PRIMARY_INVLPG_EXITING |    \
	 PRIMARY_MWAIT_EXITING | PRIMARY_RDPMC_EXITING | PRIMARY_CR3_LOAD_EXITING | PRIMARY_CR3_STORE_EXITING |        \
	 PRIMARY_CR8_LOAD_EXITING | PRIMARY_CR8_STORE_EXITING | PRIMARY_MOV_DR_EXITING | PRIMARY_IO_EXITING |          \
	 PRIMARY_USE_MSR_BITMAPS | PRIMARY_MONITOR_EXITING | PRIMARY_SECONDARY_CONTROLS)
#define PIN_NEEDED (PIN_EXTERNAL_INTERRUPT_EXITING | PIN_NMI_EXITING | PIN_VIRTUAL_NMIS | PIN_PREEMPTION_TIMER)

/* The default1 controls that must be on ("Reserved Controls and Default Settings"), here and on CPUs. */
#define PIN_DEFAULT1 0x16
#define PRIMARY_DEFAULT1 0x04006172
#define EXIT_DEFAULT1 0x36dfb
#define ENTRY_DEFAULT1 0x11fb

#define SECONDARY_OFFERED                                                                                              \
	(SECONDARY_EPT | SECONDARY_WBINVD_EXITING | SECONDARY_UNRESTRICTED_GUEST | SECONDARY_PAUSE_LOOP_EXITING)
/* The host has these instructions only where its own VMCS has the control on, and no L2 has more. */
#define SECONDARY_INSTRUCTIONS (SECONDARY_RDTSCP | SECONDARY_INVPCID | SECONDARY_XSAVES | SECONDARY_USER_WAIT_PAUSE)

#define HIGHEST_INDEX 0x2c /* of nested_fields: of the XSS-exiting bitmap, in bits 9:1 */

#define FIRST MSR_IA32_VMX_FIRST
#define COUNT (MSR_IA32_VMX_TRUE_ENTRY_CTLS - FIRST + 1)

#define VALUE(name) value[MSR_IA32_VMX_##name - FIRST]

static u64 offered[COUNT];

/* What a control may be on this CPU. */
static u32 may_be_one(u32 msr)
{
	return rdmsr(msr) >> 32;
}

static u64 offer(u32 must, u32 may)
{
	return (u64)(may | must) << 32 | must;
}

static void read_offer(u64 value[COUNT])
{
	u32 own = monitor.boot->capabilities.secondary, primary = may_be_one(MSR_IA32_VMX_TRUE_PROCBASED_CTLS);
	u32 secondary = may_be_one(MSR_IA32_VMX_PROCBASED_CTLS2);
	u32 exit = EXIT_SAVE_PAT | EXIT_LOAD_PAT | EXIT_SAVE_EFER | EXIT_LOAD_EFER;
	u32 entry = ENTRY_IA32E_GUEST | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER;
	u64 invvpid = EPT_CAP_INVVPID | EPT_CAP_INVVPID_SINGLE | EPT_CAP_INVVPID_ALL;
	bool vpid = (own & SECONDARY_VPID) && (rdmsr(MSR_IA32_VMX_EPT_VPID_CAP) & invvpid) == invvpid;

	/* An odd pair makes kvm_intel refuse to load. */
	if ((may_be_one(MSR_IA32_VMX_TRUE_EXIT_CTLS) & EXIT_LOAD_PERF_GLOBAL_CTRL) &&
	    (may_be_one(MSR_IA32_VMX_TRUE_ENTRY_CTLS) & ENTRY_LOAD_PERF_GLOBAL_CTRL)) {
		exit |= EXIT_LOAD_PERF_GLOBAL_CTRL;
		entry |= ENTRY_LOAD_PERF_GLOBAL_CTRL;
	}
	primary &= PRIMARY_NEEDED | PRIMARY_NMI_WINDOW_EXITING | PRIMARY_PAUSE_EXITING;
	secondary &= SECONDARY_OFFERED | (own & SECONDARY_INSTRUCTIONS) | (vpid ? SECONDARY_VPID : 0);

	VALUE(BASIC) = VMCS12_REVISION | (u64)PAGE_SIZE << 32 | VMX_BASIC_WRITE_BACK | VMX_BASIC_TRUE_CONTROLS |
		       (rdmsr(MSR_IA32_VMX_BASIC) & (VMX_BASIC_INS_OUTS | VMX_BASIC_ERROR_CODES));
	VALUE(PINBASED_CTLS) = VALUE(TRUE_PINBASED_CTLS) =
		offer(PIN_DEFAULT1 | (PIN_NEEDED & ~PIN_PREEMPTION_TIMER), 0);
	VALUE(PROCBASED_CTLS) = offer(
		PRIMARY_DEFAULT1 | PRIMARY_IO_EXITING | PRIMARY_CR3_LOAD_EXITING | PRIMARY_CR3_STORE_EXITING, primary);
	VALUE(TRUE_PROCBASED_CTLS) = offer(PRIMARY_DEFAULT1 | PRIMARY_IO_EXITING, primary);
	VALUE(PROCBASED_CTLS2) = offer(0, secondary);
	VALUE(EXIT_CTLS) = VALUE(TRUE_EXIT_CTLS) =
		offer(EXIT_DEFAULT1 | EXIT_SAVE_DEBUG | EXIT_HOST_64 | EXIT_ACKNOWLEDGE_INTERRUPT, exit);
	VALUE(ENTRY_CTLS) = VALUE(TRUE_ENTRY_CTLS) = offer(ENTRY_DEFAULT1 | ENTRY_LOAD_DEBUG, entry);
	VALUE(MISC) =
		VMX_MISC_SAVE_LMA | (rdmsr(MSR_IA32_VMX_MISC) & (VMX_MISC_ACTIVITY_HLT | VMX_MISC_INJECT_LENGTH_0));
	for (u32 msr = MSR_IA32_VMX_CR0_FIXED0; msr <= MSR_IA32_VMX_CR4_FIXED1; msr++)
		value[msr - FIRST] = rdmsr(msr);
	VALUE(CR4_FIXED1) &= CR4_ALLOWED | CR4_VMXE;
	VALUE(VMCS_ENUM) = HIGHEST_INDEX;
	VALUE(EPT_VPID_CAP) = EPT_CAP_WALK_4 | EPT_CAP_WB | EPT_CAP_2M | EPT_CAP_INVEPT | EPT_CAP_INVEPT_SINGLE |
			      EPT_CAP_INVEPT_ALL | (vpid ? EPT_CAP_INVVPID | EPT_CAP_INVVPID_TYPES : 0);
}

static const char *missing(void)
{
	if (PIN_NEEDED & ~may_be_one(MSR_IA32_VMX_TRUE_PINBASED_CTLS))
		return "this CPU's VT-x lacks exits at interrupts, virtual NMIs, or the preemption timer";
	if (PRIMARY_NEEDED & ~may_be_one(MSR_IA32_VMX_TRUE_PROCBASED_CTLS))
		return "this CPU's VT-x lacks exits that KVM needs";
	if (EXIT_ACKNOWLEDGE_INTERRUPT & ~may_be_one(MSR_IA32_VMX_TRUE_EXIT_CTLS))
		return "this CPU's VT-x can't acknowledge interrupts on exit";
	return NULL;
}

const char *nested_capability_init(void)
{
	read_offer(offered);
	return missing();
}

bool nested_msr(u32 msr, u64 *value)
{
	if (msr - FIRST >= COUNT)
		return false;
	*value = offered[msr - FIRST];
	return true;
}

const char *nested_compare_this_cpu(void)
{
	u64 here[COUNT];

	/* What must be 1 is the same everywhere, or, in the fixed bits, compared by vmx_compare_this_cpu(). */
	read_offer(here);
	for (unsigned i = 0; i < COUNT; i++)
		if (offered[i] & ~here[i])
			return "it lacks VMX capabilities that the host was told of";
	return missing();
}

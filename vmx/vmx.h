/* SPDX-License-Identifier: MIT */
/*
 * VMX encodings under the SDM's names ("Virtual Machine Control Structures", "Field Encoding in VMCS", "VMX Basic Exit
 * Reasons"), and the VMX instructions. A VMCS field is a struct of its own, so that an encoding can't pass for a value.
 */
#ifndef VMX_H
#define VMX_H

#include "types.h"

typedef struct {
	u32 encoding;
} vmcs_field_t;

#define VMCS_FIELD(encoding) ((vmcs_field_t){ (encoding) })

/* 16-bit fields. */
#define VMCS_VPID VMCS_FIELD(0x0000)
#define VMCS_HOST_SELECTOR(segment) VMCS_FIELD(0x0c00 + 2 * (segment)) /* ES to GS */
#define VMCS_HOST_TR_SELECTOR VMCS_FIELD(0x0c0c)

/* 64-bit fields. */
#define VMCS_IO_BITMAP_A VMCS_FIELD(0x2000) /* ports below 0x8000 */
#define VMCS_IO_BITMAP_B VMCS_FIELD(0x2002)
#define VMCS_MSR_BITMAP VMCS_FIELD(0x2004)
#define VMCS_TSC_OFFSET VMCS_FIELD(0x2010)
#define VMCS_VM_FUNCTION_CONTROLS VMCS_FIELD(0x2018)
#define VMCS_EPTP VMCS_FIELD(0x201a)
#define VMCS_EPTP_LIST_ADDRESS VMCS_FIELD(0x2024)
#define VMCS_XSS_EXITING_BITMAP VMCS_FIELD(0x202c)
#define VMCS_ENCLS_EXITING_BITMAP VMCS_FIELD(0x202e)
#define VMCS_GUEST_PHYSICAL_ADDRESS VMCS_FIELD(0x2400)
#define VMCS_LINK_POINTER VMCS_FIELD(0x2800)
#define VMCS_GUEST_IA32_DEBUGCTL VMCS_FIELD(0x2802)
#define VMCS_GUEST_IA32_PAT VMCS_FIELD(0x2804)
#define VMCS_GUEST_IA32_EFER VMCS_FIELD(0x2806)
#define VMCS_HOST_IA32_PAT VMCS_FIELD(0x2c00)
#define VMCS_HOST_IA32_EFER VMCS_FIELD(0x2c02)

/* 32-bit fields. */
#define VMCS_PIN_CONTROLS VMCS_FIELD(0x4000)
#define VMCS_PRIMARY_CONTROLS VMCS_FIELD(0x4002)
#define VMCS_EXCEPTION_BITMAP VMCS_FIELD(0x4004)
#define VMCS_PAGE_FAULT_MASK VMCS_FIELD(0x4006)
#define VMCS_PAGE_FAULT_MATCH VMCS_FIELD(0x4008)
#define VMCS_CR3_TARGET_COUNT VMCS_FIELD(0x400a)
#define VMCS_EXIT_CONTROLS VMCS_FIELD(0x400c)
#define VMCS_EXIT_MSR_STORE_COUNT VMCS_FIELD(0x400e)
#define VMCS_EXIT_MSR_LOAD_COUNT VMCS_FIELD(0x4010)
#define VMCS_ENTRY_CONTROLS VMCS_FIELD(0x4012)
#define VMCS_ENTRY_MSR_LOAD_COUNT VMCS_FIELD(0x4014)
#define VMCS_ENTRY_INTERRUPTION_INFO VMCS_FIELD(0x4016)
#define VMCS_ENTRY_EXCEPTION_ERROR_CODE VMCS_FIELD(0x4018)
#define VMCS_ENTRY_INSTRUCTION_LENGTH VMCS_FIELD(0x401a)
#define VMCS_SECONDARY_CONTROLS VMCS_FIELD(0x401e)
#define VMCS_INSTRUCTION_ERROR VMCS_FIELD(0x4400)
#define VMCS_EXIT_REASON VMCS_FIELD(0x4402)
#define VMCS_EXIT_INTERRUPTION_INFO VMCS_FIELD(0x4404)
#define VMCS_IDT_VECTORING_INFO VMCS_FIELD(0x4408)
#define VMCS_IDT_VECTORING_ERROR_CODE VMCS_FIELD(0x440a)
#define VMCS_EXIT_INSTRUCTION_LENGTH VMCS_FIELD(0x440c)
#define VMCS_GUEST_GDTR_LIMIT VMCS_FIELD(0x4810)
#define VMCS_GUEST_IDTR_LIMIT VMCS_FIELD(0x4812)
#define VMCS_GUEST_INTERRUPTIBILITY VMCS_FIELD(0x4824)
#define VMCS_GUEST_ACTIVITY_STATE VMCS_FIELD(0x4826)
#define VMCS_GUEST_SYSENTER_CS VMCS_FIELD(0x482a)
#define VMCS_PREEMPTION_TIMER VMCS_FIELD(0x482e)
#define VMCS_HOST_SYSENTER_CS VMCS_FIELD(0x4c00)

/* Natural-width fields. */
#define VMCS_CR0_MASK VMCS_FIELD(0x6000)
#define VMCS_CR4_MASK VMCS_FIELD(0x6002)
#define VMCS_CR0_READ_SHADOW VMCS_FIELD(0x6004)
#define VMCS_CR4_READ_SHADOW VMCS_FIELD(0x6006)
#define VMCS_EXIT_QUALIFICATION VMCS_FIELD(0x6400)
#define VMCS_GUEST_LINEAR_ADDRESS VMCS_FIELD(0x640a)
#define VMCS_GUEST_CR0 VMCS_FIELD(0x6800)
#define VMCS_GUEST_CR3 VMCS_FIELD(0x6802)
#define VMCS_GUEST_CR4 VMCS_FIELD(0x6804)
#define VMCS_GUEST_GDTR_BASE VMCS_FIELD(0x6816)
#define VMCS_GUEST_IDTR_BASE VMCS_FIELD(0x6818)
#define VMCS_GUEST_DR7 VMCS_FIELD(0x681a)
#define VMCS_GUEST_RSP VMCS_FIELD(0x681c)
#define VMCS_GUEST_RIP VMCS_FIELD(0x681e)
#define VMCS_GUEST_RFLAGS VMCS_FIELD(0x6820)
#define VMCS_GUEST_PENDING_DEBUG VMCS_FIELD(0x6822)
#define VMCS_GUEST_SYSENTER_ESP VMCS_FIELD(0x6824)
#define VMCS_GUEST_SYSENTER_EIP VMCS_FIELD(0x6826)
#define VMCS_HOST_CR0 VMCS_FIELD(0x6c00)
#define VMCS_HOST_CR3 VMCS_FIELD(0x6c02)
#define VMCS_HOST_CR4 VMCS_FIELD(0x6c04)
#define VMCS_HOST_FS_BASE VMCS_FIELD(0x6c06)
#define VMCS_HOST_GS_BASE VMCS_FIELD(0x6c08)
#define VMCS_HOST_TR_BASE VMCS_FIELD(0x6c0a)
#define VMCS_HOST_GDTR_BASE VMCS_FIELD(0x6c0c)
#define VMCS_HOST_IDTR_BASE VMCS_FIELD(0x6c0e)
#define VMCS_HOST_SYSENTER_ESP VMCS_FIELD(0x6c10)
#define VMCS_HOST_SYSENTER_EIP VMCS_FIELD(0x6c12)
#define VMCS_HOST_RSP VMCS_FIELD(0x6c14)
#define VMCS_HOST_RIP VMCS_FIELD(0x6c16)

/* Fields of segment SEGMENT_*: the encodings of one kind are two apart, in the enum's order. */
#define VMCS_GUEST_SELECTOR(segment) VMCS_FIELD(0x0800 + 2 * (segment))
#define VMCS_GUEST_LIMIT(segment) VMCS_FIELD(0x4800 + 2 * (segment))
#define VMCS_GUEST_ACCESS_RIGHTS(segment) VMCS_FIELD(0x4814 + 2 * (segment))
#define VMCS_GUEST_BASE(segment) VMCS_FIELD(0x6806 + 2 * (segment))

/*
 * Pin-based controls. Of all controls only those are here that the monitor asks for or changes; the others are in
 * boot/choose_capabilities.h.
 */
#define PIN_PREEMPTION_TIMER BIT(6)

/* Primary processor-based controls. */
#define PRIMARY_INTERRUPT_WINDOW_EXITING BIT(2)
#define PRIMARY_NMI_WINDOW_EXITING BIT(22)
#define PRIMARY_CR3_LOAD_EXITING BIT(15)

/* Secondary processor-based controls. */
#define SECONDARY_VPID BIT(5)
#define SECONDARY_UNRESTRICTED_GUEST BIT(7)
#define SECONDARY_VM_FUNCTIONS BIT(13)
#define SECONDARY_ENCLS_EXITING BIT(15)
#define SECONDARY_XSAVES BIT(20)
#define SECONDARY_MODE_BASED_EXECUTE BIT(22)

/* VM-function controls. */
#define VM_FUNCTION_EPTP_SWITCHING BIT(0)

/* VM-entry controls. */
#define ENTRY_IA32E_GUEST BIT(9)

/* IA32_VMX_BASIC, IA32_VMX_MISC, IA32_VMX_EPT_VPID_CAP. */
#define VMX_BASIC_REVISION 0x7fffffffULL
#define VMX_MISC_TIMER_RATE 0x1fULL
#define VMX_MISC_WAIT_FOR_SIPI BIT(8)
#define EPT_CAP_EXECUTE_ONLY BIT(0)
#define EPT_CAP_WALK_4 BIT(6)
#define EPT_CAP_WALK_5 BIT(7)
#define EPT_CAP_WB BIT(14)
#define EPT_CAP_2M BIT(16)
#define EPT_CAP_1G BIT(17)
#define EPT_CAP_INVEPT BIT(20)
#define EPT_CAP_INVEPT_ALL BIT(26)
#define EPT_CAP_INVVPID BIT(32)
#define EPT_CAP_INVVPID_ALL BIT(42)
#define EPT_CAP_USED                                                                                                   \
	(EPT_CAP_WALK_4 | EPT_CAP_WALK_5 | EPT_CAP_WB | EPT_CAP_2M | EPT_CAP_1G | EPT_CAP_INVEPT |                     \
	 EPT_CAP_INVEPT_ALL | EPT_CAP_INVVPID | EPT_CAP_INVVPID_ALL)

/* Event information: VM-entry interruption, VM-exit interruption, IDT vectoring. */
#define EVENT_VALID BIT(31)
#define EVENT_ERROR_CODE BIT(11)
#define EVENT_VECTOR 0xffULL
#define EVENT_TYPE (7ULL << 8)
#define EVENT_TYPE_EXTERNAL (0ULL << 8)
#define EVENT_TYPE_NMI (2ULL << 8)
#define EVENT_TYPE_EXCEPTION (3ULL << 8)
#define EVENT_TYPE_SOFTWARE (4ULL << 8) /* and 5, 6: INT n, INT1, INT3 and INTO */

#define INTERRUPTIBILITY_STI BIT(0)
#define INTERRUPTIBILITY_MOV_SS BIT(1)
#define INTERRUPTIBILITY_SHADOWS (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS)
#define INTERRUPTIBILITY_NMI BIT(3)

#define ACTIVITY_ACTIVE 0
#define ACTIVITY_WAIT_FOR_SIPI 3

#define ACCESS_RIGHTS_LONG BIT(13)
#define ACCESS_RIGHTS_DPL_SHIFT 5

/* Basic exit reasons. */
enum exit_reason {
	EXIT_EXCEPTION_OR_NMI = 0,
	EXIT_EXTERNAL_INTERRUPT = 1,
	EXIT_TRIPLE_FAULT = 2,
	EXIT_INIT = 3,
	EXIT_SIPI = 4,
	EXIT_INTERRUPT_WINDOW = 7,
	EXIT_NMI_WINDOW = 8,
	EXIT_TASK_SWITCH = 9,
	EXIT_CPUID = 10,
	EXIT_GETSEC = 11,
	EXIT_HLT = 12,
	EXIT_INVD = 13,
	EXIT_RDPMC = 15,
	EXIT_VMCALL = 18,
	EXIT_VMCLEAR = 19,
	EXIT_VMLAUNCH = 20,
	EXIT_VMPTRLD = 21,
	EXIT_VMPTRST = 22,
	EXIT_VMREAD = 23,
	EXIT_VMRESUME = 24,
	EXIT_VMWRITE = 25,
	EXIT_VMXOFF = 26,
	EXIT_VMXON = 27,
	EXIT_CR_ACCESS = 28,
	EXIT_IO_INSTRUCTION = 30,
	EXIT_RDMSR = 31,
	EXIT_WRMSR = 32,
	EXIT_ENTRY_FAILED_GUEST_STATE = 33,
	EXIT_MWAIT = 36,
	EXIT_MONITOR = 39,
	EXIT_ENTRY_FAILED_MACHINE_CHECK = 41,
	EXIT_EPT_VIOLATION = 48,
	EXIT_INVEPT = 50,
	EXIT_PREEMPTION_TIMER = 52,
	EXIT_INVVPID = 53,
	EXIT_WBINVD = 54,
	EXIT_XSETBV = 55,
	EXIT_VMFUNC = 59,
	EXIT_ENCLS = 60,
	EXIT_SEAMCALL = 76,
	EXIT_TDCALL = 77,
	EXIT_RDMSR_IMMEDIATE = 84,
	EXIT_WRMSRNS_IMMEDIATE = 85,
};

#define EXIT_REASON_ENTRY_FAILURE BIT(31)

/* Exit qualification of EXIT_CR_ACCESS. */
#define CR_NUMBER(q) ((q)&0xf)
#define CR_ACCESS_TYPE(q) ((q) >> 4 & 3) /* 0: MOV to CR, 1: MOV from CR */
#define CR_REGISTER(q) ((q) >> 8 & 0xf)
#define CR_ACCESS_MOV_TO 0

/* Exit qualification of EXIT_EPT_VIOLATION. */
#define EPT_VIOLATION_READ BIT(0)
#define EPT_VIOLATION_WRITE BIT(1)
#define EPT_VIOLATION_FETCH BIT(2)
#define EPT_VIOLATION_LINEAR BIT(7) /* the linear-address field is valid */
#define EPT_VIOLATION_TRANSLATED BIT(8) /* the access itself, not a paging structure on the way */

/* Exit qualification of EXIT_IO_INSTRUCTION. */
#define IO_BYTES(q) (((q)&7) + 1)
#define IO_IN BIT(3)
#define IO_STRING BIT(4)
#define IO_PORT(q) ((q) >> 16 & 0xffff)

void vmx_instruction_failed(const char *instruction) __attribute__((noreturn, cold));

/*
 * Both failure flags count ("Conventions" of the VMX instruction reference): CF is VMfailInvalid, ZF is VMfailValid. A
 * failure is the monitor's own bug, or the CPU's, and panics.
 */
#define VMX_INSTRUCTION(instruction, ...)                                                                              \
	do {                                                                                                           \
		bool failed_;                                                                                          \
		asm volatile(instruction : "=@ccbe"(failed_) : __VA_ARGS__ : "memory");                                \
		if (__builtin_expect(failed_, false))                                                                  \
			vmx_instruction_failed(instruction);                                                           \
	} while (0)

static inline void vmxon(hpa_t region)
{
	VMX_INSTRUCTION("vmxon %1", "m"(region.value));
}

static inline void vmclear(hpa_t vmcs)
{
	VMX_INSTRUCTION("vmclear %1", "m"(vmcs.value));
}

static inline void vmptrld(hpa_t vmcs)
{
	VMX_INSTRUCTION("vmptrld %1", "m"(vmcs.value));
}

#define INVALIDATE_ALL 2ULL

static inline void invept_all(void)
{
	const u64 descriptor[2] = { 0, 0 };

	VMX_INSTRUCTION("invept %2, %1", "r"(INVALIDATE_ALL), "m"(descriptor));
}

static inline void invvpid_all(void)
{
	const u64 descriptor[2] = { 0, 0 };

	VMX_INSTRUCTION("invvpid %2, %1", "r"(INVALIDATE_ALL), "m"(descriptor));
}

void vmcs_field_failed(vmcs_field_t field) __attribute__((noreturn, cold));

/* Read or write a field of the current VMCS; a failure is the monitor's own bug and panics. */
static inline u64 vmread(vmcs_field_t field)
{
	u64 value;
	bool failed;

	asm volatile("vmread %2, %1" : "=@ccbe"(failed), "=r"(value) : "r"((u64)field.encoding) : "memory");
	if (__builtin_expect(failed, false))
		vmcs_field_failed(field);
	return value;
}

static inline void vmwrite(vmcs_field_t field, u64 value)
{
	bool failed;

	asm volatile("vmwrite %2, %1" : "=@ccbe"(failed) : "r"((u64)field.encoding), "r"(value) : "memory");
	if (__builtin_expect(failed, false))
		vmcs_field_failed(field);
}

#endif

/* SPDX-License-Identifier: MIT */
/* Architectural registers under the names of the Intel SDM, and the instructions that C has no words for. */
#ifndef X86_H
#define X86_H

#include "types.h"

/* Control registers. */
#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)

#define CR4_VME BIT(0)
#define CR4_PVI BIT(1)
#define CR4_TSD BIT(2)
#define CR4_DE BIT(3)
#define CR4_PSE BIT(4)
#define CR4_PAE BIT(5)
#define CR4_MCE BIT(6)
#define CR4_PGE BIT(7)
#define CR4_PCE BIT(8)
#define CR4_OSFXSR BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP BIT(11)
#define CR4_LA57 BIT(12)
#define CR4_VMXE BIT(13)
#define CR4_FSGSBASE BIT(16)
#define CR4_PCIDE BIT(17)
#define CR4_OSXSAVE BIT(18)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)
#define CR4_PKE BIT(22)

#define EFER_SCE BIT(0)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)
#define EFER_NXE BIT(11)

#define RFLAGS_RESERVED BIT(1) /* always 1 */
#define RFLAGS_TF BIT(8)
#define RFLAGS_IF BIT(9)
#define RFLAGS_RF BIT(16)

#define LONGEST_INSTRUCTION 15 /* bytes; a longer one raises #GP */
#define PAT_RESET 0x0007040600070406ULL
#define DR6_RESET 0xffff0ff0ULL
#define DR7_RESET 0x400ULL

#define XCR0_X87 BIT(0)
#define XCR0_SSE BIT(1)
#define XCR0_AVX BIT(2)
#define XCR0_OPMASK BIT(5)
#define XCR0_ZMM_HI256 BIT(6)
#define XCR0_HI16_ZMM BIT(7)
#define XCR0_AVX512 (XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM)
#define XCR0_PKRU BIT(9)

/* Exception vectors. */
#define VECTOR_DB 1
#define VECTOR_NMI 2
#define VECTOR_UD 6
#define VECTOR_DF 8
#define VECTOR_GP 13
#define VECTOR_PF 14
#define PF_PRESENT BIT(0)
#define PF_WRITE BIT(1)
#define PF_RESERVED BIT(3)
#define VECTOR_AC 17
#define VECTOR_MC 18

/* Model-specific registers. */
#define MSR_IA32_TSC 0x10
#define MSR_IA32_APIC_BASE 0x1b
#define MSR_IA32_FEATURE_CONTROL 0x3a
#define MSR_IA32_TSC_ADJUST 0x3b
#define MSR_IA32_PRED_CMD 0x49
#define MSR_IA32_BIOS_UPDT_TRIG 0x79
#define MSR_IA32_BIOS_SIGN_ID 0x8b
#define MSR_IA32_MTRRCAP 0xfe
#define MSR_IA32_ARCH_CAPABILITIES 0x10a
#define MSR_IA32_FLUSH_CMD 0x10b
#define MSR_IA32_MCU_OPT_CTRL 0x123
#define MSR_IA32_SYSENTER_CS 0x174
#define MSR_IA32_SYSENTER_EIP 0x176
#define MSR_MISC_FEATURES_ENABLES 0x140
#define MSR_IA32_MISC_ENABLE 0x1a0
#define MSR_IA32_DEBUGCTL 0x1d9
#define MSR_IA32_MTRR_PHYSBASE0 0x200
#define MSR_IA32_MTRR_FIX64K_00000 0x250
#define MSR_IA32_MTRR_FIX16K_80000 0x258
#define MSR_IA32_MTRR_FIX4K_C0000 0x268
#define MSR_IA32_PAT 0x277
#define MSR_IA32_MTRR_DEF_TYPE 0x2ff
#define MSR_IA32_PERF_GLOBAL_CTRL 0x38f
#define MSR_IA32_VMX_BASIC 0x480
#define MSR_IA32_VMX_MISC 0x485
#define MSR_IA32_VMX_CR0_FIXED0 0x486
#define MSR_IA32_VMX_CR0_FIXED1 0x487
#define MSR_IA32_VMX_CR4_FIXED0 0x488
#define MSR_IA32_VMX_CR4_FIXED1 0x489
#define MSR_IA32_VMX_PROCBASED_CTLS2 0x48b
#define MSR_IA32_VMX_EPT_VPID_CAP 0x48c
#define MSR_IA32_VMX_TRUE_PINBASED_CTLS 0x48d
#define MSR_IA32_VMX_TRUE_PROCBASED_CTLS 0x48e
#define MSR_IA32_VMX_TRUE_EXIT_CTLS 0x48f
#define MSR_IA32_VMX_TRUE_ENTRY_CTLS 0x490
#define MSR_IA32_VMX_VMFUNC 0x491
#define MSR_IA32_PEBS_ENABLE 0x3f1
#define MSR_IA32_DS_AREA 0x600
#define MSR_IA32_TME_ACTIVATE 0x982
#define MSR_IA32_XSS 0xda0
#define MSR_IA32_X2APIC_ICR 0x830
#define MSR_UNCORE_FIRST 0x2000
#define MSR_UNCORE_LAST 0x3fff
#define MSR_IA32_EFER 0xc0000080
#define MSR_IA32_STAR 0xc0000081
#define MSR_IA32_LSTAR 0xc0000082
#define MSR_IA32_CSTAR 0xc0000083
#define MSR_IA32_FMASK 0xc0000084
#define MSR_IA32_FS_BASE 0xc0000100
#define MSR_IA32_GS_BASE 0xc0000101
#define MSR_IA32_KERNEL_GS_BASE 0xc0000102
#define MSR_IA32_TSC_AUX 0xc0000103

#define FEATURE_CONTROL_LOCK BIT(0)
#define FEATURE_CONTROL_VMX BIT(2)

#define FLUSH_CMD_L1D BIT(0)
#define PRED_CMD_IBPB BIT(0)

#define APIC_BASE_BSP BIT(8)
#define APIC_BASE_X2APIC BIT(10)
#define APIC_BASE_ENABLE BIT(11)

struct cpuid_result {
	u32 eax, ebx, ecx, edx;
};

static inline struct cpuid_result cpuid(u32 leaf, u32 subleaf)
{
	struct cpuid_result r;

	asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
	return r;
}

/* Subleaf 0 of a leaf, or zeros if the CPU does not have it. */
static inline struct cpuid_result cpuid_or_zero(u32 leaf)
{
	return cpuid(leaf & 0x80000000, 0).eax >= leaf ? cpuid(leaf, 0) : (struct cpuid_result){ 0 };
}

static inline u64 rdmsr(u32 msr)
{
	u32 low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (u64)high << 32 | low;
}

static inline void wrmsr(u32 msr, u64 value)
{
	asm volatile("wrmsr" ::"c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline u64 rdtsc(void)
{
	u32 low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return (u64)high << 32 | low;
}

/* Control and debug registers, by name: READ_REGISTER(cr0). */
#define READ_REGISTER(name)                                                                                            \
	({                                                                                                             \
		u64 value_;                                                                                            \
		asm volatile("mov %%" #name ", %0" : "=r"(value_));                                                    \
		value_;                                                                                                \
	})
#define WRITE_REGISTER(name, value) asm volatile("mov %0, %%" #name ::"r"((u64)(value)) : "memory")

static inline void outb(u16 port, u8 value)
{
	asm volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static inline u8 inb(u16 port)
{
	u8 value;

	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline void pause(void)
{
	asm volatile("pause" ::: "memory");
}

/*
 * Width of this CPU's physical addresses in bits (CPUID.80000008H:EAX[7:0]; 36 where the leaf is missing), without the
 * upper bits that memory encryption uses for key identifiers: an address with these set is another name of the same
 * memory.
 */
static inline unsigned physical_address_bits(void)
{
	u32 bits = cpuid_or_zero(0x80000008).eax & 0xff;
	u64 tme = cpuid_or_zero(7).ecx & BIT(13) ? rdmsr(MSR_IA32_TME_ACTIVATE) : 0;

	return (bits ? bits : 36) - (tme & BIT(1) ? tme >> 32 & 0xf : 0);
}

/*
 * Instructions that may raise #GP in VMX root on a value that the host chose: they report it instead of stopping the
 * CPU. For the monitor only, whose linker script collects the fix-ups.
 */
#define FAULTING_INSTRUCTION(instruction, fixup)                                                                       \
	"1: " instruction "\n"                                                                                         \
	".pushsection .exception_fixups, \"a\"\n"                                                                      \
	".quad 1b, " fixup "\n"                                                                                        \
	".popsection\n"

#define DEFINE_CHECKED_WRITE(name, instruction)                                                                        \
	static inline bool name(u32 number, u64 value)                                                                 \
	{                                                                                                              \
		asm goto(FAULTING_INSTRUCTION(instruction, "%l[fault]")                                                \
			 :                                                                                             \
			 : "c"(number), "a"((u32)value), "d"((u32)(value >> 32))                                       \
			 : "memory"                                                                                    \
			 : fault);                                                                                     \
		return true;                                                                                           \
fault:                                                                                                                 \
		return false;                                                                                          \
	}

/* Write an MSR, or XCR0 (number 0; CR4.OSXSAVE must be set); false if the CPU refuses the value or the number (#GP). */
DEFINE_CHECKED_WRITE(wrmsr_checked, "wrmsr")
DEFINE_CHECKED_WRITE(xsetbv_checked, "xsetbv")

/* Reads an MSR into *value; false if the CPU has no such MSR (#GP). */
static inline bool rdmsr_checked(u32 msr, u64 *value)
{
	u32 low, high;

	asm goto(FAULTING_INSTRUCTION("rdmsr", "%l[fault]") : "=a"(low), "=d"(high) : "c"(msr) : "memory" : fault);
	*value = (u64)high << 32 | low;
	return true;
fault:
	return false;
}

#endif

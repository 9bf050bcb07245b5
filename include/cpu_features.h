/* SPDX-License-Identifier: MIT */
/* CPUID features under the SDM's names ("CPUID"), by bit number: a list for each register of a leaf; and what CPUID says. */
#ifndef CPU_FEATURES_H
#define CPU_FEATURES_H

/* Not in quotes, which would not let a test have a header of its own in front. */
#include <instructions.h>

/* As many on a line as fit. */
/* clang-format off */
enum cpuid_1_ecx {
	CPUID_SSE3 = 0, CPUID_PCLMULQDQ = 1, CPUID_DTES64 = 2, CPUID_MONITOR = 3, CPUID_DS_CPL = 4, CPUID_VMX = 5,
	CPUID_SMX = 6, CPUID_SSSE3 = 9, CPUID_FMA = 12, CPUID_CMPXCHG16B = 13, CPUID_PCID = 17, CPUID_SSE4_1 = 19,
	CPUID_SSE4_2 = 20, CPUID_MOVBE = 22, CPUID_POPCNT = 23, CPUID_AES = 25, CPUID_XSAVE = 26, CPUID_OSXSAVE = 27,
	CPUID_AVX = 28, CPUID_F16C = 29, CPUID_RDRAND = 30, CPUID_HYPERVISOR = 31
};

enum cpuid_1_edx {
	CPUID_FPU = 0, CPUID_VME = 1, CPUID_DE = 2, CPUID_PSE = 3, CPUID_TSC = 4, CPUID_MSR = 5, CPUID_PAE = 6,
	CPUID_CX8 = 8, CPUID_SEP = 11, CPUID_PGE = 13, CPUID_CMOV = 15, CPUID_PAT = 16, CPUID_PSE_36 = 17,
	CPUID_CLFSH = 19, CPUID_DS = 21, CPUID_MMX = 23, CPUID_FXSR = 24, CPUID_SSE = 25, CPUID_SSE2 = 26, CPUID_HTT = 28
};

enum cpuid_6_eax { CPUID_HFI = 19, CPUID_THREAD_DIRECTOR = 23 };

enum cpuid_7_ebx {
	CPUID_FSGSBASE = 0, CPUID_TSC_ADJUST = 1, CPUID_SGX = 2, CPUID_BMI1 = 3, CPUID_AVX2 = 5, CPUID_SMEP = 7,
	CPUID_BMI2 = 8, CPUID_ERMS = 9, CPUID_INVPCID = 10, CPUID_AVX512F = 16, CPUID_AVX512DQ = 17, CPUID_RDSEED = 18,
	CPUID_ADX = 19, CPUID_SMAP = 20, CPUID_AVX512_IFMA = 21, CPUID_CLFLUSHOPT = 23, CPUID_CLWB = 24, CPUID_PT = 25,
	CPUID_AVX512PF = 26, CPUID_AVX512ER = 27, CPUID_AVX512CD = 28, CPUID_SHA = 29, CPUID_AVX512BW = 30,
	CPUID_AVX512VL = 31
};

enum cpuid_7_ecx {
	CPUID_AVX512_VBMI = 1, CPUID_UMIP = 2, CPUID_PKU = 3, CPUID_OSPKE = 4, CPUID_AVX512_VBMI2 = 6, CPUID_CET_SS = 7,
	CPUID_GFNI = 8, CPUID_VAES = 9, CPUID_VPCLMULQDQ = 10, CPUID_AVX512_VNNI = 11, CPUID_AVX512_BITALG = 12,
	CPUID_TME = 13, CPUID_AVX512_VPOPCNTDQ = 14, CPUID_RDPID = 22, CPUID_KEY_LOCKER = 23, CPUID_ENQCMD = 29,
	CPUID_SGX_LC = 30, CPUID_PKS = 31
};

enum cpuid_7_edx {
	CPUID_AVX512_4VNNIW = 2, CPUID_AVX512_4FMAPS = 3, CPUID_FSRM = 4, CPUID_UINTR = 5, CPUID_AVX512_VP2INTERSECT = 8,
	CPUID_MD_CLEAR = 10, CPUID_PCONFIG = 18, CPUID_ARCH_LBR = 19, CPUID_CET_IBT = 20, CPUID_AVX512_FP16 = 23,
	CPUID_IBPB = 26, CPUID_L1D_FLUSH = 28, CPUID_ARCH_CAPABILITIES = 29
};

enum cpuid_7_1_eax {
	CPUID_AVX_VNNI = 4, CPUID_AVX512_BF16 = 5, CPUID_LASS = 6, CPUID_FZRM = 10, CPUID_FSRS = 11, CPUID_FSRCS = 12,
	CPUID_FRED = 17, CPUID_LKGS = 18, CPUID_NMI_SOURCE = 20, CPUID_HRESET = 22, CPUID_LAM = 26, CPUID_MSRLIST = 27
};
enum cpuid_7_1_ecx { CPUID_MSR_IMM = 5 };
enum cpuid_7_1_edx { CPUID_UTMR = 13, CPUID_USER_MSR = 15, CPUID_CET_SSS = 18 };

enum cpuid_d_1_eax { CPUID_XSAVEOPT = 0, CPUID_XSAVEC = 1, CPUID_XGETBV_1 = 2 };

enum cpuid_80000001_ecx { CPUID_LAHF = 0, CPUID_LZCNT = 5, CPUID_PREFETCHW = 8 };
enum cpuid_80000001_edx {
	CPUID_SYSCALL = 11, CPUID_NX = 20, CPUID_1GB_PAGES = 26, CPUID_RDTSCP = 27, CPUID_INTEL_64 = 29
};
enum cpuid_80000007_edx { CPUID_INVARIANT_TSC = 8 };
/* clang-format on */

/* Subleaf 0 of a leaf, or zeros if the CPU does not have it. */
static inline struct cpuid_result cpuid_or_zero(u32 leaf)
{
	return cpuid(leaf & 0x80000000, 0).eax >= leaf ? cpuid(leaf, 0) : (struct cpuid_result){ 0 };
}

/*
 * Width of this CPU's physical addresses in bits (CPUID.80000008H:EAX[7:0]; 36 where the leaf is missing), without the
 * upper bits that memory encryption uses for key identifiers: an address with these set is another name of the same
 * memory.
 */
static inline unsigned physical_address_bits(void)
{
	u32 bits = cpuid_or_zero(0x80000008).eax & 0xff;
	u64 tme = cpuid_or_zero(7).ecx & BIT(CPUID_TME) ? rdmsr(MSR_IA32_TME_ACTIVATE) : 0;

	return (bits ? bits : 36) - (tme & BIT(1) ? tme >> 32 & 0xf : 0);
}

#endif

// SPDX-License-Identifier: MIT
#include "policy.h"
#include "hyperps/guest.h"

#define ALL 0xffffffffu
#define ANY 0xffffffffu /* the leaf has no subleaves */
#define AVX512 (XCR0_AVX | XCR0_AVX512)

/*
 * The bits of CPUID that reach a guest, in ascending order of leaves; SDM, "CPUID". A row counts if the guest may set the bits of XCR0 that its
 * features need. Missing on purpose, besides what the monitor does not virtualize (VMX, SMX, the APIC and its timer,
 * MONITOR, MTRRs, machine check, CET, LA57, SGX): what writes memory by an address in an MSR (debug store, Processor
 * Trace); what lets a guest watch or slow others (performance counters, RDT, TSX, power management); and speculation
 * control, whose MSRs are denied.
 */
static const struct {
	u32 leaf, subleaf, xcr0, eax, ebx, ecx, edx;
} cpuid_allowed[] = {
	{ 0x0, ANY, 0, ALL, ALL, ALL, ALL },
	/* EBX: CLFLUSH size. */
	{ 0x1, ANY, 0, ALL, 0xff00,
	  BIT(CPUID_SSE3) | BIT(CPUID_PCLMULQDQ) | BIT(CPUID_SSSE3) | BIT(CPUID_CMPXCHG16B) | BIT(CPUID_PCID) |
		  BIT(CPUID_SSE4_1) | BIT(CPUID_SSE4_2) | BIT(CPUID_MOVBE) | BIT(CPUID_POPCNT) | BIT(CPUID_AES) |
		  BIT(CPUID_RDRAND),
	  BIT(CPUID_FPU) | BIT(CPUID_VME) | BIT(CPUID_DE) | BIT(CPUID_PSE) | BIT(CPUID_TSC) | BIT(CPUID_MSR) |
		  BIT(CPUID_PAE) | BIT(CPUID_CX8) | BIT(CPUID_SEP) | BIT(CPUID_PGE) | BIT(CPUID_CMOV) | BIT(CPUID_PAT) |
		  BIT(CPUID_PSE_36) | BIT(CPUID_CLFSH) | BIT(CPUID_MMX) | BIT(CPUID_FXSR) | BIT(CPUID_SSE) |
		  BIT(CPUID_SSE2) },
	{ 0x1, ANY, XCR0_X87, 0, 0, BIT(CPUID_XSAVE), 0 },
	{ 0x1, ANY, XCR0_AVX, 0, 0, BIT(CPUID_FMA) | BIT(CPUID_AVX) | BIT(CPUID_F16C), 0 },
	{ 0x7, 0, 0, ALL,
	  BIT(CPUID_FSGSBASE) | BIT(CPUID_TSC_ADJUST) | BIT(CPUID_BMI1) | BIT(CPUID_SMEP) | BIT(CPUID_BMI2) |
		  BIT(CPUID_ERMS) | BIT(CPUID_INVPCID) | BIT(CPUID_RDSEED) | BIT(CPUID_ADX) | BIT(CPUID_SMAP) |
		  BIT(CPUID_CLFLUSHOPT) | BIT(CPUID_CLWB) | BIT(CPUID_SHA),
	  BIT(CPUID_UMIP) | BIT(CPUID_GFNI) | BIT(CPUID_RDPID), BIT(CPUID_FSRM) | BIT(CPUID_MD_CLEAR) },
	{ 0x7, 0, XCR0_AVX, 0, BIT(CPUID_AVX2), BIT(CPUID_VAES) | BIT(CPUID_VPCLMULQDQ), 0 },
	{ 0x7, 0, AVX512, 0,
	  BIT(CPUID_AVX512F) | BIT(CPUID_AVX512DQ) | BIT(CPUID_AVX512_IFMA) | BIT(CPUID_AVX512PF) |
		  BIT(CPUID_AVX512ER) | BIT(CPUID_AVX512CD) | BIT(CPUID_AVX512BW) | BIT(CPUID_AVX512VL),
	  BIT(CPUID_AVX512_VBMI) | BIT(CPUID_AVX512_VBMI2) | BIT(CPUID_AVX512_VNNI) | BIT(CPUID_AVX512_BITALG) |
		  BIT(CPUID_AVX512_VPOPCNTDQ),
	  BIT(CPUID_AVX512_4VNNIW) | BIT(CPUID_AVX512_4FMAPS) | BIT(CPUID_AVX512_VP2INTERSECT) |
		  BIT(CPUID_AVX512_FP16) },
	{ 0x7, 0, XCR0_PKRU, 0, 0, BIT(CPUID_PKU), 0 },
	{ 0x7, 1, 0, BIT(CPUID_FZRM) | BIT(CPUID_FSRS) | BIT(CPUID_FSRCS), 0, 0, 0 },
	{ 0x7, 1, XCR0_AVX, BIT(CPUID_AVX_VNNI), 0, 0, 0 },
	{ 0x7, 1, AVX512, BIT(CPUID_AVX512_BF16), 0, 0, 0 },
	{ 0xd, 0, XCR0_X87, ALL, ALL, 0, 0 },
	{ 0xd, 1, XCR0_X87, BIT(CPUID_XSAVEOPT) | BIT(CPUID_XSAVEC) | BIT(CPUID_XGETBV_1), ALL, 0, 0 },
	{ 0xd, 2, XCR0_AVX, ALL, ALL, ALL, 0 },
	{ 0xd, 5, AVX512, ALL, ALL, ALL, 0 },
	{ 0xd, 6, AVX512, ALL, ALL, ALL, 0 },
	{ 0xd, 7, AVX512, ALL, ALL, ALL, 0 },
	{ 0xd, 9, XCR0_PKRU, ALL, ALL, ALL, 0 },
	{ 0x80000000, ANY, 0, ALL, 0, 0, 0 },
	{ 0x80000001, ANY, 0, 0, 0, BIT(CPUID_LAHF) | BIT(CPUID_LZCNT) | BIT(CPUID_PREFETCHW),
	  BIT(CPUID_SYSCALL) | BIT(CPUID_NX) | BIT(CPUID_1GB_PAGES) | BIT(CPUID_RDTSCP) | BIT(CPUID_INTEL_64) },
	{ 0x80000002, ANY, 0, ALL, ALL, ALL, ALL },
	{ 0x80000003, ANY, 0, ALL, ALL, ALL, ALL },
	{ 0x80000004, ANY, 0, ALL, ALL, ALL, ALL },
	{ 0x80000006, ANY, 0, 0, 0, ALL, 0 }, /* L2 cache */
	{ 0x80000007, ANY, 0, 0, 0, 0, BIT(CPUID_INVARIANT_TSC) },
	{ 0x80000008, ANY, 0, 0xffff, 0, 0, 0 }, /* widths of addresses */
};

static u32 minimum(u32 a, u32 b)
{
	return a < b ? a : b;
}

void guest_cpuid(u32 leaf, u32 subleaf, const struct guest_cpuid_state *state, struct cpuid_result *r)
{
	struct cpuid_result allowed = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(cpuid_allowed); i++) {
		if (cpuid_allowed[i].leaf > leaf)
			break;
		if (cpuid_allowed[i].leaf != leaf || (cpuid_allowed[i].xcr0 & ~state->xcr0_supported) ||
		    (cpuid_allowed[i].subleaf != ANY && cpuid_allowed[i].subleaf != subleaf))
			continue;
		allowed.eax |= cpuid_allowed[i].eax;
		allowed.ebx |= cpuid_allowed[i].ebx;
		allowed.ecx |= cpuid_allowed[i].ecx;
		allowed.edx |= cpuid_allowed[i].edx;
	}
	*r = (struct cpuid_result){ r->eax & allowed.eax, r->ebx & allowed.ebx, r->ecx & allowed.ecx,
				    r->edx & allowed.edx };

	switch (leaf) {
	case 0x0:
		r->eax = minimum(r->eax, 0xd);
		break;
	case 0x1:
		r->ebx |= state->index << 24 | state->vcpus << 16;
		r->ecx |= BIT(CPUID_HYPERVISOR);
		if (state->cr4 & CR4_OSXSAVE)
			r->ecx |= BIT(CPUID_OSXSAVE);
		if (state->vcpus > 1)
			r->edx |= BIT(CPUID_HTT);
		break;
	case 0x7:
		if (subleaf == 0) {
			r->eax = minimum(r->eax, 1);
			if (state->cr4 & CR4_PKE)
				r->ecx |= BIT(CPUID_OSPKE);
		}
		break;
	case 0xd:
		if (subleaf == 0) {
			r->eax &= (u32)state->xcr0_supported;
			r->ecx = r->eax ? state->xsave_bytes : 0;
		}
		break;
	case HYPERPS_GUEST_LEAF:
		/* "HyperPSguest" */
		*r = (struct cpuid_result){ HYPERPS_GUEST_LEAF, 0x65707948, 0x67535072, 0x74736575 };
		break;
	case 0x80000000:
		r->eax = minimum(r->eax, 0x80000008);
		break;
	case 0x80000008:
		r->eax = (r->eax & 0xff00) | minimum(r->eax & 0xff, 46);
		break;
	}
}

u64 guest_cr4_allowed(u32 leaf1_ecx, u32 leaf1_edx, u32 leaf7_ebx, u32 leaf7_ecx)
{
	return CR4_MCE | CR4_PCE | (leaf1_edx & BIT(CPUID_VME) ? CR4_VME | CR4_PVI : 0) |
	       (leaf1_edx & BIT(CPUID_DE) ? CR4_DE : 0) | (leaf1_edx & BIT(CPUID_PSE) ? CR4_PSE : 0) |
	       (leaf1_edx & BIT(CPUID_TSC) ? CR4_TSD : 0) | (leaf1_edx & BIT(CPUID_PAE) ? CR4_PAE : 0) |
	       (leaf1_edx & BIT(CPUID_PGE) ? CR4_PGE : 0) | (leaf1_edx & BIT(CPUID_FXSR) ? CR4_OSFXSR : 0) |
	       (leaf1_edx & BIT(CPUID_SSE) ? CR4_OSXMMEXCPT : 0) | (leaf1_ecx & BIT(CPUID_PCID) ? CR4_PCIDE : 0) |
	       (leaf1_ecx & BIT(CPUID_XSAVE) ? CR4_OSXSAVE : 0) | (leaf7_ebx & BIT(CPUID_FSGSBASE) ? CR4_FSGSBASE : 0) |
	       (leaf7_ebx & BIT(CPUID_SMEP) ? CR4_SMEP : 0) | (leaf7_ebx & BIT(CPUID_SMAP) ? CR4_SMAP : 0) |
	       (leaf7_ecx & BIT(CPUID_UMIP) ? CR4_UMIP : 0) | (leaf7_ecx & BIT(CPUID_PKU) ? CR4_PKE : 0);
}

/* Why a pass is harmless: the value is the guest's own while it runs, and acts only on what it may reach anyway. */
static const struct {
	u32 first, last;
	u8 read, write; /* enum msr_access */
} msrs[] = {
	{ MSR_IA32_TSC, MSR_IA32_TSC, MSR_PASS, MSR_HANDLE }, /* a read honours the TSC offset */
	{ MSR_IA32_APIC_BASE, MSR_IA32_APIC_BASE, MSR_HANDLE, MSR_HANDLE }, /* there is no APIC */
	{ MSR_IA32_TSC_ADJUST, MSR_IA32_TSC_ADJUST, MSR_HANDLE, MSR_HANDLE }, /* as TSC */
	{ MSR_IA32_BIOS_SIGN_ID, MSR_IA32_BIOS_SIGN_ID, MSR_HANDLE, MSR_HANDLE }, /* 0 */
	{ MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_EIP, MSR_PASS, MSR_PASS }, /* switched by the VMCS */
	{ MSR_IA32_MISC_ENABLE, MSR_IA32_MISC_ENABLE, MSR_HANDLE, MSR_DENY },
	{ MSR_IA32_DEBUGCTL, MSR_IA32_DEBUGCTL, MSR_HANDLE, MSR_HANDLE }, /* 0 only: no branch trace */
	{ MSR_IA32_PAT, MSR_IA32_PAT, MSR_PASS, MSR_PASS }, /* switched by the VMCS */
	{ MSR_IA32_EFER, MSR_IA32_EFER, MSR_PASS, MSR_PASS }, /* switched by the VMCS, with LMA */
	/* SYSCALL's linear addresses: the monitor saves them around each run. */
	{ MSR_IA32_STAR, MSR_IA32_FMASK, MSR_PASS, MSR_PASS },
	{ MSR_IA32_FS_BASE, MSR_IA32_GS_BASE, MSR_PASS, MSR_PASS }, /* switched by the VMCS */
	/* A linear address, and what RDTSCP and RDPID tell: likewise saved. */
	{ MSR_IA32_KERNEL_GS_BASE, MSR_IA32_TSC_AUX, MSR_PASS, MSR_PASS },
};

enum msr_access guest_msr_access(u32 msr, bool write)
{
	for (size_t i = 0; i < ARRAY_SIZE(msrs); i++)
		if (msr >= msrs[i].first && msr <= msrs[i].last)
			return write ? msrs[i].write : msrs[i].read;
	return MSR_DENY;
}

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
	/*
	 * EBX: CLFLUSH size. ECX: SSE3, PCLMULQDQ, SSSE3, CMPXCHG16B, PCID, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, RDRAND.
	 * EDX: FPU, VME, DE, PSE, TSC, MSR, PAE, CX8, SEP, PGE, CMOV, PAT, PSE-36, CLFSH, MMX, FXSR, SSE, SSE2
	 */
	{ 0x1, ANY, 0, ALL, 0xff00,
	  BIT(0) | BIT(1) | BIT(9) | BIT(13) | BIT(17) | BIT(19) | BIT(20) | BIT(22) | BIT(23) | BIT(25) | BIT(30),
	  BIT(0) | BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(11) | BIT(13) | BIT(15) |
		  BIT(16) | BIT(17) | BIT(19) | BIT(23) | BIT(24) | BIT(25) | BIT(26) },
	{ 0x1, ANY, XCR0_X87, 0, 0, BIT(26), 0 }, /* XSAVE */
	{ 0x1, ANY, XCR0_AVX, 0, 0, BIT(12) | BIT(28) | BIT(29), 0 }, /* FMA, AVX, F16C */
	/*
	 * EBX: FSGSBASE, TSC_ADJUST, BMI1, SMEP, BMI2, ERMS, INVPCID, RDSEED, ADX, SMAP, CLFLUSHOPT, CLWB, SHA.
	 * ECX: UMIP, GFNI, RDPID. EDX: FSRM, MD_CLEAR
	 */
	{ 0x7, 0, 0, ALL,
	  BIT(0) | BIT(1) | BIT(3) | BIT(7) | BIT(8) | BIT(9) | BIT(10) | BIT(18) | BIT(19) | BIT(20) | BIT(23) |
		  BIT(24) | BIT(29),
	  BIT(2) | BIT(8) | BIT(22), BIT(4) | BIT(10) },
	{ 0x7, 0, XCR0_AVX, 0, BIT(5), BIT(9) | BIT(10), 0 }, /* AVX2; VAES, VPCLMULQDQ */
	/*
	 * AVX-512. EBX: F, DQ, IFMA, PF, ER, CD, BW, VL. ECX: VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ. EDX: 4VNNIW, 4FMAPS,
	 * VP2INTERSECT, FP16
	 */
	{ 0x7, 0, AVX512, 0, BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31),
	  BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14), BIT(2) | BIT(3) | BIT(8) | BIT(23) },
	{ 0x7, 0, XCR0_PKRU, 0, 0, BIT(3), 0 }, /* PKU */
	{ 0x7, 1, 0, BIT(10) | BIT(11) | BIT(12), 0, 0, 0 }, /* fast short MOVSB, STOSB, CMPSB */
	{ 0x7, 1, XCR0_AVX, BIT(4), 0, 0, 0 }, /* AVX-VNNI */
	{ 0x7, 1, AVX512, BIT(5), 0, 0, 0 }, /* AVX512_BF16 */
	{ 0xd, 0, XCR0_X87, ALL, ALL, 0, 0 },
	{ 0xd, 1, XCR0_X87, BIT(0) | BIT(1) | BIT(2), ALL, 0, 0 }, /* XSAVEOPT, XSAVEC, XGETBV with ECX = 1 */
	{ 0xd, 2, XCR0_AVX, ALL, ALL, ALL, 0 },
	{ 0xd, 5, AVX512, ALL, ALL, ALL, 0 },
	{ 0xd, 6, AVX512, ALL, ALL, ALL, 0 },
	{ 0xd, 7, AVX512, ALL, ALL, ALL, 0 },
	{ 0xd, 9, XCR0_PKRU, ALL, ALL, ALL, 0 },
	{ 0x80000000, ANY, 0, ALL, 0, 0, 0 },
	/* LAHF, LZCNT, PREFETCHW; SYSCALL, NX, 1-GByte pages, RDTSCP, Intel 64 */
	{ 0x80000001, ANY, 0, 0, 0, BIT(0) | BIT(5) | BIT(8), BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29) },
	{ 0x80000002, ANY, 0, ALL, ALL, ALL, ALL },
	{ 0x80000003, ANY, 0, ALL, ALL, ALL, ALL },
	{ 0x80000004, ANY, 0, ALL, ALL, ALL, ALL },
	{ 0x80000006, ANY, 0, 0, 0, ALL, 0 }, /* L2 cache */
	{ 0x80000007, ANY, 0, 0, 0, 0, BIT(8) }, /* invariant TSC */
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
		r->ecx |= BIT(31); /* a hypervisor is there */
		if (state->cr4 & CR4_OSXSAVE)
			r->ecx |= BIT(27);
		if (state->vcpus > 1)
			r->edx |= BIT(28);
		break;
	case 0x7:
		if (subleaf == 0) {
			r->eax = minimum(r->eax, 1);
			if (state->cr4 & CR4_PKE)
				r->ecx |= BIT(4);
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
	return CR4_MCE | CR4_PCE | (leaf1_edx & BIT(1) ? CR4_VME | CR4_PVI : 0) | (leaf1_edx & BIT(2) ? CR4_DE : 0) |
	       (leaf1_edx & BIT(3) ? CR4_PSE : 0) | (leaf1_edx & BIT(4) ? CR4_TSD : 0) |
	       (leaf1_edx & BIT(6) ? CR4_PAE : 0) | (leaf1_edx & BIT(13) ? CR4_PGE : 0) |
	       (leaf1_edx & BIT(24) ? CR4_OSFXSR : 0) | (leaf1_edx & BIT(25) ? CR4_OSXMMEXCPT : 0) |
	       (leaf1_ecx & BIT(17) ? CR4_PCIDE : 0) | (leaf1_ecx & BIT(26) ? CR4_OSXSAVE : 0) |
	       (leaf7_ebx & BIT(0) ? CR4_FSGSBASE : 0) | (leaf7_ebx & BIT(7) ? CR4_SMEP : 0) |
	       (leaf7_ebx & BIT(20) ? CR4_SMAP : 0) | (leaf7_ecx & BIT(2) ? CR4_UMIP : 0) |
	       (leaf7_ecx & BIT(3) ? CR4_PKE : 0);
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

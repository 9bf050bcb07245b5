// SPDX-License-Identifier: MIT
#include "msr_policy.h"
#include "x86.h"

struct msr_range {
	u32 first, last;
	enum msr_access access;
};

/* Reads that do not simply pass. */
static const struct msr_range reads[] = {
	{ 0x3a, 0x3a, MSR_HANDLE }, /* IA32_FEATURE_CONTROL: locked, VMX as it is offered */
	{ 0x1a0, 0x1a0, MSR_HANDLE }, /* IA32_MISC_ENABLE: debug store is hidden */
	{ 0x200, 0x23f, MSR_HANDLE }, /* MTRRs: the host reads back what it wrote */
	{ 0x250, 0x26f, MSR_HANDLE }, /* fixed MTRRs: likewise */
	{ 0x2ff, 0x2ff, MSR_HANDLE }, /* MTRR: likewise */
	{ 0x480, 0x493, MSR_HANDLE }, /* VMX capabilities: #GP, or what is offered */
	{ 0x2000, 0x3fff, MSR_HANDLE }, /* uncore counters; not in the bitmap, so each access exits */
};

/*
 * Writes, each with the reason why it is harmless. None of those that pass makes the CPU write to a physical address,
 * changes what memory the host can reach, or takes effect in VMX root in a way that matters there. Linear addresses (FS
 * base, LSTAR, LBR) are translated through the host's own view. Uncore counters are a package's, and only count; they
 * stand where Linux's drivers know them, from Nehalem to Sapphire Rapids. test/check.sh wants a rising order.
 */
static const struct msr_range writes[] = {
	{ 0x10, 0x10, MSR_HANDLE }, /* TSC: the monitor keeps count of what the host adds */
	{ 0x1b, 0x1b, MSR_HANDLE }, /* IA32_APIC_BASE: may not move */
	{ 0x3b, 0x3b, MSR_HANDLE }, /* IA32_TSC_ADJUST: as TSC */
	{ 0x48, 0x49, MSR_PASS }, /* IA32_SPEC_CTRL, IA32_PRED_CMD: speculation control */
	{ 0x4e, 0x4e, MSR_PASS }, /* PPIN_CTL: whether the serial number can be read */
	{ 0x79, 0x79, MSR_HANDLE }, /* microcode: refused, by doing nothing */
	{ 0x8b, 0x8b, MSR_PASS }, /* IA32_BIOS_SIGN_ID: written 0 before CPUID to read the revision */
	{ 0xc1, 0xc8, MSR_PASS }, /* IA32_PMCn: counters */
	{ 0xe1, 0xe1, MSR_PASS }, /* IA32_UMWAIT_CONTROL: limits of a wait */
	{ 0xe2, 0xe2, MSR_PASS }, /* PKG_CST_CONFIG_CONTROL: idle states */
	{ 0xe7, 0xe8, MSR_PASS }, /* IA32_MPERF, IA32_APERF: counters */
	{ 0x10b, 0x10b, MSR_PASS }, /* IA32_FLUSH_CMD: flushes a cache */
	{ 0x10f, 0x10f, MSR_PASS }, /* TSX_FORCE_ABORT: the airlock aborts a transaction anyway */
	{ 0x122, 0x122, MSR_PASS }, /* IA32_TSX_CTRL: likewise */
	{ 0x123, 0x123, MSR_HANDLE }, /* IA32_MCU_OPT_CTRL: no mitigation is switched off */
	{ 0x140, 0x140, MSR_PASS }, /* MISC_FEATURES_ENABLES: CPUID faulting in the host's ring 3 */
	{ 0x174, 0x176, MSR_PASS }, /* IA32_SYSENTER_*: switched by the VMCS */
	{ 0x17a, 0x17a, MSR_HANDLE }, /* IA32_MCG_STATUS: 0 only: MCIP set makes the next machine check a shutdown */
	{ 0x17b, 0x17b, MSR_PASS }, /* IA32_MCG_CTL: machine check belongs to the host */
	{ 0x186, 0x18d, MSR_PASS }, /* IA32_PERFEVTSELn: events to count */
	{ 0x199, 0x19c, MSR_PASS }, /* IA32_PERF_CTL, clock modulation, thermal interrupt and status: speed */
	{ 0x1a0, 0x1a0, MSR_HANDLE }, /* IA32_MISC_ENABLE: single bits */
	{ 0x1a2, 0x1a2, MSR_PASS }, /* temperature target: when to throttle */
	{ 0x1a4, 0x1a4, MSR_PASS }, /* prefetchers: speed only */
	{ 0x1a6, 0x1a7, MSR_PASS }, /* OFFCORE_RSP: events to count */
	{ 0x1aa, 0x1aa, MSR_PASS }, /* power management: speed; not 0x1ac, 0x1ad: unlocked parts turbo too far */
	{ 0x1b0, 0x1b2, MSR_PASS }, /* energy bias, package thermal: speed */
	{ 0x1c4, 0x1c5, MSR_PASS }, /* IA32_XFD, IA32_XFD_ERR: faults in the host; root uses no such state */
	{ 0x1c8, 0x1c9, MSR_PASS }, /* LBR selection: linear addresses */
	{ 0x1d9, 0x1d9, MSR_HANDLE }, /* IA32_DEBUGCTL: no branch trace store */
	{ 0x1dc, 0x1de, MSR_PASS }, /* last exception LBRs: linear addresses */
	{ 0x1fc, 0x1fc, MSR_PASS }, /* POWER_CTL: idle states */
	{ 0x200, 0x23f, MSR_HANDLE }, /* MTRRs: only shadowed, the host view's memory types are the monitor's */
	{ 0x250, 0x26f, MSR_HANDLE }, /* fixed MTRRs: shadowed */
	{ 0x277, 0x277, MSR_PASS }, /* IA32_PAT: switched by the VMCS */
	{ 0x280, 0x29f, MSR_PASS }, /* IA32_MCi_CTL2: interrupts for corrected errors */
	{ 0x2ff, 0x2ff, MSR_HANDLE }, /* MTRR: shadowed */
	{ 0x309, 0x30f, MSR_PASS }, /* fixed counters: counters */
	{ 0x329, 0x329, MSR_PASS }, /* IA32_PERF_METRICS: counters */
	{ 0x38d, 0x38d, MSR_PASS }, /* IA32_FIXED_CTR_CTRL: what to count */
	{ 0x38f, 0x396, MSR_PASS }, /* IA32_PERF_GLOBAL_*: enable and acknowledge counters; uncore counters */
	{ 0x3b0, 0x3c7, MSR_PASS }, /* uncore counters */
	{ 0x3f1, 0x3f1, MSR_HANDLE }, /* IA32_PEBS_ENABLE: 0 only */
	{ 0x3f6, 0x3f7, MSR_PASS }, /* load latency and front-end thresholds of events */
	{ 0x400, 0x47f, MSR_PASS }, /* machine-check banks: they belong to the host */
	{ 0x4c1, 0x4c8, MSR_PASS }, /* IA32_A_PMCn: counters */
	{ 0x600, 0x600, MSR_HANDLE }, /* IA32_DS_AREA: 0 only */
	{ 0x601, 0x601, MSR_PASS }, /* current limit of the voltage regulator; no voltage */
	{ 0x60a, 0x60c, MSR_PASS }, /* package idle latencies: idle states */
	{ 0x610, 0x610, MSR_PASS }, /* RAPL limit of the package */
	{ 0x618, 0x618, MSR_PASS }, /* RAPL limit of DRAM */
	{ 0x620, 0x620, MSR_PASS }, /* uncore frequency: within what the package allows */
	{ 0x638, 0x63a, MSR_PASS }, /* RAPL limits of cores */
	{ 0x640, 0x642, MSR_PASS }, /* RAPL limits of graphics */
	{ 0x65c, 0x65c, MSR_PASS }, /* RAPL limit of the platform */
	{ 0x668, 0x669, MSR_PASS }, /* core C-state configuration: idle states */
	{ 0x680, 0x69f, MSR_PASS }, /* LBR: linear addresses */
	{ 0x6c0, 0x6df, MSR_PASS }, /* LBR: linear addresses */
	{ 0x6e0, 0x6e0, MSR_PASS }, /* IA32_TSC_DEADLINE: an interrupt of the host's */
	{ 0x700, 0x76f, MSR_PASS }, /* uncore counters */
	{ 0x770, 0x777, MSR_PASS }, /* hardware P-states: speed */
	{ 0x800, 0x8ff, MSR_PASS }, /* x2APIC: INIT and SIPI to a CPU in VMX only cause its exit */
	{ 0xa40, 0xbbf, MSR_PASS }, /* uncore counters */
	{ 0xc00, 0xc39, MSR_PASS }, /* uncore counters */
	{ 0xc81, 0xc82, MSR_PASS }, /* resource director: on and off */
	{ 0xc8d, 0xc8d, MSR_PASS }, /* resource director: what is counted */
	{ 0xc8f, 0xd8f, MSR_PASS }, /* resource director: classes and their shares; uncore counters */
	{ 0xd94, 0xd9f, MSR_PASS }, /* uncore counters */
	{ 0xda0, 0xda0, MSR_HANDLE }, /* IA32_XSS: 0 only, no supervisor state is offered */
	{ 0xda1, 0xfff, MSR_PASS }, /* hardware duty cycling: idle states; LBR information; uncore counters */
	{ 0x1c00, 0x1c5f, MSR_PASS }, /* uncore counters */
	{ 0x1e00, 0x1fff, MSR_PASS }, /* uncore counters */
	{ 0x2000, 0x3fff, MSR_HANDLE }, /* uncore counters: outside the bitmap, passed on by the handler */
	{ 0xc0000080, 0xc0000080, MSR_HANDLE }, /* IA32_EFER: single bits */
	{ 0xc0000081, 0xc0000084, MSR_PASS }, /* SYSCALL: linear addresses */
	{ 0xc0000100, 0xc0000103, MSR_PASS }, /* FS, GS, kernel GS base, TSC_AUX: root and gate rely on none */
};

enum msr_access host_msr_access(u32 msr, bool write)
{
	const struct msr_range *ranges = write ? writes : reads;
	size_t count = write ? ARRAY_SIZE(writes) : ARRAY_SIZE(reads);
	/* The bitmap covers two ranges of 8192 MSRs; any other access exits, whatever it is. */
	bool in_bitmap = (msr & ~0xc0001fffU) == 0 && (msr < 0x2000 || msr >= 0xc0000000);

	for (size_t i = 0; i < count; i++)
		if (msr >= ranges[i].first && msr <= ranges[i].last)
			return ranges[i].access;
	return in_bitmap && !write ? MSR_PASS : MSR_DENY;
}

void msr_fill_bitmap(u8 bitmap[4096], enum msr_access (*access)(u32 msr, bool write))
{
	/* Reads of the low range, then of the high one; writes likewise. */
	for (u32 i = 0; i < 0x8000; i++)
		if (access((i & 0x2000 ? 0xc0000000 : 0) + i % 0x2000, i >= 0x4000) != MSR_PASS)
			bitmap[i / 8] |= 1 << i % 8;
}

bool msr_is_mtrr(u32 msr)
{
	return (msr >= 0x200 && msr <= 0x23f) || msr == MSR_IA32_MTRR_FIX64K_00000 ||
	       (msr >= MSR_IA32_MTRR_FIX16K_80000 && msr <= MSR_IA32_MTRR_FIX16K_80000 + 1) ||
	       (msr >= MSR_IA32_MTRR_FIX4K_C0000 && msr <= MSR_IA32_MTRR_FIX4K_C0000 + 7) ||
	       msr == MSR_IA32_MTRR_DEF_TYPE;
}

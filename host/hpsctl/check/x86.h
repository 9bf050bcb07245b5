/* SPDX-License-Identifier: MIT */
/*
 * Found before include/x86.h, so that the loader's and the monitor's own checks of a CPU (boot/choose_capabilities.c,
 * vmx/capabilities.c) can be asked from user space: what they read by instructions comes from check.c here.
 */
#ifndef CHECK_X86_H
#define CHECK_X86_H

#define cpuid instruction_cpuid
#define cpuid_or_zero instruction_cpuid_or_zero
#define rdmsr instruction_rdmsr
#define physical_address_bits instruction_physical_address_bits
#define pause instruction_pause
#include_next "x86.h"
#undef cpuid
#undef cpuid_or_zero
#undef rdmsr
#undef physical_address_bits
#undef pause

struct cpuid_result cpuid(u32 leaf, u32 subleaf);
u64 rdmsr(u32 msr);
unsigned physical_address_bits(void);

static inline struct cpuid_result cpuid_or_zero(u32 leaf)
{
	return cpuid(leaf & 0x80000000, 0).eax >= leaf ? cpuid(leaf, 0) : (struct cpuid_result){ 0 };
}

#endif

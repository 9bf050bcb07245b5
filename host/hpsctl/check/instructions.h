/* SPDX-License-Identifier: MIT */
/*
 * Found before include/instructions.h, so that the loader's and the monitor's own checks of a CPU
 * (boot/choose_capabilities.c, vmx/capabilities.c) can be asked from user space: what they read by instructions comes from
 * check.c here.
 */
#ifndef INSTRUCTIONS_H
#define INSTRUCTIONS_H

#include "vmx.h"
#include "x86.h"

struct cpuid_result cpuid(u32 leaf, u32 subleaf);
u64 rdmsr(u32 msr);

#endif

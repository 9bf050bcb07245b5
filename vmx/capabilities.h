/* SPDX-License-Identifier: MIT */
/*
 * What the CPU's VMX can do, and the control words that the monitor uses on it, as the loader chooses them. Also compiled
 * into the loader.
 */
#ifndef CAPABILITIES_H
#define CAPABILITIES_H

#include "handover.h"

/* Fills in what may differ from CPU to CPU: the features, and the bits of CR0 and CR4 that can be 1. */
void vmx_read_features(struct vmx_capabilities *out);

/* What XCR0 can hold on this CPU; 0 without XSAVE. */
u64 vmx_xcr0(void);

/* Whether this CPU can run under what was chosen for *first, the boot CPU. Returns NULL, or what differs. */
const char *vmx_compare_this_cpu(const struct vmx_capabilities *first);

#endif

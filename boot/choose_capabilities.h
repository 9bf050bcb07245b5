/* SPDX-License-Identifier: MIT */
#ifndef CHOOSE_CAPABILITIES_H
#define CHOOSE_CAPABILITIES_H

#include "capabilities.h"

/*
 * Fills *out for the CPU it runs on. Returns NULL if that CPU can run the monitor, else a sentence that says what is
 * missing and what to do. Runs outside VMX, at CPL 0; writes nothing but *out.
 */
const char *choose_capabilities(struct vmx_capabilities *out);

#endif

/* SPDX-License-Identifier: MIT */
/* The simplest VMCS: a word for each encoding, all there, and the one that is current. vmcs_model.h has one with rules. */
#ifndef VMCS_WORDS_H
#define VMCS_WORDS_H

#include "instructions.h"

static u64 vmcs[0x7000];

u64 vmread(vmcs_field_t field)
{
	return vmcs[field.encoding];
}

void vmwrite(vmcs_field_t field, u64 value)
{
	vmcs[field.encoding] = value;
}

#endif

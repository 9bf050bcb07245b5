/* SPDX-License-Identifier: MIT */
/*
 * VMCSs as a CPU keeps them (SDM, "Software Use of Virtual-Machine Control Structures"): clear or launched, active, current.
 * Defines vmread(), vmwrite(), vmptrld(), vmclear(); stops the test at what a CPU refuses, or what would make it guess. An
 * address in the model's machine is the one that the test has; hpa_of() is the test's.
 */
#ifndef VMCS_MODEL_H
#define VMCS_MODEL_H

#include "vmx.h"

#define MODEL_REVISION 0x1234
#define MODEL_ENCODINGS 0x7000

struct vmcs_model {
	u64 address;
	bool clear, active, launched; /* clear: VMCLEAR came before its first VMPTRLD */
	bool shadow; /* a shadow VMCS */
	u64 value[MODEL_ENCODINGS];
};

/* The one that is current, or NULL. */
extern struct vmcs_model *model_current;

/* Called before each of the four instructions, and behind VMPTRLD, if it is not NULL. */
extern void (*model_hook)(void);

/* Fields that this CPU does not have, ends with 0xffff. */
extern const u16 *model_missing;

/* This CPU has VMCS shadowing, and VMWRITE of VM-exit information. */
extern bool model_shadowing;

/* Forgets every VMCS. */
void model_reset(void);

/* Of a page; one that VMCLEAR or VMPTRLD has named. */
struct vmcs_model *model_vmcs(const void *page);

/* A field, whoever may write it. */
u64 *model_field(struct vmcs_model *vmcs, vmcs_field_t field);

/* Writes a field as the CPU does, cut to its width. */
void model_write(struct vmcs_model *vmcs, vmcs_field_t field, u64 value);

/* Whether the CPU has a field. */
bool model_has(u32 encoding);

/*
 * VMREAD or VMWRITE in VMX non-root operation on a VMCS (SDM, "VMCS Shadowing"): false if it is an exit, else done. A shadow
 * VMCS that is active, which the CPU could have in part, stops the test.
 */
bool model_access(const struct vmcs_model *vmcs, vmcs_field_t field, u64 *value, bool write);

/* VMLAUNCH or VMRESUME of the current VMCS, as far as its launch state goes: `fails` is what the CPU finds in the fields. */
void model_enter(bool launch, bool fails);

/*
 * What VM entry would refuse of the guest state of a VMCS (SDM, "Checks on the Guest State Area"), with unrestricted guest;
 * NULL: nothing. cr0, cr4: { FIXED0, FIXED1 } of the CPU.
 */
const char *model_refuses(struct vmcs_model *vmcs, const u64 cr0[2], const u64 cr4[2], unsigned physical_bits);

#endif

// SPDX-License-Identifier: MIT
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "boot_info.h"
#include "instructions.h"
#include "vmcs_model.h"

#define VMCSS 8
#define LINEAR_BITS 57
#define FIELD_WIDTH(encoding) ((encoding) >> 13 & 3)
#define FIELD_TYPE(encoding) ((encoding) >> 10 & 3)
#define READ_ONLY 1

static struct vmcs_model vmcss[VMCSS];
static unsigned count;
struct vmcs_model *model_current;
void (*model_hook)(void);
const u16 *model_missing;
bool model_shadowing;

static void stop(const char *why, u64 what)
{
	fprintf(stderr, "VMCS model: %s: %lx\n", why, (unsigned long)what);
	abort();
}

void model_reset(void)
{
	count = 0;
	model_current = NULL;
}

static struct vmcs_model *find(u64 address)
{
	for (unsigned i = 0; i < count; i++)
		if (vmcss[i].address == address)
			return &vmcss[i];
	return NULL;
}

struct vmcs_model *model_vmcs(const void *page)
{
	struct vmcs_model *vmcs = find((u64)page);

	if (!vmcs)
		stop("no VMCS", (u64)page);
	return vmcs;
}

/* SDM, "Field Encoding in VMCS": those of a CPU with all that the monitor knows of. */
bool model_has(u32 encoding)
{
	static const u16 ranges[][2] = {
		{ 0x0000, 0x0000 }, { 0x0800, 0x080e }, { 0x0c00, 0x0c0c }, { 0x2000, 0x200a }, { 0x2010, 0x2010 },
		{ 0x2018, 0x201a }, { 0x2024, 0x2028 }, { 0x202c, 0x202e }, { 0x2400, 0x2400 }, { 0x2800, 0x2810 },
		{ 0x2c00, 0x2c04 }, { 0x4000, 0x401a }, { 0x401e, 0x4022 }, { 0x4400, 0x440e }, { 0x4800, 0x482a },
		{ 0x482e, 0x482e }, { 0x4c00, 0x4c00 }, { 0x6000, 0x6006 }, { 0x6400, 0x6400 }, { 0x640a, 0x640a },
		{ 0x6800, 0x6826 }, { 0x6c00, 0x6c16 },
	};

	for (const u16 *missing = model_missing; missing && *missing != 0xffff; missing++)
		if (*missing == encoding)
			return false;
	if ((encoding == VMCS_VMREAD_BITMAP.encoding || encoding == VMCS_VMWRITE_BITMAP.encoding) && !model_shadowing)
		return false;
	for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		if (encoding >= ranges[i][0] && encoding <= ranges[i][1])
			return !(encoding & 1);
	return false;
}

u64 *model_field(struct vmcs_model *vmcs, vmcs_field_t field)
{
	if (!model_has(field.encoding))
		stop("no such field", field.encoding);
	return &vmcs->value[field.encoding];
}

static void run_hook(void)
{
	if (model_hook)
		model_hook();
}

u64 vmread(vmcs_field_t field)
{
	run_hook();
	if (!model_current)
		stop("VMREAD without a VMCS", field.encoding);
	return *model_field(model_current, field);
}

void model_write(struct vmcs_model *vmcs, vmcs_field_t field, u64 value)
{
	static const u64 masks[] = { 0xffff, ~0ULL, 0xffffffff, ~0ULL };

	*model_field(vmcs, field) = value & masks[FIELD_WIDTH(field.encoding)];
}

void vmwrite(vmcs_field_t field, u64 value)
{
	run_hook();
	if (!model_current)
		stop("VMWRITE without a VMCS", field.encoding);
	if (FIELD_TYPE(field.encoding) == READ_ONLY && !model_current->shadow)
		stop("VMWRITE of a read-only field", field.encoding);
	model_write(model_current, field, value);
}

void vmclear(hpa_t page)
{
	struct vmcs_model *vmcs = find(page.value);

	run_hook();
	if (!vmcs) {
		if (count == VMCSS)
			stop("too many VMCSs", page.value);
		vmcs = &vmcss[count++];
		memset(vmcs, 0, sizeof(*vmcs));
		vmcs->address = page.value;
	}
	vmcs->clear = true;
	vmcs->active = vmcs->launched = false;
	if (model_current == vmcs)
		model_current = NULL;
}

void vmptrld(hpa_t page)
{
	struct vmcs_model *vmcs = find(page.value);

	run_hook();
	if (!vmcs || !vmcs->clear)
		stop("VMPTRLD of what VMCLEAR has not seen", page.value);
	if (!vmcs->active && *(const u32 *)page.value != MODEL_REVISION &&
	    (*(const u32 *)page.value != (MODEL_REVISION | BIT(31)) || !model_shadowing))
		stop("VMPTRLD of another revision", *(const u32 *)page.value);
	vmcs->shadow = *(const u32 *)page.value & BIT(31);
	vmcs->active = true;
	model_current = vmcs;
	run_hook();
}

/* The shadow VMCS of a VMCS; it has to be in memory, where VMREAD and VMWRITE look for it. NULL: there is none. */
static struct vmcs_model *shadow_of(const struct vmcs_model *vmcs)
{
	u64 link = vmcs->value[VMCS_LINK_POINTER.encoding];
	bool shadowing = vmcs->value[VMCS_SECONDARY_CONTROLS.encoding] & SECONDARY_VMCS_SHADOWING;
	struct vmcs_model *shadow = link == ~0ULL ? NULL : find(link);

	if (shadowing && !model_shadowing)
		stop("VMCS shadowing on a CPU without", vmcs->address);
	if (link == ~0ULL)
		return NULL;
	if (!shadowing || !shadow || !shadow->shadow || shadow == vmcs)
		stop("a link pointer that VM entry refuses", link);
	if (shadow->active)
		stop("the shadow VMCS is active: VMCLEAR is missing", link);
	return shadow;
}

bool model_access(const struct vmcs_model *vmcs, vmcs_field_t field, u64 *value, bool write)
{
	const u8 *bitmap = (const u8 *)vmcs->value[write ? VMCS_VMWRITE_BITMAP.encoding : VMCS_VMREAD_BITMAP.encoding];
	struct vmcs_model *shadow = shadow_of(vmcs);

	if (!(vmcs->value[VMCS_SECONDARY_CONTROLS.encoding] & SECONDARY_VMCS_SHADOWING) ||
	    (bitmap[field.encoding / 8] >> field.encoding % 8 & 1))
		return false;
	if (!shadow)
		stop("VMREAD or VMWRITE finds no shadow VMCS", field.encoding);
	if (write && FIELD_TYPE(field.encoding) == READ_ONLY)
		stop("VMWRITE of a read-only field does not exit", field.encoding);
	if (write)
		model_write(shadow, field, *value);
	else
		*value = *model_field(shadow, field);
	return true;
}

void model_enter(bool launch, bool fails)
{
	if (!model_current || model_current->shadow)
		stop("VM entry without a VMCS", launch);
	(void)shadow_of(model_current);
	if (launch == model_current->launched)
		stop(launch ? "VMLAUNCH of a launched VMCS" : "VMRESUME of a clear VMCS", model_current->address);
	model_current->launched |= launch && !fails;
}

static bool is_canonical(u64 address)
{
	return (s64)(address << (64 - LINEAR_BITS)) >> (64 - LINEAR_BITS) == (s64)address;
}

#define REFUSE_IF(condition)                                                                                           \
	do {                                                                                                           \
		if (condition)                                                                                         \
			return #condition;                                                                             \
	} while (0)

#define UNUSABLE(rights) ((rights) >> 16 & 1)
#define TYPE(rights) ((rights)&0xf)
#define DPL(rights) ((rights) >> 5 & 3)
#define IS_CODE_OR_DATA BIT(4)
#define PRESENT BIT(7)
#define DEFAULT_BIG BIT(14)
#define GRANULARITY BIT(15)
#define RIGHTS_RESERVED 0xfffe0f00ULL

/* SDM, "Checks on Guest Segment Registers": granularity against limit. */
static bool limit_fits(u64 rights, u64 limit)
{
	return rights & GRANULARITY ? (limit & 0xfff) == 0xfff : !(limit >> 20);
}

static const char *refuses_segments(const u64 *v, bool ia32e, bool v8086)
{
	u64 cs = v[VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS).encoding],
	    ss = v[VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_SS).encoding];
	u64 tr = v[VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_TR).encoding];
	u64 ldtr = v[VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_LDTR).encoding];

	REFUSE_IF(v8086);
	REFUSE_IF(v[VMCS_GUEST_SELECTOR(SEGMENT_TR).encoding] & 4);
	REFUSE_IF(!UNUSABLE(ldtr) && (v[VMCS_GUEST_SELECTOR(SEGMENT_LDTR).encoding] & 4));
	for (unsigned i = SEGMENT_ES; i <= SEGMENT_TR; i++) {
		u64 rights = v[VMCS_GUEST_ACCESS_RIGHTS(i).encoding], base = v[VMCS_GUEST_BASE(i).encoding];
		bool always = i == SEGMENT_FS || i == SEGMENT_GS || i == SEGMENT_TR;

		REFUSE_IF(always && !is_canonical(base));
		REFUSE_IF(i == SEGMENT_CS && base >> 32);
		if (i != SEGMENT_CS && i != SEGMENT_TR && UNUSABLE(rights))
			continue;
		REFUSE_IF(!always && i != SEGMENT_LDTR && base >> 32);
		REFUSE_IF(rights & RIGHTS_RESERVED);
		REFUSE_IF(!(rights & PRESENT));
		REFUSE_IF(!limit_fits(rights, v[VMCS_GUEST_LIMIT(i).encoding]));
		if (i >= SEGMENT_LDTR)
			continue;
		REFUSE_IF(!(rights & IS_CODE_OR_DATA));
		REFUSE_IF(i != SEGMENT_CS && i != SEGMENT_SS && !(TYPE(rights) & 1));
		REFUSE_IF(i != SEGMENT_CS && i != SEGMENT_SS && (TYPE(rights) & 8) && !(TYPE(rights) & 2));
	}
	REFUSE_IF(TYPE(cs) != 3 && (TYPE(cs) & 9) != 9);
	REFUSE_IF(TYPE(cs) == 3 && DPL(cs));
	REFUSE_IF((TYPE(cs) == 9 || TYPE(cs) == 11) && DPL(cs) != DPL(ss));
	REFUSE_IF((TYPE(cs) == 13 || TYPE(cs) == 15) && DPL(cs) > DPL(ss));
	REFUSE_IF(ia32e && (cs & ACCESS_RIGHTS_LONG) && (cs & DEFAULT_BIG));
	REFUSE_IF(!UNUSABLE(ss) && TYPE(ss) != 3 && TYPE(ss) != 7);
	REFUSE_IF(UNUSABLE(tr) || (tr & IS_CODE_OR_DATA) || (TYPE(tr) != 11 && (ia32e || TYPE(tr) != 3)));
	REFUSE_IF(!UNUSABLE(ldtr) && ((ldtr & IS_CODE_OR_DATA) || TYPE(ldtr) != 2));
	return NULL;
}

static bool pat_is_good(u64 pat)
{
	for (unsigned i = 0; i < 64; i += 8)
		if ((pat >> i & 0xff) > 7 || (pat >> i & 0xfe) == 2)
			return false;
	return true;
}

const char *model_refuses(struct vmcs_model *vmcs, const u64 cr0[2], const u64 cr4[2], unsigned physical_bits)
{
	const u64 *v = vmcs->value;
	u64 guest_cr0 = v[VMCS_GUEST_CR0.encoding], guest_cr4 = v[VMCS_GUEST_CR4.encoding];
	u64 efer = v[VMCS_GUEST_IA32_EFER.encoding], rflags = v[VMCS_GUEST_RFLAGS.encoding];
	u64 rip = v[VMCS_GUEST_RIP.encoding], interruptibility = v[VMCS_GUEST_INTERRUPTIBILITY.encoding];
	u64 event = v[VMCS_ENTRY_INTERRUPTION_INFO.encoding], activity = v[VMCS_GUEST_ACTIVITY_STATE.encoding];
	bool ia32e = v[VMCS_ENTRY_CONTROLS.encoding] & ENTRY_IA32E_GUEST, paging = guest_cr0 & CR0_PG;
	bool is_64bit = ia32e && (v[VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS).encoding] & ACCESS_RIGHTS_LONG);
	const char *segments = refuses_segments(v, ia32e, rflags & BIT(17));

	if (segments)
		return segments;
	REFUSE_IF((cr0[0] & ~guest_cr0 & ~(CR0_PE | CR0_PG)) || (guest_cr0 & ~cr0[1]));
	REFUSE_IF(paging && !(guest_cr0 & CR0_PE));
	REFUSE_IF((cr4[0] & ~guest_cr4) || (guest_cr4 & ~cr4[1]));
	REFUSE_IF(ia32e && (!paging || !(guest_cr4 & CR4_PAE)));
	REFUSE_IF(!ia32e && (guest_cr4 & CR4_PCIDE));
	REFUSE_IF(v[VMCS_GUEST_CR3.encoding] >> physical_bits);
	REFUSE_IF(v[VMCS_GUEST_IA32_DEBUGCTL.encoding] & ~0xdfc7ULL);
	REFUSE_IF(v[VMCS_GUEST_DR7.encoding] >> 32);
	REFUSE_IF(!is_canonical(v[VMCS_GUEST_SYSENTER_ESP.encoding]));
	REFUSE_IF(!is_canonical(v[VMCS_GUEST_SYSENTER_EIP.encoding]));
	REFUSE_IF(!pat_is_good(v[VMCS_GUEST_IA32_PAT.encoding]));
	REFUSE_IF(efer & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE));
	REFUSE_IF(!!(efer & EFER_LMA) != ia32e || (paging && !!(efer & EFER_LME) != ia32e));
	REFUSE_IF(!is_canonical(v[VMCS_GUEST_GDTR_BASE.encoding]) || v[VMCS_GUEST_GDTR_LIMIT.encoding] >> 16);
	REFUSE_IF(!is_canonical(v[VMCS_GUEST_IDTR_BASE.encoding]) || v[VMCS_GUEST_IDTR_LIMIT.encoding] >> 16);
	REFUSE_IF(is_64bit ? !is_canonical(rip) : rip >> 32 != 0);
	REFUSE_IF(!(rflags & 2) || (rflags & ~0x3f7fd7ULL));
	REFUSE_IF((event & EVENT_VALID) && !(event & EVENT_TYPE) && !(rflags & BIT(9)));
	REFUSE_IF(activity != ACTIVITY_ACTIVE && activity != ACTIVITY_WAIT_FOR_SIPI);
	REFUSE_IF(activity == ACTIVITY_WAIT_FOR_SIPI && (event & EVENT_VALID));
	REFUSE_IF(interruptibility & ~(INTERRUPTIBILITY_SHADOWS | INTERRUPTIBILITY_NMI));
	REFUSE_IF((interruptibility & INTERRUPTIBILITY_SHADOWS) && activity);
	REFUSE_IF((event & EVENT_VALID) && (event & EVENT_TYPE) == EVENT_TYPE_NMI &&
		  (interruptibility & (INTERRUPTIBILITY_MOV_SS | INTERRUPTIBILITY_NMI)));
	REFUSE_IF(v[VMCS_GUEST_PENDING_DEBUG.encoding] & ~0x1500fULL);
	(void)shadow_of(vmcs);
	return NULL;
}

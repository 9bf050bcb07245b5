// SPDX-License-Identifier: MIT
/*
 * nested/instruction.c: each VMX instruction, in each mode and VMX state, with each kind of operand, does what the SDM's "VMX
 * Instruction Reference" says; its pseudocode is the table below. Then sequences at random against the same model.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "event.h"
#include "log.h"
#include "memory_service.h"
#include "nested.h"
#include "vmcs_words.h"

/* L1's memory, from FIRST on. Of the frames of which one is not the host's, OTHERS is the first. */
enum { REGION, FRAME_A, FRAME_B, FRAME_REVISION, FRAME_SHADOW, FRAME_REFUSED, FRAMES };
#define FIRST 0x7b000ULL
#define WORDS 512
#define ADDRESS(frame) (FIRST + (frame)*PAGE_SIZE)
#define WIDTH 46
#define LAUNCH_STATE 30 /* word of a VMCS12 */
#define LAST_VPID 0x77
#define OTHER_VPID 0x78
#define INFO_PF (EVENT_VALID | EVENT_TYPE_EXCEPTION | EVENT_ERROR_CODE | VECTOR_PF)
#define CF BIT(0)
#define ZF BIT(6)
#define STATUS_FLAGS (CF | BIT(2) | BIT(4) | ZF | BIT(7) | BIT(11))

struct memory {
	u64 word[FRAMES][WORDS];
	bool host[FRAMES];
};

/* What L1 can see, or should. */
struct world {
	struct memory memory;
	u64 page[WORDS]; /* of the current VMCS12 */
	u64 region, current, last_violation;
	u64 reg[16], rip, rflags, interruptibility, event;
	enum nested_state state;
	u64 lost;
	bool dirty, cold_in_02; /* for the next entry, since the last exit */
	/* Calls since the step began. */
	u64 begun, ended, entered, dropped_all, dropped, dropped_eptp, invvpids, refusals;
	u64 stored, stores; /* to a memory operand */
};

/* The instruction, and where it is executed. */
struct situation {
	u32 reason;
	unsigned cpl;
	bool lma, cs_l, vmxe, ne, vpid, la57;
	u64 operand[2]; /* in memory */
	bool faults; /* its access to memory */
	bool in_register;
	unsigned register1, register2;
	u32 entry_error; /* what nested_enter() finds; 0: L2 runs, and has exited */
	u32 length;
};

static struct cpu_area area;
static struct nested nested;
static u64 buffers[2][WORDS];
static struct world real; /* memory, calls: what the fakes did */
static struct situation now;
static unsigned operand_reads, memory_reads, memory_writes;

void *read_gs_0(void)
{
	return &area.cpu;
}

void invvpid_all(void)
{
	real.invvpids++;
}

void log_refusal(enum refusal kind, const char *format, ...)
{
	(void)format;
	assert_int_equal(kind, REFUSED_MEMORY);
	real.refusals++;
}

static bool is_host(const struct memory *memory, u64 gpa)
{
	return gpa >= FIRST && gpa < ADDRESS(FRAMES) && memory->host[(gpa - FIRST) / PAGE_SIZE];
}

bool memory_read_host(u64 gpa, void *out, unsigned bytes)
{
	memory_reads++;
	assert_true(bytes && gpa % PAGE_SIZE + bytes <= PAGE_SIZE);
	/* What is refused may have been copied in part. */
	memset(out, 0x31, bytes);
	if (!is_host(&real.memory, gpa))
		return false;
	memcpy(out, (u8 *)real.memory.word + (gpa - FIRST), bytes);
	return true;
}

bool memory_write_host(u64 gpa, const void *in, unsigned bytes)
{
	memory_writes++;
	assert_true(bytes && gpa % PAGE_SIZE + bytes <= PAGE_SIZE);
	if (!is_host(&real.memory, gpa))
		return false;
	memcpy((u8 *)real.memory.word + (gpa - FIRST), in, bytes);
	return true;
}

static bool operand_fault(void)
{
	if (now.faults)
		vmwrite(VMCS_ENTRY_INTERRUPTION_INFO, INFO_PF);
	return now.faults;
}

bool operand_read(const struct registers *regs, void *out, unsigned bytes)
{
	(void)regs;
	operand_reads++;
	assert_int_equal(bytes, now.reason == EXIT_INVEPT || now.reason == EXIT_INVVPID ? 16 : 8);
	memset(out, 0xa5, bytes);
	if (operand_fault())
		return false;
	memcpy(out, now.operand, bytes);
	return true;
}

bool operand_write(const struct registers *regs, u64 value)
{
	(void)regs;
	if (operand_fault())
		return false;
	real.stored = value;
	real.stores++;
	return true;
}

bool nested_msr(u32 msr, u64 *value)
{
	assert_int_equal(msr, 0x48c);
	*value = now.vpid ? 0xf0106114040 : 0x6114040;
	return true;
}

void nested_begin(struct cpu *cpu)
{
	assert_ptr_equal(cpu, &area.cpu);
	assert_int_equal(nested.state, NESTED_OFF);
	real.begun++;
}

void nested_end(struct nested *n)
{
	assert_ptr_equal(n, &nested);
	assert_true(n->current == NO_ADDRESS);
	n->state = NESTED_OFF;
	n->last_violation = NO_ADDRESS;
	real.ended++;
}

void nested_drop_all(struct nested *n)
{
	assert_ptr_equal(n, &nested);
	real.dropped_all++;
}

void nested_drop(struct nested *n, u64 eptp12)
{
	assert_ptr_equal(n, &nested);
	real.dropped++;
	real.dropped_eptp = eptp12;
}

void nested_enter(struct nested *n)
{
	assert_ptr_equal(n, &nested);
	real.entered++;
	if (now.entry_error)
		nested_fail(n, now.entry_error);
	else
		n->page[LAUNCH_STATE] = n->cold_in_02 = 1;
}

/* A few fields of docs/nested.md's table; unit nested_fields has them all. */
static const struct test_field {
	u16 encoding;
	bool read_only;
	u64 bits;
} fields[] = {
	{ 0x0000, false, 0xffff },    { 0x0800, false, 0xffff },    { 0x2004, false, ~0ULL },
	{ 0x2400, true, ~0ULL },      { 0x2800, false, ~0ULL },     { 0x4002, false, 0xffffffff },
	{ 0x4400, true, 0xffffffff }, { 0x4402, true, 0xffffffff }, { 0x4814, false, 0x1f0ff },
	{ 0x6400, true, ~0ULL },      { 0x6802, false, ~0ULL },     { 0x681c, false, ~0ULL },
};
#define IS_HOT(encoding) ((encoding) == 0x4002 || (encoding) == 0x681c)
/* What L1 reads without an exit, if it does not write it, too. */
#define IS_READ(encoding) ((encoding) == 0x2400 || (encoding) == 0x4402 || (encoding) == 0x6400 || (encoding) == 0x6802)
#define IS_COLD_STATE(encoding) ((encoding) == 0x0800 || (encoding) == 0x4814)
#define COLD 0x0c01d /* what VMCS02 has of 0x4814 */

static const struct test_field *test_field(u64 encoding)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
		if (fields[i].encoding == encoding)
			return &fields[i];
	return NULL;
}

static u64 *test_word(u64 *page, u64 encoding)
{
	return &page[encoding ? (encoding >> 13 & 3) << 7 | (encoding >> 10 & 3) << 5 | (encoding >> 1 & 31) : 31];
}

/*
 * VMCS shadowing: what L1 reads without an exit is in `shadow`, and comes back from there, but for the page of a VMCS12 that
 * has just become current. What the page has meanwhile of what L1 writes is old.
 */
static const u16 shadowed[] = { 0x2400, 0x4402, 0x6400, 0x6802, 0x4002, 0x681c };
#define SHADOWED_WRITE 4 /* the first of them */
static bool shadowing, shadow_is_on;
static u64 shadow[ARRAY_SIZE(shadowed)];

void nested_shadow_on(struct cpu *cpu, struct nested *n)
{
	assert_ptr_equal(cpu, &area.cpu);
	assert_true(!shadow_is_on && n->current != NO_ADDRESS);
	for (unsigned i = 0; shadowing && i < ARRAY_SIZE(shadowed); i++) {
		u64 *word = test_word(n->page, shadowed[i]);

		shadow[i] = *word;
		if (i >= SHADOWED_WRITE)
			*word = ~*word;
	}
	shadow_is_on = shadowing;
}

void nested_shadow_off(struct cpu *cpu, struct nested *n)
{
	assert_ptr_equal(cpu, &area.cpu);
	for (unsigned i = SHADOWED_WRITE; shadow_is_on && i < ARRAY_SIZE(shadowed); i++)
		*test_word(n->page, shadowed[i]) = shadow[i];
	shadow_is_on = false;
}

/* Whether the CPU executes it by itself. */
static bool takes_no_exit(u64 encoding)
{
	return shadow_is_on && (IS_HOT(encoding) || (now.reason == EXIT_VMREAD && IS_READ(encoding))) &&
	       (now.reason == EXIT_VMREAD || now.reason == EXIT_VMWRITE);
}

static void fetch(u64 *page, bool *cold_in_02)
{
	if (*cold_in_02)
		*test_word(page, 0x4814) = COLD;
	*cold_in_02 = false;
}

void nested_fetch(struct nested *n)
{
	assert_ptr_equal(n, &nested);
	fetch(n->page, &n->cold_in_02);
}

/* The SDM's pseudocode, by conditions: for each instruction the first rule whose condition holds. */
enum condition {
	NOT_64_BIT, /* nor is any instruction offered in 32-bit protected mode: docs/nested.md */
	NO_VMXE,
	OUTSIDE, /* VMX operation */
	INSIDE,
	NO_INVVPID,
	NOT_RING_0,
	NO_NE, /* of the fixed bits of CR0 and CR4 the only one that can be missing here */
	FAULTS,
	BAD_ADDRESS,
	AT_VMXON,
	BAD_REVISION,
	NO_CURRENT,
	MOV_SS,
	NOT_CLEAR,
	NOT_LAUNCHED,
	NO_FIELD,
	READ_ONLY,
	BAD_TYPE,
	BAD_DESCRIPTOR,
	ALWAYS
};

enum { SUCCEED = 0, UD = 100, GP, FAULT, INVALID, ENTER }; /* or VMfail with a number below 100 */

static struct rule {
	u32 reason;
	enum condition condition;
	unsigned outcome;
	unsigned long hits;
} rules[] = {
#define NOT_AVAILABLE(reason)                                                                                          \
	{ reason, NOT_64_BIT, UD, 0 }, { reason, NO_VMXE, UD, 0 },                                                     \
	{                                                                                                              \
		reason, OUTSIDE, UD, 0                                                                                 \
	}
#define PRIVILEGED(reason)                                                                                             \
	{                                                                                                              \
		reason, NOT_RING_0, GP, 0                                                                              \
	}
	{ EXIT_VMXON, NOT_64_BIT, UD, 0 },
	{ EXIT_VMXON, NO_VMXE, UD, 0 },
	PRIVILEGED(EXIT_VMXON),
	{ EXIT_VMXON, INSIDE, 15, 0 },
	{ EXIT_VMXON, NO_NE, GP, 0 },
	{ EXIT_VMXON, FAULTS, FAULT, 0 },
	{ EXIT_VMXON, BAD_ADDRESS, INVALID, 0 },
	{ EXIT_VMXON, BAD_REVISION, INVALID, 0 },
	{ EXIT_VMXON, ALWAYS, SUCCEED, 0 },

	NOT_AVAILABLE(EXIT_VMXOFF),
	PRIVILEGED(EXIT_VMXOFF),
	{ EXIT_VMXOFF, ALWAYS, SUCCEED, 0 },

	NOT_AVAILABLE(EXIT_VMCLEAR),
	PRIVILEGED(EXIT_VMCLEAR),
	{ EXIT_VMCLEAR, FAULTS, FAULT, 0 },
	{ EXIT_VMCLEAR, BAD_ADDRESS, 2, 0 },
	{ EXIT_VMCLEAR, AT_VMXON, 3, 0 },
	{ EXIT_VMCLEAR, ALWAYS, SUCCEED, 0 },

	NOT_AVAILABLE(EXIT_VMPTRLD),
	PRIVILEGED(EXIT_VMPTRLD),
	{ EXIT_VMPTRLD, FAULTS, FAULT, 0 },
	{ EXIT_VMPTRLD, BAD_ADDRESS, 9, 0 },
	{ EXIT_VMPTRLD, AT_VMXON, 10, 0 },
	{ EXIT_VMPTRLD, BAD_REVISION, 11, 0 },
	{ EXIT_VMPTRLD, ALWAYS, SUCCEED, 0 },

	NOT_AVAILABLE(EXIT_VMPTRST),
	PRIVILEGED(EXIT_VMPTRST),
	{ EXIT_VMPTRST, FAULTS, FAULT, 0 },
	{ EXIT_VMPTRST, ALWAYS, SUCCEED, 0 },

	NOT_AVAILABLE(EXIT_VMREAD),
	PRIVILEGED(EXIT_VMREAD),
	{ EXIT_VMREAD, NO_CURRENT, INVALID, 0 },
	{ EXIT_VMREAD, NO_FIELD, 12, 0 },
	{ EXIT_VMREAD, FAULTS, FAULT, 0 },
	{ EXIT_VMREAD, ALWAYS, SUCCEED, 0 },

	NOT_AVAILABLE(EXIT_VMWRITE),
	PRIVILEGED(EXIT_VMWRITE),
	{ EXIT_VMWRITE, NO_CURRENT, INVALID, 0 },
	{ EXIT_VMWRITE, FAULTS, FAULT, 0 },
	{ EXIT_VMWRITE, NO_FIELD, 12, 0 },
	{ EXIT_VMWRITE, READ_ONLY, 13, 0 },
	{ EXIT_VMWRITE, ALWAYS, SUCCEED, 0 },

	NOT_AVAILABLE(EXIT_VMLAUNCH),
	PRIVILEGED(EXIT_VMLAUNCH),
	{ EXIT_VMLAUNCH, NO_CURRENT, INVALID, 0 },
	{ EXIT_VMLAUNCH, MOV_SS, 26, 0 },
	{ EXIT_VMLAUNCH, NOT_CLEAR, 4, 0 },
	{ EXIT_VMLAUNCH, ALWAYS, ENTER, 0 },

	NOT_AVAILABLE(EXIT_VMRESUME),
	PRIVILEGED(EXIT_VMRESUME),
	{ EXIT_VMRESUME, NO_CURRENT, INVALID, 0 },
	{ EXIT_VMRESUME, MOV_SS, 26, 0 },
	{ EXIT_VMRESUME, NOT_LAUNCHED, 5, 0 },
	{ EXIT_VMRESUME, ALWAYS, ENTER, 0 },

	NOT_AVAILABLE(EXIT_INVEPT),
	PRIVILEGED(EXIT_INVEPT),
	{ EXIT_INVEPT, BAD_TYPE, 28, 0 },
	{ EXIT_INVEPT, FAULTS, FAULT, 0 },
	{ EXIT_INVEPT, BAD_DESCRIPTOR, 28, 0 },
	{ EXIT_INVEPT, ALWAYS, SUCCEED, 0 },

	NOT_AVAILABLE(EXIT_INVVPID),
	{ EXIT_INVVPID, NO_INVVPID, UD, 0 },
	PRIVILEGED(EXIT_INVVPID),
	{ EXIT_INVVPID, BAD_TYPE, 28, 0 },
	{ EXIT_INVVPID, FAULTS, FAULT, 0 },
	{ EXIT_INVVPID, BAD_DESCRIPTOR, 28, 0 },
	{ EXIT_INVVPID, ALWAYS, SUCCEED, 0 },
};

static bool is_canonical(u64 address, unsigned bits)
{
	u64 upper = address >> (bits - 1);

	return upper == 0 || upper == ~0ULL >> (bits - 1);
}

static bool eptp_is_good(u64 eptp)
{
	/* Write-back, four levels, no accessed and dirty flags, nothing reserved. */
	return (eptp & 7) == 6 && (eptp >> 3 & 7) == 3 && !(eptp & 0xfc0) && !(eptp >> WIDTH);
}

static bool descriptor_is_bad(u64 type)
{
	u64 low = now.operand[0];

	if (now.reason == EXIT_INVEPT)
		return type == 1 && !eptp_is_good(low);
	return (low & ~0xffffULL) || (type != 2 && !low) ||
	       (type == 0 && !is_canonical(now.operand[1], now.la57 ? 57 : 48));
}

static bool holds(const struct world *w, enum condition condition)
{
	u64 second = w->reg[now.register2], address = now.operand[0];
	u64 frame = is_host(&w->memory, address) ? (address - FIRST) / PAGE_SIZE : FRAMES;
	const struct test_field *field = test_field(second & ~1ULL);

	switch (condition) {
	case NOT_64_BIT:
		return !now.lma || !now.cs_l;
	case NO_VMXE:
		return !now.vmxe;
	case OUTSIDE:
		return w->state == NESTED_OFF;
	case INSIDE:
		return w->state != NESTED_OFF;
	case NO_INVVPID:
		return !now.vpid;
	case NOT_RING_0:
		return now.cpl > 0;
	case NO_NE:
		return !now.ne;
	case FAULTS:
		return now.faults && !now.in_register;
	case BAD_ADDRESS:
		return (address & 0xfff) || address >> WIDTH;
	case AT_VMXON:
		return address == w->region;
	case BAD_REVISION:
		return (w->state == NESTED_OFF || address != w->current) &&
		       (frame == FRAMES || (u32)w->memory.word[frame][0] != 0x48505331);
	case NO_CURRENT:
		return w->current == NO_ADDRESS;
	case MOV_SS:
		return w->interruptibility & INTERRUPTIBILITY_MOV_SS;
	case NOT_CLEAR:
		return w->page[LAUNCH_STATE] != 0;
	case NOT_LAUNCHED:
		return w->page[LAUNCH_STATE] != 1;
	case NO_FIELD:
		return !field || ((second & 1) && (field->encoding >> 13) != 1);
	case READ_ONLY:
		return field->read_only;
	case BAD_TYPE:
		return now.reason == EXIT_INVEPT ? second != 1 && second != 2 : second > 3;
	case BAD_DESCRIPTOR:
		return descriptor_is_bad(second);
	case ALWAYS:
		return true;
	}
	abort();
}

static unsigned judge(const struct world *w)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rules); i++) {
		if (rules[i].reason == now.reason && holds(w, rules[i].condition)) {
			rules[i].hits++;
			return rules[i].outcome;
		}
	}
	abort();
}

static void leave_current(struct world *w)
{
	fetch(w->page, &w->cold_in_02);
	if (w->current != NO_ADDRESS && is_host(&w->memory, w->current)) {
		memcpy(w->memory.word[(w->current - FIRST) / PAGE_SIZE], w->page, PAGE_SIZE);
	} else if (w->current != NO_ADDRESS) {
		w->lost++;
		w->refusals++;
	}
	w->current = w->last_violation = NO_ADDRESS;
}

/* What an instruction that succeeds does. */
static void succeed(struct world *w)
{
	u64 address = now.operand[0], second = w->reg[now.register2];
	u64 *word = test_word(w->page, second & ~1ULL), value;
	u64 frame = (address - FIRST) / PAGE_SIZE;

	switch (now.reason) {
	case EXIT_VMXON:
		w->state = NESTED_ROOT;
		w->region = address;
		w->current = w->last_violation = NO_ADDRESS;
		w->begun++;
		break;
	case EXIT_VMXOFF:
		leave_current(w);
		w->state = NESTED_OFF;
		w->ended++;
		break;
	case EXIT_VMCLEAR:
		if (address == w->current) {
			w->page[LAUNCH_STATE] = 0;
			leave_current(w);
		} else if (is_host(&w->memory, address)) {
			w->memory.word[frame][LAUNCH_STATE] = 0;
		} else {
			w->lost++;
			w->refusals++;
		}
		break;
	case EXIT_VMPTRLD:
		if (address == w->current)
			break;
		/* The page is what it was before the old one was written back: never the same frame. */
		leave_current(w);
		memcpy(w->page, w->memory.word[frame], PAGE_SIZE);
		w->current = address;
		w->dirty = true;
		break;
	case EXIT_VMPTRST:
		w->stored = w->current;
		w->stores++;
		break;
	case EXIT_VMREAD:
		if (IS_COLD_STATE(second & ~1ULL))
			fetch(w->page, &w->cold_in_02);
		value = *word & test_field(second & ~1ULL)->bits;
		value = second & 1 ? value >> 32 : value;
		if (now.in_register) {
			w->reg[now.register1] = value;
		} else {
			w->stored = value;
			w->stores++;
		}
		break;
	case EXIT_VMWRITE:
		if (!IS_HOT(second & ~1ULL)) {
			fetch(w->page, &w->cold_in_02);
			w->dirty = true;
		}
		value = now.in_register ? w->reg[now.register1] : address;
		*word = (second & 1 ? value << 32 | (u32)*word : value) & test_field(second & ~1ULL)->bits;
		break;
	case EXIT_INVEPT:
		if (second == 2) {
			w->dropped_all++;
		} else {
			w->dropped++;
			w->dropped_eptp = address;
		}
		break;
	case EXIT_INVVPID:
		w->invvpids += second == 2 || address == LAST_VPID;
		break;
	}
}

static void move_on(struct world *w, u64 flag)
{
	w->rflags = (w->rflags & ~STATUS_FLAGS) | flag;
	w->rip += now.length;
	w->interruptibility &= ~INTERRUPTIBILITY_SHADOWS;
}

static void vm_fail(struct world *w, unsigned error)
{
	if (w->current != NO_ADDRESS)
		*test_word(w->page, 0x4400) = error;
	move_on(w, w->current != NO_ADDRESS ? ZF : CF);
}

static void expect(struct world *w)
{
	unsigned outcome = judge(w);

	switch (outcome) {
	case UD:
	case GP:
		w->event = EVENT_VALID | EVENT_TYPE_EXCEPTION | (outcome == UD ? 6 : EVENT_ERROR_CODE | 13);
		w->rflags |= RFLAGS_RF;
		w->interruptibility &= ~INTERRUPTIBILITY_SHADOWS;
		break;
	case FAULT:
		w->event = INFO_PF;
		break;
	case INVALID:
		move_on(w, CF);
		break;
	case ENTER:
		w->entered++;
		if (now.entry_error)
			vm_fail(w, now.entry_error);
		else
			w->page[LAUNCH_STATE] = w->cold_in_02 = 1;
		break;
	case SUCCEED:
		succeed(w);
		move_on(w, 0);
		break;
	default:
		vm_fail(w, outcome);
	}
}

/* Executes the instruction in *w and in the model of it; both must agree, and *w is what comes out. */
static void step(struct world *w)
{
	static struct world expected;
	struct registers regs;
	u64 *page = nested.page, *second = nested.second;

	w->event = w->begun = w->ended = w->entered = w->dropped_all = w->dropped = w->dropped_eptp = 0;
	w->invvpids = w->refusals = w->stored = w->stores = 0;
	expected = *w;
	expect(&expected);

	real = *w;
	operand_reads = memory_reads = memory_writes = 0;
	nested.state = w->state;
	nested.vmxon_region = w->region;
	nested.current = w->current;
	nested.last_violation = w->last_violation;
	nested.lost_writebacks = w->lost;
	nested.dirty = w->dirty;
	nested.cold_in_02 = w->cold_in_02;
	nested.last_vpid = LAST_VPID;
	memcpy(page, w->page, PAGE_SIZE);
	if (w->current != NO_ADDRESS)
		nested_shadow_on(&area.cpu, &nested);
	if (takes_no_exit(w->reg[now.register2])) {
		shadow_is_on = false;
		return;
	}
	memcpy(regs.value, w->reg, sizeof(regs.value));
	regs.value[REGISTER_RSP] = 0xbadbadbadULL;
	vmcs[VMCS_GUEST_RSP.encoding] = w->reg[REGISTER_RSP];
	vmcs[VMCS_GUEST_RIP.encoding] = w->rip;
	vmcs[VMCS_GUEST_RFLAGS.encoding] = w->rflags;
	vmcs[VMCS_GUEST_INTERRUPTIBILITY.encoding] = w->interruptibility;
	vmcs[VMCS_GUEST_IA32_EFER.encoding] = now.lma ? EFER_LMA | EFER_LME : 0;
	vmcs[VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS).encoding] = 0x9b | now.cpl << 5 | (now.cs_l ? 0xa000 : 0xc000);
	vmcs[VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_SS).encoding] = 0xc093 | now.cpl << 5;
	vmcs[VMCS_GUEST_CR0.encoding] = CR0_PE | CR0_PG | CR0_NE;
	vmcs[VMCS_CR0_READ_SHADOW.encoding] = now.ne ? CR0_NE : 0;
	vmcs[VMCS_GUEST_CR4.encoding] = CR4_VMXE | CR4_PAE;
	vmcs[VMCS_CR4_READ_SHADOW.encoding] = now.vmxe ? CR4_VMXE : 0;
	vmcs[VMCS_ENTRY_INTERRUPTION_INFO.encoding] = 0;
	vmcs[VMCS_EXIT_INSTRUCTION_LENGTH.encoding] = now.length;
	vmcs[VMCS_INSTRUCTION_INFO.encoding] =
		0x18002 | (now.in_register ? BIT(10) : 0) | now.register1 << 3 | (u64)now.register2 << 28;
	area.cpu.capabilities.cr4_fixed1 = now.la57 ? CR4_LA57 | CR4_VMXE : CR4_VMXE;

	nested_instruction(&regs, now.reason);

	assert_true((nested.page == page && nested.second == second) ||
		    (nested.page == second && nested.second == page));
	/* What is the host's is read once. */
	assert_true(operand_reads <= 1 && memory_reads <= 1 && memory_writes <= 1);
	/* What L1 finds is what VMCS12 has. */
	assert_int_equal(shadow_is_on, shadowing && nested.current != NO_ADDRESS);
	for (unsigned i = 0; shadow_is_on && i < SHADOWED_WRITE; i++)
		assert_int_equal(*test_word(nested.page, shadowed[i]), shadow[i]);
	nested_shadow_off(&area.cpu, &nested);
	real.state = nested.state;
	real.region = nested.vmxon_region;
	real.current = nested.current;
	real.last_violation = nested.last_violation;
	real.lost = nested.lost_writebacks;
	real.dirty = nested.dirty;
	real.cold_in_02 = nested.cold_in_02;
	memcpy(real.page, nested.page, PAGE_SIZE);
	memcpy(real.reg, regs.value, sizeof(regs.value));
	real.reg[REGISTER_RSP] = vmcs[VMCS_GUEST_RSP.encoding];
	real.rip = vmcs[VMCS_GUEST_RIP.encoding];
	real.rflags = vmcs[VMCS_GUEST_RFLAGS.encoding];
	real.interruptibility = vmcs[VMCS_GUEST_INTERRUPTIBILITY.encoding];
	real.event = vmcs[VMCS_ENTRY_INTERRUPTION_INFO.encoding];
	/* Without a current VMCS12 nobody looks at the page, nor outside VMX operation at the region. */
	if (real.current == NO_ADDRESS)
		memcpy(real.page, expected.page, PAGE_SIZE);
	assert_memory_equal(&real.memory, &expected.memory, sizeof(real.memory));
	assert_memory_equal(real.page, expected.page, PAGE_SIZE);
	assert_memory_equal(&real.region, &expected.region, sizeof(real) - offsetof(struct world, region));
	*w = real;
}

static u64 random_u64(void)
{
	static u64 state = 0x9e3779b97f4a7c15;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void fill(struct world *w)
{
	memset(w, 0, sizeof(*w));
	for (unsigned frame = 0; frame < FRAMES; frame++) {
		for (unsigned i = 0; i < WORDS; i++)
			w->memory.word[frame][i] = random_u64();
		/* Also where an address that is not aligned leads. */
		w->memory.word[frame][0] = w->memory.word[frame][1] = w->memory.word[frame][256] =
			random_u64() << 32 | 0x48505331;
		w->memory.word[frame][LAUNCH_STATE] = 1;
		w->memory.host[frame] = frame != FRAME_REFUSED;
	}
	w->memory.word[FRAME_REVISION][0] ^= BIT(3);
	w->memory.word[FRAME_SHADOW][0] |= BIT(31);
	for (unsigned i = 0; i < WORDS; i++)
		w->page[i] = random_u64();
	w->page[0] = w->memory.word[FRAME_A][0];
	for (unsigned i = 0; i < 16; i++)
		w->reg[i] = random_u64();
	w->rip = 0xffffffff81000000;
	w->region = ADDRESS(REGION);
	w->current = w->last_violation = NO_ADDRESS;
	area.cpu.nested = &nested;
	area.cpu.capabilities.physical_address_bits = WIDTH;
	nested.page = buffers[0];
	nested.second = buffers[1];
}

static const u64 pointers[] = {
	ADDRESS(REGION),
	ADDRESS(FRAME_A),
	ADDRESS(FRAME_B),
	ADDRESS(FRAME_REVISION),
	ADDRESS(FRAME_SHADOW),
	ADDRESS(FRAME_REFUSED),
	ADDRESS(FRAMES),
	ADDRESS(REGION) + 8,
	ADDRESS(FRAME_A) + 1,
	ADDRESS(FRAME_B) + 0x800,
	ADDRESS(FRAME_B) | BIT(WIDTH - 1),
	ADDRESS(FRAME_B) | BIT(WIDTH),
	ADDRESS(REGION) | BIT(63),
	0,
	~0ULL,
};

/* Those of `fields` with and without bit 0, and what is no field of docs/nested.md's. */
static const u64 encodings[] = {
	0x0000,  0x0001, 0x0800,           0x0801,           0x2004,           0x2005, 0x2400, 0x2401, 0x2800,
	0x2801,  0x4002, 0x4003,           0x4400,           0x4402,           0x4403, 0x4814, 0x6400, 0x6401,
	0x6802,  0x6803, 0x681c,           0x0002,           0x2012,           0x2013, 0x482e, 0x6c18, 0x7ffe,
	0x16802, 0x7802, 0x6802 | BIT(32), 0x6802 | BIT(63), 0x2005 | BIT(40), ~0ULL,  ~1ULL,
};

static const u64 types[] = { 0, 1, 2, 3, 4, 1 | BIT(32), ~0ULL };

static const u64 eptps[] = { 0x5000 | 0x1e,
			     0x1e,
			     BIT(WIDTH - 1) | 0x1e,
			     BIT(WIDTH) | 0x1e,
			     BIT(63) | 0x1e,
			     0x5018,
			     0x501f,
			     0x5016,
			     0x5026,
			     0x505e,
			     0x509e,
			     0x581e,
			     0 };

static const u64 vpids[][2] = {
	{ LAST_VPID, 0 },
	{ LAST_VPID, BIT(47) - 1 },
	{ LAST_VPID, BIT(47) },
	{ OTHER_VPID, ~0ULL << 47 },
	{ LAST_VPID, ~0ULL << 47 },
	{ LAST_VPID, ~0ULL << 48 & ~BIT(60) },
	{ LAST_VPID, BIT(56) - 1 },
	{ LAST_VPID, BIT(56) },
	{ LAST_VPID, ~0ULL << 56 },
	{ OTHER_VPID, BIT(63) },
	{ OTHER_VPID, 0 },
	{ 0, 0 },
	{ 0, BIT(63) },
	{ LAST_VPID | BIT(16), 0 },
	{ LAST_VPID | BIT(63), 0 },
	{ BIT(16), 0 },
};

static const u32 reasons[] = { EXIT_VMCLEAR, EXIT_VMLAUNCH, EXIT_VMPTRLD, EXIT_VMPTRST, EXIT_VMREAD, EXIT_VMRESUME,
			       EXIT_VMWRITE, EXIT_VMXOFF,   EXIT_VMXON,   EXIT_INVEPT,  EXIT_INVVPID };

/* The operands of number `index` for the instruction, in *w where they are registers. False: there are no more. */
static bool choose_operands(struct world *w, unsigned index)
{
	static unsigned rounds;
	u64 second = 0, count = 1;

	now.register1 = rounds % 16;
	now.register2 = rounds++ / 16 % 16;
	now.operand[0] = random_u64();
	now.operand[1] = random_u64();
	now.faults = now.in_register = false;
	switch (now.reason) {
	case EXIT_VMXON:
	case EXIT_VMCLEAR:
	case EXIT_VMPTRLD:
		now.operand[0] = pointers[index % ARRAY_SIZE(pointers)];
		count = ARRAY_SIZE(pointers);
		break;
	case EXIT_VMREAD:
	case EXIT_VMWRITE:
		second = encodings[index % ARRAY_SIZE(encodings)];
		count = ARRAY_SIZE(encodings);
		now.in_register = index / count == 2;
		break;
	case EXIT_INVEPT:
		second = types[index % ARRAY_SIZE(types)];
		now.operand[0] = eptps[index / ARRAY_SIZE(types) % ARRAY_SIZE(eptps)];
		count = ARRAY_SIZE(types) * ARRAY_SIZE(eptps);
		break;
	case EXIT_INVVPID:
		second = types[index % ARRAY_SIZE(types)];
		memcpy(now.operand, vpids[index / ARRAY_SIZE(types) % ARRAY_SIZE(vpids)], sizeof(now.operand));
		count = ARRAY_SIZE(types) * ARRAY_SIZE(vpids);
		break;
	}
	/* Not what the index stands for, but the same with its access to memory refused, or with none. */
	now.faults = index / count == 1;
	w->reg[now.register2] = second;
	return index / count <= 2;
}

/* Bits of a number by which the places of an instruction differ. */
enum { LMA, CS_L, VMXE, NE, VPID, LA57, SHADOWED, CPL, STATES = CPL + 2 };

static void each_place_and_operand(void **state)
{
	static struct world start, w;

	(void)state;
	fill(&start);
	for (unsigned r = 0; r < ARRAY_SIZE(reasons); r++) {
		for (unsigned place = 0; place < 5 << STATES; place++) {
			/* Outside; no current; launch state 0, 1, other. CS.L is 0 without LMA. */
			unsigned vmx = place >> STATES;
			bool matters;

			now = (struct situation){ .reason = reasons[r], .length = 3 + place % 5 };
			now.lma = place & BIT(LMA);
			now.cs_l = place & BIT(CS_L);
			now.vmxe = place & BIT(VMXE);
			now.ne = place & BIT(NE);
			now.vpid = place & BIT(VPID);
			now.la57 = place & BIT(LA57);
			now.cpl = place >> CPL & 3;
			now.entry_error = vmx % 2 ? 7 : 0;
			if ((now.cs_l && !now.lma) || (now.la57 && now.reason != EXIT_INVVPID))
				continue;
			/* Where no operand matters three will do. */
			matters = now.cs_l && now.vmxe && !now.cpl;
			start.state = vmx ? NESTED_ROOT : NESTED_OFF;
			start.current = vmx > 1 ? ADDRESS(FRAME_A) : NO_ADDRESS;
			start.page[LAUNCH_STATE] = vmx > 1 ? vmx - 2 : 1;
			start.last_violation = vmx ? 0x1234000 : NO_ADDRESS;
			start.interruptibility = place & BIT(SHADOWED) ? INTERRUPTIBILITY_MOV_SS : INTERRUPTIBILITY_STI;
			start.rflags = RFLAGS_RESERVED | RFLAGS_IF | (random_u64() & STATUS_FLAGS);
			for (unsigned index = 0; matters || index < 3; index++) {
				w = start;
				if (!choose_operands(&w, matters ? index : (unsigned)(random_u64() % 32)) && matters)
					break;
				step(&w);
			}
		}
	}
	for (unsigned i = 0; i < ARRAY_SIZE(rules); i++)
		if (!rules[i].hits)
			fail_msg("rule %u has never come", i);
}

/* VMX operation goes on and on; frames leave the host, come back, and are written by it. */
static void sequences(void **state)
{
	static struct world w;
	unsigned entries = 0, loads = 0, lost = 0, ended = 0;

	(void)state;
	fill(&w);
	for (unsigned i = 0; i < 100000; i++) {
		u64 choice = random_u64();
		unsigned frame = choice >> 32 & 7;

		now = (struct situation){ .reason = reasons[(choice >> 8) % ARRAY_SIZE(reasons)] };
		if (choice % 4 && w.state == NESTED_OFF)
			now.reason = EXIT_VMXON;
		/* VMXOFF ends it, and VMCLEAR what is current, too often. */
		else if (choice % 4 && (now.reason == EXIT_VMXOFF || now.reason == EXIT_VMCLEAR))
			now.reason = EXIT_VMPTRLD;
		now.length = 3 + choice / 4 % 6;
		now.lma = now.cs_l = choice >> 16 & 63;
		now.cpl = choice >> 22 & 15 ? 0 : choice >> 26 & 3;
		now.vmxe = choice >> 28 & 15;
		now.ne = choice >> 40 & 15;
		now.vpid = choice >> 44 & 7;
		now.la57 = choice >> 47 & 1;
		now.entry_error = choice >> 48 & 3 ? 0 : 7 + (choice >> 50 & 1);
		w.interruptibility = choice >> 51 & 7 ? 0 : INTERRUPTIBILITY_MOV_SS;
		w.rflags = RFLAGS_RESERVED | RFLAGS_IF | (random_u64() & STATUS_FLAGS);
		if (w.current != NO_ADDRESS && !(choice >> 54 & 15))
			w.last_violation = random_u64();
		do {
			choose_operands(&w, random_u64() % 1024);
		} while (now.faults && random_u64() % 4);
		if (!(choice >> 58 & 7) && frame < FRAMES) {
			w.memory.host[frame] = !w.memory.host[frame] || frame == REGION;
			w.memory.word[frame][LAUNCH_STATE] = random_u64() % 3;
			w.memory.word[frame][0] =
				random_u64() << 32 | (random_u64() % 4 ? 0x48505331 : 0x48505331 | BIT(31));
		}
		step(&w);
		entries += w.entered;
		loads += now.reason == EXIT_VMPTRLD && !(w.rflags & (CF | ZF)) && !w.event;
		lost += w.refusals;
		ended += w.ended;
	}
	assert_true(entries > 1000 && loads > 1000 && lost > 250 && ended > 250);
}

static int with_shadowing(void **state)
{
	(void)state;
	shadowing = true;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_place_and_operand),
		cmocka_unit_test(sequences),
		cmocka_unit_test_setup(each_place_and_operand, with_shadowing),
		cmocka_unit_test_setup(sequences, with_shadowing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

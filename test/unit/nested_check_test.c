// SPDX-License-Identifier: MIT
/*
 * nested/check.c: each bit of each word of controls; each field of docs/nested.md with error 7, 8 or reason 33. Host states at random
 * against a model of the SDM's checks at VM entry, of VMCS01 as an exit leaves it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "nested.h"
#include "vmcs.h"

#define WIDTH 46
#define PHYSICAL (BIT(WIDTH) - 1)
#define PERF_BITS 0x70000000fULL /* what this CPU's PERF_GLOBAL_CTRL has */
#define PERF_OLD 5

static struct cpu_area area;
static struct nested nested;
static u64 page[VMCS12_WORDS];
static u64 offer[0x20]; /* by MSR, from 0x480 on */
static u64 perf_global_ctrl;
static bool perf_absent;

void *read_gs_0(void)
{
	return &area.cpu;
}

static u64 *word(vmcs_field_t field)
{
	u32 e = field.encoding;

	return &page[e ? (e >> 13 & 3) << 7 | (e >> 10 & 3) << 5 | (e >> 1 & 31) : VMCS12_VPID];
}

bool nested_msr(u32 msr, u64 *value)
{
	assert_in_range(msr, 0x480, 0x493);
	*value = offer[msr - 0x480];
	return msr <= 0x490;
}

bool rdmsr_checked(u32 msr, u64 *value)
{
	assert_int_equal(msr, 0x38f);
	*value = perf_global_ctrl;
	return !perf_absent;
}

bool wrmsr_checked(u32 msr, u64 value)
{
	assert_int_equal(msr, 0x38f);
	if (value & ~PERF_BITS)
		return false;
	perf_global_ctrl = value;
	return true;
}

void wrmsr(u32 msr, u64 value)
{
	assert_true(wrmsr_checked(msr, value));
}

static u64 random_state = 88172645463325252ULL;

static u64 any(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * 0x2545f4914f6cdd1dULL;
}

static void put(vmcs_field_t field, u64 value)
{
	*word(field) = value;
}

#define CONTROL_WORDS 5

/* The capability MSR that decides about each word. */
static const struct {
	vmcs_field_t field;
	u32 msr;
} controls[CONTROL_WORDS] = { { { 0x4000 }, 0x48d },
			      { { 0x4002 }, 0x48e },
			      { { 0x401e }, 0x48b },
			      { { 0x400c }, 0x48f },
			      { { 0x4012 }, 0x490 } };

/* As docs/nested.md, "What is offered", on a CPU that has all. */
static void offer_all(void)
{
	memset(offer, 0, sizeof(offer));
	offer[0xd] = 0x3f0000003fULL;
	offer[0xe] = 0x04006172ULL | BIT(24);
	offer[0xe] |= (offer[0xe] | 0xf0d98e8cULL) << 32;
	offer[0xb] = 0x041014eaULL << 32;
	offer[0xf] = 0x00036dfb | BIT(2) | BIT(9) | BIT(15);
	offer[0xf] |= (offer[0xf] | BIT(12) | 0x3c0000) << 32;
	offer[0x10] = 0x000011fb | BIT(2);
	offer[0x10] |= (offer[0x10] | BIT(9) | 0xe000) << 32;
	offer[6] = 0x80000021;
	offer[7] = 0xffffffff;
	offer[8] = 0x2000;
	offer[9] = 0x773fff; /* CR4_ALLOWED and VMXE */
}

/* A VMCS12 that passes: everything that is not looked at is ones. */
static void valid(void)
{
	memset(page, 0xff, sizeof(page));
	offer_all();
	memset(&area, 0, sizeof(area));
	area.cpu.capabilities.physical_address_bits = WIDTH;
	nested = (struct nested){ .page = page, .dirty = true };
	perf_absent = false;
	perf_global_ctrl = PERF_OLD;
	for (unsigned i = 0; i < CONTROL_WORDS; i++)
		put(controls[i].field, (u32)offer[controls[i].msr - 0x480]);
	put(VMCS_FIELD(0x4002), (u32)offer[0xe] | BIT(31));
	put(VMCS_FIELD(0x401e), BIT(1));
	put(VMCS_FIELD(0x201a), 0x12345601eULL); /* EPTP */
	put(VMCS_FIELD(0x400a), 0);
	put(VMCS_FIELD(0x4016), 0);
	for (unsigned e = 0x400e; e <= 0x4014; e += 2)
		if (e != 0x4012)
			put(VMCS_FIELD(e), 0);
	/* Host. */
	put(VMCS_FIELD(0x6c00), 0x80050033);
	put(VMCS_FIELD(0x6c02), 0x1234567005);
	put(VMCS_FIELD(0x6c04), 0x3726e0);
	for (unsigned e = 0x6c06; e <= 0x6c16; e += 2)
		put(VMCS_FIELD(e), 0xffff888012345678);
	put(VMCS_FIELD(0x6c0e), 0x00007fffffffffff);
	for (unsigned e = 0xc00; e <= 0xc0c; e += 2)
		put(VMCS_FIELD(e), e == 0xc02 || e == 0xc0c ? 0x10 : 0);
	put(VMCS_FIELD(0x2c00), 0x0407050600070106);
	put(VMCS_FIELD(0x2c02), 0xd01);
	put(VMCS_FIELD(0x2c04), 3);
	/* Guest, in real mode. */
	put(VMCS_FIELD(0x2800), ~0ULL);
	put(VMCS_FIELD(0x2802), 0);
	put(VMCS_FIELD(0x2804), 0x0007040600070406);
	put(VMCS_FIELD(0x2806), 0);
	put(VMCS_FIELD(0x6800), 0x30);
	put(VMCS_FIELD(0x6804), 0x2000);
	put(VMCS_FIELD(0x4824), 0);
	put(VMCS_FIELD(0x4826), 0);
}

/* Error 7 or none, whatever host and guest state are. */
static bool controls_pass(void)
{
	u32 error = check_controls(&nested);

	assert_true(error == 0 || error == 7);
	return !error;
}

static bool host_passes(void)
{
	u32 error = check_host(&nested);

	assert_true(error == 0 || error == 8);
	assert_int_equal(perf_global_ctrl, PERF_OLD);
	return !error;
}

static bool guest_passes(u64 expected)
{
	u64 qualification = 0xdead;
	bool passed = check_guest(&nested, &qualification);

	if (!passed)
		assert_int_equal(qualification, expected);
	return passed;
}

/* Whether a field passes with each of its bits turned over, one at a time, is what `pass` says. */
static void each_bit(vmcs_field_t field, unsigned bits, bool (*check)(void), u64 pass)
{
	u64 old = *word(field);

	assert_true(check());
	for (unsigned bit = 0; bit < bits; bit++) {
		put(field, old ^ BIT(bit));
		if (check() != (pass >> bit & 1))
			fail_msg("field %x, bit %u", field.encoding, bit);
	}
	put(field, old);
}

static void every_control_bit(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 500; round++) {
		valid();
		/* Later rounds: an offer at random, which contains what an entry always needs. */
		for (unsigned i = 0; round && i < CONTROL_WORDS; i++) {
			u32 may = any(), must = may & any() & any();

			may |= i == 1 ? BIT(31) : i == 2 ? BIT(1) : 0;
			offer[controls[i].msr - 0x480] = (u64)may << 32 | must;
			put(controls[i].field, (u32)(must | (may & any()) | (i == 1 ? BIT(31) : i == 2 ? BIT(1) : 0)));
		}
		put(VMCS_FIELD(0), 1);
		put(VMCS_FIELD(0x2004), 0x1000);
		for (unsigned i = 0; i < CONTROL_WORDS; i++) {
			u64 must = (u32)offer[controls[i].msr - 0x480], may = offer[controls[i].msr - 0x480] >> 32;

			must |= i == 1 ? BIT(31) : i == 2 ? BIT(1) : 0;
			each_bit(controls[i].field, 32, controls_pass, may & ~must);
		}
	}
	/* The other MSRs, of the words without TRUE, decide nothing; where one is missing nothing passes. */
	valid();
	offer[1] = offer[2] = offer[3] = offer[4] = 0;
	assert_true(controls_pass());
}

static bool eptp_passes(u64 eptp12)
{
	put(VMCS_FIELD(0x201a), eptp12);
	return controls_pass();
}

static void pointers_of_controls(void **state)
{
	(void)state;
	valid();
	/* Address bits may be any. */
	each_bit(VMCS_FIELD(0x201a), 64, controls_pass, PHYSICAL & ~0xfffULL);
	for (u64 low = 0; low < 4096; low++)
		assert_int_equal(eptp_passes(0x7000 | low), low == 0x1e);
	assert_false(eptp_passes(BIT(WIDTH) | 0x1e));
	assert_true(eptp_passes((PHYSICAL & ~0xfffULL) | 0x1e));

	put(VMCS_FIELD(0), 0);
	assert_true(controls_pass());
	put(VMCS_FIELD(0x401e), BIT(1) | BIT(5));
	assert_false(controls_pass());
	put(VMCS_FIELD(0), 0x10000); /* cut to 16 bits */
	assert_false(controls_pass());
	put(VMCS_FIELD(0), 0x8000);
	assert_true(controls_pass());

	put(VMCS_FIELD(0x2004), 0xfff);
	assert_true(controls_pass());
	put(VMCS_FIELD(0x4002), (u32)offer[0xe] | BIT(31) | BIT(28));
	put(VMCS_FIELD(0x2004), 0);
	each_bit(VMCS_FIELD(0x2004), 64, controls_pass, PHYSICAL & ~0xfffULL);

	each_bit(VMCS_FIELD(0x400a), 32, controls_pass, 0);
}

static void lists(void **state)
{
	static const vmcs_field_t list[3][2] = { { { 0x400e }, { 0x2006 } },
						 { { 0x4010 }, { 0x2008 } },
						 { { 0x4014 }, { 0x200a } } };

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		valid();
		put(list[i][1], 0x12340);
		for (u64 count = 0; count < 600; count++) {
			put(list[i][0], count);
			assert_int_equal(controls_pass(), count <= 8);
		}
		for (unsigned bit = 4; bit < 32; bit++) {
			put(list[i][0], BIT(bit));
			assert_false(controls_pass());
		}
		for (u64 count = 1; count <= 8; count++) {
			put(list[i][0], count);
			put(list[i][1], 0);
			each_bit(list[i][1], 64, controls_pass, PHYSICAL & ~0xfULL);
			for (u64 before = 0; before < 12 * 16; before += 16) {
				put(list[i][1], PHYSICAL + 1 - before);
				assert_int_equal(controls_pass(), before >= 16 * count);
				put(list[i][1], -before);
				assert_int_equal(controls_pass(), before == 0);
			}
		}
		put(list[i][0], 0);
		put(list[i][1], ~0ULL);
		assert_true(controls_pass());
	}
}

static void event(void **state)
{
	(void)state;
	valid();
	for (u64 low = 0; low < 0x1000; low++) {
		u64 type = low >> 8 & 7;

		put(VMCS_FIELD(0x4016), BIT(31) | low);
		assert_int_equal(controls_pass(), type != 1 && type != 7);
		put(VMCS_FIELD(0x4016), 0x7ffff000 | low);
		assert_true(controls_pass());
	}
	put(VMCS_FIELD(0x4016), BIT(31) | 0xb0e);
	each_bit(VMCS_FIELD(0x4016), 32, controls_pass, ~0x7ffff600ULL);
}

static bool is_canonical(u64 address, unsigned bits)
{
	u64 high = address >> (bits - 1);

	return high == 0 || high == ~0ULL >> (bits - 1);
}

static bool pat_type(u64 type)
{
	return type == 0 || type == 1 || (type >= 4 && type <= 7);
}

/* VMCS01's guest state behind an exit: docs/nested.md, "Shown to L1", step 3. */
struct vmcs01 {
	u64 cr0, cr3, cr4, dr7, debugctl, efer, pat, rip, rflags, sysenter_esp, sysenter_eip, gdt_base, idt_base,
		pending_debug;
	u64 gdt_limit, idt_limit, interruptibility, activity;
	u64 selector[SEGMENTS], base[SEGMENTS], limit[SEGMENTS], rights[SEGMENTS];
	bool ia32e;
};

static u64 field(u32 encoding)
{
	return nested_get(&nested, VMCS_FIELD(encoding));
}

static struct vmcs01 shown(void)
{
	bool load_pat = field(0x400c) & BIT(19), load_efer = field(0x400c) & BIT(21);
	struct vmcs01 v = { .cr0 = (field(0x6c00) & ~CR0_OWNED) | CR0_NE,
			    .cr3 = field(0x6c02),
			    .cr4 = field(0x6c04) | CR4_VMXE | CR4_MCE,
			    .dr7 = 0x400,
			    .efer = load_efer ? field(0x2c02) : 0xd00,
			    .pat = load_pat ? field(0x2c00) : 0x0007040600070406,
			    .rip = field(0x6c16),
			    .rflags = 2,
			    .sysenter_esp = field(0x6c10),
			    .sysenter_eip = field(0x6c12),
			    .gdt_base = field(0x6c0c),
			    .idt_base = field(0x6c0e),
			    .gdt_limit = 0xffff,
			    .idt_limit = 0xffff,
			    .ia32e = true };

	for (unsigned i = SEGMENT_ES; i <= SEGMENT_GS; i++) {
		v.selector[i] = field(0xc00 + 2 * i);
		v.limit[i] = ~0U;
		v.rights[i] = i == SEGMENT_CS ? 0xa09b : v.selector[i] || i == SEGMENT_SS ? 0xc093 : 0x10000;
	}
	v.base[SEGMENT_FS] = field(0x6c06);
	v.base[SEGMENT_GS] = field(0x6c08);
	v.selector[SEGMENT_TR] = field(0xc0c);
	v.base[SEGMENT_TR] = field(0x6c0a);
	v.limit[SEGMENT_TR] = 0x67;
	v.rights[SEGMENT_TR] = 0x8b;
	v.rights[SEGMENT_LDTR] = 0x10000;
	return v;
}

/* SDM, "Checks on Guest Segment Registers", of a register that is no TR or LDTR. */
static bool segment_enters(const struct vmcs01 *v, unsigned i, unsigned linear)
{
	u64 rights = v->rights[i], type = rights & 15, dpl = rights >> 5 & 3;

	if ((i == SEGMENT_FS || i == SEGMENT_GS) && !is_canonical(v->base[i], linear))
		return false;
	if (i != SEGMENT_CS && (rights & 0x10000))
		return true;
	if (i < SEGMENT_FS && v->base[i] >> 32)
		return false;
	if (!(rights & BIT(4)) || !(rights & BIT(7)) || (rights & 0xfffe0f00))
		return false;
	if (((v->limit[i] & 0xfff) != 0xfff && (rights & BIT(15))) || (v->limit[i] >> 20 && !(rights & BIT(15))))
		return false;
	if (i == SEGMENT_CS)
		return (type == 9 || type == 11) && dpl == (v->rights[SEGMENT_SS] >> 5 & 3) &&
		       !(v->ia32e && (rights & BIT(13)) && (rights & BIT(14)));
	if (i == SEGMENT_SS)
		return (type == 3 || type == 7) && dpl == (v->selector[i] & 3) &&
		       (v->selector[i] & 3) == (v->selector[SEGMENT_CS] & 3);
	return (type & 1) && (!(type & 8) || (type & 2)) && (type >= 12 || dpl >= (v->selector[i] & 3));
}

/* SDM, "Checks on the Guest State Area", on a CPU whose FIXED MSRs and width are ours. */
static bool enters(const struct vmcs01 *v)
{
	/* A CPU with LA57 lets bases have 57 bits whatever CR4 says; what it says is never more. */
	unsigned linear = v->cr4 & BIT(12) ? 57 : 48;

	if ((v->cr0 & 0x80000021) != 0x80000021 || v->cr0 >> 32 || (v->cr4 & ~0x773fffULL) || !(v->cr4 & BIT(13)))
		return false;
	if (!v->ia32e || !(v->cr4 & BIT(5)) || v->cr3 >> WIDTH || v->dr7 >> 32 || v->debugctl)
		return false;
	if (!is_canonical(v->sysenter_esp, linear) || !is_canonical(v->sysenter_eip, linear))
		return false;
	for (unsigned i = 0; i < 8; i++)
		if (!pat_type(v->pat >> 8 * i & 0xff))
			return false;
	if ((v->efer & ~0xd01ULL) || !(v->efer & BIT(8)) || !(v->efer & BIT(10)))
		return false;
	for (unsigned i = SEGMENT_ES; i <= SEGMENT_GS; i++)
		if (!segment_enters(v, i, linear))
			return false;
	if ((v->selector[SEGMENT_TR] & 4) || v->rights[SEGMENT_TR] != 0x8b ||
	    !is_canonical(v->base[SEGMENT_TR], linear) || v->limit[SEGMENT_TR] >> 20 ||
	    v->rights[SEGMENT_LDTR] != 0x10000)
		return false;
	if (!is_canonical(v->gdt_base, linear) || !is_canonical(v->idt_base, linear) || v->gdt_limit >> 16 ||
	    v->idt_limit >> 16)
		return false;
	return is_canonical(v->rip, linear) && v->rflags == 2 && v->activity == 0 && v->interruptibility == 0 &&
	       !v->pending_debug;
}

/* SDM, "Checks on Host Segment and Descriptor-Table Registers", "... Control Registers and MSRs": what VMCS01 does not show. */
static bool host_enters(void)
{
	struct vmcs01 v = shown();

	for (u32 e = 0xc00; e <= 0xc0c; e += 2)
		if (field(e) & 7)
			return false;
	if ((field(0x6c00) & 0x80000021) != 0x80000021 || field(0x6c00) >> 32 || !(field(0x6c04) & BIT(13)))
		return false;
	if ((field(0x400c) & BIT(12)) && (field(0x2c04) & ~PERF_BITS))
		return false;
	return field(0xc02) && field(0xc0c) && enters(&v);
}

static const u32 host_fields[] = { 0xc00,  0xc02,  0xc04,  0xc06,  0xc08,  0xc0a,  0xc0c,  0x2c00,
				   0x2c02, 0x2c04, 0x4c00, 0x6c00, 0x6c02, 0x6c04, 0x6c06, 0x6c08,
				   0x6c0a, 0x6c0c, 0x6c0e, 0x6c10, 0x6c12, 0x6c14, 0x6c16 };

static void host_bits(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 16; round++) {
		valid();
		put(VMCS_FIELD(0x400c), (u32)offer[0xf] | (round & 1 ? BIT(19) : 0) | (round & 2 ? BIT(21) : 0) |
						(round & 4 ? BIT(12) : 0));
		put(VMCS_FIELD(0x6c04), field(0x6c04) | (round & 8 ? BIT(12) : 0));
		assert_true(host_passes());
		assert_true(host_enters());
		for (unsigned i = 0; i < ARRAY_SIZE(host_fields); i++) {
			u64 pass = 0, *at = word(VMCS_FIELD(host_fields[i]));

			for (unsigned bit = 0; bit < 64; bit++) {
				*at ^= BIT(bit);
				pass |= host_enters() ? BIT(bit) : 0;
				*at ^= BIT(bit);
			}
			each_bit(VMCS_FIELD(host_fields[i]), 64, host_passes, pass);
		}
	}
	/* A CPU without the register. */
	valid();
	perf_absent = true;
	assert_true(host_passes());
	put(VMCS_FIELD(0x400c), (u32)offer[0xf] | BIT(12));
	assert_false(host_passes());
}

/* One at the edge: of few bits, canonical for 48 or 57 bits, or not. */
static u64 odd(void)
{
	u64 value = any();

	switch (any() % 8) {
	case 0:
		return value;
	case 1:
		return BIT(value % 64);
	case 2:
		return ~0ULL << value % 64;
	case 3:
		return ~0ULL >> value % 64;
	case 4:
		return (u64)((s64)value >> 8);
	case 5:
		return value & 0xffff;
	case 6:
		return 0;
	default:
		return (u64)((s64)value >> 17);
	}
}

static void host_at_random(void **state)
{
	unsigned passed = 0, refused = 0;

	(void)state;
	for (unsigned round = 0; round < 300000; round++) {
		unsigned changes = any() % 4;

		valid();
		put(VMCS_FIELD(0x400c), (u32)offer[0xf] | (any() & 0x3c1000));
		put(VMCS_FIELD(0x6c04), field(0x6c04) ^ (any() & any() & BIT(12)));
		for (unsigned i = 0; i < changes; i++) {
			u64 *at = word(VMCS_FIELD(host_fields[any() % ARRAY_SIZE(host_fields)]));

			*at = any() & 1 ? odd() : *at ^ BIT(any() % 64);
		}
		if (host_passes() != host_enters())
			fail_msg("round %u", round);
		*(host_enters() ? &passed : &refused) += 1;
	}
	assert_true(passed > 100000 && refused > 100000);
}

static bool guest(void)
{
	return guest_passes(0);
}

static void guest_fields(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 4; round++) {
		bool efer = round & 1, pat = round & 2;

		valid();
		put(VMCS_FIELD(0x4012), (u32)offer[0x10] | (efer ? BIT(15) : 0) | (pat ? BIT(14) : 0));
		/* PE and PG may be 0: the CPU decides. NE may not. */
		each_bit(VMCS_FIELD(0x6800), 64, guest, 0xffffffffULL & ~BIT(5));
		each_bit(VMCS_FIELD(0x6804), 64, guest, 0x773fffULL & ~BIT(13));
		each_bit(VMCS_FIELD(0x2802), 64, guest, 0x5807);
		each_bit(VMCS_FIELD(0x2806), 64, guest, efer ? 0xd01 : ~0ULL);
		for (unsigned i = 0; i < 8; i++)
			for (u64 type = 0; type < 256; type++) {
				put(VMCS_FIELD(0x2804), type << 8 * i);
				assert_int_equal(guest(), !pat || pat_type(type));
			}
		put(VMCS_FIELD(0x2804), 0);
		for (u64 activity = 0; activity < 16; activity++) {
			put(VMCS_FIELD(0x4826), activity);
			assert_int_equal(guest(), activity <= 1);
		}
		put(VMCS_FIELD(0x4826), 0);
		each_bit(VMCS_FIELD(0x4826), 32, guest, 1);
		each_bit(VMCS_FIELD(0x4824), 32, guest, BIT(0) | BIT(1) | BIT(3));
		for (unsigned bit = 0; bit < 64; bit++) {
			put(VMCS_FIELD(0x2800), ~0ULL ^ BIT(bit));
			assert_false(guest_passes(4));
		}
		put(VMCS_FIELD(0x2800), 0);
		assert_false(guest_passes(4));
	}
}

/* Hot fields of a VMCS12 that has passed change: what is looked at then says what all checks say. */
static void what_has_passed(void **state)
{
	static const u16 hot[] = { 0x0c08, 0x0c0a, 0x4002, 0x4016, 0x4018, 0x4824, 0x681e, 0x6820, 0x6c06, 0x6c08 };
	unsigned bad = 0;

	(void)state;
	for (unsigned round = 0; round < 100000; round++) {
		u32 controls_error, host_error;
		u64 qualification;
		bool guest;

		valid();
		/* What a word of the controls makes matter that was of no matter. */
		put(VMCS_FIELD(0x2004), any() & (any() % 2 ? 0xfff : 0xfffff000));
		assert_int_equal(check_controls(&nested), 0);
		assert_int_equal(check_host(&nested), 0);
		assert_true(check_guest(&nested, &qualification));
		nested.primary = *word(VMCS_FIELD(0x4002));
		for (unsigned i = 0; i <= any() % 2; i++)
			*word(VMCS_FIELD(hot[any() % ARRAY_SIZE(hot)])) ^= BIT(any() % 64);
		controls_error = check_controls(&nested);
		host_error = check_host(&nested);
		guest = check_guest(&nested, &qualification);
		bad += controls_error || host_error || !guest;
		nested.dirty = false;
		assert_int_equal(check_controls(&nested), controls_error);
		assert_int_equal(check_host(&nested), host_error);
		assert_int_equal(check_guest(&nested, &qualification), guest);
		assert_int_equal(qualification, 0);
	}
	assert_in_range(bad, 10000, 90000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_control_bit),
		cmocka_unit_test(pointers_of_controls),
		cmocka_unit_test(lists),
		cmocka_unit_test(event),
		cmocka_unit_test(host_bits),
		cmocka_unit_test(host_at_random),
		cmocka_unit_test(guest_fields),
		cmocka_unit_test(what_has_passed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

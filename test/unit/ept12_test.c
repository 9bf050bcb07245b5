// SPDX-License-Identifier: MIT
/*
 * nested/ept12.c: EPT12s of all shapes against a reference walker; what is filled into EPT02, in which order with locks and INVEPT; what
 * L1 is shown. Host memory changes behind each read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "log.h"
#include "memory_service.h"
#include "nested.h"

#define WIDTH 46
#define FRAME 0x3456000000ULL /* of page 0 of the host's memory */
#define PAGES 8
#define ROOT 2
#define CPU_BITS (BIT(7) | BIT(8) | BIT(12)) /* of a qualification, which L1 sees as the CPU gave them */

static struct cpu_area area;
static u64 page[VMCS12_WORDS], second[VMCS12_WORDS];
static struct nested nested;
static u64 memory[PAGES][512], eptp12, violation_gpa, qualification_of_cpu;
static unsigned reads, bytes_read;
static bool garble, /* host memory is another right behind a read */
	aliased; /* not so: the same word may be read again, as an entry of another level */

static struct mm mm;
static bool locked;
static char trace[1000]; /* L lock, U unlock, F fill, R reset, D drop, I INVEPT, S restart */

struct filling {
	struct leaf12 leaf;
	u64 gpa, access;
};
static struct filling filled[100];
static unsigned fills, logged;
static enum shadow_result (*answer)(u64 gpa);

void *read_gs_0(void)
{
	return &area.cpu;
}

u64 vmread(vmcs_field_t field)
{
	if (field.encoding == 0x6400)
		return qualification_of_cpu;
	assert_int_equal(field.encoding, 0x2400);
	return violation_gpa;
}

bool memory_read_host(u64 gpa, void *out, unsigned bytes)
{
	/* It may take mm_lock itself. */
	assert_false(locked);
	assert_true(gpa % PAGE_SIZE + bytes <= PAGE_SIZE && gpa % 8 == 0 && bytes % 8 == 0);
	/* What L1 chooses lies in kvm_pool, not on a stack. */
	assert_ptr_equal(out, second);
	reads++;
	bytes_read += bytes;
	if (gpa < FRAME || gpa >= FRAME + sizeof(memory))
		return false;
	memcpy(out, (u8 *)memory + (gpa - FRAME), bytes);
	if (garble)
		memset((u8 *)memory + (gpa - FRAME), 0x5a, bytes);
	return true;
}

static void note(char what)
{
	size_t length = strlen(trace);

	assert_true(length + 1 < sizeof(trace));
	trace[length] = what;
}

struct mm *memory_lock(void)
{
	assert_false(locked);
	locked = true;
	note('L');
	return &mm;
}

void memory_unlock(void)
{
	assert_true(locked);
	locked = false;
	note('U');
}

void invept_all(void)
{
	note('I');
}

enum shadow_result shadow_fill(struct mm *m, struct shadow *shadow, unsigned root, const struct leaf12 *leaf, u64 gpa,
			       u64 access)
{
	assert_true(locked && m == &mm && shadow == &nested.shadow && root == ROOT);
	assert_true(fills < ARRAY_SIZE(filled));
	filled[fills++] = (struct filling){ *leaf, gpa, access };
	note('F');
	return answer(gpa);
}

void shadow_reset(struct shadow *shadow)
{
	assert_true(locked && shadow == &nested.shadow);
	shadow->must_invept = true;
	note('R');
}

void shadow_drop(struct shadow *shadow, unsigned root)
{
	assert_true(locked && shadow == &nested.shadow);
	assert_int_equal(root, 1);
	shadow->must_invept = true;
	note('D');
}

void shadow_restart(struct shadow *shadow)
{
	assert_true(locked && shadow == &nested.shadow);
	assert_non_null(strchr(trace, 'I'));
	shadow->must_invept = false;
	note('S');
}

unsigned shadow_find(struct shadow *shadow, u64 eptp)
{
	assert_ptr_equal(shadow, &nested.shadow);
	return eptp == 0x501e ? 1 : SHADOW_ROOTS;
}

void log_refusal(enum refusal kind, const char *format, ...)
{
	(void)format;
	assert_int_equal(kind, REFUSED_MEMORY);
	logged++;
}

static enum shadow_result yes(u64 gpa)
{
	(void)gpa;
	return SHADOW_FILLED;
}

static enum shadow_result no(u64 gpa)
{
	(void)gpa;
	return SHADOW_REFUSED;
}

static u64 any(void)
{
	static u64 x = 88172645463325252ULL;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x * 0x2545f4914f6cdd1dULL;
}

static void begin(void)
{
	area.cpu.capabilities.physical_address_bits = WIDTH;
	memset(second, 0x5a, sizeof(second));
	nested = (struct nested){ .page = page, .second = second, .root = ROOT, .last_violation = NO_ADDRESS };
	eptp12 = FRAME | 0x1e;
	nested_set(&nested, VMCS_EPTP, eptp12);
	answer = yes;
	locked = garble = false;
	reads = bytes_read = fills = logged = 0;
	memset(trace, 0, sizeof(trace));
}

enum kind { ABSENT, WRONG, GOOD };

/* The reference: what the SDM's tables of EPT entries say, in the words of docs/nested.md. */
static enum kind entry_kind(u64 e, unsigned level)
{
	bool r = e & 1, w = e & 2, x = e & 4, big = e >> 7 & 1;

	if (!r && !w && !x)
		return ABSENT;
	if (!r)
		return WRONG;
	for (unsigned bit = WIDTH; bit < 52; bit++)
		if (e >> bit & 1)
			return WRONG;
	if (level == 4)
		return e >> 3 & 31 ? WRONG : GOOD;
	if (level == 3)
		return e >> 3 & 15 || big ? WRONG : GOOD;
	if (level == 2 && !big)
		return e >> 3 & 15 ? WRONG : GOOD;
	switch (e >> 3 & 7) {
	case 2:
	case 3:
	case 7:
		return WRONG;
	}
	return level == 2 && (e >> 12 & 511) ? WRONG : GOOD;
}

struct reference {
	enum kind kind;
	struct leaf12 leaf;
	u64 around[64]; /* of a leaf of level 1 */
	u8 above;
};

static u64 at_address(u64 address, bool *there)
{
	*there = address >= FRAME && address < FRAME + sizeof(memory);
	return *there ? memory[(address - FRAME) / PAGE_SIZE][address % PAGE_SIZE / 8] : 0;
}

static struct reference reference_walk(u64 gpa)
{
	struct reference r = { .kind = ABSENT, .above = 7 };
	u64 table = eptp12 >> 12 << 12;

	if (gpa >= 1ULL << 48)
		return r;
	for (unsigned level = 4; level; level--) {
		u64 index = gpa >> (12 + 9 * (level - 1)) & 511;
		bool there;
		u64 e = at_address(table + 8 * index, &there);

		r.kind = there ? entry_kind(e, level) : WRONG;
		if (r.kind != GOOD)
			return r;
		if (level == 1 || (level == 2 && (e & 128))) {
			r.leaf.level = level;
			r.leaf.gpa = level == 1 ? gpa & ~0xfffULL : gpa & ~0x1fffffULL;
			r.leaf.hpa = e & 0xffffffffff000;
			r.leaf.rights = r.above & e & 7;
			r.leaf.type = e >> 3 & 7;
			for (unsigned i = 0; level == 1 && i < 64; i++)
				r.around[i] = at_address(table + 8 * ((index & ~63ULL) + i), &there);
			return r;
		}
		r.above &= e;
		table = e & 0xffffffffff000;
	}
	return r;
}

static void same_leaf(const struct leaf12 *a, const struct leaf12 *b)
{
	assert_int_equal(a->gpa, b->gpa);
	assert_int_equal(a->hpa, b->hpa);
	assert_int_equal(a->rights, b->rights);
	assert_int_equal(a->type, b->type);
	assert_int_equal(a->level, b->level);
}

/* The fills are the leaf, then its neighbours that are there, of so many entries, from the reference. */
static void check_fills(const struct reference *r, u64 gpa, u64 access, unsigned around)
{
	unsigned next = 1;

	assert_true(fills > 0);
	same_leaf(&filled[0].leaf, &r->leaf);
	assert_int_equal(filled[0].gpa, gpa);
	assert_int_equal(filled[0].access, access);
	for (unsigned i = 0; r->leaf.level == 1 && around == 64 && i < 64; i++) {
		u64 at = (gpa & ~0x3ffffULL) + i * 4096, e = r->around[i];
		struct leaf12 leaf = { .gpa = at,
				       .hpa = e & 0xffffffffff000,
				       .rights = e & r->above & 7,
				       .type = e >> 3 & 7,
				       .level = 1 };

		if (at == r->leaf.gpa || entry_kind(e, 1) != GOOD)
			continue;
		assert_true(next < fills);
		same_leaf(&filled[next].leaf, &leaf);
		assert_int_equal(filled[next].gpa, at);
		assert_int_equal(filled[next++].access, 0);
	}
	assert_int_equal(next, fills);
}

static unsigned shown_48, shown_49, resumed;

/* A violation on what is in memory now is what the reference says. */
static void violate(u64 gpa, u64 cpu_qualification)
{
	u32 reason = 0xdead;
	u64 qualification = 0xdead, access = cpu_qualification & 7;
	struct reference r = reference_walk(gpa);
	enum nested_next next;

	begin();
	violation_gpa = gpa;
	qualification_of_cpu = cpu_qualification;
	garble = !aliased;
	next = nested_ept_violation(&nested, &reason, &qualification);
	assert_false(locked);
	assert_true(reads <= 5 && bytes_read <= 4 * 8 + 512);
	if (r.kind == GOOD && !(access & ~r.leaf.rights)) {
		assert_int_equal(next, NESTED_RESUME);
		check_fills(&r, gpa, access, 64);
		assert_true(nested.last_violation == NO_ADDRESS);
		resumed++;
		return;
	}
	assert_int_equal(next, NESTED_SHOWN);
	assert_int_equal(fills, 0);
	assert_string_equal(trace, "");
	if (r.kind == WRONG) {
		assert_int_equal(reason, 49);
		assert_int_equal(qualification, 0);
		assert_true(nested.last_violation == NO_ADDRESS);
		shown_49++;
	} else {
		assert_int_equal(reason, 48);
		assert_int_equal(qualification,
				 (cpu_qualification & (CPU_BITS | 7)) | (u64)(r.kind == GOOD ? r.leaf.rights : 0) << 3);
		assert_int_equal(nested.last_violation, gpa);
		shown_48++;
	}
}

/* Page n is the table of level 4 - n; the entries of gpa 0x8080604000 + 7 pages lie there. */
#define GPA_1 (1ULL << 39 | 2ULL << 30 | 3ULL << 21 | 70ULL << 12 | 0x123)

static u64 *slot(unsigned level)
{
	return &memory[4 - level][level == 4 ? 1 : level == 3 ? 2 : level == 2 ? 3 : 70];
}

static void good_tables(void)
{
	memset(memory, 0, sizeof(memory));
	begin();
	for (unsigned level = 4; level > 1; level--)
		*slot(level) = (FRAME + (5 - level) * PAGE_SIZE) | 7;
	*slot(1) = 0x12345678000 | 6 << 3 | 7;
}

static void every_bit(void **state)
{
	(void)state;
	for (unsigned level = 4; level; level--)
		for (u64 low = 0; low < 0x1000; low++)
			for (unsigned access = 1; access < 8; access++) {
				good_tables();
				*slot(level) = (*slot(level) & ~0xfffULL) | low;
				violate(GPA_1, access | BIT(7) | BIT(8));
				/* And a leaf of 2 MiB whose address fits. */
				if (level != 2)
					continue;
				good_tables();
				*slot(2) = 0x12345600000 | low;
				violate(GPA_1, access);
			}
	for (unsigned level = 4; level; level--)
		for (unsigned a = 0; a < 64; a++)
			for (unsigned b = 0; b < 64; b++) {
				good_tables();
				*slot(level) ^= BIT(a) ^ BIT(b);
				violate(GPA_1, 1);
				good_tables();
				*slot(2) = 0x123456000b7 ^ BIT(a) ^ BIT(b);
				violate(GPA_1, 1);
			}
	assert_true(shown_48 > 1000 && shown_49 > 1000 && resumed > 1000);
}

/* Rights are ANDed: each combination at four levels. */
static void rights(void **state)
{
	static const u8 some[] = { 1, 3, 5, 7 };

	(void)state;
	for (unsigned i = 0; i < 256; i++)
		for (unsigned access = 0; access < 8; access++) {
			good_tables();
			for (unsigned level = 4; level; level--)
				*slot(level) = (*slot(level) & ~7ULL) | some[i >> 2 * (level - 1) & 3];
			violate(GPA_1, access);
		}
}

/* Entries at random, mostly of the host's few pages: tables that are their own children, a table as a page. */
static void at_random(void **state)
{
	static const u16 lows[] = { 7, 7, 7, 7, 0x37, 0xb7, 0x87, 0x1, 0x33, 0x35, 0, 6, 2, 4 };

	(void)state;
	shown_48 = shown_49 = resumed = 0;
	aliased = true;
	for (unsigned round = 0; round < 60000; round++) {
		u64 gpa = any() >> (16 + any() % 4 * 9);

		for (unsigned i = 0; i < PAGES; i++)
			for (unsigned j = 0; j < 512; j++) {
				/* Few that the walk can meet, or it would take long. */
				if (round % 64)
					break;
				memory[i][j] =
					(FRAME + any() % (PAGES + 1) * PAGE_SIZE) | lows[any() % ARRAY_SIZE(lows)];
			}
		for (unsigned level = 4; level; level--) {
			u64 index = gpa >> (12 + 9 * (level - 1)) & 511;

			for (unsigned i = 0; i < PAGES; i++) {
				u64 *e = &memory[i][index];

				*e = (FRAME + any() % (PAGES + (any() % 8 == 0)) * PAGE_SIZE) |
				     lows[any() % (any() % 3 ? 6 : ARRAY_SIZE(lows))];
				if (any() % 16 == 0)
					*e ^= BIT(any() % 64);
				if (level == 2 && any() % 4 == 0)
					*e = (any() & 0x3fffffe00000) | 0x87 | (any() & 0x38);
			}
		}
		if (any() % 64 == 0)
			gpa |= BIT(48 + any() % 16);
		violate(gpa, any());
	}
	assert_true(shown_48 > 500 && shown_49 > 5000 && resumed > 2000);
	/* One table for all levels; and every level full of large entries. */
	begin();
	for (unsigned j = 0; j < 512; j++)
		memory[0][j] = FRAME | 7;
	violate(0, 1);
	assert_int_equal(reads, 5);
	for (unsigned j = 0; j < 512; j++)
		memory[0][j] = 0xb7;
	violate(0, 1);
	assert_int_equal(reads, 1);
	aliased = false;
	good_tables();
	violate(GPA_1 | BIT(48), 1);
	assert_int_equal(reads, 0);
}

static void neighbours(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 3000; round++) {
		good_tables();
		if (round & 1)
			*slot(4) &= ~2ULL;
		for (unsigned i = 0; i < 512; i++)
			memory[3][i] = any() & any() & (any() % 4 ? 0x7fff3fffffffffffULL : ~0ULL);
		*slot(1) = 0x12345678037;
		violate(GPA_1, 1);
		/* Both ends of the table, and of the 64. */
		good_tables();
		for (unsigned i = 0; i < 512; i++)
			memory[3][i] = (u64)i << 12 | 0x37;
		violate((GPA_1 & ~0x1ff000ULL) | (any() % 512) << 12, 1);
		assert_int_equal(fills, 64);
	}
}

static enum shadow_result not_the_sixth(u64 gpa)
{
	(void)gpa;
	return fills == 6 ? SHADOW_REFUSED : fills == 9 ? SHADOW_DRY : SHADOW_FILLED;
}

static enum shadow_result first_is_dry(u64 gpa)
{
	(void)gpa;
	return fills == 1 ? SHADOW_DRY : SHADOW_FILLED;
}

static enum shadow_result dry_then_refused(u64 gpa)
{
	(void)gpa;
	return fills == 1 ? SHADOW_DRY : SHADOW_REFUSED;
}

static enum shadow_result always_dry(u64 gpa)
{
	(void)gpa;
	return SHADOW_DRY;
}

static enum shadow_result changes_size(u64 gpa)
{
	(void)gpa;
	nested.shadow.must_invept = true;
	return SHADOW_FILLED;
}

static enum nested_next run(enum shadow_result (*how)(u64 gpa), unsigned pages, u32 *reason, u64 *qualification)
{
	good_tables();
	for (unsigned i = 0; i < pages; i++)
		memory[3][64 + i] = (u64)i << 12 | 0x37;
	answer = how;
	violation_gpa = GPA_1;
	qualification_of_cpu = 0x183;
	return nested_ept_violation(&nested, reason, qualification);
}

static void results(void **state)
{
	u32 reason = 0;
	u64 qualification = 0;

	(void)state;
	assert_int_equal(run(yes, 0, &reason, &qualification), NESTED_RESUME);
	assert_string_equal(trace, "LFU");
	assert_int_equal(filled[0].access, 3);
	/* A neighbour that is refused is skipped; one for which there is no room ends it. */
	assert_int_equal(run(not_the_sixth, 64, &reason, &qualification), NESTED_RESUME);
	assert_string_equal(trace, "LFFFFFFFFFU");
	assert_int_equal(nested.refused_fills + logged, 0);
	/* Dry: all own roots, INVEPT, tables anew, once more; all under one lock, or somebody's drop could make it dry again. */
	assert_int_equal(run(first_is_dry, 0, &reason, &qualification), NESTED_RESUME);
	assert_string_equal(trace, "LFRISFU");
	assert_int_equal(filled[1].access, 3);
	assert_int_equal(run(dry_then_refused, 0, &reason, &qualification), NESTED_SHOWN);
	assert_string_equal(trace, "LFRISFU");
	assert_int_equal(reason, 2);
	/* Can't be; if it were, L2 would only meet the violation again. */
	assert_int_equal(run(always_dry, 64, &reason, &qualification), NESTED_RESUME);
	assert_string_equal(trace, "LFRISFU");
	/* Another size: INVEPT before L2 goes on. */
	assert_int_equal(run(changes_size, 0, &reason, &qualification), NESTED_RESUME);
	assert_string_equal(trace, "LFUILSU");
	assert_false(nested.shadow.must_invept);
	/* Refused: a triple fault, counted and logged; no neighbour is tried. */
	assert_int_equal(run(no, 64, &reason, &qualification), NESTED_SHOWN);
	assert_string_equal(trace, "LFU");
	assert_int_equal(reason, 2);
	assert_int_equal(qualification, 0);
	assert_int_equal(nested.refused_fills, 1);
	assert_int_equal(logged, 1);
	assert_true(nested.last_violation == NO_ADDRESS);
}

static void last_violation(void **state)
{
	struct reference r;

	(void)state;
	good_tables();
	nested_fill_last_violation(&nested);
	assert_int_equal(reads, 0);
	/* Shown, and made present by L1. */
	*slot(1) = 0;
	violate(GPA_1, 2);
	garble = false;
	good_tables();
	memory[3][64] = 0x5037;
	r = reference_walk(GPA_1);
	nested.last_violation = GPA_1;
	nested_fill_last_violation(&nested);
	check_fills(&r, GPA_1, 0, 1);
	assert_int_equal(fills, 1);
	assert_true(nested.last_violation == NO_ADDRESS);
	nested_fill_last_violation(&nested);
	assert_int_equal(fills, 1);
	/* Still absent, misconfigured by now, or refused: forgotten, L2 meets it itself. */
	for (unsigned i = 0; i < 3; i++) {
		good_tables();
		*slot(1) = i == 0 ? 0 : i == 1 ? 6 : *slot(1);
		answer = no;
		nested.last_violation = GPA_1;
		nested_fill_last_violation(&nested);
		assert_int_equal(fills, i == 2);
		assert_true(nested.last_violation == NO_ADDRESS);
		assert_int_equal(logged + nested.refused_fills, 0);
	}
}

static void drops(void **state)
{
	(void)state;
	begin();
	nested_drop_all(&nested);
	assert_string_equal(trace, "LRUILSU");
	begin();
	nested_drop(&nested, 0x501e);
	assert_string_equal(trace, "LDUILSU");
	begin();
	nested_drop(&nested, 0x601e);
	assert_string_equal(trace, "");
	begin();
	nested_flush(&nested);
	assert_string_equal(trace, "");
	nested.shadow.must_invept = true;
	nested_flush(&nested);
	assert_string_equal(trace, "ILSU");
	assert_false(nested.shadow.must_invept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_bit),  cmocka_unit_test(rights),  cmocka_unit_test(at_random),
		cmocka_unit_test(neighbours), cmocka_unit_test(results), cmocka_unit_test(last_violation),
		cmocka_unit_test(drops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * service/paging.c: tables of each kind in a fake memory; holes, reserved bits, large pages, and memory that can't be read.
 * The host's, of four and of five levels: rights, and the error code of each fault, against a reference.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "paging.h"
#include "x86.h"

#define P BIT(0)
#define PS BIT(7)
#define NX BIT(63)
#define FLAGS 0x63 /* present, writable, accessed, dirty */
/* Where the fake memory lies: beyond 4 GiB, and where a 32-bit CR3 reaches it. */
#define BASE 0xabc000000ULL
#define LOW 0x12340000ULL
#define HANDLE 0x123

static u8 memory[16 * PAGE_SIZE];
static u64 base;
static unsigned reads, reads_allowed, entry_bytes;

bool memory_read_guest(u64 handle, u64 gpa, void *out, unsigned bytes)
{
	assert_int_equal(handle, HANDLE);
	assert_int_equal(bytes, entry_bytes);
	assert_int_equal(gpa % bytes, 0);
	if (reads++ >= reads_allowed || gpa < base || gpa > base + sizeof(memory) - bytes)
		return false;
	memcpy(out, memory + (gpa - base), bytes);
	return true;
}

static void clear(u64 new_base, unsigned bytes)
{
	memset(memory, 0, sizeof(memory));
	base = new_base;
	entry_bytes = bytes;
	reads_allowed = 100;
}

/* Entry `index` of the table in page `page`. */
static void set(unsigned page, unsigned index, u64 value)
{
	memcpy(memory + page * PAGE_SIZE + index * entry_bytes, &value, entry_bytes);
}

struct mode {
	u64 cr0, cr3, cr4, efer;
};

static const struct mode long_mode = { CR0_PG | CR0_PE, BASE, CR4_PAE, EFER_LME | EFER_LMA | EFER_NXE };
static const struct mode pae = { CR0_PG | CR0_PE, LOW + 0x20, CR4_PAE, 0 };
static const struct mode legacy = { CR0_PG | CR0_PE, LOW, CR4_PSE, 0 };

#define NOWHERE 0xdeaddeaddeadULL

static u64 translate(const struct mode *m, u64 linear)
{
	u64 gpa = NOWHERE;

	reads = 0;
	if (!guest_translate(HANDLE, linear, m->cr0, m->cr3, m->cr4, m->efer, &gpa))
		assert_true(gpa == NOWHERE);
	else
		assert_true(gpa != NOWHERE);
	return gpa;
}

#define ASSERT_AT(m, linear, gpa) assert_true(translate(m, linear) == (gpa))
#define ASSERT_NOWHERE(m, linear) ASSERT_AT(m, linear, NOWHERE)

static void without_paging(void **state)
{
	const struct mode real = { 0, BASE, CR4_PAE | CR4_PSE, 0 };

	(void)state;
	clear(BASE, 8);
	ASSERT_AT(&real, 0, 0);
	ASSERT_AT(&real, 0xfee00010, 0xfee00010);
	ASSERT_AT(&real, 0x1fee00010, 0xfee00010);
	assert_int_equal(reads, 0);
}

#define L 0xffff923456789abcULL /* indices 0x124, 0x0d1, 0x0b3, 0x189; offset 0xabc */

static void set_four_levels(void)
{
	clear(BASE, 8);
	set(0, 0x124, (BASE + 0x1000) | FLAGS);
	set(1, 0x0d1, (BASE + 0x2000) | FLAGS);
	set(2, 0x0b3, (BASE + 0x3000) | FLAGS);
	set(3, 0x189, 0xfedcba9876000 | FLAGS | NX | BIT(8) | 0x7ffULL << 52);
}

static void four_levels(void **state)
{
	struct mode m = long_mode;

	(void)state;
	set_four_levels();
	ASSERT_AT(&m, L, 0xfedcba9876abc);
	assert_int_equal(reads, 4);
	ASSERT_AT(&m, L + 0x543, 0xfedcba9876fff);
	ASSERT_NOWHERE(&m, L + 0x544);
	ASSERT_NOWHERE(&m, L - 0xabd);
	ASSERT_NOWHERE(&m, L + BIT(21));
	ASSERT_NOWHERE(&m, L + BIT(30));
	ASSERT_NOWHERE(&m, L + BIT(39));
	m.cr3 |= 0xfff | BIT(63); /* PCID, and what a MOV to CR3 leaves out */
	m.cr4 |= CR4_PCIDE | CR4_PSE;
	ASSERT_AT(&m, L, 0xfedcba9876abc);
	m.efer &= ~EFER_NXE;
	ASSERT_NOWHERE(&m, L); /* bit 63 is reserved */
	/* Not present at each level, whatever else the entry says; each read that fails. */
	for (unsigned level = 0; level < 4; level++) {
		static const unsigned index[] = { 0x124, 0x0d1, 0x0b3, 0x189 };

		set_four_levels();
		set(level, index[level], (BASE + (level + 1) * 0x1000) | (FLAGS & ~P));
		ASSERT_NOWHERE(&long_mode, L);
		assert_int_equal(reads, level + 1);
		set_four_levels();
		reads_allowed = level;
		ASSERT_NOWHERE(&long_mode, L);
	}
	/* An upper entry that says PS. */
	set_four_levels();
	set(0, 0x124, (BASE + 0x1000) | FLAGS | PS);
	ASSERT_NOWHERE(&long_mode, L);
	set(0, 0x124, 0xf8000000000 | FLAGS | PS);
	ASSERT_NOWHERE(&long_mode, L);
	assert_int_equal(reads, 1);
	/* In the last level that bit is PAT. */
	set_four_levels();
	set(3, 0x189, 0x5000 | FLAGS | PS);
	ASSERT_AT(&long_mode, L, 0x5abc);
	/* A table outside the memory. */
	set(2, 0x0b3, (BASE - 0x1000) | FLAGS);
	ASSERT_NOWHERE(&long_mode, L);
}

static void large_pages_of_four_levels(void **state)
{
	(void)state;
	set_four_levels();
	set(2, 0x0b3, 0xfedcba9800000 | FLAGS | PS | BIT(12) | NX);
	ASSERT_AT(&long_mode, L, 0xfedcba9800000 | (L & 0x1fffff));
	assert_int_equal(reads, 3);
	for (unsigned bit = 13; bit < 21; bit++) {
		set(2, 0x0b3, 0xfedcba9800000 | FLAGS | PS | BIT(bit));
		ASSERT_NOWHERE(&long_mode, L);
	}
	set(1, 0x0d1, 0xfedc940000000 | FLAGS | PS | BIT(12));
	ASSERT_AT(&long_mode, L, 0xfedc940000000 | (L & 0x3fffffff));
	assert_int_equal(reads, 2);
	for (unsigned bit = 13; bit < 30; bit++) {
		set(1, 0x0d1, 0xfedc940000000 | FLAGS | PS | BIT(bit));
		ASSERT_NOWHERE(&long_mode, L);
	}
}

#define L32 0xd6789abcULL /* PAE: indices 3, 0x0b3, 0x189; 32-bit: 0x359, 0x389; offset 0xabc */

static void set_pae(void)
{
	clear(LOW, 8);
	set(0, 4 + 3, (LOW + 0x1000) | P | BIT(3) | BIT(4) | 0xe00); /* CR3 is LOW + 0x20 */
	set(1, 0x0b3, (LOW + 0x2000) | FLAGS);
	set(2, 0x189, 0xfedcba9876000 | FLAGS);
}

static void physical_address_extension(void **state)
{
	static const u8 reserved[] = { 1, 2, 5, 6, 7, 8, 52, 62, 63 };
	struct mode m = pae;

	(void)state;
	set_pae();
	ASSERT_AT(&m, L32, 0xfedcba9876abc);
	assert_int_equal(reads, 3);
	ASSERT_AT(&m, L32 | 0xffff923400000000, 0xfedcba9876abc); /* 32 bits count */
	ASSERT_NOWHERE(&m, L32 - BIT(30));
	ASSERT_NOWHERE(&m, L32 + BIT(21));
	ASSERT_NOWHERE(&m, L32 + BIT(12));
	m.cr3 |= 0x1f | BIT(32); /* ignored */
	ASSERT_AT(&m, L32, 0xfedcba9876abc);
	for (unsigned i = 0; i < 3; i++) {
		reads_allowed = i;
		ASSERT_NOWHERE(&m, L32);
	}
	/* NX by EFER.NXE; bits 62:52 are always reserved. */
	set_pae();
	set(2, 0x189, 0x5000 | FLAGS | NX);
	ASSERT_NOWHERE(&m, L32);
	m.efer = EFER_NXE;
	ASSERT_AT(&m, L32, 0x5abc);
	set(2, 0x189, 0x5000 | FLAGS | BIT(52));
	ASSERT_NOWHERE(&m, L32);
	for (size_t i = 0; i < ARRAY_SIZE(reserved); i++) {
		set_pae();
		set(0, 4 + 3, (LOW + 0x1000) | P | BIT(reserved[i]));
		ASSERT_NOWHERE(&m, L32);
	}
	/* 2 MiB, with CR4.PSE or without. */
	set_pae();
	set(1, 0x0b3, 0xfedcba9800000 | FLAGS | PS | BIT(12));
	ASSERT_AT(&pae, L32, 0xfedcba9800000 | (L32 & 0x1fffff));
	set(1, 0x0b3, 0xfedcba9800000 | FLAGS | PS | BIT(13));
	ASSERT_NOWHERE(&pae, L32);
}

static void thirty_two_bits(void **state)
{
	struct mode m = legacy;

	(void)state;
	clear(LOW, 4);
	set(0, 0x359, (LOW + 0x1000) | FLAGS);
	set(1, 0x389, 0xfedcb000 | FLAGS | PS | 0xe00);
	ASSERT_AT(&m, L32, 0xfedcbabc);
	assert_int_equal(reads, 2);
	ASSERT_AT(&m, L32 | BIT(32), 0xfedcbabc);
	ASSERT_NOWHERE(&m, L32 + BIT(12));
	ASSERT_NOWHERE(&m, L32 + BIT(22));
	m.cr3 |= 0xfff | BIT(32);
	ASSERT_AT(&m, L32, 0xfedcbabc);
	for (unsigned i = 0; i < 2; i++) {
		reads_allowed = i;
		ASSERT_NOWHERE(&m, L32);
	}
	reads_allowed = 100;
	/* 4 MiB, with the address's bits 39:32; without CR4.PSE the same entry is a table's. */
	set(0, 0x359, 0xab400000 | FLAGS | PS | BIT(12));
	ASSERT_AT(&m, L32, 0xab400000 | (L32 & 0x3fffff));
	assert_int_equal(reads, 1);
	set(0, 0x359, 0xab400000 | FLAGS | PS | 0xc5 << 13);
	ASSERT_AT(&m, L32, 0xc5ab400000 | (L32 & 0x3fffff));
	set(0, 0x359, 0xab400000 | FLAGS | PS | BIT(21));
	ASSERT_NOWHERE(&m, L32);
	set(0, 0x359, (LOW + 0x1000) | FLAGS | PS);
	m.cr4 = 0;
	ASSERT_AT(&m, L32, 0xfedcbabc);
	/* EFER.NXE and LME without LMA mean nothing here. */
	m.efer = EFER_NXE | EFER_LME;
	ASSERT_AT(&m, L32, 0xfedcbabc);
	set(0, 0x359, 0);
	ASSERT_NOWHERE(&m, L32);
}

/* Tables of random bits: whatever they hold, it ends, and every read is of an aligned entry. */
static void random_tables(void **state)
{
	const struct mode *modes[] = { &long_mode, &pae, &legacy };
	u64 seed = 88172645463325252ULL, found = 0;

	(void)state;
	for (unsigned round = 0; round < 3000; round++) {
		const struct mode *m = modes[round % 3];

		clear(m == &long_mode ? BASE : LOW, m == &legacy ? 4 : 8);
		for (size_t i = 0; i < sizeof(memory) / entry_bytes; i++) {
			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			/* Mostly a pointer to one of the tables. */
			set(0, (unsigned)i, seed & 3 ? (base + (seed >> 8 & 0xf000)) | P | (seed & 0xe18) : seed);
		}
		for (u64 i = 0; i < 20; i++) {
			found += translate(m, seed * (i + 1)) != NOWHERE;
			assert_in_range(reads, 1, 4);
		}
	}
	assert_in_range(found, 3000, 57000);
}

/* ---- The host's tables ---- */

#define W BIT(1)
#define U BIT(2)
#define HOST_BITS 46
#define REFUSED_PAGE 9 /* of the fake memory: the frame of another */

bool memory_read_host(u64 gpa, void *out, unsigned bytes)
{
	assert_int_equal(bytes, 8);
	assert_int_equal(gpa % bytes, 0);
	reads++;
	if (gpa < base || gpa > base + sizeof(memory) - bytes || (gpa - base) / PAGE_SIZE == REFUSED_PAGE)
		return false;
	memcpy(out, memory + (gpa - base), bytes);
	return true;
}

struct answer {
	enum translation result;
	u64 gpa;
	u32 error_code;
};

/*
 * The SDM's sections "4-Level Paging and 5-Level Paging", "Access Rights" and "Page-Fault Exceptions", as a list of what is wrong
 * with each entry.
 */
static struct answer reference(const struct paging *p, u64 linear, bool write)
{
	unsigned levels = p->cr4 & CR4_LA57 ? 5 : 4, level;
	bool writable = true, user = true;
	u64 at = p->cr3 & 0xffffffffff000, e = 0;

	for (level = levels; level; level--) {
		unsigned low = 12 + 9 * (level - 1);
		u64 index = linear >> low & 0x1ff;
		u64 page = (at - base) / PAGE_SIZE;

		if (at < base || page >= sizeof(memory) / PAGE_SIZE || page == REFUSED_PAGE)
			return (struct answer){ TRANSLATION_REFUSED, at + index * 8, 0 };
		memcpy(&e, memory + (at - base) + index * 8, 8);
		if (!(e & P))
			return (struct answer){ TRANSLATION_FAULT, 0, write ? 2 : 0 };
		for (unsigned bit = 0; bit < 64; bit++) {
			bool large = (level == 2 || level == 3) && (e & PS);
			bool reserved = (bit >= HOST_BITS && bit < 52) || (bit == 63 && !(p->efer & EFER_NXE)) ||
					(bit == 7 && level >= 4) || (large && bit >= 13 && bit < low);

			if (reserved && (e >> bit & 1))
				return (struct answer){ TRANSLATION_FAULT, 0, write ? 11 : 9 };
		}
		writable = writable && (e & W);
		user = user && (e & U);
		at = e & 0xffffffffff000;
		if (level == 1 || (level < 4 && (e & PS)))
			break;
	}
	if (write && !writable && (p->cr0 & CR0_WP))
		return (struct answer){ TRANSLATION_FAULT, 0, 3 };
	if (user && (p->cr4 & CR4_SMAP) && !(p->rflags & BIT(18)))
		return (struct answer){ TRANSLATION_FAULT, 0, write ? 3 : 1 };
	for (unsigned bit = 0; bit < 12 + 9 * (level - 1); bit++)
		at = (at & ~BIT(bit)) | (linear & BIT(bit));
	return (struct answer){ TRANSLATED, at, 0 };
}

static unsigned answers[3][16];

static struct answer host(const struct paging *p, u64 linear, bool write)
{
	struct answer expected = reference(p, linear, write), got = { .gpa = NOWHERE };

	reads = 0;
	got.result = host_translate(p, linear, write, &got.gpa, &got.error_code);
	assert_int_equal(got.result, expected.result);
	if (got.result == TRANSLATION_FAULT)
		assert_int_equal(got.error_code, expected.error_code);
	else
		assert_true(got.gpa == expected.gpa);
	assert_in_range(reads, 1, p->cr4 & CR4_LA57 ? 5 : 4);
	answers[got.result][got.result == TRANSLATION_FAULT ? got.error_code : 0]++;
	return got;
}

#define L5 0xffa1923456789abcULL /* one more index: 0x1a1 */

static const struct paging host_paging = { .cr0 = CR0_PG | CR0_PE | CR0_WP,
					   .cr3 = BASE | 0x1b, /* a PCID */
					   .cr4 = CR4_PAE | CR4_SMAP | CR4_PCIDE,
					   .efer = EFER_LMA | EFER_NXE,
					   .physical_address_bits = HOST_BITS };

/* Tables for L, and with a fifth level, in page 4, for L5. */
static void set_host_levels(struct paging *p, unsigned levels)
{
	set_four_levels();
	set(3, 0x189, 0x2abcdef98000 | FLAGS | NX);
	*p = host_paging;
	if (levels < 5)
		return;
	set(4, 0x1a1, BASE | FLAGS);
	p->cr3 = (BASE + 0x4000) | 0x1b;
	p->cr4 |= CR4_LA57;
}

static void host_levels(void **state)
{
	struct paging p;

	(void)state;
	set_host_levels(&p, 4);
	assert_true(host(&p, L, true).gpa == 0x2abcdef98abc);
	assert_int_equal(reads, 4);
	set_host_levels(&p, 5);
	assert_true(host(&p, L5, true).gpa == 0x2abcdef98abc);
	assert_int_equal(reads, 5);
	assert_int_equal(host(&p, L, true).result, TRANSLATION_FAULT); /* its fifth index is 0x1ff */
	/* The frame of another, at each level. */
	set(0, 0x124, (BASE + REFUSED_PAGE * PAGE_SIZE) | FLAGS);
	assert_true(host(&p, L5, true).gpa == BASE + REFUSED_PAGE * PAGE_SIZE + 0x0d1 * 8);
	p.cr3 = BASE + REFUSED_PAGE * PAGE_SIZE;
	assert_true(host(&p, L5, true).result == TRANSLATION_REFUSED);
	/* There are no pages of 512 GiB, and larger ones, wherever they would lie. */
	set_host_levels(&p, 5);
	set(0, 0x124, BIT(39) | FLAGS | PS);
	assert_int_equal(host(&p, L5, false).result, TRANSLATION_FAULT);
	set(4, 0x1a1, FLAGS | PS);
	assert_int_equal(host(&p, L5, false).result, TRANSLATION_FAULT);
	/* A page that lies in such a frame is for the caller to find out. */
	set_host_levels(&p, 4);
	set(3, 0x189, (BASE + REFUSED_PAGE * PAGE_SIZE) | FLAGS);
	assert_int_equal(host(&p, L, false).result, TRANSLATED);
}

/* Each bit of each level's entry, as a page of each size, in all combinations of what decides. */
static void host_rights(void **state)
{
	static const unsigned page[] = { 0, 3, 2, 1, 0, 4 }, index[] = { 0, 0x189, 0x0b3, 0x0d1, 0x124, 0x1a1 };

	(void)state;
	memset(answers, 0, sizeof(answers));
	for (unsigned how = 0; how < 128; how++) {
		unsigned levels = how & 1 ? 5 : 4, large = how >> 1 & 3;
		struct paging p;

		set_host_levels(&p, levels);
		p.cr0 &= how & 8 ? ~0ULL : ~CR0_WP;
		p.cr4 &= how & 16 ? ~0ULL : ~CR4_SMAP;
		p.efer &= how & 32 ? ~0ULL : ~EFER_NXE;
		p.rflags = how & 64 ? BIT(18) : ~BIT(18);
		if (large)
			set(page[large + 1], index[large + 1], 0x2abcc0000000 | FLAGS | PS);
		for (unsigned level = 1; level <= levels; level++) {
			u8 *at = memory + page[level] * PAGE_SIZE + index[level] * 8;
			u64 entry, users;

			/* All user pages, or all but this. */
			for (users = 0; users < 2; users++) {
				for (unsigned l = 1; l <= levels; l++)
					memory[page[l] * PAGE_SIZE + index[l] * 8] =
						(u8)((memory[page[l] * PAGE_SIZE + index[l] * 8] & ~U) |
						     (users ? U : 0));
				memcpy(&entry, at, 8);
				for (unsigned bit = 0; bit < 64; bit++) {
					u64 changed = entry ^ BIT(bit);

					memcpy(at, &changed, 8);
					host(&p, levels == 5 ? L5 : L, false);
					host(&p, levels == 5 ? L5 : L, true);
				}
				memcpy(at, &entry, 8);
			}
		}
	}
	/* There was each kind. */
	assert_true(answers[TRANSLATED][0] > 1000 && answers[TRANSLATION_REFUSED][0] > 1000);
	assert_true(answers[TRANSLATION_FAULT][0] && answers[TRANSLATION_FAULT][2]); /* not present */
	assert_true(answers[TRANSLATION_FAULT][1] && answers[TRANSLATION_FAULT][3]); /* rights */
	assert_true(answers[TRANSLATION_FAULT][9] && answers[TRANSLATION_FAULT][11]); /* reserved bits */
}

static void host_random_tables(void **state)
{
	u64 seed = 88172645463325252ULL;

	(void)state;
	memset(answers, 0, sizeof(answers));
	for (unsigned round = 0; round < 1500; round++) {
		struct paging p = host_paging;

		clear(BASE, 8);
		for (size_t i = 0; i < sizeof(memory) / 8; i++) {
			u64 flags;

			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			/* Mostly a table of these; seldom odd bits. */
			flags = (seed >> 20 & 15 ? P : 0) | (seed >> 24 & 7 ? W : 0) | (seed >> 27 & 3 ? U : 0) |
				(seed >> 30 & 15 ? 0 : PS) | (seed >> 34 & 31 ? 0 : BIT(seed >> 40 & 63));
			set(0, (unsigned)i, (base + (seed >> 8 & 0xf000)) | flags);
		}
		p.cr0 ^= seed & BIT(50) ? CR0_WP : 0;
		p.cr4 ^= (seed & BIT(51) ? CR4_SMAP : 0) | (seed & BIT(52) ? CR4_LA57 : 0);
		p.efer ^= seed & BIT(53) ? EFER_NXE : 0;
		p.rflags = seed & BIT(54) ? BIT(18) : 0;
		for (u64 i = 0; i < 40; i++)
			host(&p, seed * (i + 1), i & 1);
	}
	assert_true(answers[TRANSLATED][0] > 3000);
	assert_true(answers[TRANSLATION_FAULT][3] > 1000 && answers[TRANSLATION_FAULT][9] > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_paging),
		cmocka_unit_test(four_levels),
		cmocka_unit_test(large_pages_of_four_levels),
		cmocka_unit_test(physical_address_extension),
		cmocka_unit_test(thirty_two_bits),
		cmocka_unit_test(random_tables),
		cmocka_unit_test(host_levels),
		cmocka_unit_test(host_rights),
		cmocka_unit_test(host_random_tables),
	};

	return cmocka_run_group_tests_name("paging", tests, NULL, NULL);
}

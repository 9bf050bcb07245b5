// SPDX-License-Identifier: MIT
/*
 * The airlock's bytes and their check. With an argument N it prints N pages that the check accepts, as hexadecimal from
 * HYPERPS_GATE_ENTRY on, for a disassembler to look at (test/gate_bytes.py).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "gate_page.h"
#include "hyperps/abi.h"

#define SHOWN 64 /* bytes of a page that are printed */
#define ROOT_FLAGS 0x1eu

static u8 page[PAGE_SIZE];
static u64 seed = 88172645463325252ULL;

static u32 next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (u32)(seed >> 16);
}

static u32 cr3_of(u32 frame)
{
	return frame << PAGE_SHIFT | GATE_PCID;
}

static u32 eptp_of(u32 frame)
{
	return (frame << PAGE_SHIFT & 0x7fffffff) | ROOT_FLAGS;
}

static bool is_safe(u32 cr3, u32 eptp)
{
	gate_page_fill(page, cr3, eptp);
	return gate_page_is_safe(page, cr3, eptp);
}

/* 0x49 and 0x90 in the third-lowest place are a prefix and a nop; so are 0x90 in the others. */
static const u32 good_cr3 = 0x90909000 | GATE_PCID, good_eptp = 0x10909000 | ROOT_FLAGS;

static void test_accepts_and_refuses(void **unused)
{
	u32 accepted = 0, tries = 100000;

	(void)unused;
	assert_true(is_safe(good_cr3, good_eptp));
	for (u32 i = 0; i < tries; i++)
		accepted += is_safe(cr3_of(next_random()), good_eptp);
	/* A host finds a page for its table within a few tries; but many are refused. */
	assert_in_range(accepted, tries / 10, tries / 2);
	accepted = 0;
	for (u32 i = 0; i < tries; i++)
		accepted += is_safe(good_cr3, eptp_of(next_random()));
	assert_in_range(accepted, tries / 20, tries / 2);
}

static void test_immediates_that_store(void **unused)
{
	/* Bytes of an immediate that, taken for an opcode, write memory or worse; those behind are as harmless as can be. */
	static const u8 bad[] = { 0x00, 0x01, 0x08, 0x50, 0x57, 0x68, 0x6a, 0x6c, 0x88, 0x89, 0x8e, 0x8f, 0x9c, 0x9d,
				  0xa2, 0xa4, 0xaa, 0xc4, 0xc6, 0xc7, 0xc8, 0xcd, 0xcf, 0xe4, 0xe6, 0xe8, 0xec, 0xee,
				  0xf0, 0xf4, 0xfb, 0xfe, 0xff, 0x0f, 0x62, 0xd5, 0x60, 0x61, 0x06, 0x17, 0x86, 0xf6 };

	(void)unused;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		u32 reg = 0x10; /* ModRM of a memory operand with /2 */

		assert_false(is_safe((reg << 24 | (u32)bad[i] << 16 | 0x9000) | GATE_PCID, good_eptp));
		assert_false(is_safe(good_cr3, reg << 24 | (u32)bad[i] << 16 | 0x9000 | ROOT_FLAGS));
	}
	/* The highest byte has a register operand behind it: what stores by a ModRM operand is harmless there. */
	assert_true(is_safe(0x00909000 | GATE_PCID, good_eptp));
	assert_true(is_safe(0x88909000 | GATE_PCID, good_eptp));
	assert_false(is_safe(0x50909000 | GATE_PCID, good_eptp));
	assert_false(is_safe(0xfb909000 | GATE_PCID, good_eptp));
	/* Roots whose address has a 5 in this place are PUSH instructions. */
	assert_false(is_safe(good_cr3, 0x10905000 | ROOT_FLAGS));
}

static void test_values_that_are_none(void **unused)
{
	(void)unused;
	assert_false(is_safe(good_cr3, 0x90909000 | ROOT_FLAGS)); /* sign extension */
	assert_false(is_safe(good_cr3, 0x10909000 | 0x5e)); /* accessed and dirty flags */
	assert_false(is_safe(good_cr3, 0x10909000 | 0x1f)); /* a present page-table entry */
	assert_false(is_safe(good_cr3, 0x10909000));
	assert_false(is_safe(0x90909000, good_eptp)); /* not the gate's PCID */
}

static void test_every_byte_counts(void **unused)
{
	(void)unused;
	for (u32 i = 0; i < PAGE_SIZE; i++) {
		gate_page_fill(page, good_cr3, good_eptp);
		for (u32 bit = 0; bit < 8; bit++) {
			page[i] ^= 1 << bit;
			assert_false(gate_page_is_safe(page, good_cr3, good_eptp));
			page[i] ^= 1 << bit;
		}
	}
}

static void test_list_address(void **unused)
{
	(void)unused;
	/* Slot 2 is what the fill stores to: the end of an 11-byte instruction plus its displacement. */
	for (u64 gate = 0xffffffffc0000000; gate < 0xffffffffc0010000; gate += PAGE_SIZE) {
		assert_int_equal(gate_list_linear(gate) % PAGE_SIZE, 0);
		assert_int_equal(gate_list_linear(gate) + 16,
				 gate + HYPERPS_GATE_ENTRY + 11 - (0x100000000 - GATE_DISPLACEMENT));
	}
}

static void print_pages(unsigned long count)
{
	while (count) {
		u32 cr3 = cr3_of(next_random()), eptp = eptp_of(next_random());

		if (!is_safe(cr3, eptp))
			continue;
		for (u32 i = 0; i < SHOWN; i++)
			printf("%02x", page[HYPERPS_GATE_ENTRY + i]);
		printf("\n");
		count--;
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepts_and_refuses),  cmocka_unit_test(test_immediates_that_store),
		cmocka_unit_test(test_values_that_are_none), cmocka_unit_test(test_every_byte_counts),
		cmocka_unit_test(test_list_address),
	};

	if (argc > 1) {
		print_pages(strtoul(argv[1], NULL, 10));
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* nested/msr.c: what passes to L2 by which bitmap of L1's, against docs/nested.md and the host's own MSRs; lists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "memory_service.h"
#include "msr_policy.h"
#include "nested.h"

#define BITMAP_GPA 0x123456000ULL
#define LIST_GPA 0x7654000ULL
#define VALUE 0x1122334455667788ULL

/* docs/nested.md, "MSRs of L2". */
static const u32 doc_reads[] = { 0x10, 0x48,  0x174, 0x175, 0x176, 0x1c4,      0x1c5,      0xe7,
				 0xe8, 0x3fc, 0x3fd, 0x3fe, 0x660, 0xc0000100, 0xc0000101, 0xc0000102 };
static const u32 doc_writes[] = { 0x48,  0x49,  0x10b,      0x174,      0x175,     0x176,
				  0x1c4, 0x1c5, 0xc0000100, 0xc0000101, 0xc0000102 };

static u8 theirs[PAGE_SIZE], list_page[2 * PAGE_SIZE];
static u64 second[VMCS12_WORDS];
static u64 page[VMCS12_WORDS], bitmap[PAGE_SIZE / 8];
static u8 *const merged = (u8 *)bitmap;
static struct nested nested = { .page = page, .second = second, .msr_bitmap = bitmap };
static u64 primary, reads_of_list, wrmsrs, refused_msr, lost_writes;
static bool gone;
static struct {
	u32 msr;
	u64 value;
} written[16];

bool memory_read_host_words(u64 gpa, u64 *out, const u16 *words, unsigned count)
{
	assert_int_equal(gpa, BITMAP_GPA);
	for (unsigned i = 0; i < count; i++) {
		assert_in_range(words[i], 0, PAGE_SIZE / 8 - 1);
		out[i] = 0;
		if (!gone)
			memcpy(&out[i], theirs + 8 * words[i], 8);
	}
	return !gone;
}

static void merge(void)
{
	/* As nested_init() leaves it, or as the merge before. */
	nested_set(&nested, VMCS_PRIMARY_CONTROLS, primary);
	nested_set(&nested, VMCS_MSR_BITMAP, BITMAP_GPA);
	nested_merge_msrs(&nested);
}

bool memory_read_host(u64 gpa, void *out, unsigned bytes)
{
	assert_true(gpa % PAGE_SIZE + bytes <= PAGE_SIZE);
	if (gone)
		return false;
	assert_in_range(gpa, LIST_GPA, LIST_GPA + sizeof(list_page) - 16);
	assert_int_equal(bytes, 16);
	assert_int_equal(gpa % 16, 0);
	/* Each entry once. */
	assert_int_equal(gpa, LIST_GPA + 16 * reads_of_list++);
	memcpy(out, list_page + (gpa - LIST_GPA), bytes);
	return true;
}

bool memory_write_host(u64 gpa, const void *in, unsigned bytes)
{
	assert_int_equal(bytes, 8);
	assert_int_equal(gpa, LIST_GPA + 16 * (reads_of_list - 1) + 8);
	if (reads_of_list == lost_writes)
		return false;
	memcpy(list_page + (gpa - LIST_GPA), in, bytes);
	return true;
}

bool wrmsr_checked(u32 msr, u64 value)
{
	if (msr == refused_msr)
		return false;
	assert_true(wrmsrs < ARRAY_SIZE(written));
	written[wrmsrs].msr = msr;
	written[wrmsrs++].value = value;
	return true;
}

bool rdmsr_checked(u32 msr, u64 *value)
{
	*value = VALUE + msr;
	return msr != refused_msr;
}

static bool bit_of(const u8 *bitmap, u32 msr, bool write)
{
	/* SDM, "MSR-Bitmap Address": four kilobytes. */
	const u8 *part = bitmap + (write ? 2048 : 0) + (msr >= 0xc0000000 ? 1024 : 0);

	return part[(msr & 0x1fff) / 8] >> msr % 8 & 1;
}

static bool is_in(const u32 *msrs, size_t count, u32 msr)
{
	for (size_t i = 0; i < count; i++)
		if (msrs[i] == msr)
			return true;
	return false;
}

/* The merged bitmap is L1's, of what the document has; returns how many bits are 0. */
static unsigned check_merged(bool on)
{
	unsigned passing = 0;

	for (u32 i = 0; i < 0x8000; i++) {
		u32 msr = (i & 0x2000 ? 0xc0000000 : 0) + i % 0x2000;
		bool write = i >= 0x4000;
		bool may = write ? is_in(doc_writes, ARRAY_SIZE(doc_writes), msr)
				 : is_in(doc_reads, ARRAY_SIZE(doc_reads), msr);
		bool exits = bit_of(merged, msr, write);

		if (exits != (!on || !may || bit_of(theirs, msr, write)))
			fail_msg("MSR %x, write %d", msr, write);
		if (!exits && host_msr_access(msr, write) != MSR_PASS)
			fail_msg("the host itself has no MSR %x, write %d", msr, write);
		passing += !exits;
	}
	return passing;
}

static void bitmaps(void **state)
{
	(void)state;
	gone = false;
	primary = BIT(28);
	/* What was there before is no part of the result. */
	memset(merged, 0xff, PAGE_SIZE);
	memset(theirs, 0, sizeof(theirs));
	merge();
	assert_int_equal(check_merged(true), ARRAY_SIZE(doc_reads) + ARRAY_SIZE(doc_writes));
	memset(theirs, 0xff, sizeof(theirs));
	merge();
	assert_int_equal(check_merged(true), 0);
	for (unsigned round = 0; round < 200; round++) {
		for (unsigned i = 0; i < PAGE_SIZE; i++)
			theirs[i] = rand();
		merge();
		check_merged(true);
	}
	memset(theirs, 0, sizeof(theirs));
	merge();
	gone = true;
	merge();
	assert_int_equal(check_merged(false), 0);
	gone = false;
	merge();
	primary = ~BIT(28);
	merge();
	assert_int_equal(check_merged(false), 0);
}

static void put(unsigned entry, u32 msr, u32 reserved, u64 value)
{
	memcpy(list_page + 16 * entry, &msr, 4);
	memcpy(list_page + 16 * entry + 4, &reserved, 4);
	memcpy(list_page + 16 * entry + 8, &value, 8);
}

static u32 load(u64 count)
{
	reads_of_list = wrmsrs = 0;
	return nested_load_msrs(LIST_GPA, count);
}

static u32 store(u64 count)
{
	reads_of_list = wrmsrs = 0;
	return nested_store_msrs(LIST_GPA, count);
}

static const u32 allowed[] = { 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0xc0000103, 0x38f };

static void lists(void **state)
{
	(void)state;
	gone = false;
	refused_msr = lost_writes = 0;
	assert_int_equal(load(0), 0);
	assert_int_equal(store(0), 0);
	for (u32 i = 0; i < 0x10000; i++) {
		u32 msr = (i & 0x8000 ? 0xc0000000 : 0) + i % 0x8000;
		bool may = is_in(allowed, ARRAY_SIZE(allowed), msr);

		put(0, msr, 0, VALUE);
		assert_int_equal(load(1), !may);
		assert_int_equal(wrmsrs, may);
		if (may) {
			assert_int_equal(written[0].msr, msr);
			assert_int_equal(written[0].value, VALUE);
			/* Nothing that the host could not write without an exit. */
			assert_int_equal(host_msr_access(msr, true), MSR_PASS);
			assert_int_equal(host_msr_access(msr, false), MSR_PASS);
		}
		assert_int_equal(store(1), !may && msr != 0x3f1);
		assert_int_equal(wrmsrs, 0);
	}
	/* PEBS_ENABLE is 0, and stays it: nothing is written. */
	for (unsigned bit = 0; bit < 64; bit++) {
		put(0, 0x3f1, 0, BIT(bit));
		assert_int_equal(load(1), 1);
	}
	put(0, 0x3f1, 0, 0);
	assert_int_equal(load(1), 0);
	assert_int_equal(wrmsrs, 0);
	for (unsigned bit = 0; bit < 32; bit++) {
		put(0, 0xc0000082, BIT(bit), 1);
		assert_int_equal(load(1), 1);
		assert_int_equal(store(1), 1);
		assert_int_equal(wrmsrs, 0);
	}
}

static void order_of_lists(void **state)
{
	(void)state;
	gone = false;
	for (unsigned bad = 0; bad <= 8; bad++)
		for (unsigned how = 0; how < 3; how++) {
			for (unsigned i = 0; i < 8; i++)
				put(i, allowed[i % 6], 0, i + 1);
			refused_msr = 0;
			if (bad && how == 0)
				put(bad - 1, 0x830, 0, 0);
			if (bad && how == 1)
				put(bad - 1, 0xc0000082, 1, 0);
			if (bad && how == 2) {
				put(bad - 1, 0x38f, 0, 0);
				refused_msr = 0x38f;
			}
			/* What comes before is loaded, in order; what comes after is not even read. */
			assert_int_equal(load(8), bad);
			assert_int_equal(reads_of_list, bad ? bad : 8);
			assert_int_equal(wrmsrs, bad ? bad - 1 : 8);
			for (unsigned i = 0; i < wrmsrs; i++) {
				assert_int_equal(written[i].msr, allowed[i % 6]);
				assert_int_equal(written[i].value, i + 1);
			}
			lost_writes = 3;
			assert_int_equal(store(8), bad);
			for (unsigned i = 0; i < 8; i++) {
				u64 value;
				u32 msr;

				memcpy(&msr, list_page + 16 * i, 4);
				memcpy(&value, list_page + 16 * i + 8, 8);
				if (!bad || i < bad - 1)
					assert_int_equal(value, i == 2 ? 3 : VALUE + allowed[i % 6]);
				else
					assert_int_equal(value, i == bad - 1 ? 0 : i + 1);
				if (i != bad - 1)
					assert_int_equal(msr, allowed[i % 6]);
			}
		}
	refused_msr = lost_writes = 0;
	gone = true;
	assert_int_equal(load(1), 1);
	assert_int_equal(store(1), 1);
	gone = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(bitmaps), cmocka_unit_test(lists),
					    cmocka_unit_test(order_of_lists) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}

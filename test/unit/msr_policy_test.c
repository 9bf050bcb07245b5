// SPDX-License-Identifier: MIT
/* vmx/msr_policy.c: what must never pass, what must not exit, and that the bitmap says the same as the functions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "msr_policy.h"
#include "x86.h"

static bool bit(const u8 *bitmap, unsigned n)
{
	return bitmap[n / 8] >> n % 8 & 1;
}

static void bitmap_matches(void **state)
{
	static u8 bitmap[4096];

	(void)state;
	msr_fill_bitmap(bitmap, host_msr_access);
	for (u32 msr = 0; msr < 0x2000; msr++) {
		u32 high = 0xc0000000 + msr;

		assert_int_equal(bit(bitmap, msr), host_msr_access(msr, false) != MSR_PASS);
		assert_int_equal(bit(bitmap + 1024, msr), host_msr_access(high, false) != MSR_PASS);
		assert_int_equal(bit(bitmap + 2048, msr), host_msr_access(msr, true) != MSR_PASS);
		assert_int_equal(bit(bitmap + 3072, msr), host_msr_access(high, true) != MSR_PASS);
	}
}

/* MSRs whose value makes the CPU or a device write to memory, or that switch protection off. Never a plain write. */
static void dangerous_writes_never_pass(void **state)
{
	static const u32 dangerous[] = {
		0x10,       0x3b,       0x123,      0x1a0,      0x1b,
		0x3a, /* clock, mitigations, XD, APIC base, feature control */
		0x79,       0x7a,       0x7c,       0x2c0,      0x2c2,
		0x2c6,      0x1b01, /* microcode, its staging, in-field scan */
		0x1d9,      0x3f1,      0x3f2,      0x600,      0x14ce,
		0x14cf,     0x1500, /* debug store, PEBS, architectural LBR */
		0x570,      0x560,      0x561,      0x571,      0x580,
		0x587,      0xc80, /* Processor Trace, debug interface */
		0x17d0,     0x17d1,     0x17d2,     0x17d4,     0x17da, /* hardware feedback, HRESET */
		0x480,      0x491,      0x493,      0x9b,       0x9e, /* VMX, SMM monitor, SMBASE */
		0x1f2,      0x1f3,      0x1f4,      0x1f5,      0x2a0,
		0x2a7,      0x1400,     0x1401, /* SMRR, PRMRR, SEAMRR */
		0x6a0,      0x6a2,      0x6a4,      0x6a7,      0x6a8,
		0x6e1,      0xda0,      0xd93, /* CET, PKS, XSS, PASID */
		0x1c,       0x985,      0x986,      0x987,      0x988,
		0x989,      0x98a,      0x1b00, /* user MSRs, user interrupts and timer */
		0x981,      0x982,      0x9ff,      0x87,       0x990,
		0xd91,      0xd92, /* memory encryption, key locker */
		0x1cc,      0x1d4,      0x8c,       0x8f,       0x2ff,
		0x200,      0x20f,      0x250, /* FRED, SGX, MTRRs */
		0x33,       0x9d,       0xbf,       0xe4,       0x2e7,
		0x4d0, /* split locks, I/O capture, LMCE */
		0xb0,       0xb1,       0x150,      0x195,      0x198,
		0x1f8,      0xd90, /* mailboxes, overclocking and voltage, DCA, MPX */
		0xc0000080, 0xc0000104, 0xc0010015, 0xc0010111, 0xc0010117,
		0x40000000, 0x40000001, 0x4b564d01,
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(dangerous); i++)
		assert_int_not_equal(host_msr_access(dangerous[i], true), MSR_PASS);
}

/* None is the CPU's own. */
static void vmx_msrs_exit(void **state)
{
	(void)state;
	assert_int_equal(host_msr_access(MSR_IA32_FEATURE_CONTROL, false), MSR_HANDLE);
	assert_int_equal(host_msr_access(MSR_IA32_FEATURE_CONTROL, true), MSR_DENY);
	for (u32 msr = 0x480; msr <= 0x493; msr++) {
		assert_int_equal(host_msr_access(msr, false), MSR_HANDLE);
		assert_int_equal(host_msr_access(msr, true), MSR_DENY);
	}
}

/* Each of these is written many times a second by a running kernel: an exit would cost. */
static void hot_msrs_pass(void **state)
{
	static const u32 hot[] = { 0x48,  0x49,  0x6e0, 0x80b,      0x830,      0x83f,      0x38f,     0xc1,
				   0x186, 0x277, 0x1c4, 0xc0000082, 0xc0000100, 0xc0000101, 0xc0000102 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hot); i++) {
		assert_int_equal(host_msr_access(hot[i], true), MSR_PASS);
		assert_int_equal(host_msr_access(hot[i], false), MSR_PASS);
	}
}

static void unlisted_are_denied(void **state)
{
	(void)state;
	assert_int_equal(host_msr_access(0, true), MSR_DENY);
	assert_int_equal(host_msr_access(0x1bff, true), MSR_DENY);
	assert_int_equal(host_msr_access(0xc0001fff, true), MSR_DENY);
	assert_int_equal(host_msr_access(0x40000000, true), MSR_DENY);
	assert_int_equal(host_msr_access(0x4b564d00, true), MSR_DENY);
	assert_int_equal(host_msr_access(0xffffffff, true), MSR_DENY);
	/* Outside the bitmap every access exits: none of them may count as one that passes. */
	for (u32 msr = MSR_UNCORE_FIRST; msr <= MSR_UNCORE_LAST; msr++) {
		assert_int_equal(host_msr_access(msr, false), MSR_HANDLE);
		assert_int_equal(host_msr_access(msr, true), MSR_HANDLE);
	}
	assert_int_equal(host_msr_access(0x4000, false), MSR_DENY);
	assert_int_equal(host_msr_access(0x4000, true), MSR_DENY);
	assert_int_equal(host_msr_access(0xbfffffff, false), MSR_DENY);
	assert_int_equal(host_msr_access(0xc0002000, false), MSR_DENY);
	for (u32 msr = 0xc0000000; msr < 0xc0002000; msr++)
		if (msr_is_mtrr(msr & 0xffff))
			assert_false(msr_is_mtrr(msr));
}

static void mtrrs(void **state)
{
	unsigned n = 0;

	(void)state;
	for (u32 msr = 0; msr < 0x2000; msr++) {
		n += msr_is_mtrr(msr);
		if (msr_is_mtrr(msr)) {
			assert_int_equal(host_msr_access(msr, true), MSR_HANDLE);
			assert_int_equal(host_msr_access(msr, false), MSR_HANDLE);
		}
	}
	assert_int_equal(n, 64 + 11 + 1);
	assert_false(msr_is_mtrr(MSR_IA32_MTRRCAP));
	assert_false(msr_is_mtrr(MSR_IA32_PAT));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bitmap_matches),      cmocka_unit_test(dangerous_writes_never_pass),
		cmocka_unit_test(vmx_msrs_exit),       cmocka_unit_test(hot_msrs_pass),
		cmocka_unit_test(unlisted_are_denied), cmocka_unit_test(mtrrs),
	};

	return cmocka_run_group_tests_name("msr_policy", tests, NULL, NULL);
}

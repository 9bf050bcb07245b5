// SPDX-License-Identifier: MIT
/*
 * guest/policy.c: what a guest sees of a CPU that has everything, of one that has nothing, and of the build machine's;
 * that its bits of CR4 follow; that the MSR bitmap says what the functions say, and which MSRs never pass.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "policy.h"

#define AVX512_BITS (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512)
#define ALL_BITS (AVX512_BITS | XCR0_PKRU)
#define ONES 0xffffffffu

static struct cpuid_result ask(u32 leaf, u32 subleaf, struct guest_cpuid_state state, u32 every_register)
{
	struct cpuid_result r = { every_register, every_register, every_register, every_register };

	guest_cpuid(leaf, subleaf, &state, &r);
	return r;
}

static void assert_registers(struct cpuid_result r, u32 eax, u32 ebx, u32 ecx, u32 edx)
{
	assert_int_equal(r.eax, eax);
	assert_int_equal(r.ebx, ebx);
	assert_int_equal(r.ecx, ecx);
	assert_int_equal(r.edx, edx);
}

static const struct guest_cpuid_state full = {
	.cr4 = CR4_OSXSAVE | CR4_PKE, .xcr0_supported = ALL_BITS, .xsave_bytes = 2696, .index = 3, .vcpus = 16
};
static const struct guest_cpuid_state bare = { .vcpus = 1 };

/* The masks are written down here a second time, as the SDM's bit numbers in hexadecimal. */
static void a_cpu_that_has_everything(void **state)
{
	(void)state;
	assert_registers(ask(0, 0, full, ONES), 0xd, ONES, ONES, ONES);
	assert_registers(ask(1, 0, full, ONES), ONES, 0x0310ff00, 0xfeda3203, 0x178ba97f);
	assert_registers(ask(1, 0, bare, ONES), ONES, 0x0001ff00, 0xc2da2203, 0x078ba97f);
	assert_registers(ask(7, 0, full, ONES), 1, 0xfdbf07ab, 0x00405f5e, 0x0080051c);
	assert_registers(ask(7, 0, bare, ONES), 1, 0x219c078b, 0x00400104, 0x00000410);
	assert_registers(ask(7, 1, full, ONES), 0x1c30, 0, 0, 0);
	assert_registers(ask(7, 1, bare, ONES), 0x1c00, 0, 0, 0);
	assert_registers(ask(7, 2, full, ONES), 0, 0, 0, 0);
	assert_registers(ask(0xd, 0, full, ONES), 0x2e7, ONES, 2696, 0);
	assert_registers(ask(0xd, 1, full, ONES), 7, ONES, 0, 0);
	for (u32 i = 2; i < 64; i++)
		if (ALL_BITS >> i & 1)
			assert_registers(ask(0xd, i, full, ONES), ONES, ONES, ONES, 0);
		else
			assert_registers(ask(0xd, i, full, ONES), 0, 0, 0, 0);
	for (u32 i = 0; i < 64; i++)
		assert_registers(ask(0xd, i, bare, ONES), 0, 0, 0, 0);
	assert_registers(ask(0x40000000, 0, full, ONES), 0x40000000, 0x65707948, 0x67535072, 0x74736575);
	assert_registers(ask(0x80000000, 0, full, ONES), 0x80000008, 0, 0, 0);
	assert_registers(ask(0x80000001, 0, full, ONES), 0, 0, 0x121, 0x2c100800);
	for (u32 leaf = 0x80000002; leaf <= 0x80000004; leaf++)
		assert_registers(ask(leaf, 0, full, ONES), ONES, ONES, ONES, ONES);
	assert_registers(ask(0x80000005, 0, full, ONES), 0, 0, 0, 0);
	assert_registers(ask(0x80000006, 0, full, ONES), 0, 0, ONES, 0);
	assert_registers(ask(0x80000007, 0, full, ONES), 0, 0, 0, 0x100);
	assert_registers(ask(0x80000008, 0, full, ONES), 0xff2e, 0, 0, 0);
	/* Where a leaf has no subleaves ECX means nothing. */
	assert_registers(ask(1, 77, bare, ONES), ONES, 0x0001ff00, 0xc2da2203, 0x078ba97f);
	assert_registers(ask(0x80000006, ONES, full, ONES), 0, 0, ONES, 0);
	assert_registers(ask(7, ONES, full, ONES), 0, 0, 0, 0);
}

static void name_of_the_monitor(void **state)
{
	struct cpuid_result r = ask(0x40000000, 0, bare, 0);
	u32 name[3] = { r.ebx, r.ecx, r.edx };

	(void)state;
	assert_memory_equal(name, "HyperPSguest", 12);
}

static void leaves_not_listed_are_zero(void **state)
{
	static const u32 bases[] = { 0,          0x20000000, 0x40000000, 0x40000100, 0x4fffff00,
				     0x80000000, 0x80860000, 0x8fffff00, 0xc0000000, 0xffffff00 };
	unsigned listed = 0;

	(void)state;
	for (size_t b = 0; b < ARRAY_SIZE(bases); b++)
		for (u32 i = 0; i < 0x100; i++)
			for (u32 subleaf = 0; subleaf < 4; subleaf++) {
				struct cpuid_result r = ask(bases[b] + i, subleaf, full, ONES);

				listed += subleaf == 0 && (r.eax | r.ebx | r.ecx | r.edx);
			}
	/* 0, 1, 7, 0xd; 0x40000000; 0x80000000 to 4 and 6 to 8 */
	assert_int_equal(listed, 4 + 1 + 5 + 3);
}

/* A CPU without a feature: nothing is added to its answer but what the monitor itself provides. */
static void a_cpu_that_has_nothing(void **state)
{
	(void)state;
	assert_registers(ask(0, 0, bare, 0), 0, 0, 0, 0);
	assert_registers(ask(1, 0, bare, 0), 0, 0x00010000, 0x80000000, 0);
	assert_registers(ask(7, 0, bare, 0), 0, 0, 0, 0);
	assert_registers(ask(0xd, 0, full, 0), 0, 0, 0, 0);
	assert_registers(ask(0x80000008, 0, full, 0), 0, 0, 0, 0);
	assert_registers(ask(0x80000008, 0, full, 0x3027), 0x3027, 0, 0, 0);
	assert_registers(ask(0x80000008, 0, full, 0x393934), 0x392e, 0, 0, 0);
	assert_registers(ask(0x80000000, 0, full, 0x80000004), 0x80000004, 0, 0, 0);
	assert_registers(ask(7, 0, full, 0), 0, 0, 0x10, 0);
}

/* Each part of XCR0 alone brings its own features and no others. */
static void features_follow_xcr0(void **state)
{
	struct guest_cpuid_state sse = { .xcr0_supported = XCR0_X87 | XCR0_SSE, .vcpus = 1 };
	struct guest_cpuid_state avx = { .xcr0_supported = XCR0_X87 | XCR0_SSE | XCR0_AVX, .vcpus = 1 };
	struct guest_cpuid_state avx512 = { .xcr0_supported = AVX512_BITS, .vcpus = 1 };
	struct guest_cpuid_state odd = { .xcr0_supported = AVX512_BITS & ~XCR0_OPMASK, .vcpus = 1 };
	struct guest_cpuid_state pku = { .xcr0_supported = XCR0_X87 | XCR0_SSE | XCR0_PKRU, .vcpus = 1 };

	(void)state;
	assert_int_equal(ask(1, 0, sse, ONES).ecx, 0xc6da2203);
	assert_int_equal(ask(1, 0, avx, ONES).ecx, 0xf6da3203);
	assert_registers(ask(7, 0, sse, ONES), 1, 0x219c078b, 0x00400104, 0x00000410);
	assert_registers(ask(7, 0, avx, ONES), 1, 0x219c07ab, 0x00400704, 0x00000410);
	assert_registers(ask(7, 0, avx512, ONES), 1, 0xfdbf07ab, 0x00405f46, 0x0080051c);
	assert_registers(ask(7, 0, odd, ONES), 1, 0x219c07ab, 0x00400704, 0x00000410);
	assert_registers(ask(7, 0, pku, ONES), 1, 0x219c078b, 0x0040010c, 0x00000410);
	assert_int_equal(ask(7, 1, avx, ONES).eax, 0x1c10);
	assert_int_equal(ask(0xd, 0, avx, ONES).eax, 7);
	assert_int_equal(ask(0xd, 2, sse, ONES).eax, 0);
	assert_int_equal(ask(0xd, 9, avx512, ONES).eax, 0);
	/* A component that the CPU has, but the monitor does not know: not even if it says that it supports it. */
	avx.xcr0_supported |= BIT(17) | BIT(18) | BIT(3) | BIT(4);
	assert_int_equal(ask(0xd, 17, avx, ONES).eax, 0);
	assert_int_equal(ask(0xd, 18, avx, ONES).eax, 0);
	assert_int_equal(ask(0xd, 3, avx, ONES).eax, 0);
}

/* The bits for CR4 and back: with both masks a guest can switch on what it sees, and nothing else. */
static void cr4_follows_cpuid(void **state)
{
	static const struct {
		unsigned argument, bit;
		u64 cr4;
	} follows[] = {
		{ 0, 17, CR4_PCIDE },  { 0, 26, CR4_OSXSAVE },    { 1, 1, CR4_VME | CR4_PVI }, { 1, 2, CR4_DE },
		{ 1, 3, CR4_PSE },     { 1, 4, CR4_TSD },         { 1, 6, CR4_PAE },           { 1, 13, CR4_PGE },
		{ 1, 24, CR4_OSFXSR }, { 1, 25, CR4_OSXMMEXCPT }, { 2, 0, CR4_FSGSBASE },      { 2, 7, CR4_SMEP },
		{ 2, 20, CR4_SMAP },   { 3, 2, CR4_UMIP },        { 3, 3, CR4_PKE },
	};
	u64 union_of_all = CR4_MCE | CR4_PCE;

	(void)state;
	for (unsigned argument = 0; argument < 4; argument++)
		for (unsigned bit = 0; bit < 32; bit++) {
			u32 a[4] = { 0 };
			u64 expected = CR4_MCE | CR4_PCE;

			a[argument] = 1u << bit;
			for (size_t i = 0; i < ARRAY_SIZE(follows); i++)
				if (follows[i].argument == argument && follows[i].bit == bit)
					expected |= follows[i].cr4;
			union_of_all |= expected;
			assert_true(guest_cr4_allowed(a[0], a[1], a[2], a[3]) == expected);
		}
	assert_true(guest_cr4_allowed(ONES, ONES, ONES, ONES) == union_of_all);
	assert_true(union_of_all == 0x770fff);
	assert_false(union_of_all & (CR4_VMXE | BIT(14) | CR4_LA57));
	assert_true(guest_cr4_allowed(0, 0, 0, 0) == (CR4_MCE | CR4_PCE));
}

/* On the build machine: the answers are a part of the CPU's, and a guest without XSAVE sees no trace of it. */
static void this_cpu(void **state)
{
	static const u32 leaves[] = { 7, 0xd, 0x80000001, 0x80000006, 0x80000007 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
		for (u32 subleaf = 0; subleaf < 10; subleaf++) {
			struct cpuid_result cpu = cpuid(leaves[i], subleaf), r = cpu;
			struct guest_cpuid_state some = { .xcr0_supported = ALL_BITS, .vcpus = 1 };

			guest_cpuid(leaves[i], subleaf, &some, &r);
			if (leaves[i] == 7 && subleaf == 0)
				r.eax = 0;
			assert_int_equal(r.eax & ~cpu.eax, 0);
			assert_int_equal(r.ebx & ~cpu.ebx, 0);
			assert_int_equal(r.ecx & ~cpu.ecx, 0);
			assert_int_equal(r.edx & ~cpu.edx, 0);
		}
}

static bool bit(const u8 *bitmap, unsigned n)
{
	return bitmap[n / 8] >> n % 8 & 1;
}

static void bitmap_matches(void **state)
{
	static u8 bitmap[4096];

	(void)state;
	msr_fill_bitmap(bitmap, guest_msr_access);
	for (u32 msr = 0; msr < 0x2000; msr++) {
		u32 high = 0xc0000000 + msr;

		assert_int_equal(bit(bitmap, msr), guest_msr_access(msr, false) != MSR_PASS);
		assert_int_equal(bit(bitmap + 1024, msr), guest_msr_access(high, false) != MSR_PASS);
		assert_int_equal(bit(bitmap + 2048, msr), guest_msr_access(msr, true) != MSR_PASS);
		assert_int_equal(bit(bitmap + 3072, msr), guest_msr_access(high, true) != MSR_PASS);
	}
}

/* All that passes and all that is handled, once more; every other MSR of the bitmap, and outside it, is denied. */
static void msrs_not_listed_are_denied(void **state)
{
	static const u32 passing[] = { 0x174,      0x175,      0x176,      0x277,      0xc0000080,
				       0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100,
				       0xc0000101, 0xc0000102, 0xc0000103 };
	static const u32 handled[] = { 0x1b, 0x3b, 0x8b, 0x1d9 };
	static const u32 outside[] = { 0x2000,     0x10010,    0x40000000, 0x4b564d00, 0x80000010,
				       0xbfffffff, 0xc0002000, 0xc0010010, 0xffffffff };
	unsigned read = 0, write = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(passing); i++) {
		assert_int_equal(guest_msr_access(passing[i], false), MSR_PASS);
		assert_int_equal(guest_msr_access(passing[i], true), MSR_PASS);
	}
	for (size_t i = 0; i < ARRAY_SIZE(handled); i++) {
		assert_int_equal(guest_msr_access(handled[i], false), MSR_HANDLE);
		assert_int_equal(guest_msr_access(handled[i], true), MSR_HANDLE);
	}
	assert_int_equal(guest_msr_access(MSR_IA32_TSC, false), MSR_PASS);
	assert_int_equal(guest_msr_access(MSR_IA32_TSC, true), MSR_HANDLE);
	assert_int_equal(guest_msr_access(MSR_IA32_MISC_ENABLE, false), MSR_HANDLE);
	assert_int_equal(guest_msr_access(MSR_IA32_MISC_ENABLE, true), MSR_DENY);
	for (u32 i = 0; i < 0x4000; i++) {
		u32 msr = i < 0x2000 ? i : 0xc0000000 + (i - 0x2000);

		read += guest_msr_access(msr, false) != MSR_DENY;
		write += guest_msr_access(msr, true) != MSR_DENY;
	}
	assert_int_equal(read, ARRAY_SIZE(passing) + ARRAY_SIZE(handled) + 2);
	assert_int_equal(write, ARRAY_SIZE(passing) + ARRAY_SIZE(handled) + 1);
	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		assert_int_equal(guest_msr_access(outside[i], false), MSR_DENY);
		assert_int_equal(guest_msr_access(outside[i], true), MSR_DENY);
	}
}

/*
 * MSRs by which a guest could reach memory, change the machine, or watch others: feature control, SMM, microcode,
 * MTRRs, debug store, Processor Trace, VMX, PMU, power, RDT, speculation control, x2APIC, XSS, CET, TSC deadline.
 */
static void dangerous_msrs_are_denied(void **state)
{
	static const u32 dangerous[] = {
		0x3a,  0x48,  0x49,  0x79,  0x7a,  0x8c,  0x9b,  0x9e,  0xc1,  0xce,  0xe2,   0xe7,  0xfe,
		0x10a, 0x10b, 0x122, 0x123, 0x140, 0x186, 0x198, 0x199, 0x1a2, 0x1a4, 0x1b1,  0x1c4, 0x1c8,
		0x1f2, 0x1fc, 0x200, 0x20f, 0x250, 0x2ff, 0x309, 0x345, 0x38d, 0x38f, 0x3f1,  0x400, 0x480,
		0x491, 0x560, 0x570, 0x580, 0x600, 0x610, 0x680, 0x6a0, 0x6a2, 0x6a8, 0x6e0,  0x770, 0x800,
		0x802, 0x830, 0x982, 0xc81, 0xc8f, 0xd90, 0xd93, 0xda0, 0x985, 0x1cc, 0x17d0,
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(dangerous); i++) {
		assert_int_equal(guest_msr_access(dangerous[i], false), MSR_DENY);
		assert_int_equal(guest_msr_access(dangerous[i], true), MSR_DENY);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cpu_that_has_everything),
		cmocka_unit_test(a_cpu_that_has_nothing),
		cmocka_unit_test(name_of_the_monitor),
		cmocka_unit_test(leaves_not_listed_are_zero),
		cmocka_unit_test(features_follow_xcr0),
		cmocka_unit_test(cr4_follows_cpuid),
		cmocka_unit_test(this_cpu),
		cmocka_unit_test(bitmap_matches),
		cmocka_unit_test(msrs_not_listed_are_denied),
		cmocka_unit_test(dangerous_msrs_are_denied),
	};

	return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}

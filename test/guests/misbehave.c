// SPDX-License-Identifier: MIT
/*
 * A guest that tries what it should not. The command line names the parts, README.md lists them. Those that come back
 * check that the machine behaved as a CPU does; the exit code is 0 if all did.
 */
#include "misbehave.h"

#define EACCES 13
#define EINVAL 22
#define ENOSYS 38
#define POOL_PAGES 64

u8 scratch[2][PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static u8 pool[POOL_PAGES][PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static u64 vcpu_count;

/* mov eax, imm32; ret */
static void write_code(volatile u8 *at, u32 value)
{
	at[0] = 0xb8;
	for (int i = 0; i < 4; i++)
		at[1 + i] = value >> 8 * i;
	at[5] = 0xc3;
}

static u32 run_code(u8 *at)
{
	return ((u32(*)(void))at)();
}

static void try_self_modification(u64 rounds)
{
	rounds = rounds > 1 ? rounds : 1000;
	for (u64 i = 0; i < rounds; i++) {
		/* Across two pages, and every other time through the other mapping. */
		u8 *at = scratch[0] + PAGE_SIZE - i % 6;

		write_code(at + (i & 1 ? USER_ALIAS : 0), i * 0x01010101);
		check(run_code(at) == (u32)(i * 0x01010101), "changed code gives %x in round %lu", run_code(at), i);
	}
}

/* Executes it, too: a "ret" if it can be written. */
static void expect_access(u64 address, int read, int write, int execute)
{
	int got = fault_of("testb $0, (%0)", , "r"(address));

	check(got == read, "reading %lx raises %d, not %d", address, got, read);
	got = fault_of("movb $0xc3, (%0)", , "r"(address));
	check(got == write, "writing %lx raises %d, not %d", address, got, write);
	got = caught((void (*)(u64))address, 0);
	check(got == execute, "executing %lx raises %d, not %d", address, got, execute);
}

static void try_undeclared(u64 gpa)
{
	expect_access((u64)scratch[0], VECTOR_NONE, VECTOR_NONE, VECTOR_NONE);
	expect_access(gpa, VECTOR_GP, VECTOR_GP, VECTOR_GP);
	expect_access(gpa + PAGE_SIZE - 1, VECTOR_GP, VECTOR_GP, VECTOR_GP);
	expect_access((u64)scratch[0], VECTOR_NONE, VECTOR_NONE, VECTOR_NONE);
}

static void try_read_only(u64 gpa)
{
	expect_access(gpa, VECTOR_NONE, VECTOR_GP, VECTOR_GP);
}

static void try_no_execute(u64 gpa)
{
	expect_access(gpa, VECTOR_NONE, VECTOR_NONE, VECTOR_GP);
}

static s64 call6(u64 number, const u64 a[6])
{
	register u64 r8 asm("r8") = a[3];
	register u64 r9 asm("r9") = a[4];
	register u64 r10 asm("r10") = a[5];
	u64 rdi = a[0], rsi = a[1], rdx = a[2];
	s64 result;

	asm volatile("vmcall"
		     : "=a"(result), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+r"(r8), "+r"(r9), "+r"(r10)
		     : "a"(number)
		     : "memory");
	return result;
}

static s64 call(u64 number, const void *page, u64 count)
{
	return hyperps_guest_call(number, (u64)page, count);
}

static void expect_call(u64 number, u64 page, u64 count, s64 wanted)
{
	s64 got = hyperps_guest_call(number, page, count);

	check(got == wanted, "call %lx with %lx, %lx gives %ld, not %ld", number, page, count, got, wanted);
}

static void expect_error(u64 number, u64 page, u64 count)
{
	s64 got = hyperps_guest_call(number, page, count);

	check(got == -EACCES || got == -EINVAL, "call %lx with %lx, %lx gives %ld", number, page, count, got);
}

static void try_wrong_pages(void)
{
	static const u64 numbers[] = { HYPERPS_GUEST_SHARE, HYPERPS_GUEST_UNSHARE, HYPERPS_GUEST_RELEASE };
	static const u64 pages[] = { 1,       0x800,       0xfee00000,     BIT(46),
				     BIT(47), BIT(51),     BIT(52),        BIT(63),
				     ~0ULL,   ~0ULL << 12, ~0xfffULL >> 1, 0x0000400000000000 - PAGE_SIZE };
	u64 page = (u64)pool[0];

	for (u64 i = 0; i < ARRAY_SIZE(numbers); i++) {
		for (u64 k = 0; k < ARRAY_SIZE(pages); k++) {
			expect_error(numbers[i], pages[k], 1);
			expect_error(numbers[i], pages[k], 512);
			expect_error(numbers[i], pages[k], ~0ULL);
		}
		expect_error(numbers[i], page, 513);
		expect_error(numbers[i], page, 1ULL << 32);
		expect_error(numbers[i], page, (1ULL << 52) + 1);
		expect_error(numbers[i], page, ~0ULL);
		expect_error(numbers[i], page + 8, 1);
	}
	/* All or nothing, and only what is there and private; UNSHARE only what is shared. */
	pool[0][0] = 1;
	expect_error(HYPERPS_GUEST_UNSHARE, page, 1);
	pool[1][0] = 0x77;
	expect_call(HYPERPS_GUEST_SHARE, page, 1, 0);
	expect_error(HYPERPS_GUEST_SHARE, page, 1);
	expect_error(HYPERPS_GUEST_SHARE, page, 2);
	expect_error(HYPERPS_GUEST_RELEASE, page, 2);
	expect_error(HYPERPS_GUEST_UNSHARE, page, 2);
	check(pool[1][0] == 0x77, "a call that failed changed its second page");
	expect_call(HYPERPS_GUEST_UNSHARE, page, 1, 0);
	expect_call(HYPERPS_GUEST_RELEASE, page, 2, 0);
	expect_error(HYPERPS_GUEST_RELEASE, page, 1);
	expect_error(HYPERPS_GUEST_SHARE, page, 1);
	expect_error(HYPERPS_GUEST_UNSHARE, page, 1);
	check(!pool[0][0] && !pool[1][0], "released pages come back zeroed");
}

static void try_hypercalls(u64 rounds)
{
	u64 random = 1, lengths[] = { 0, 41, 1ULL << 32, ~0ULL }, a[6] = { 0 };

	rounds = rounds > 1 ? rounds : 5000;
	check(call(HYPERPS_GUEST_SHUTDOWN + 0x1000, NULL, 0) == -ENOSYS, "a call that does not exist gives ENOSYS");
	for (u64 i = 0; i < ARRAY_SIZE(lengths); i++) {
		a[0] = lengths[i];
		check(call6(HYPERPS_GUEST_CONSOLE, a) < 0, "console output of %lu bytes works", lengths[i]);
	}
	try_wrong_pages();
	/* The host's calls, and numbers in their neighbourhood, are none for a guest. */
	for (u64 number = 0x48505200; number < 0x48505500; number++)
		if (number < HYPERPS_GUEST_CONSOLE || number > HYPERPS_GUEST_SHUTDOWN)
			check(call(number, pool, 1) == -ENOSYS, "call %lx gives no ENOSYS", number);
	for (u64 i = 0; i < rounds; i++) {
		u64 number = next_random(&random);
		s64 result;

		if (i % 4 == 0)
			number = HYPERPS_GUEST_SHARE + number % 5 + (1ULL << (32 + i / 4 % 32));
		for (u64 k = 0; k < 6; k++)
			a[k] = next_random(&random);
		result = call6(number, a);
		check(result < 0 && result > -4096, "call %lx gives %ld", number, result);
	}
}

/* All vCPUs share, take back, release and touch the same pages; what a page holds is another's affair. */
static void race(u64 index, u64 count)
{
	u64 random = index, results[3] = { 0 };

	for (u64 i = 0; i < 2000; i++) {
		u64 choice = next_random(&random), page = choice % POOL_PAGES, n = choice >> 8 & 3;
		s64 result = 0;

		n = page + n >= POOL_PAGES ? 1 : n + 1;
		if (choice >> 16 & 1)
			*(volatile u64 *)pool[page] += 1;
		else
			result = call(HYPERPS_GUEST_SHARE + (choice >> 17 & 3) % 3, pool[page], n);
		check(result <= 0 && result > -4096, "a call gives %ld", result);
		results[result == 0 ? 0 : result == -EACCES ? 1 : 2]++;
	}
	print("misbehave: vCPU %lu: %lu done, %lu refused, %lu other errors\n", index, results[0], results[1],
	      results[2]);
	barrier(count);
}

static void try_race(u64 count)
{
	u64 unshared = 0;

	race(0, count);
	for (u64 i = 0; i < POOL_PAGES; i++)
		unshared += call(HYPERPS_GUEST_UNSHARE, pool[i], 1) == 0;
	for (u64 i = 0; i < POOL_PAGES; i++) {
		*(volatile u64 *)pool[i] = i;
		check(*(volatile u64 *)pool[i] == i, "a page is of no use afterwards");
	}
	print("misbehave: %lu of %u pages were shared at the end\n", unshared, POOL_PAGES);
}

static void ud2(u64 unused)
{
	(void)unused;
	asm volatile("ud2");
}

static void try_ud_storm(u64 rounds)
{
	rounds = rounds > 1 ? rounds : 100000;
	for (u64 i = 0; i < rounds; i++)
		if (fault_of("ud2", , ) != VECTOR_UD)
			check(false, "UD2 raises another exception");
	expect(VECTOR_UD, ud2, 0);
}

static void triple_fault(u64 unused)
{
	struct descriptor_table none = { 0 };

	(void)unused;
	asm volatile("lidt %0\n\tud2" : : "m"(none));
}

/* An IDT, a stack, page tables where there is no memory: the exception can't be delivered. */
static void bad_idt(u64 gpa)
{
	struct descriptor_table idt = { 4095, gpa };

	asm volatile("lidt %0\n\tud2" : : "m"(idt));
}

static void bad_stack(u64 gpa)
{
	memcpy((u8 *)this_cpu()->tss + 36, &(u64){ gpa + PAGE_SIZE }, 8);
	asm volatile("ud2");
}

static void bad_cr3(u64 gpa)
{
	asm volatile("mov %0, %%cr3" : : "r"(gpa) : "memory");
}

static void loop(u64 unused)
{
	(void)unused;
	print("misbehave: looping\n");
	asm volatile("cli\n1: jmp 1b");
}

static void loop_sti(u64 unused)
{
	(void)unused;
	print("misbehave: looping\n");
	asm volatile("sti\n1: jmp 1b");
}

static void halt(u64 unused)
{
	(void)unused;
	print("misbehave: HLT\n");
	asm volatile("cli; hlt");
	print("misbehave: goes on after HLT\n");
}

/* Waits until so many interrupts and NMIs have come; the host injects them. */
static void try_interrupts(u64 count)
{
	u64 *seen = this_cpu()->interrupts, sum = 0;

	print("misbehave: waiting for %lu interrupts\n", count);
	while (sum < count) {
		asm volatile("sti; hlt; cli" : : : "memory");
		sum = 0;
		for (u64 i = 0; i < 256; i++)
			sum += seen[i];
	}
	for (u64 i = 0; i < 256; i++)
		if (seen[i])
			print("misbehave: vector %lu came %lu times\n", i, seen[i]);
}

static const struct part {
	const char *word;
	void (*run)(u64 value);
	bool in_all;
} parts[] = {
	{ "exceptions", try_exceptions, true },
	{ "selfmod", try_self_modification, true },
	{ "cr", try_control_registers, true },
	{ "msrs", try_msrs, true },
	{ "vmx", try_vmx, true },
	{ "exits", try_exits, true },
	{ "dr", try_debug, true },
	{ "ud_storm", try_ud_storm, true },
	{ "demand", try_demand, true },
	{ "hypercalls", try_hypercalls, true },
	{ "ports", try_ports, true },
	{ "race", try_race, false },
	{ "interrupts", try_interrupts, false },
	{ "undeclared", try_undeclared, false },
	{ "readonly", try_read_only, false },
	{ "noexecute", try_no_execute, false },
	{ "mmio", try_mmio, false },
	{ "hlt", halt, false },
	/* These don't come back. */
	{ "mmio_unknown", try_mmio_unknown, false },
	{ "triple", triple_fault, false },
	{ "idt", bad_idt, false },
	{ "stack", bad_stack, false },
	{ "cr3", bad_cr3, false },
	{ "db_loop", try_db_loop, false },
	{ "loop", loop, false },
	{ "loop_sti", loop_sti, false },
};

int guest_main(u64 index, const char *command_line)
{
	bool all = argument(command_line, "all", 0);

	vcpu_count = argument(command_line, "race", 0);
	if (index) {
		if (index < vcpu_count)
			race(index, vcpu_count);
		return 0;
	}
	for (u64 i = 0; i < ARRAY_SIZE(parts); i++) {
		u64 value = argument(command_line, parts[i].word, 0), before = checks, wrong = failures;

		if (!value && !(all && parts[i].in_all))
			continue;
		parts[i].run(value);
		print("misbehave: %s: %lu checks, %lu wrong\n", parts[i].word, checks - before, failures - wrong);
	}
	if (!checks)
		print("misbehave: no check was made\n");
	print("misbehave: %lu checks, %lu wrong\n", checks, failures);
	return failures != 0;
}

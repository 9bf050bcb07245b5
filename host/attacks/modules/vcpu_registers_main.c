// SPDX-License-Identifier: GPL-2.0
/*
 * The host's registers over VCPU_RUN: each keeps its value, none shows one of the guest's, whatever exit ends the
 * run and whatever the host's XCR0 leaves out. The guest (vcpu_registers_trip.S) checks the other way round.
 */
#include <linux/gfp.h>
#include <linux/irqflags.h>
#include <linux/mm.h>
#include <asm/debugreg.h>
#include <asm/desc.h>
#include <asm/fpu/api.h>
#include <asm/fpu/xcr.h>
#include <asm/msr.h>

#include "calls.h"
#include "compat.h"
#include "tap.h"

#define CODE 0x1000ULL
#define TABLES 0x2000ULL
#define STATE 0x5000ULL
#define DATA 0x7000ULL
#define PAGES 8
#define MISSING 0x100000ULL
#define MMIO 0x10000000ULL
#define GUEST_MARK 0x5ec7e7ULL /* as in host/guests/patterns.h */
#define HOST_MARK 0x405706ULL
#define FLAGS 0x240cd7ULL /* ID, AC, OF, DF, SF, ZF, AF, PF, CF; interrupts off */
#define XSTATES 0x2e7ULL /* x87, SSE, AVX, AVX-512, PKRU */
#define XSTATE_PKRU BIT(9)
#define XSTATE_HEADER 512
#define ROUNDS 4

struct trip {
	u64 in[16], out[16];
	void *crossing;
};

void trip_cross(struct trip *trip);
extern char trip_monitor[], trip_spoil[];
extern const char trip_guest[], trip_guest_end[];

enum exit {
	BY_OUT,
	BY_IN,
	BY_HLT,
	BY_WRITE,
	BY_READ,
	BY_CONSOLE,
	BY_MISSING_PAGE,
	BY_SPIN,
	BY_SHUTDOWN,
	BY_NONE,
	BY_FAULT,
	EXITS
};
static const char *const exit_names[] = { "OUT",     "IN",         "HLT",      "MMIO write", "MMIO read",   "console",
					  "missing", "preemption", "SHUTDOWN", "no exit",    "triple fault" };

static const u32 msrs[] = { MSR_STAR,
			    MSR_LSTAR,
			    MSR_CSTAR,
			    MSR_SYSCALL_MASK,
			    MSR_KERNEL_GS_BASE,
			    MSR_IA32_SYSENTER_CS,
			    MSR_IA32_SYSENTER_ESP,
			    MSR_IA32_SYSENTER_EIP,
			    MSR_FS_BASE,
			    MSR_GS_BASE,
			    MSR_EFER,
			    MSR_IA32_CR_PAT,
			    MSR_IA32_DEBUGCTLMSR,
			    MSR_TSC_AUX }; /* last: not every CPU has it */
#define OWN_MSRS 8 /* of these get patterns; nothing needs them while interrupts are off */

/* All but general registers and vector state. */
struct rest {
	u64 dr[4], dr6, dr7, cr0, cr2, cr3, cr4, cr8, xcr0, msr[ARRAY_SIZE(msrs)];
	u64 selector[8];
	u8 gdtr[16], idtr[16];
};

enum { FAULT_GENERAL = 1, FAULT_STATE = 2, FAULT_REST = 4, FAULT_LEAK = 8, FAULT_CONTROL = 16 };

static u64 vm, full, seen_words[8];
static u32 state_bytes;
static struct page *pages;
static u8 *native, *wanted, *before, *after;
static struct rest rest_before, rest_after;

static unsigned int msr_count(void)
{
	return ARRAY_SIZE(msrs) - !boot_cpu_has(X86_FEATURE_RDTSCP);
}

static u64 base_pattern(u64 mark, u64 round, u64 n)
{
	return mark << 24 | (round & 0xff) << 12 | n;
}

static u64 pattern(u64 mark, u64 round, u64 n)
{
	return 0xa5c3ULL << 48 | base_pattern(mark, round, n);
}

/* In the standard format of XSAVE; nothing between the components. */
static void fill_state(u8 *area, u64 mark, u64 round)
{
	u32 i, at, size, offset, unused;

	memset(area, 0, PAGE_SIZE);
	for (i = 1; i < 64; i++) {
		if (!(full & BIT_ULL(i)))
			continue;
		cpuid_count(13, i, &size, &offset, &unused, &unused);
		offset = i == 1 ? 160 : offset;
		size = i == 1 ? 256 : size;
		for (at = 0; at < size; at += 8)
			*(u64 *)(area + offset + at) = pattern(mark, round, i << 8 | at / 8);
		if (BIT_ULL(i) == XSTATE_PKRU)
			*(u64 *)(area + offset) &= 0xfffffffcULL; /* key 0 is that of all pages */
	}
	for (i = 0; i < 8; i++)
		memcpy(area + 32 + 16 * i, area + 160 + 16 * i, 10);
	area[0] = 0x7f; /* x87: all masked, all registers in use */
	area[1] = 0x03;
	area[4] = 0xff;
	*(u32 *)(area + 24) = mark == GUEST_MARK ? 0xffc0 : 0x9fc0;
	memcpy(area + XSTATE_HEADER, &full, 8);
}

static void save(u8 *area)
{
	asm volatile("xsave64 (%0)" ::"r"(area), "a"((u32)full), "d"(0) : "memory");
}

static void restore(const u8 *area)
{
	asm volatile("xrstor64 (%0)" ::"r"(area), "a"((u32)full), "d"(0) : "memory");
}

static void read_rest(struct rest *rest)
{
	unsigned int i;

	memset(rest, 0, sizeof(*rest));
	asm volatile("mov %%db0, %0; mov %%db1, %1; mov %%db2, %2; mov %%db3, %3"
		     : "=r"(rest->dr[0]), "=r"(rest->dr[1]), "=r"(rest->dr[2]), "=r"(rest->dr[3]));
	asm volatile("mov %%db6, %0; mov %%db7, %1; mov %%cr0, %2; mov %%cr2, %3"
		     : "=r"(rest->dr6), "=r"(rest->dr7), "=r"(rest->cr0), "=r"(rest->cr2));
	asm volatile("mov %%cr3, %0; mov %%cr4, %1; mov %%cr8, %2" : "=r"(rest->cr3), "=r"(rest->cr4), "=r"(rest->cr8));
	rest->xcr0 = xgetbv(0);
	for (i = 0; i < msr_count(); i++)
		rdmsrq(msrs[i], rest->msr[i]);
	asm volatile("sgdt %0; sidt %1" : "=m"(rest->gdtr), "=m"(rest->idtr));
	asm volatile("mov %%es, %0; mov %%cs, %1; mov %%ss, %2; mov %%ds, %3"
		     : "=r"(rest->selector[0]), "=r"(rest->selector[1]), "=r"(rest->selector[2]),
		       "=r"(rest->selector[3]));
	asm volatile("mov %%fs, %0; mov %%gs, %1; sldt %2; str %3"
		     : "=r"(rest->selector[4]), "=r"(rest->selector[5]), "=r"(rest->selector[6]),
		       "=r"(rest->selector[7]));
}

static void write_rest(const struct rest *rest)
{
	unsigned int i;

	asm volatile("mov %0, %%db0; mov %1, %%db1; mov %2, %%db2; mov %3, %%db3" ::"r"(rest->dr[0]), "r"(rest->dr[1]),
		     "r"(rest->dr[2]), "r"(rest->dr[3]));
	asm volatile("mov %0, %%db6; mov %1, %%db7; mov %2, %%cr2" ::"r"(rest->dr6), "r"(rest->dr7), "r"(rest->cr2));
	for (i = 0; i < OWN_MSRS; i++)
		wrmsrq(msrs[i], rest->msr[i]);
}

static void fill_rest(struct rest *rest, u64 round)
{
	unsigned int i;

	for (i = 0; i < 4; i++)
		rest->dr[i] = base_pattern(HOST_MARK, round, 0x200 + i);
	rest->dr6 = 0xffff0ff2;
	rest->dr7 = 0xdddd0400; /* no breakpoint is on */
	rest->cr2 = base_pattern(HOST_MARK, round, 0x204);
	for (i = 0; i < OWN_MSRS; i++)
		rest->msr[i] = base_pattern(HOST_MARK, round, 0x100 + i);
	rest->msr[3] = (u32)rest->msr[3];
	rest->msr[5] = (u16)rest->msr[5];
}

static bool has_mark(const void *data, size_t bytes)
{
	const u8 *byte = data;
	size_t i;

	for (i = 0; i + 3 <= bytes; i++)
		if (byte[i] == (GUEST_MARK & 0xff) && byte[i + 1] == (GUEST_MARK >> 8 & 0xff) &&
		    byte[i + 2] == GUEST_MARK >> 16)
			return true;
	return false;
}

/* One crossing with all of the host's registers filled, its XCR0 as given. `initial`: its vector state is XRSTOR's. */
static unsigned int cross(struct trip *trip, u64 xcr0, bool initial, u64 round)
{
	static const u8 kept[] = { 1, 4, 5, 12, 13, 14, 15 };
	static struct rest own, patterns;
	unsigned long flags;
	unsigned int i, faults = 0;

	fill_state(wanted, HOST_MARK, round);
	if (initial)
		memset(wanted + XSTATE_HEADER, 0, 8);
	memset(before, 0, PAGE_SIZE);
	memset(after, 0, PAGE_SIZE);
	memset(native, 0, PAGE_SIZE);
	for (i = 0; i < 16; i++)
		if (i == 1 || i == 3 || i == 5 || i > 8)
			trip->in[i] = pattern(HOST_MARK, round, i);
	trip->in[4] = FLAGS;
	kernel_fpu_begin();
	local_irq_save(flags);
	save(native);
	read_rest(&own);
	patterns = own;
	fill_rest(&patterns, round);
	write_rest(&patterns);
	restore(wanted);
	save(before);
	xsetbv(0, xcr0);
	read_rest(&rest_before);
	trip_cross(trip);
	read_rest(&rest_after);
	xsetbv(0, full);
	save(after);
	restore(native);
	write_rest(&own);
	local_irq_restore(flags);
	kernel_fpu_end();

	for (i = 0; i < ARRAY_SIZE(kept); i++)
		if (trip->in[kept[i]] != trip->out[kept[i]])
			faults |= FAULT_GENERAL;
	if (!initial && (memcmp(before + 32, wanted + 32, state_bytes - 32) || patterns.cr2 != rest_before.cr2))
		faults |= FAULT_CONTROL;
	if (memcmp(before, after, state_bytes))
		faults |= FAULT_STATE;
	if (memcmp(&rest_before, &rest_after, sizeof(rest_after)))
		faults |= FAULT_REST;
	/* The results may show it, where an exit says so: exit_is_right(). */
	for (i = 0; i < ARRAY_SIZE(kept); i++)
		if (has_mark(&trip->out[kept[i]], 8))
			faults |= FAULT_LEAK;
	if (has_mark(after, state_bytes) || has_mark(&rest_after, sizeof(rest_after)))
		faults |= FAULT_LEAK;
	return faults;
}

/* VCPU_RUN until something else than an interruption, if that is not the exit; the faults of all crossings. */
static unsigned int run(struct trip *trip, enum exit index, u64 answer, u64 xcr0, bool initial, u64 round)
{
	static const u8 words[8] = { 3, 2, 6, 7, 8, 9, 10, 11 };
	unsigned int faults = 0, i, tries = 0;

	do {
		trip->crossing = trip_monitor;
		trip->in[0] = HYPERPS_CALL_VCPU_RUN;
		trip->in[7] = vm;
		trip->in[6] = index;
		trip->in[2] = answer;
		trip->in[8] = 0;
		faults |= cross(trip, xcr0, initial, round);
		for (i = 0; i < 8; i++)
			seen_words[i] = trip->out[words[i]];
	} while (!trip->out[0] && !(u32)seen_words[0] && index != BY_SPIN && ++tries < 1000);
	return faults;
}

static bool seen(const struct trip *trip, u64 reason, u64 a, u64 b, u64 c)
{
	const u64 expected[8] = { reason, a, b, c };

	return !trip->out[0] && !memcmp(seen_words, expected, sizeof(expected));
}

/* What of the guest's registers an exit may show. */
static bool exit_is_right(const struct trip *trip, enum exit exit)
{
	u64 eax = (u32)pattern(GUEST_MARK, 0, 0);

	switch (exit) {
	case BY_OUT:
		return seen(trip, HYPERPS_EXIT_OUT, 0x5a, 4, eax);
	case BY_IN:
		return seen(trip, HYPERPS_EXIT_IN, 0x5a, 1, 0);
	case BY_HLT:
		return seen(trip, HYPERPS_EXIT_HLT, 0, 0, 0);
	case BY_WRITE:
		return seen(trip, HYPERPS_EXIT_MMIO_WRITE, MMIO, 8, pattern(GUEST_MARK, 0, 9));
	case BY_READ:
		return seen(trip, HYPERPS_EXIT_MMIO_READ, MMIO + 4, 4, 0);
	case BY_CONSOLE:
		return seen(trip, HYPERPS_EXIT_CONSOLE, 3, pattern(GUEST_MARK, 0, 6) & 0xffffff, 0);
	case BY_MISSING_PAGE:
		return seen(trip, HYPERPS_EXIT_MEMORY, MISSING, 2, 0);
	case BY_SPIN:
		return seen(trip, HYPERPS_EXIT_INTERRUPTED, 0, 0, 0);
	case BY_SHUTDOWN:
		return seen(trip, HYPERPS_EXIT_SHUTDOWN, (u8)pattern(GUEST_MARK, 0, 7), 0, 0);
	case BY_FAULT:
		return seen(trip, HYPERPS_EXIT_FAILED, HYPERPS_FAILURE_TRIPLE_FAULT, 0, 0);
	default:
		return seen(trip, HYPERPS_EXIT_OUT, 0x5b, 4, seen_words[3]) && seen_words[3] >= 4;
	}
}

/* The first difference that was found, for whoever has to find out why. */
static void explain(struct seq_file *out, const struct trip *trip)
{
	unsigned int i;

	for (i = 0; i < 16; i++)
		seq_printf(out, "# register %u: %llx, %llx\n", i, trip->in[i], trip->out[i]);
	for (i = 0; i < sizeof(struct rest) / 8; i++)
		if (((u64 *)&rest_before)[i] != ((u64 *)&rest_after)[i])
			seq_printf(out, "# word %u of the rest: %llx, %llx\n", i, ((u64 *)&rest_before)[i],
				   ((u64 *)&rest_after)[i]);
	for (i = 0; i < state_bytes / 8; i++)
		if (((u64 *)before)[i] != ((u64 *)after)[i])
			seq_printf(out, "# word %u of the vector state: %llx, %llx\n", i, ((u64 *)before)[i],
				   ((u64 *)after)[i]);
}

static void check_exit(struct seq_file *out, enum exit exit, u64 xcr0)
{
	unsigned int faults = 0, wrong = 0, unlike = 0, round, rounds = exit < BY_SHUTDOWN ? ROUNDS : 1;
	struct trip trip = { { 0 } };

	for (round = 0; round < rounds && !faults && !wrong && !unlike; round++) {
		faults = run(&trip, exit, 0, xcr0, round & 1, round);
		wrong = !exit_is_right(&trip, exit);
		if (faults || wrong || exit > BY_CONSOLE)
			continue;
		/* The answer to a read is 8 bytes, of which the guest gets fewer. */
		faults = run(&trip, exit, pattern(HOST_MARK, round, 0x300), xcr0, round & 1, round + ROUNDS);
		unlike = !seen(&trip, HYPERPS_EXIT_OUT, 0x5b, 4, 0);
	}
	tap_check(out, !faults && !wrong && !unlike,
		  "XCR0 %llx, %s: the host keeps its registers, and sees none (%x, %u, %u)", xcr0, exit_names[exit],
		  faults, wrong, unlike);
	if (faults)
		explain(out, &trip);
	if (wrong || unlike)
		seq_printf(out, "# %lld: %llx %llx %llx %llx\n", trip.out[0], seen_words[0], seen_words[1],
			   seen_words[2], seen_words[3]);
}

static s64 make_vm(void)
{
	u8 *page = page_address(pages);
	u64 *data = page_address(pages + DATA / PAGE_SIZE), i;
	s64 error;

	memset(page, 0, PAGES * PAGE_SIZE);
	memcpy(page + CODE, trip_guest, trip_guest_end - trip_guest);
	*(u64 *)(page + TABLES) = (TABLES + PAGE_SIZE) | 3;
	*(u64 *)(page + TABLES + PAGE_SIZE) = (TABLES + 2 * PAGE_SIZE) | 3;
	for (i = 0; i < 512; i++)
		((u64 *)(page + TABLES + 2 * PAGE_SIZE))[i] = i << 21 | 0x83;
	fill_state(page + STATE, GUEST_MARK, 0);
	for (i = 0; i < 16; i++)
		data[i] = pattern(GUEST_MARK, 0, i);
	for (i = 0; i < 5; i++)
		data[0x20 + i] = base_pattern(GUEST_MARK, 0, 0x200 + i);
	for (i = 0; i < 6; i++)
		data[0x28 + i] = base_pattern(GUEST_MARK, 0, 0x100 + i);
	data[0x28 + 3] = (u32)data[0x28 + 3];
	data[0x28 + 5] = (u32)data[0x28 + 5];
	data[0x30] = full;
	data[0x31] = full & XSTATE_PKRU ? X86_CR4_PKE : 0;
	data[0x32] = state_bytes;
	data[0x33] = boot_cpu_has(X86_FEATURE_RDTSCP);
	error = create(0, MISSING / PAGE_SIZE + 1, &vm);
	error = error ?: call(HYPERPS_CALL_VM_DECLARE, vm, MMIO | HYPERPS_RANGE_MMIO, 1, 0, NULL);
	return error;
}

static s64 give_all(void)
{
	s64 error = map(vm, 0, page_to_pfn(pages), PAGES) ?: finish(HYPERPS_CALL_VM_SYNC, vm);
	unsigned int i;

	for (i = 0; i < EXITS && !error; i++)
		error = call(HYPERPS_CALL_VCPU_CREATE, vm, HYPERPS_VCPU_LONG, CODE, TABLES, NULL);
	return error ?: finish(HYPERPS_CALL_VM_SEAL, vm);
}

/* With a crossing that leaves the guest's values in the CPU each check must complain. */
static void check_control(struct seq_file *out)
{
	struct trip trip = { .crossing = trip_spoil };
	unsigned int faults;

	trip.in[7] = (u64)page_address(pages + DATA / PAGE_SIZE);
	trip.in[6] = (u64)page_address(pages + STATE / PAGE_SIZE);
	faults = cross(&trip, full, false, 0);
	tap_check(out, faults == (FAULT_GENERAL | FAULT_STATE | FAULT_REST | FAULT_LEAK),
		  "positive control: what a guest leaves in the CPU is found (%x)", faults);
	trip.crossing = trip_monitor;
	trip.in[0] = HYPERPS_CALL_IDENTIFY;
	faults = cross(&trip, full, false, 0);
	tap_check(out, !faults, "positive control: IDENTIFY leaves all registers alone (%x)", faults);
	if (faults)
		explain(out, &trip);
}

static int show_vcpu_registers(struct seq_file *out, void *unused)
{
	static const u64 narrower[] = { ~0ULL, 7, 3, 1 };
	u32 eax, ebx, ecx, edx;
	unsigned int i, exit;
	s64 error;
	u8 *areas;

	if (!boot_cpu_has(X86_FEATURE_OSXSAVE)) {
		tap_check(out, true, "no XSAVE here: skipped");
		return 0;
	}
	full = xgetbv(0);
	cpuid_count(13, 0, &eax, &ebx, &ecx, &edx);
	state_bytes = ebx; /* with the host's XCR0 */
	pages = alloc_pages(GFP_KERNEL, get_order(PAGES * PAGE_SIZE));
	areas = (u8 *)__get_free_pages(GFP_KERNEL, 2);
	if (!pages || !areas || (full & ~XSTATES) || state_bytes > PAGE_SIZE) {
		tap_check(out, false, "memory, and an XCR0 (%llx, %u bytes) that a guest may have", full, state_bytes);
		return 0;
	}
	native = areas;
	wanted = areas + PAGE_SIZE;
	before = areas + 2 * PAGE_SIZE;
	after = areas + 3 * PAGE_SIZE;
	error = make_vm();
	if (!error)
		check_control(out);
	error = error ?: give_all();
	tap_check(out, !error, "a VM with %u vCPUs (%lld)", EXITS, error);
	for (i = 0; i < ARRAY_SIZE(narrower) && !error; i++) {
		if (i && narrower[i] == full)
			continue;
		/* The others are for once: what follows them is another exit. */
		for (exit = 0; exit < EXITS; exit++)
			if (!i || exit < BY_SHUTDOWN)
				check_exit(out, exit, full & narrower[i]);
	}
	error = finish(HYPERPS_CALL_VM_DESTROY, vm) ?: finish(HYPERPS_CALL_VM_RECLAIM, vm);
	tap_check(out, !error, "the VM ends (%lld)", error);
	if (!error)
		__free_pages(pages, get_order(PAGES * PAGE_SIZE));
	free_pages((unsigned long)areas, 2);
	return 0;
}

TAP_MODULE("vcpu_registers", show_vcpu_registers, "The host's registers over VCPU_RUN");

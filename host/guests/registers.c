// SPDX-License-Identifier: MIT
/*
 * Every register that a guest has keeps its content over an exit to the host, and begins without another's. Command
 * line: [ROUNDS [CPUS]].
 */
#include "guest.h"
#include "patterns.h"

#define CPUID_PKU BIT(3) /* leaf 7, ECX */
#define CPUID_XSAVE BIT(26) /* leaf 1, ECX */
#define STATES (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_BNDREGS | XCR0_BNDCSR | 7 << 5 | XCR0_PKRU)
#define XCR0_PKRU BIT(9)
#define AREA 4096
#define XMM_OFFSET 160
#define MXCSR_OFFSET 24
#define HEADER 512
#define FLAGS 0x240cd7 /* ID, AC, OF, DF, SF, ZF, AF, PF, CF; interrupts stay off */
#define MXCSR 0xffc0 /* all exceptions masked; rounding and flush modes, and no flag, differ from the default */

struct trip {
	u64 want[16], got[16]; /* RFLAGS, R15 to R8, RDI, RSI, RBP, RBX, RDX, RCX, RAX */
	u64 exit, has_xsave;
	u8 *want_state, *before, *after;
};

void round_trip(struct trip *trip);
extern char exit_out[], exit_in[], exit_call[], exit_touch[], exit_cpuid[];
extern u8 touch_page[];

/* What an exit may change: bits by the place in struct trip, and of RAX only so many. */
#define CHANGES_RAX BIT(15)
#define CHANGES_CPUID (BIT(15) | BIT(14) | BIT(13) | BIT(12))
static const struct {
	const char *name;
	char *exit;
	u64 changes, rax_bits;
} exits[] = {
	{ "OUT", exit_out, 0, 0 },
	{ "IN", exit_in, CHANGES_RAX, 0xff },
	{ "CPUID", exit_cpuid, CHANGES_CPUID, ~0ULL },
	{ "touch", exit_touch, 0, 0 },
	{ "VMCALL", exit_call, CHANGES_RAX, ~0ULL }, /* last: not on a bare machine */
};

static u8 areas[HYPERPS_VCPUS][3][AREA] __attribute__((aligned(64)));

/* MSRs, and which of a pattern's bits they hold. */
static const struct {
	u32 msr;
	u64 mask;
} msrs[] = {
	{ 0x174, 0xffff }, /* SYSENTER_CS */
	{ 0x175, ~0ULL },           { 0x176, ~0ULL }, { 0xc0000081, ~0ULL }, /* STAR */
	{ 0xc0000082, ~0ULL }, /* LSTAR */
	{ 0xc0000083, ~0ULL }, /* CSTAR */
	{ 0xc0000084, 0xffffffff }, /* FMASK */
	{ 0xc0000100, ~0ULL }, /* FS_BASE */
	{ 0xc0000101, ~0ULL }, /* GS_BASE */
	{ 0xc0000102, ~0ULL }, /* KERNEL_GS_BASE */
	{ 0xc0000103, 0xffffffff }, /* TSC_AUX; last: not every CPU has it */
};

#define PAT 0x0007010500070406ULL /* entry 0 stays write-back */
#define DR6 0xffff0ff5ULL
#define DR7 0xd7d70400ULL /* lengths and kinds of the breakpoints, none of them enabled */

static u64 msr_count(void)
{
	return ARRAY_SIZE(msrs) - !(cpuid(0x80000001, 0).edx & BIT(27));
}

/* Switches on all vector state that there is; its components, 0 without XSAVE. */
static u64 enable_vector_state(void)
{
	struct cpuid_result one = cpuid(1, 0);
	u64 state = 0, cr4 = READ_REGISTER(cr4) | CR4_OSFXSR | CR4_OSXMMEXCPT;

	WRITE_REGISTER(cr0, (READ_REGISTER(cr0) | CR0_MP | CR0_NE) & ~0xcULL); /* neither EM nor TS */
	if (one.ecx & CPUID_XSAVE) {
		struct cpuid_result thirteen = cpuid(13, 0);

		cr4 |= CR4_OSXSAVE | (cpuid(7, 0).ecx & CPUID_PKU ? CR4_PKE : 0);
		WRITE_REGISTER(cr4, cr4);
		state = ((u64)thirteen.edx << 32 | thirteen.eax) & STATES;
		asm volatile("xsetbv" : : "c"(0), "a"((u32)state), "d"((u32)(state >> 32)));
	} else {
		WRITE_REGISTER(cr4, cr4);
	}
	return state;
}

/* Offset and size of a component of the state in the standard format of XSAVE. */
static struct cpuid_result component(u64 i)
{
	return cpuid(13, i);
}

static void check_start(u64 index, struct trip *trip, u64 state)
{
	u64 dirty = 0, dr[4];

	memset(trip->before, 0, AREA);
	if (state)
		asm volatile("xsave64 %0" : "+m"(*(u8(*)[AREA])trip->before) : "a"(~0U), "d"(~0U));
	else
		asm volatile("fxsave64 %0" : "+m"(*(u8(*)[AREA])trip->before));
	for (u64 i = 32; i < XMM_OFFSET + 256; i++)
		dirty += trip->before[i] != 0;
	for (u64 i = HEADER + 64; i < AREA; i++)
		dirty += trip->before[i] != 0;
	check(!dirty, "%lu bytes of x87 and vector registers are not 0 at the start", dirty);
	for (u64 i = 0; i < msr_count(); i++)
		check(!rdmsr(msrs[i].msr), "MSR %x is %lx at the start", msrs[i].msr, rdmsr(msrs[i].msr));
	asm volatile("mov %%dr0, %0\n\tmov %%dr1, %1\n\tmov %%dr2, %2\n\tmov %%dr3, %3"
		     : "=r"(dr[0]), "=r"(dr[1]), "=r"(dr[2]), "=r"(dr[3]));
	check(!(dr[0] | dr[1] | dr[2] | dr[3]), "vCPU %lu has breakpoints at the start", index);
}

static void fill_state(struct trip *trip, u64 state, u64 index, u64 round)
{
	u8 *area = trip->want_state;
	u32 mxcsr = MXCSR;

	memset(area, 0, AREA);
	for (u64 i = 0; i < AREA / 8; i++) {
		u64 value = PATTERN(index, round, 0x400 + i);

		memcpy(area + i * 8, &value, 8);
	}
	memset(area, 0, 24); /* x87: all masked, all registers in use */
	area[0] = 0x7f;
	area[1] = 0x03;
	area[4] = 0xff;
	memcpy(area + MXCSR_OFFSET, &mxcsr, 4);
	memset(area + MXCSR_OFFSET + 4, 0, 4);
	for (u64 i = 0; i < 8; i++)
		memset(area + 42 + 16 * i, 0, 6);
	memset(area + XMM_OFFSET + 256, 0, HEADER + 64 - XMM_OFFSET - 256);
	memcpy(area + HEADER, &state, 8);
	if (state & XCR0_BNDCSR)
		memset(area + component(4).ebx, 0, component(4).eax);
	if (state & XCR0_PKRU) {
		area[component(9).ebx] &= ~3; /* key 0 is that of all pages */
		memset(area + component(9).ebx + 4, 0, component(9).eax - 4);
	}
}

static void check_state(const struct trip *trip, u64 state, const char *name)
{
	check(!memcmp(trip->before + 32, trip->want_state + 32, XMM_OFFSET + 256 - 32) &&
		      !memcmp(trip->before + MXCSR_OFFSET, trip->want_state + MXCSR_OFFSET, 4),
	      "positive control: the patterns reach x87 and XMM registers");
	for (u64 i = 2; i < 64; i++)
		if (state & BIT(i))
			check(!memcmp(trip->before + component(i).ebx, trip->want_state + component(i).ebx,
				      component(i).eax),
			      "positive control: the patterns reach state component %lu", i);
	for (u64 i = 0; i < AREA; i++)
		if (trip->before[i] != trip->after[i]) {
			check(false, "byte %lu of the XSAVE area differs after %s", i, name);
			return;
		}
}

static void load_rest(u64 index, u64 round)
{
	for (u64 i = 0; i < msr_count(); i++)
		wrmsr(msrs[i].msr, PATTERN_BASE(index, round, 0x100 + i) & msrs[i].mask);
	wrmsr(MSR_IA32_PAT, PAT);
	asm volatile("mov %0, %%dr0" : : "r"(PATTERN_BASE(index, round, 0x200)));
	asm volatile("mov %0, %%dr1" : : "r"(PATTERN_BASE(index, round, 0x201)));
	asm volatile("mov %0, %%dr2" : : "r"(PATTERN_BASE(index, round, 0x202)));
	asm volatile("mov %0, %%dr3" : : "r"(PATTERN_BASE(index, round, 0x203)));
	asm volatile("mov %0, %%dr6" : : "r"(DR6));
	asm volatile("mov %0, %%dr7" : : "r"(DR7));
	asm volatile("mov %0, %%cr2" : : "r"(PATTERN_BASE(index, round, 0x204)));
	asm volatile("mov %0, %%cr8" : : "r"(5ULL));
}

static void check_rest(u64 index, u64 round, const char *name)
{
	u64 dr[8], cr2, cr8;

	asm volatile("mov %%dr0, %0\n\tmov %%dr1, %1\n\tmov %%dr2, %2\n\tmov %%dr3, %3"
		     : "=r"(dr[0]), "=r"(dr[1]), "=r"(dr[2]), "=r"(dr[3]));
	asm volatile("mov %%dr6, %0\n\tmov %%dr7, %1\n\tmov %%cr2, %2\n\tmov %%cr8, %3"
		     : "=r"(dr[6]), "=r"(dr[7]), "=r"(cr2), "=r"(cr8));
	for (u64 i = 0; i < msr_count(); i++) {
		u64 want = PATTERN_BASE(index, round, 0x100 + i) & msrs[i].mask, got = rdmsr(msrs[i].msr);

		check(got == want, "MSR %x is %lx, not %lx, after %s", msrs[i].msr, got, want, name);
	}
	check(rdmsr(MSR_IA32_PAT) == PAT, "PAT is %lx after %s", rdmsr(MSR_IA32_PAT), name);
	for (u64 i = 0; i < 4; i++)
		check(dr[i] == PATTERN_BASE(index, round, 0x200 + i), "DR%lu is %lx after %s", i, dr[i], name);
	check(dr[6] == DR6 && dr[7] == DR7, "DR6 and DR7 are %lx and %lx after %s", dr[6], dr[7], name);
	check(cr2 == PATTERN_BASE(index, round, 0x204), "CR2 is %lx after %s", cr2, name);
	check(cr8 == 5, "CR8 is %lx after %s", cr8, name);
}

static void try_exit(struct trip *trip, u64 state, u64 index, u64 round, u64 exit)
{
	static const char *const names[] = { "RFLAGS", "R15", "R14", "R13", "R12", "R11", "R10", "R9",
					     "R8",     "RDI", "RSI", "RBP", "RBX", "RDX", "RCX", "RAX" };

	trip->exit = (u64)exits[exit].exit;
	trip->want[0] = FLAGS;
	for (u64 i = 1; i < 16; i++)
		trip->want[i] = PATTERN(index, round, i);
	if (exits[exit].exit == exit_cpuid)
		trip->want[15] = trip->want[14] = 0;
	touch_page[0] = 0; /* only what the guest has can be released */
	if (exits[exit].exit == exit_touch && !index && has_hypercalls())
		check(!hyperps_guest_call(HYPERPS_GUEST_RELEASE, (u64)touch_page, 1), "a page can be released");
	memset(trip->before, 0, AREA);
	memset(trip->after, 0, AREA);
	load_rest(index, round);
	round_trip(trip);
	check_rest(index, round, exits[exit].name);
	check_state(trip, state, exits[exit].name);
	for (u64 i = 0; i < 16; i++) {
		u64 mask = ~0ULL;

		if (exits[exit].changes & BIT(i))
			mask = i == 15 ? ~exits[exit].rax_bits : 0;
		check((trip->got[i] & mask) == (trip->want[i] & mask), "%s is %lx, not %lx, after %s", names[i],
		      trip->got[i], trip->want[i], exits[exit].name);
	}
}

int guest_main(u64 index, const char *command_line)
{
	u64 rounds = number_argument(command_line, 0, 100), count = number_argument(command_line, 1, 1), state;
	struct trip trip = { .want_state = areas[index][0], .before = areas[index][1], .after = areas[index][2] };

	if (index >= count)
		return 0;
	state = enable_vector_state();
	trip.has_xsave = state != 0;
	check_start(index, &trip, state);
	barrier(count);
	for (u64 round = 0; round < rounds; round++) {
		fill_state(&trip, state, index, round);
		for (u64 exit = 0; exit < ARRAY_SIZE(exits) - !has_hypercalls(); exit++)
			try_exit(&trip, state, index, round, exit);
	}
	asm volatile("mov %0, %%cr8" : : "r"(0ULL));
	barrier(count);
	if (!index)
		print("registers: %lu vCPUs, %lu rounds, state components %lx, %lu checks, %lu wrong\n", count, rounds,
		      state, checks, failures);
	return failures != 0;
}

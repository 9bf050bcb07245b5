// SPDX-License-Identifier: MIT
/* Registers, instructions and exceptions. */
#include "misbehave.h"

#define MSR_LSTAR 0xc0000082
#define MSR_VMX_LAST 0x491

static int read_msr(u32 msr, u64 *value)
{
	u32 low = 0, high = 0;
	int vector = fault_of("rdmsr", BOTH("+a"(low), "+d"(high)), "c"(msr));

	*value = (u64)high << 32 | low;
	return vector;
}

static int write_msr(u32 msr, u64 value)
{
	return fault_of("wrmsr", , "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)));
}

/* Reads it, writes it back, writes other values, and what it was. Each works or is #GP. */
static void try_msr(u32 msr, u64 random, u64 *readable, u64 *writable)
{
	u64 values[4] = { 0, ~0ULL, random, 0 }, old;
	int vector = read_msr(msr, &old);
	bool known = vector == VECTOR_NONE;

	values[0] = old;
	values[3] = old ^ BIT(random % 64);
	check(known || vector == VECTOR_GP, "RDMSR of %x raises %d", msr, vector);
	*readable += known;
	for (u64 i = 0; i < ARRAY_SIZE(values); i++) {
		vector = write_msr(msr, values[i]);
		check(vector == VECTOR_NONE || vector == VECTOR_GP, "WRMSR of %x with %lx raises %d", msr, values[i],
		      vector);
		*writable += !i && vector == VECTOR_NONE;
	}
	if (known)
		write_msr(msr, old);
}

void try_msrs(u64 rounds)
{
	static const u32 ranges[][2] = {
		{ 0, 0x4ff },
		{ 0x560, 0x60f },
		{ 0x680, 0x68f },
		{ 0x6a0, 0x6ff },
		{ 0x770, 0x77f },
		{ 0x800, 0x83f },
		{ 0x980, 0x98f },
		{ 0xc80, 0xc90 },
		{ 0xd90, 0xdb1 },
		{ 0x14ce, 0x14cf },
		{ 0x1b01, 0x1b01 },
		{ 0x1ffe, 0x2001 },
		{ 0x40000000, 0x40000110 },
		{ 0x48505380, 0x48505388 },
		{ 0x4b564d00, 0x4b564d08 },
		{ 0xbfffffff, 0xc0000110 },
		{ 0xc0001fff, 0xc0002000 },
		{ 0xc0010000, 0xc0010120 },
		{ 0xfffffffe, 0xffffffff },
	};
	u64 random = 7, readable = 0, writable = 0, value;

	rounds = rounds > 1 ? rounds : 1000;
	check(write_msr(MSR_LSTAR, 0x1234567890) == VECTOR_NONE && read_msr(MSR_LSTAR, &value) == VECTOR_NONE &&
		      value == 0x1234567890,
	      "positive control: LSTAR can be written and read");
	check(write_msr(MSR_LSTAR, BIT(50)) == VECTOR_GP, "LSTAR takes an address that is not canonical");
	for (u64 i = 0; i < ARRAY_SIZE(ranges); i++)
		for (u64 msr = ranges[i][0]; msr <= ranges[i][1]; msr++)
			try_msr(msr, next_random(&random), &readable, &writable);
	for (u64 i = 0; i < rounds; i++)
		try_msr(next_random(&random), next_random(&random), &readable, &writable);
	for (u32 msr = MSR_IA32_VMX_BASIC; has_hypercalls() && msr <= MSR_VMX_LAST; msr++)
		check(read_msr(msr, &value) == VECTOR_GP, "VMX capabilities can be read from MSR %x", msr);
	if (has_hypercalls() && read_msr(MSR_IA32_FEATURE_CONTROL, &value) == VECTOR_NONE)
		check(!(value & (FEATURE_CONTROL_VMX | FEATURE_CONTROL_VMX_IN_SMX)), "FEATURE_CONTROL is %lx", value);
	print("misbehave: %lu MSRs can be read, %lu written\n", readable, writable);
}

static void try_cr0(void)
{
	const u64 known = CR0_MP | BIT(2) | BIT(3) | CR0_NE | CR0_WP | CR0_AM | CR0_CD;
	u64 cr0 = READ_REGISTER(cr0);

	for (u64 i = 0; i < 64; i++) {
		u64 value = cr0 ^ BIT(i), now;
		bool wrong = i >= 32 || i == 0 || i == 31 || (BIT(i) == CR0_NW && !(cr0 & CR0_CD));
		int vector = fault_of("mov %0, %%cr0", , "r"(value));

		now = READ_REGISTER(cr0);
		WRITE_REGISTER(cr0, cr0);
		check(vector == (wrong ? VECTOR_GP : VECTOR_NONE), "CR0 %lx, bit %lu, raises %d", value, i, vector);
		check(now == (BIT(i) & known ? value : cr0), "CR0 is %lx after a write of %lx", now, value);
	}
}

/* The CPUID bit that says whether CR4 has the bit: leaf, register (0 EAX to 3 EDX), bit. */
static const struct {
	u8 leaf, reg, bit, cr4_bit;
} cr4_features[] = {
	{ 1, 3, 1, 0 },  { 1, 3, 1, 1 },   { 1, 3, 4, 2 },   { 1, 3, 2, 3 },   { 1, 3, 3, 4 },  { 1, 3, 7, 6 },
	{ 1, 3, 13, 7 }, { 1, 3, 24, 9 },  { 1, 3, 25, 10 }, { 7, 2, 2, 11 },  { 1, 2, 5, 13 }, { 1, 2, 6, 14 },
	{ 7, 1, 0, 16 }, { 1, 2, 17, 17 }, { 1, 2, 26, 18 }, { 7, 2, 23, 19 }, { 7, 1, 7, 20 }, { 7, 1, 20, 21 },
	{ 7, 2, 3, 22 }, { 7, 2, 7, 23 },  { 7, 2, 31, 24 }, { 7, 3, 5, 25 },
};

static bool has_feature(u64 i)
{
	struct cpuid_result r = cpuid(cr4_features[i].leaf, 0);

	if (cpuid(0, 0).eax < cr4_features[i].leaf)
		return false;
	return (&r.eax)[cr4_features[i].reg] & BIT(cr4_features[i].bit);
}

static void try_cr4(void)
{
	u64 cr4 = READ_REGISTER(cr4);

	for (u64 i = 0; i < 64; i++) {
		/*
		 * PCE every CPU has; PAE and LA57 can't change in long mode; the bits from 26 to 32 may exist. MCE a
		 * guest may have without machine checks.
		 */
		bool may = i == 8, unknown = (i >= 26 && i <= 32) || (i == 6 && has_hypercalls());
		u64 value = cr4 ^ BIT(i), now;
		int vector;

		for (u64 k = 0; k < ARRAY_SIZE(cr4_features); k++)
			may = may || (cr4_features[k].cr4_bit == i && has_feature(k));
		if (unknown)
			continue;
		vector = fault_of("mov %0, %%cr4", , "r"(value));
		now = READ_REGISTER(cr4);
		WRITE_REGISTER(cr4, cr4);
		check(vector == (may ? VECTOR_NONE : VECTOR_GP), "CR4 %lx, bit %lu, raises %d", value, i, vector);
		check(now == (may ? value : cr4), "CR4 is %lx after a write of %lx", now, value);
	}
	if (has_hypercalls())
		check(!(cpuid(1, 0).ecx & (BIT(5) | BIT(6))), "CPUID shows VMX or SMX");
}

static bool cpu_takes_xcr0(u64 value, u64 supported)
{
	const u64 avx512 = XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM, bounds = XCR0_BNDREGS | XCR0_BNDCSR,
		  tile = XCR0_TILECFG | XCR0_TILEDATA;

	return !(value & ~supported) && (value & XCR0_X87) && (!(value & XCR0_AVX) || (value & XCR0_SSE)) &&
	       (!(value & avx512) || ((value & avx512) == avx512 && (value & XCR0_AVX))) &&
	       ((value & bounds) == 0 || (value & bounds) == bounds) && ((value & tile) == 0 || (value & tile) == tile);
}

static void try_xcr0(void)
{
	struct cpuid_result r = cpuid(13, 0);
	u64 supported = (u64)r.edx << 32 | r.eax;

	if (!(cpuid(1, 0).ecx & BIT(26)))
		return;
	WRITE_REGISTER(cr4, READ_REGISTER(cr4) | CR4_OSXSAVE);
	for (u64 i = 0; i < 130; i++) {
		u64 base = i & 1 ? supported : XCR0_X87, value = i < 128 ? base ^ BIT(i / 2) : i == 128 ? 0 : supported;
		bool valid = cpu_takes_xcr0(value, supported);
		int vector = fault_of("xsetbv", , "c"(0), "a"((u32)value), "d"((u32)(value >> 32)));

		check(vector == (valid ? VECTOR_NONE : VECTOR_GP), "XCR0 %lx raises %d", value, vector);
	}
	for (u32 xcr = 1; xcr; xcr <<= 1)
		check(fault_of("xsetbv", , "c"(xcr), "a"(1), "d"(0)) == VECTOR_GP, "XCR%x can be written", xcr);
	asm volatile("xsetbv" : : "c"(0), "a"(1), "d"(0));
}

static void try_efer(void)
{
	bool no_execute = cpuid(0x80000001, 0).edx & BIT(20);
	u64 efer = rdmsr(MSR_IA32_EFER);

	for (u64 i = 0; i < 64; i++) {
		bool may = BIT(i) == EFER_SCE || (BIT(i) == EFER_NXE && no_execute);
		int vector = write_msr(MSR_IA32_EFER, efer ^ BIT(i));
		u64 now = rdmsr(MSR_IA32_EFER);

		wrmsr(MSR_IA32_EFER, efer);
		if (BIT(i) == EFER_LMA)
			check(now == efer && NONE_UD_GP(vector), "EFER is %lx after a write of LMA", now);
		else if (may)
			check(vector == VECTOR_NONE && now == (efer ^ BIT(i)), "EFER bit %lu raises %d", i, vector);
		else if (has_hypercalls() || BIT(i) == EFER_LME)
			check(vector == VECTOR_GP && now == efer, "EFER bit %lu raises %d", i, vector);
	}
}

void try_control_registers(u64 unused)
{
	u64 cr3 = READ_REGISTER(cr3), cr8;
	unsigned bits = physical_address_bits();

	(void)unused;
	WRITE_REGISTER(cr0, READ_REGISTER(cr0) | CR0_WP);
	try_cr0();
	try_cr4();
	try_xcr0();
	try_efer();
	for (u64 i = 0; i < 16; i++) {
		asm volatile("mov %1, %%cr8\n\tmov %%cr8, %0" : "=r"(cr8) : "r"(i));
		check(cr8 == i, "CR8 is %lx after a write of %lx", cr8, i);
	}
	asm volatile("mov %0, %%cr8" : : "r"(0ULL));
	for (u64 i = 4; i < 64; i++)
		check(fault_of("mov %0, %%cr8", , "r"(BIT(i))) == VECTOR_GP, "CR8 takes bit %lu", i);
	check(fault_of("mov %0, %%cr3", , "r"(cr3 | BIT(63))) == VECTOR_GP, "CR3 takes bit 63 without PCIDE");
	/* 46 is what the monitor tells of wider CPUs, too. */
	for (u64 i = bits; i < 52 && (bits != 46 || !has_hypercalls()); i++)
		check(fault_of("mov %0, %%cr3", , "r"(cr3 | BIT(i))) == VECTOR_GP, "CR3 takes bit %lu", i);
	check(fault_of(".byte 0x0f, 0x20, 0xc8", , ) == VECTOR_UD, "CR1 exists");
	check(fault_of(".byte 0x0f, 0x20, 0xe8", , ) == VECTOR_UD, "CR5 exists");
	check(fault_of(".byte 0x0f, 0x22, 0xf0", , ) == VECTOR_UD, "CR6 exists");
	check(fault_of(".byte 0x0f, 0x22, 0xf8", , ) == VECTOR_UD, "CR7 exists");
	check(fault_of("lmsw %w0", , "r"(0x1f)) == VECTOR_NONE, "LMSW fails");
	check(fault_of("clts", , ) == VECTOR_NONE && !(READ_REGISTER(cr0) & BIT(3)), "CLTS fails");
	WRITE_REGISTER(cr0, (READ_REGISTER(cr0) & ~6ULL) | CR0_MP);
}

#define EXPECT_UD(name, code)                                                                                          \
	({                                                                                                             \
		int vector_ = fault_of(".byte " code, , "a"(scratch[0]), "c"(0), "d"(scratch[1]), "b"(scratch[1]));    \
		check(vector_ == VECTOR_UD, "%s raises %d", name, vector_);                                            \
	})

static void vmcall(u64 number)
{
	asm volatile("vmcall" : "+a"(number) : "D"(0), "S"(0) : "memory");
}

/* VMX and SVM are absent, each instruction is #UD as on a CPU without; of VMCALL in ring 3, too. */
void try_vmx(u64 unused)
{
	(void)unused;
	if (has_hypercalls()) {
		check(caught(vmcall, 0) == VECTOR_NONE, "positive control: VMCALL works in ring 0");
		check(caught_in_user(vmcall, HYPERPS_GUEST_CONSOLE, 0) == VECTOR_UD, "VMCALL works in ring 3");
		check(caught_in_user(vmcall, HYPERPS_GUEST_SHUTDOWN, 0) == VECTOR_UD, "VMCALL works in ring 3");
	}
	for (int smxe = 0; smxe < 2; smxe++) {
		EXPECT_UD("VMXON", "0xf3, 0x0f, 0xc7, 0x30");
		EXPECT_UD("VMXOFF", "0x0f, 0x01, 0xc4");
		EXPECT_UD("VMLAUNCH", "0x0f, 0x01, 0xc2");
		EXPECT_UD("VMRESUME", "0x0f, 0x01, 0xc3");
		EXPECT_UD("VMPTRLD", "0x0f, 0xc7, 0x30");
		EXPECT_UD("VMPTRST", "0x0f, 0xc7, 0x38");
		EXPECT_UD("VMCLEAR", "0x66, 0x0f, 0xc7, 0x30");
		EXPECT_UD("VMREAD", "0x0f, 0x78, 0x02");
		EXPECT_UD("VMREAD of a register", "0x0f, 0x78, 0xc1");
		EXPECT_UD("VMWRITE", "0x0f, 0x79, 0x02");
		EXPECT_UD("VMWRITE of a register", "0x0f, 0x79, 0xc1");
		EXPECT_UD("INVEPT", "0x66, 0x0f, 0x38, 0x80, 0x08");
		EXPECT_UD("INVVPID", "0x66, 0x0f, 0x38, 0x81, 0x08");
		EXPECT_UD("GETSEC", "0x0f, 0x37");
		EXPECT_UD("VMRUN", "0x0f, 0x01, 0xd8");
		EXPECT_UD("VMMCALL", "0x0f, 0x01, 0xd9");
		EXPECT_UD("VMLOAD", "0x0f, 0x01, 0xda");
		EXPECT_UD("VMSAVE", "0x0f, 0x01, 0xdb");
		EXPECT_UD("STGI", "0x0f, 0x01, 0xdc");
		EXPECT_UD("CLGI", "0x0f, 0x01, 0xdd");
		EXPECT_UD("SKINIT", "0x0f, 0x01, 0xde");
		EXPECT_UD("INVLPGA", "0x0f, 0x01, 0xdf");
		EXPECT_UD("ENCLV", "0x0f, 0x01, 0xc0");
		EXPECT_UD("ENCLS", "0x0f, 0x01, 0xcf");
		EXPECT_UD("ENCLU", "0x0f, 0x01, 0xd7");
		EXPECT_UD("TDCALL", "0x66, 0x0f, 0x01, 0xcc");
		EXPECT_UD("SEAMRET", "0x66, 0x0f, 0x01, 0xcd");
		EXPECT_UD("SEAMOPS", "0x66, 0x0f, 0x01, 0xce");
		EXPECT_UD("SEAMCALL", "0x66, 0x0f, 0x01, 0xcf");
		EXPECT_UD("RSM", "0x0f, 0xaa");
		/* Once more after an attempt to switch them on. */
		if (!has_hypercalls())
			break;
		check(fault_of("mov %0, %%cr4", , "r"(READ_REGISTER(cr4) | CR4_VMXE)) == VECTOR_GP, "CR4 takes VMXE");
		check(fault_of("mov %0, %%cr4", , "r"(READ_REGISTER(cr4) | CR4_SMXE)) == VECTOR_GP, "CR4 takes SMXE");
		write_msr(MSR_IA32_FEATURE_CONTROL, 7);
	}
	for (u64 leaf = 0; leaf < 66; leaf++)
		for (u64 index = 0; index < 514; index++) {
			u64 rax = leaf < 65 ? leaf : ~0ULL, rcx = index < 513 ? index : ~0ULL;
			int vector = fault_of(".byte 0x0f, 0x01, 0xd4", , "a"(rax), "c"(rcx));

			check(vector == VECTOR_UD, "VMFUNC %lx, %lx raises %d", rax, rcx, vector);
		}
	for (u64 leaf = 0; leaf < 64; leaf++) {
		check(fault_of(".byte 0x0f, 0x37", , "a"(leaf), "b"(scratch), "c"(scratch)) == VECTOR_UD,
		      "GETSEC %lx works", leaf);
		check(fault_of(".byte 0x0f, 0x01, 0xcf", , "a"(leaf), "b"(scratch), "c"(scratch)) == VECTOR_UD,
		      "ENCLS %lx works", leaf);
	}
}

#define EXPECT_SANE(name, code)                                                                                        \
	({                                                                                                             \
		u64 rax = 0, rcx = 0, rdx = 0, rbx = (u64)scratch[1];                                                  \
		int vector_ = fault_of(code, BOTH(BOTH("+a"(rax), "+b"(rbx)), BOTH("+c"(rcx), "+d"(rdx))),             \
				       "S"(scratch[0]), "D"(scratch[1]));                                              \
		check(NONE_UD_GP(vector_), "%s raises %d", name, vector_);                                             \
	})

/* What makes a CPU exit, or may: each works, or is #UD or #GP, and the guest goes on. */
void try_exits(u64 unused)
{
	struct descriptor_table table = { 0 };
	u64 tsc = rdtsc(), later, xss = 0;

	(void)unused;
	memset(scratch, 0, sizeof(scratch));
	for (u32 leaf = 0; leaf < 0x40; leaf++)
		for (u32 base = 0; base < 4; base++)
			for (u32 subleaf = 0; subleaf < 4; subleaf++)
				cpuid(base * 0x40000000 + leaf, subleaf);
	cpuid(~0U, ~0U);
	EXPECT_SANE("PAUSE", "pause");
	EXPECT_SANE("WBINVD", "wbinvd");
	EXPECT_SANE("WBNOINVD", ".byte 0xf3, 0x0f, 0x09");
	EXPECT_SANE("RDTSCP", "rdtscp");
	EXPECT_SANE("RDPID", ".byte 0xf3, 0x0f, 0xc7, 0xf8");
	EXPECT_SANE("RDRAND", ".byte 0x0f, 0xc7, 0xf0");
	EXPECT_SANE("RDSEED", ".byte 0x0f, 0xc7, 0xf8");
	EXPECT_SANE("RDPMC", "rdpmc");
	EXPECT_SANE("XGETBV", "xgetbv");
	EXPECT_SANE("INVLPG", "invlpg (%%rsi)");
	EXPECT_SANE("INVPCID", ".byte 0x66, 0x0f, 0x38, 0x82, 0x0e");
	EXPECT_SANE("XSAVES", ".byte 0x48, 0x0f, 0xc7, 0x2e");
	EXPECT_SANE("XRSTORS", ".byte 0x48, 0x0f, 0xc7, 0x1e");
	EXPECT_SANE("PCONFIG", ".byte 0x0f, 0x01, 0xc5");
	EXPECT_SANE("SERIALIZE", ".byte 0x0f, 0x01, 0xe8");
	EXPECT_SANE("LOADIWKEY", ".byte 0xf3, 0x0f, 0x38, 0xdc, 0xc1");
	EXPECT_SANE("ENQCMDS", ".byte 0xf3, 0x0f, 0x38, 0xf8, 0x06");
	EXPECT_SANE("TPAUSE", ".byte 0x66, 0x0f, 0xae, 0xf1");
	EXPECT_SANE("UMONITOR", ".byte 0xf3, 0x0f, 0xae, 0xf6");
	EXPECT_SANE("UMWAIT", ".byte 0xf2, 0x0f, 0xae, 0xf1");
	EXPECT_SANE("MONITOR", ".byte 0x0f, 0x01, 0xc8");
	EXPECT_SANE("PTWRITE", ".byte 0xf3, 0x48, 0x0f, 0xae, 0xe0");
	EXPECT_SANE("HRESET", ".byte 0xf3, 0x0f, 0x3a, 0xf0, 0xc0, 0x00");
	EXPECT_SANE("UIRET", ".byte 0xf3, 0x0f, 0x01, 0xec");
	EXPECT_SANE("ERETS", ".byte 0xf2, 0x0f, 0x01, 0xca");
	EXPECT_SANE("WRMSRNS", ".byte 0x0f, 0x01, 0xc6");
	EXPECT_SANE("RSTORSSP", ".byte 0xf3, 0x0f, 0x01, 0x2e");
	/* Where INVD is what the SDM says, the caches' content would be lost. MWAIT could wait for ever. */
	if (has_hypercalls()) {
		EXPECT_SANE("INVD", "invd");
		if (!(cpuid(1, 0).ecx & BIT(3)))
			EXPECT_SANE("MWAIT", ".byte 0x0f, 0x01, 0xc9");
	}
	asm volatile("sgdt %0\n\tlgdt %0" : "+m"(table));
	check(table.base == (u64)this_cpu()->gdt, "SGDT gives another base");
	asm volatile("sidt %0\n\tlidt %0" : "+m"(table));
	check(table.base == (u64)this_cpu()->idt, "SIDT gives another base");
	check(fault_of("lldt %w0", , "r"(0)) == VECTOR_NONE, "LLDT fails");
	if (read_msr(MSR_IA32_XSS, &xss) == VECTOR_NONE)
		check(!xss, "XSS is %lx", xss);
	later = rdtsc();
	check(later > tsc, "the TSC goes from %lx to %lx", tsc, later);
}

/* What the hook saw of #DB. */
static volatile struct {
	u64 count, rip, dr6;
} debug;

static bool on_debug(struct frame *frame)
{
	if (frame->vector != VECTOR_DB)
		return false;
	if (++debug.count > 100)
		return false; /* the handler itself raises it */
	debug.rip = frame->rip;
	asm volatile("mov %%dr6, %0" : "=r"(debug.dr6));
	asm volatile("mov %0, %%dr6" : : "r"(DR6_RESET));
	frame->rflags = (frame->rflags & ~RFLAGS_TF) | BIT(16);
	return true;
}

static void expect_debug(const char *what, u64 rip, u64 dr6_bits)
{
	check(debug.count == 1 && debug.rip == rip && (debug.dr6 & 0xe00f) == dr6_bits,
	      "%s: %lu #DB, at %lx instead of %lx, DR6 %lx", what, debug.count, debug.rip, rip, debug.dr6);
	debug.count = debug.rip = debug.dr6 = 0;
}

/* One instruction with the trap flag: #DB right after it, whether or not the monitor has done its work. */
#define STEP(name, code)                                                                                               \
	({                                                                                                             \
		u64 rip, rax = 0, rcx = MSR_LSTAR, rdx = 0;                                                            \
		asm volatile("lea 1f(%%rip), %0\n\t"                                                                   \
			     "pushfq\n\t"                                                                              \
			     "orl $0x100, (%%rsp)\n\t"                                                                 \
			     "popfq\n\t" code "\n"                                                                     \
			     "1: nop"                                                                                  \
			     : "=&r"(rip), "+a"(rax), "+c"(rcx), "+d"(rdx)                                             \
			     : "S"(scratch[0]), [ss] "r"((u64)DATA), [cr0] "r"(READ_REGISTER(cr0))                     \
			     : "rbx", "memory", "cc");                                                                 \
		expect_debug("step over " name, rip, BIT(14));                                                         \
	})

static void set_dr7(u64 value)
{
	asm volatile("mov %0, %%dr7" : : "r"(DR7_RESET | value));
}

void try_debug(u64 unused)
{
	static volatile u64 watched;
	u64 rip, alias;

	(void)unused;
	this_cpu()->hook = on_debug;
	STEP("NOP", "nop");
	STEP("CPUID", "cpuid");
	STEP("RDMSR", "rdmsr");
	STEP("WRMSR", "wrmsr");
	STEP("OUT", "outb %%al, $0x5a");
	STEP("IN", "inb $0x5a, %%al");
	STEP("WBINVD", "wbinvd");
	STEP("MOV from CR0", "mov %%cr0, %%rax");
	STEP("MOV to CR0", "mov %[cr0], %%cr0");
	STEP("MOV to CR8", "mov %%rdx, %%cr8");
	STEP("INVLPG", "invlpg (%%rsi)");
	STEP("RDTSC", "rdtsc");
	STEP("HLT", "hlt");
	/* MOV SS holds #DB back for one instruction more. */
	STEP("MOV SS and NOP", "mov %w[ss], %%ss\n\tnop");
	STEP("MOV SS and CPUID", "mov %w[ss], %%ss\n\tcpuid");
	STEP("MOV SS and OUT", "mov %w[ss], %%ss\n\toutb %%al, $0x5a");
	if (has_hypercalls()) {
		STEP("VMCALL", "vmcall");
		scratch[0][0] = 0; /* only what the guest has can be released */
		check(!hyperps_guest_call(HYPERPS_GUEST_RELEASE, (u64)scratch[0], 1), "RELEASE works");
		STEP("a touch of a released page", "mov %%rax, (%%rsi)");
		check(!hyperps_guest_call(HYPERPS_GUEST_RELEASE, (u64)scratch[0], 1), "RELEASE works");
		STEP("MOV SS and a touch of a released page", "mov %w[ss], %%ss\n\tmov %%rax, (%%rsi)");
	}

	/* Breakpoint on an instruction: a fault. */
	asm volatile("lea 1f(%%rip), %0\n\t"
		     "mov %0, %%dr0\n\t"
		     "mov %1, %%dr7\n"
		     "1: nop"
		     : "=&r"(rip)
		     : "r"(DR7_RESET | 2));
	set_dr7(0);
	expect_debug("breakpoint on code", rip, 1);
	/* On data: a trap. */
	asm volatile("mov %0, %%dr1" : : "r"(&watched));
	set_dr7(1 << 3 | 0xd << 20);
	asm volatile("lea 1f(%%rip), %0\n\t"
		     "movq $1, %1\n"
		     "1: nop"
		     : "=&r"(rip), "=m"(watched));
	set_dr7(0);
	expect_debug("breakpoint on data", rip, 2);
	/* A data breakpoint that MOV SS holds back, and an instruction that exits in between. */
	asm volatile("mov %%ss, %0" : "=m"(watched));
	asm volatile("mov %0, %%dr1" : : "r"(&watched));
	set_dr7(1 << 3 | 0xf << 20);
	asm volatile("lea 1f(%%rip), %0\n\t"
		     "mov %1, %%ss\n\t"
		     "cpuid\n"
		     "1: nop"
		     : "=&r"(rip)
		     : "m"(watched)
		     : "rax", "rbx", "rcx", "rdx");
	set_dr7(0);
	expect_debug("MOV SS from watched data, then CPUID", rip, 2);
	/* General detect: #DB before the access. */
	set_dr7(1 << 13);
	asm volatile("lea 1f(%%rip), %0\n"
		     "1: mov %%dr0, %1"
		     : "=&r"(rip), "=&r"(alias));
	expect_debug("access with DR7.GD", rip, BIT(13));
	asm volatile(".byte 0xf1\n"
		     "1: lea 1b(%%rip), %0"
		     : "=r"(rip));
	expect_debug("INT1", rip, 0);

	/* DR4 and DR5 are DR6 and DR7 unless CR4.DE is set. */
	WRITE_REGISTER(cr4, READ_REGISTER(cr4) & ~CR4_DE);
	check(fault_of(".byte 0x0f, 0x21, 0xe8", "=a"(alias), ) == VECTOR_NONE && alias == DR7_RESET, "DR5 is %lx",
	      alias);
	if (cpuid(1, 0).edx & BIT(2)) {
		WRITE_REGISTER(cr4, READ_REGISTER(cr4) | CR4_DE);
		check(fault_of(".byte 0x0f, 0x21, 0xe8", "=a"(alias), ) == VECTOR_UD, "DR5 exists with CR4.DE");
		WRITE_REGISTER(cr4, READ_REGISTER(cr4) & ~CR4_DE);
	}
	check(fault_of("mov %0, %%dr7", , "r"(BIT(32))) == VECTOR_GP, "DR7 takes bit 32");
	check(fault_of("mov %0, %%dr6", , "r"(BIT(63))) == VECTOR_GP, "DR6 takes bit 63");
	this_cpu()->hook = NULL;
}

static void misaligned(u64 unused)
{
	u8 bytes[16] __attribute__((aligned(16)));

	(void)unused;
	asm volatile("movq $0, 1(%0)" : : "r"(bytes) : "memory");
}

static void leave(u64 unused)
{
	(void)unused;
}

static void privileged(u64 unused)
{
	(void)unused;
	asm volatile("hlt");
}

static void ring3_syscall(u64 unused)
{
	(void)unused;
	asm volatile("syscall" : : : "rcx", "r11");
}

static void read_at(u64 address)
{
	*(volatile u8 *)address;
}

static void breakpoint(u64 unused)
{
	(void)unused;
	asm volatile("int3");
}

static void divide(u64 zero)
{
	asm volatile("divq %0" : : "r"(zero), "a"(1), "d"(0));
}

/* Each exception with its error code and address. */
void try_exceptions(u64 unused)
{
	struct cpu *cpu = this_cpu();
	const u64 unmapped = USER_ALIAS * 2 + 0x123456;
	u64 value;

	(void)unused;
	expect(VECTOR_NONE, leave, 0);
	expect(0, divide, 0);
	expect(3, breakpoint, 0);
	expect(VECTOR_PF, read_at, unmapped);
	check(cpu->cr2 == unmapped && cpu->error_code == 0, "#PF at %lx, error code %lx", cpu->cr2, cpu->error_code);
	expect(VECTOR_GP, read_at, BIT(47));
	check(cpu->error_code == 0, "#GP with error code %lx", cpu->error_code);
	check(fault_of("mov %w0, %%ds", , "r"(0x48)) == VECTOR_GP && cpu->error_code == 0x48, "#GP, error code %lx",
	      cpu->error_code);
	check(fault_of("testb $0, (%%rsp, %0)", , "r"(BIT(62))) == 12, "a stack that is not canonical raises no #SS");
	check(fault_of("ud2", , ) == VECTOR_UD, "UD2 raises no #UD");
	check(read_msr(MSR_VMX_LAST, &value) == VECTOR_GP && (cpu->rflags & RFLAGS_RF),
	      "a refused RDMSR saves flags %lx", cpu->rflags);
	check(fault_of("vmxoff", , ) == VECTOR_UD && (cpu->rflags & RFLAGS_RF), "VMXOFF saves flags %lx", cpu->rflags);
	check(fault_of("int $0x20", , ) == VECTOR_NONE && cpu->interrupts[0x20] == 1, "INT 20h does not arrive");
	WRITE_REGISTER(cr0, READ_REGISTER(cr0) | BIT(3));
	check(fault_of("fninit", , ) == 7, "x87 with CR0.TS raises no #NM");
	WRITE_REGISTER(cr0, READ_REGISTER(cr0) & ~BIT(3));

	check(caught_in_user(leave, 0, 0) == VECTOR_USER_RETURN, "positive control: ring 3");
	check(caught_in_user(privileged, 0, 0) == VECTOR_GP, "HLT in ring 3 raises no #GP");
	check(caught_in_user(read_at, (u64)scratch, 0) == VECTOR_PF && cpu->error_code == 5, "ring 3 reads all memory");
	check(caught_in_user(ring3_syscall, 0, 0) == VECTOR_UD, "SYSCALL without EFER.SCE raises no #UD");
	WRITE_REGISTER(cr0, READ_REGISTER(cr0) | CR0_AM);
	check(caught_in_user(misaligned, 0, BIT(18)) == 17, "a misaligned access in ring 3 raises no #AC");
	check(caught_in_user(misaligned, 0, 0) == VECTOR_USER_RETURN, "a misaligned access raises an exception");
	WRITE_REGISTER(cr0, READ_REGISTER(cr0) & ~CR0_AM);
}

static volatile struct {
	u64 count, vector, error_code, rip, cr2;
} delivered;

static bool on_delivery(struct frame *frame)
{
	delivered.count++;
	delivered.vector = frame->vector;
	delivered.error_code = frame->error_code;
	delivered.rip = frame->rip;
	asm volatile("mov %%cr2, %0" : "=r"(delivered.cr2));
	return false;
}

static void use_stack_2(u64 vector, bool use)
{
	struct cpu *cpu = this_cpu();

	cpu->idt[vector].low = (cpu->idt[vector].low & ~(7ULL << 32)) | (use ? 2ULL : 1ULL) << 32;
}

/* One exception or interrupt whose stack the host has to bring first: the event must not be lost, nor come twice. */
#define DELIVER(code, number, error, address)                                                                          \
	({                                                                                                             \
		u64 rip, wanted = (number);                                                                            \
		use_stack_2(wanted, true);                                                                             \
		delivered.count = 0;                                                                                   \
		*(volatile u64 *)stack = 1; /* only what the guest has can be released */                              \
		if (has_hypercalls())                                                                                  \
			check(!hyperps_guest_call(HYPERPS_GUEST_RELEASE, stack, 1), "RELEASE of a stack");             \
		asm volatile("lea 3f(%%rip), %0\n3:" : "=r"(rip));                                                     \
		fault_of(code, , "a"(unmapped), "d"(0));                                                               \
		use_stack_2(wanted, false);                                                                            \
		check(delivered.count == 1 && delivered.vector == wanted && delivered.error_code == (error) &&         \
			      (!(address) || delivered.cr2 == (address)) && delivered.rip - rip < 256,                 \
		      "%s on a fresh stack: %lu times vector %lu, error code %lx, CR2 %lx", code, delivered.count,     \
		      delivered.vector, delivered.error_code, delivered.cr2);                                          \
	})

void try_demand(u64 unused)
{
	struct cpu *cpu = this_cpu();
	const u64 unmapped = USER_ALIAS * 2 + 0x1000, stack = (u64)cpu + (3 << 12), top = stack + PAGE_SIZE;

	(void)unused;
	memcpy((u8 *)cpu->tss + 44, &top, 8); /* IST2: the page of ring 3's stack, which nothing else uses here */
	cpu->hook = on_delivery;
	for (int i = 0; i < 20; i++) {
		DELIVER("ud2", VECTOR_UD, 0, 0);
		DELIVER("int $0x21", 0x21, 0, 0);
		DELIVER("movb (%%rax), %%al", VECTOR_PF, 0, unmapped);
		DELIVER("movb %%al, (%%rax)", VECTOR_PF, 2, unmapped);
		DELIVER("mov %%eax, %%ds", VECTOR_GP, 0x1000, 0);
		DELIVER("divb %%dl", 0, 0, 0);
	}
	cpu->hook = NULL;
}

/* CVE-2015-8104: the delivery of #DB hits the breakpoint that raised it, so that it never ends. */
void try_db_loop(u64 unused)
{
	u64 stack = (u64)this_cpu() + (3 << 12) - 8;

	(void)unused;
	print("misbehave: endless #DB\n");
	asm volatile("mov %0, %%dr0" : : "r"(stack)); /* the first word that every delivery pushes */
	set_dr7(2 | 0xd << 16);
	asm volatile("int $0x22");
	set_dr7(0);
	print("misbehave: it ended\n");
}

// SPDX-License-Identifier: GPL-2.0
/*
 * VMX must look absent to the host's ring 0 (with kvm = on: as offered, and no more), and no value that the host writes may reach
 * hardware unchecked.
 */
#include <linux/irqflags.h>
#include <linux/slab.h>
#include <asm/cpufeature.h>
#include <asm/msr-index.h>
#include <asm/processor-flags.h>
#include <asm/processor.h>
#include <asm/trapnr.h>

#include "calls.h"
#include "compat.h"
#include "tap.h"

#define CPUID_1_ECX_VMX BIT(5)
#define MSR_FEATURE_CONTROL 0x3a
#define FEATURE_CONTROL_LOCKED BIT(0)
#define FEATURE_CONTROL_VMX_IN_SMX BIT(1)
#define FEATURE_CONTROL_VMX BIT(2)
#define MSR_VMX_FIRST 0x480
#define MSR_VMX_OFFERED_LAST 0x490
#define MSR_VMX_LAST 0x493
#define MSR_MICROCODE_UPDATE 0x79
#define MEMORY_TYPE_RESERVED 2
#define MEMORY_TYPE_WRITE_THROUGH 4
#define MSR_MTRR_BASE(n) (0x200 + 2 * (u32)(n)) /* its mask is in the next MSR */
#define MTRR_MASK_VALID BIT(11)
#define NON_CANONICAL 0x8000000000000000ULL

TAP_PARTS;

static int read_msr(u32 msr, u64 *value)
{
	u32 low = 0, high = 0;
	int vector = 0;

	asm volatile("1: rdmsr\n"
		     "movl %%eax, %0\n"
		     "movl $-1, %%eax\n"
		     "2:\n" _ASM_EXTABLE_FAULT(1b, 2b)
		     : "=&r"(low), "=&d"(high), "+a"(vector)
		     : "c"(msr));
	if (value)
		*value = low | (u64)high << 32;
	return vector;
}

static int write_msr(u32 msr, u64 value)
{
	return fault_of("wrmsr", value, "c"(msr), "d"((u32)(value >> 32)));
}

static int write_xcr(u32 index, u64 value)
{
	return fault_of("xsetbv", value, "c"(index), "d"((u32)(value >> 32)));
}

static u64 read_xcr0(void)
{
	u32 low, high;

	asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return low | (u64)high << 32;
}

static unsigned long get_cr4(void)
{
	unsigned long value;

	asm volatile("mov %%cr4, %0" : "=r"(value)::"memory");
	return value;
}

static unsigned long get_cr0(void)
{
	unsigned long value;

	asm volatile("mov %%cr0, %0" : "=r"(value)::"memory");
	return value;
}

static int try_set_cr0(unsigned long value)
{
	return fault_of("mov %1, %%cr0", 0, "r"(value));
}

static int try_set_cr4(unsigned long value)
{
	return fault_of("mov %1, %%cr4", 0, "r"(value));
}

static bool monitor_runs(void)
{
	u64 signature;

	return !call(HYPERPS_CALL_IDENTIFY, 0, 0, 0, 0, &signature) && signature == HYPERPS_SIGNATURE;
}

/* kvm = on. Natively it is the control that fails, as it should. */
static bool vmx_is_offered(void)
{
	return (cpuid_ecx(1) & CPUID_1_ECX_VMX) && monitor_runs();
}

static void check_vector(struct seq_file *out, int vector, int expected, const char *what)
{
	if (vector == expected)
		tap_check(out, true, "%s raises exception %d", what, expected);
	else if (vector == VECTOR_NONE)
		tap_check(out, false, "%s raises exception %d: it raised none", what, expected);
	else
		tap_check(out, false, "%s raises exception %d: it raised %d", what, expected, vector);
}

static void check_vmx_state(struct seq_file *out)
{
	bool offered = vmx_is_offered();
	u32 msr, vmx = offered ? FEATURE_CONTROL_VMX : 0;
	unsigned long flags, cr4;
	u64 value = 0;
	int vector, missed = 0;

	/* Which of the two it should be, the ring-3 program is told. */
	tap_check(out, !(cpuid_ecx(1) & CPUID_1_ECX_VMX) || offered, "CPUID reports %s", offered ? "VMX" : "no VMX");

	local_irq_save(flags);
	cr4 = get_cr4();
	vector = try_set_cr4(cr4 | X86_CR4_VMXE);
	if (vector == VECTOR_NONE)
		try_set_cr4(cr4);
	local_irq_restore(flags);
	tap_check(out, !(cr4 & X86_CR4_VMXE), "CR4.VMXE reads as 0");
	if (offered)
		tap_check(out, vector == VECTOR_NONE, "positive control: CR4.VMXE can be set (exception %d)", vector);
	else
		check_vector(out, vector, X86_TRAP_GP, "setting CR4.VMXE");

	vector = read_msr(MSR_FEATURE_CONTROL, &value);
	tap_check(out,
		  vector == VECTOR_NONE && (value & FEATURE_CONTROL_LOCKED) &&
			  (value & (FEATURE_CONTROL_VMX | FEATURE_CONTROL_VMX_IN_SMX)) == vmx,
		  "IA32_FEATURE_CONTROL is locked with%s VMX (exception %d, value %#llx)", offered ? "" : "out", vector,
		  value);
	check_vector(out, write_msr(MSR_FEATURE_CONTROL, value), X86_TRAP_GP, "writing IA32_FEATURE_CONTROL");

	for (msr = offered ? MSR_VMX_OFFERED_LAST + 1 : MSR_VMX_FIRST; msr <= MSR_VMX_LAST; msr++) {
		if (read_msr(msr, NULL) != X86_TRAP_GP) {
			seq_printf(out, "# MSR %#x can be read\n", msr);
			missed++;
		}
	}
	tap_check(out, !missed, "reading each VMX capability MSR %sraises exception 13 (%d did not)",
		  offered ? "that is not offered " : "", missed);
	for (msr = MSR_VMX_FIRST, missed = 0; offered && msr <= MSR_VMX_OFFERED_LAST; msr++)
		missed += read_msr(msr, NULL) != VECTOR_NONE;
	if (offered)
		tap_check(out, !missed, "positive control: the others can be read (%d can't)", missed);
	check_vector(out, write_msr(MSR_VMX_FIRST, 0), X86_TRAP_GP, "writing a VMX capability MSR");
}

static void check_vmx_instructions(struct seq_file *out)
{
	static u64 region, descriptor[2];
	int vector;

#define CHECK_UNDEFINED(name, ...)                                                                                     \
	do {                                                                                                           \
		vector = fault_of(__VA_ARGS__);                                                                        \
		check_vector(out, vector, X86_TRAP_UD, name);                                                          \
	} while (0)

	CHECK_UNDEFINED("VMXON", "vmxon %1", 0, "m"(region));
	CHECK_UNDEFINED("VMCLEAR", "vmclear %1", 0, "m"(region));
	CHECK_UNDEFINED("VMPTRLD", "vmptrld %1", 0, "m"(region));
	CHECK_UNDEFINED("VMPTRST", "vmptrst %1", 0, "m"(region));
	CHECK_UNDEFINED("VMREAD", "vmread %1, %%rax", 0, "d"(0UL));
	CHECK_UNDEFINED("VMWRITE", "vmwrite %%rax, %1", 0, "d"(0UL));
	CHECK_UNDEFINED("VMLAUNCH", "vmlaunch", 0, "d"(0));
	CHECK_UNDEFINED("VMRESUME", "vmresume", 0, "d"(0));
	CHECK_UNDEFINED("VMXOFF", "vmxoff", 0, "d"(0));
	CHECK_UNDEFINED("INVEPT", "invept %1, %2", 0, "m"(descriptor), "d"(2UL));
	CHECK_UNDEFINED("INVVPID", "invvpid %1, %2", 0, "m"(descriptor), "d"(2UL));
	CHECK_UNDEFINED("VMFUNC leaf 0", "vmfunc", 0, "c"(0));
	CHECK_UNDEFINED("VMFUNC leaf 1", "vmfunc", 1, "c"(1));
	CHECK_UNDEFINED("GETSEC", "getsec", 0, "b"(0));
	CHECK_UNDEFINED("RSM", "rsm", 0, "d"(0));
	/* As bytes: not every assembler knows them. Where the CPU has them, their controls or CR4 bits are off, or they exit. */
	CHECK_UNDEFINED("ENCLS", ".byte 0x0f, 0x01, 0xcf", 0, "b"(0), "c"(0), "d"(0));
	CHECK_UNDEFINED("ENCLV", ".byte 0x0f, 0x01, 0xc0", 0, "b"(0), "c"(0), "d"(0));
	CHECK_UNDEFINED("PCONFIG", ".byte 0x0f, 0x01, 0xc5", 0, "b"(0), "c"(0), "d"(0));
	CHECK_UNDEFINED("SEAMCALL", ".byte 0x66, 0x0f, 0x01, 0xcf", 0, "d"(0));
	CHECK_UNDEFINED("TDCALL", ".byte 0x66, 0x0f, 0x01, 0xcc", 0, "d"(0));
	CHECK_UNDEFINED("SEAMRET", ".byte 0x66, 0x0f, 0x01, 0xcd", 0, "d"(0));
	CHECK_UNDEFINED("RDMSRLIST", ".byte 0xf2, 0x0f, 0x01, 0xc6", 0, "c"(0UL), "S"(descriptor), "D"(descriptor));
	CHECK_UNDEFINED("WRMSRLIST", ".byte 0xf3, 0x0f, 0x01, 0xc6", 0, "c"(0UL), "S"(descriptor), "D"(descriptor));
	CHECK_UNDEFINED("URDMSR", ".byte 0xf2, 0x0f, 0x38, 0xf8, 0xca", 0, "c"(0x10UL), "d"(0UL));
	CHECK_UNDEFINED("UWRMSR", ".byte 0xf3, 0x0f, 0x38, 0xf8, 0xca", 0, "c"(0x1b00UL), "d"(0UL));
	CHECK_UNDEFINED("LOADIWKEY", ".byte 0xf3, 0x0f, 0x38, 0xdc, 0xc0", 0, "d"(0));
#undef CHECK_UNDEFINED
}

static void check_calls(struct seq_file *out)
{
	static const u64 numbers[] = {
		0, 1, 0x485052ff, 0x485053ff, 0xffffffff, 0x100000000ULL | HYPERPS_CALL_IDENTIFY
	};
	size_t i;
	long rax;

	for (i = 0; i < ARRAY_SIZE(numbers); i++) {
		rax = call(numbers[i], 0, 0, 0, 0, NULL);
		tap_check(out, rax == HYPERPS_ERROR_NO_CALL, "call %#llx does not exist (RAX %ld)", numbers[i], rax);
	}
	rax = call(HYPERPS_CALL_TAKE_CPUS, 0, 0, 0, 0, NULL);
	tap_check(out, rax == HYPERPS_ERROR_PERMISSION, "the loader's call is refused (RAX %ld)", rax);
	rax = call(HYPERPS_CALL_READ, 0, 0, 0, 0, NULL);
	tap_check(out, rax == HYPERPS_ERROR_INVALID, "reading object 0 is refused (RAX %ld)", rax);
}

static void check_xcr0(struct seq_file *out)
{
	u64 xcr0, again;

	if (!boot_cpu_has(X86_FEATURE_OSXSAVE)) {
		tap_check(out, true, "XSETBV # SKIP the CPU has no XSAVE");
		return;
	}
	xcr0 = read_xcr0();
	check_vector(out, write_xcr(0, 0), X86_TRAP_GP, "XSETBV of 0");
	check_vector(out, write_xcr(0, xcr0 & ~1ULL), X86_TRAP_GP, "XSETBV without x87");
	check_vector(out, write_xcr(0, (xcr0 & ~2ULL) | 4), X86_TRAP_GP, "XSETBV of AVX without SSE");
	check_vector(out, write_xcr(0, (xcr0 & ~0xc0ULL) | 0x20), X86_TRAP_GP, "XSETBV of a part of AVX-512");
	check_vector(out, write_xcr(0, xcr0 | BIT_ULL(63)), X86_TRAP_GP, "XSETBV of reserved bit 63");
	check_vector(out, write_xcr(1, xcr0), X86_TRAP_GP, "XSETBV of XCR1");
	check_vector(out, write_xcr(0xffffffff, xcr0), X86_TRAP_GP, "XSETBV of XCR 0xffffffff");
	tap_check(out, write_xcr(0, xcr0) == VECTOR_NONE, "positive control: XSETBV of the valid value %#llx works",
		  xcr0);
	again = read_xcr0();
	tap_check(out, again == xcr0, "XCR0 is unchanged afterwards (%#llx)", again);
}

/* SDM, "XSETBV" and "Enabling the XSAVE Feature Set": each combination of the bits that CPUID may offer. */
static void check_xcr0_combinations(struct seq_file *out)
{
	u32 eax, ebx, ecx, edx, i, valid = 0, wrong = 0;
	u64 xcr0, value, shown = 0;
	unsigned long flags;

	if (!boot_cpu_has(X86_FEATURE_OSXSAVE))
		return;
	cpuid_count(0xd, 0, &eax, &ebx, &ecx, &edx);
	xcr0 = read_xcr0();
	for (i = 0; i < 1 << 12; i++) {
		bool expected;

		/* Bits 0 to 9, and 17 and 18 for AMX. */
		value = (i & 0x3ff) | (u64)(i >> 10) << 17;
		expected = !(value & ~(u64)eax) && (value & 1) && (!(value & 4) || (value & 2)) &&
			   (!(value & 0xe0) || (value & 0xe4) == 0xe4) && hweight64(value & 0x18) != 1 &&
			   hweight64(value & 0x60000) != 1;
		local_irq_save(flags);
		if ((write_xcr(0, value) == VECTOR_NONE) != expected) {
			wrong++;
			shown = value;
		}
		write_xcr(0, xcr0);
		local_irq_restore(flags);
		valid += expected;
	}
	tap_check(out, !wrong && valid, "XSETBV takes each valid value (%u of %u) and no other (%u wrong, like %#llx)",
		  valid, i, wrong, shown);
}

static void check_control_registers(struct seq_file *out)
{
	unsigned long flags, cr0, cr4;
	int cr0_nw, cr0_pe, cr4_reserved, cr4_pae, cr0_same, cr4_same;

	local_irq_save(flags);
	cr0 = get_cr0();
	cr4 = get_cr4();
	cr0_nw = try_set_cr0((cr0 & ~X86_CR0_CD) | X86_CR0_NW);
	cr0_pe = try_set_cr0(cr0 & ~X86_CR0_PE);
	cr4_reserved = try_set_cr4(cr4 | BIT(31));
	cr4_pae = try_set_cr4(cr4 & ~X86_CR4_PAE);
	cr0_same = try_set_cr0(cr0);
	cr4_same = try_set_cr4(cr4);
	local_irq_restore(flags);
	check_vector(out, cr0_nw, X86_TRAP_GP, "setting CR0.NW without CD");
	check_vector(out, cr0_pe, X86_TRAP_GP, "clearing CR0.PE with paging on");
	check_vector(out, cr4_reserved, X86_TRAP_GP, "setting reserved bit 31 of CR4");
	check_vector(out, cr4_pae, X86_TRAP_GP, "clearing CR4.PAE in 64-bit mode");
	tap_check(out, cr0_same == VECTOR_NONE && cr4_same == VECTOR_NONE,
		  "positive control: CR0 and CR4 can be written with their values");
}

static void check_efer(struct seq_file *out)
{
	const u64 settable = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX;
	u64 efer = 0, again = 0;
	unsigned int bit, set = 0;

	read_msr(MSR_EFER, &efer);
	check_vector(out, write_msr(MSR_EFER, efer | BIT(1)), X86_TRAP_GP, "setting reserved bit 1 of EFER");
	check_vector(out, write_msr(MSR_EFER, efer | BIT_ULL(63)), X86_TRAP_GP, "setting reserved bit 63 of EFER");
	check_vector(out, write_msr(MSR_EFER, efer & ~(u64)EFER_LME), X86_TRAP_GP, "clearing EFER.LME with paging on");
	for (bit = 0; bit < 64; bit++)
		if (!(settable & BIT_ULL(bit)) && write_msr(MSR_EFER, efer | BIT_ULL(bit)) != X86_TRAP_GP)
			set++;
	tap_check(out, !set, "no bit of EFER but four can be set (%u could)", set);
	tap_check(out, write_msr(MSR_EFER, efer) == VECTOR_NONE,
		  "positive control: EFER can be written with its value");
	read_msr(MSR_EFER, &again);
	tap_check(out, again == efer, "EFER is unchanged afterwards (%#llx)", again);
}

static void check_apic_base(struct seq_file *out)
{
	unsigned long flags;
	unsigned int bit, kept = 0;
	u64 base = 0, moved = 0;
	int vector;

	local_irq_save(flags);
	read_msr(MSR_IA32_APICBASE, &base);
	vector = write_msr(MSR_IA32_APICBASE, base + PAGE_SIZE);
	read_msr(MSR_IA32_APICBASE, &moved);
	if (moved != base)
		write_msr(MSR_IA32_APICBASE, base);
	/* The enable bits may change; every other bit turned over is refused. */
	for (bit = 0; bit < 64; bit++) {
		if (bit == 10 || bit == 11)
			continue;
		kept += write_msr(MSR_IA32_APICBASE, base ^ BIT_ULL(bit)) == X86_TRAP_GP;
		write_msr(MSR_IA32_APICBASE, base);
	}
	local_irq_restore(flags);
	tap_check(out, kept == 62, "no bit of IA32_APIC_BASE but the two that enable it can change (%u of 62)", kept);
	tap_check(out, (vector == X86_TRAP_GP || vector == VECTOR_NONE) && moved == base,
		  "the local APIC cannot be moved (exception %d, IA32_APIC_BASE %#llx)", vector, moved);
	tap_check(out, write_msr(MSR_IA32_APICBASE, base) == VECTOR_NONE,
		  "positive control: IA32_APIC_BASE can be written with its value");
}

static void check_microcode(struct seq_file *out)
{
	void *update = kzalloc(PAGE_SIZE, GFP_KERNEL);
	int vector;

	if (!update)
		return;
	vector = write_msr(MSR_MICROCODE_UPDATE, (unsigned long)update + 48);
	tap_check(out, vector == VECTOR_NONE || vector == X86_TRAP_GP,
		  "a microcode update is ignored or refused (exception %d)", vector);
	vector = write_msr(MSR_MICROCODE_UPDATE, NON_CANONICAL);
	tap_check(out, vector == VECTOR_NONE || vector == X86_TRAP_GP,
		  "a microcode update at a non-canonical address is ignored or refused (exception %d)", vector);
	kfree(update);
}

/* The last variable MTRR, if it is not in use: any value can stand there, as it has no effect. */
static void check_mtrr(struct seq_file *out)
{
	u64 capability = 0, base = 0, mask = 0, wanted, again = 0;
	u32 msr;
	int vector;

	if (read_msr(MSR_MTRRcap, &capability) != VECTOR_NONE || !(capability & 0xff)) {
		tap_check(out, true, "MTRRs # SKIP the CPU has none");
		return;
	}
	msr = MSR_MTRR_BASE((capability & 0xff) - 1);
	read_msr(msr, &base);
	read_msr(msr + 1, &mask);
	check_vector(out, write_msr(msr, MEMORY_TYPE_RESERVED), X86_TRAP_GP, "an MTRR of a reserved memory type");
	if (mask & MTRR_MASK_VALID) {
		tap_check(out, true, "an MTRR reads back as written # SKIP all are in use");
		return;
	}
	wanted = 0x80000000ULL | MEMORY_TYPE_WRITE_THROUGH;
	vector = write_msr(msr, wanted);
	read_msr(msr, &again);
	write_msr(msr, base);
	tap_check(out, vector == VECTOR_NONE && again == wanted, "an MTRR reads back as written (exception %d, %#llx)",
		  vector, again);
}

static void check_msr_values(struct seq_file *out)
{
	static const struct {
		u32 msr;
		const char *name;
	} addresses[] = {
		{ MSR_LSTAR, "LSTAR" },
		{ MSR_KERNEL_GS_BASE, "KERNEL_GS_BASE" },
		{ MSR_IA32_SYSENTER_EIP, "SYSENTER_EIP" },
		{ MSR_IA32_SYSENTER_ESP, "SYSENTER_ESP" },
	};
	/* Outside of the ranges that the MSR bitmaps cover: these always exit. */
	static const u32 unlisted[] = { 0x2000, 0x40000000, 0xbfffffff, 0xc0002000, 0xffffffff };
	/* Each takes its own value, but not with these bits set, whatever the CPU has. */
	static const struct {
		u32 msr;
		u64 bits;
		const char *name;
	} values[] = {
		{ MSR_IA32_MISC_ENABLE, BIT_ULL(34), "XD disable in MISC_ENABLE" },
		{ MSR_IA32_MISC_ENABLE, BIT_ULL(22), "the CPUID limit in MISC_ENABLE" },
		{ MSR_IA32_DEBUGCTLMSR, BIT(6), "TR in DEBUGCTL" },
		{ MSR_IA32_DEBUGCTLMSR, BIT(7), "BTS in DEBUGCTL" },
		{ MSR_IA32_DEBUGCTLMSR, BIT(15), "RTM debug in DEBUGCTL" },
		{ MSR_IA32_PEBS_ENABLE, 1, "PEBS" },
		{ MSR_IA32_DS_AREA, PAGE_SIZE, "an address in DS_AREA" },
		{ MSR_IA32_XSS, BIT(8), "Processor Trace state in XSS" },
		{ MSR_IA32_XSS, BIT(11) | BIT(12), "CET state in XSS" },
	};
	u64 pat = 0, value;
	size_t i;
	int vector;

	for (i = 0; i < ARRAY_SIZE(addresses); i++) {
		u64 old = 0, again = 0;

		read_msr(addresses[i].msr, &old);
		vector = write_msr(addresses[i].msr, NON_CANONICAL);
		read_msr(addresses[i].msr, &again);
		write_msr(addresses[i].msr, old);
		/* CPUs refuse; KVM, if we run in it, makes those of SYSENTER canonical, as another maker's CPUs do. */
		tap_check(out,
			  vector == X86_TRAP_GP || (vector == VECTOR_NONE && again == (u64)((s64)(again << 16) >> 16)),
			  "no non-canonical address gets into %s (exception %d, %#llx)", addresses[i].name, vector,
			  again);
	}
	for (i = 0; i < ARRAY_SIZE(values); i++) {
		/* Natively the kernel would not survive that bit 63 of its page-table entries is reserved. */
		if (values[i].msr == MSR_IA32_MISC_ENABLE && !monitor_runs())
			continue;
		if (read_msr(values[i].msr, &value) != VECTOR_NONE || write_msr(values[i].msr, value) != VECTOR_NONE)
			continue;
		vector = write_msr(values[i].msr, value | values[i].bits);
		write_msr(values[i].msr, value);
		check_vector(out, vector, X86_TRAP_GP, values[i].name);
	}
	read_msr(MSR_IA32_CR_PAT, &pat);
	check_vector(out, write_msr(MSR_IA32_CR_PAT, (pat & ~0xffULL) | MEMORY_TYPE_RESERVED), X86_TRAP_GP,
		     "a reserved memory type in the PAT");
	tap_check(out, write_msr(MSR_IA32_CR_PAT, pat) == VECTOR_NONE,
		  "positive control: the PAT can be written with its value");

	for (i = 0; i < ARRAY_SIZE(unlisted); i++) {
		vector = read_msr(unlisted[i], &value);
		tap_check(out, vector == X86_TRAP_GP || vector == VECTOR_NONE,
			  "reading MSR %#x is survived (exception %d)", unlisted[i], vector);
		vector = write_msr(unlisted[i], 0);
		tap_check(out, vector == X86_TRAP_GP || vector == VECTOR_NONE,
			  "writing MSR %#x is survived (exception %d)", unlisted[i], vector);
	}
}

/*
 * MSRs that make the CPU write to memory, take tables or keys from it, or change what an access may do: a value other than
 * 0 is refused. The same write works where the address is a linear one that the host's own view translates.
 */
static void check_address_msrs(struct seq_file *out)
{
	static const struct {
		u32 first, last;
		u64 bits;
		const char *name;
	} msrs[] = {
		{ 0x9b, 0x9b, 1, "IA32_SMM_MONITOR_CTL" },
		{ 0x1d9, 0x1d9, 0xc0, "branch trace store in IA32_DEBUGCTL" },
		{ 0x1f2, 0x1f3, 0, "IA32_SMRR_PHYSBASE and PHYSMASK" },
		{ 0x3f1, 0x3f1, 1, "IA32_PEBS_ENABLE" },
		{ 0x560, 0x561, 0, "IA32_RTIT_OUTPUT_BASE and MASK_PTRS" },
		{ 0x570, 0x570, 1, "IA32_RTIT_CTL" },
		{ 0x580, 0x587, 0, "IA32_RTIT_ADDRn" },
		{ 0x600, 0x600, 0, "IA32_DS_AREA" },
		{ 0x6a0, 0x6a2, 1, "IA32_U_CET and S_CET" },
		{ 0x6a4, 0x6a8, 0, "IA32_PLn_SSP and INTERRUPT_SSP_TABLE_ADDR" },
		{ 0x6e1, 0x6e1, 1, "IA32_PKRS" },
		{ 0x982, 0x987, 1, "TME and user interrupts" },
		{ 0xd93, 0xd93, 1ULL << 31, "IA32_PASID" },
		{ 0xda0, 0xda0, 0x100, "IA32_XSS" },
		{ 0x14ce, 0x14ce, 1, "IA32_LBR_CTL" },
		{ 0x17d0, 0x17d1, 1, "IA32_HW_FEEDBACK_PTR and CONFIG" },
	};
	unsigned long page = get_zeroed_page(GFP_KERNEL), flags;
	u64 saved = 0, seen = 0;
	size_t i;
	int vector;
	u32 msr;

	if (!page)
		return;
	local_irq_save(flags);
	read_msr(MSR_KERNEL_GS_BASE, &saved);
	vector = write_msr(MSR_KERNEL_GS_BASE, page);
	read_msr(MSR_KERNEL_GS_BASE, &seen);
	write_msr(MSR_KERNEL_GS_BASE, saved);
	local_irq_restore(flags);
	tap_check(out, vector == VECTOR_NONE && seen == page,
		  "positive control: an address can be written to KERNEL_GS_BASE (exception %d)", vector);
	for (i = 0; i < ARRAY_SIZE(msrs); i++)
		for (msr = msrs[i].first; msr <= msrs[i].last; msr++)
			check_vector(out, write_msr(msr, msrs[i].bits ?: __pa(page)), X86_TRAP_GP, msrs[i].name);
	tap_check(out, !memchr_inv((void *)page, 0, PAGE_SIZE), "none of these wrote to the page that they name");
	free_page(page);
}

/* The monitor answers the same with memory types, caches and protection keys as the host left them. */
static void check_calls_under(struct seq_file *out)
{
	static const u64 pats[] = { 0, 0x0101010101010101, 0x0404040404040404, 0x0505050505050505, 0x0606060606060606 };
	unsigned long flags, cr0;
	unsigned int answers = 0;
	u64 pat = 0;
	size_t i;

	read_msr(MSR_IA32_CR_PAT, &pat);
	for (i = 0; i < ARRAY_SIZE(pats); i++) {
		local_irq_save(flags);
		write_msr(MSR_IA32_CR_PAT, pats[i]);
		answers += monitor_runs();
		write_msr(MSR_IA32_CR_PAT, pat);
		local_irq_restore(flags);
	}
	local_irq_save(flags);
	cr0 = get_cr0();
	try_set_cr0(cr0 | X86_CR0_CD);
	answers += monitor_runs();
	try_set_cr0(cr0 | X86_CR0_CD | X86_CR0_NW);
	answers += monitor_runs();
	try_set_cr0(cr0);
	local_irq_restore(flags);
	tap_check(out, answers == ARRAY_SIZE(pats) + 2, "calls under any PAT, and with CR0.CD and NW (%u answered)",
		  answers);
}

static void check_performance_msrs(struct seq_file *out)
{
	static const struct {
		u32 msr;
		const char *name;
	} msrs[] = {
		{ 0xc1, "IA32_PMC0" },
		{ 0x186, "IA32_PERFEVTSEL0" },
		{ 0x1d9, "IA32_DEBUGCTL" },
		{ 0x309, "IA32_FIXED_CTR0" },
		{ 0x345, "IA32_PERF_CAPABILITIES" },
		{ 0x38d, "IA32_FIXED_CTR_CTRL" },
		{ 0x38f, "IA32_PERF_GLOBAL_CTRL" },
		{ 0x3f1, "IA32_PEBS_ENABLE" },
		{ 0x570, "IA32_RTIT_CTL" },
		{ 0x600, "IA32_DS_AREA" },
	};
	u64 value;
	size_t i;
	int read, write;

	for (i = 0; i < ARRAY_SIZE(msrs); i++) {
		value = 0;
		read = read_msr(msrs[i].msr, &value);
		write = read == VECTOR_NONE ? write_msr(msrs[i].msr, value) : X86_TRAP_GP;
		tap_check(out,
			  (read == VECTOR_NONE || read == X86_TRAP_GP) &&
				  (write == VECTOR_NONE || write == X86_TRAP_GP),
			  "%s is survived (read: exception %d, %#llx; write: exception %d)", msrs[i].name, read, value,
			  write);
	}
}

/*
 * Instructions that always exit and that a host may use. INVD would lose data without a monitor that makes it a WBINVD.
 */
static void check_exiting_instructions(struct seq_file *out)
{
	tap_check(out, fault_of("wbinvd", 0, "d"(0)) == VECTOR_NONE, "WBINVD works");
	if (monitor_runs())
		tap_check(out, fault_of("invd", 0, "d"(0)) == VECTOR_NONE, "INVD works");
	else
		tap_check(out, true, "INVD # SKIP without the monitor");
}

/* What the CPU may have, but whose CR4 bits or MSRs the monitor refuses: a kernel must not try. docs/boot.md has the names. */
static void check_hidden_features(struct seq_file *out)
{
	static const struct {
		u32 leaf, subleaf, eax, ebx, ecx, edx;
	} hidden[] = {
		{ 1, 0, 0, 0, 0x74, BIT(21) },
		{ 6, 0, BIT(19) | BIT(23), 0, 0, 0 },
		{ 7, 0, 0, BIT(2) | BIT(25), BIT(7) | BIT(13) | BIT(23) | 7U << 29, BIT(5) | 7U << 18 },
		{ 7, 1, BIT(6) | BIT(17) | BIT(18) | BIT(20) | BIT(22) | BIT(26) | BIT(27), 0, BIT(5),
		  BIT(13) | BIT(15) | BIT(18) },
		{ 0xd, 1, 0, 0, ~0U, ~0U },
		{ 0x12, 0, ~0U, ~0U, ~0U, ~0U },
		{ 0x14, 0, ~0U, ~0U, ~0U, ~0U },
		{ 0x19, 0, ~0U, ~0U, ~0U, ~0U },
		{ 0x1b, 0, ~0U, ~0U, ~0U, ~0U },
		{ 0x1c, 0, ~0U, ~0U, ~0U, ~0U },
	};
	u32 eax, ebx, ecx, edx, seen = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(hidden); i++) {
		if (hidden[i].leaf > cpuid_eax(0))
			continue;
		cpuid_count(hidden[i].leaf, hidden[i].subleaf, &eax, &ebx, &ecx, &edx);
		if (hidden[i].leaf == 1 && vmx_is_offered())
			ecx &= ~(u32)CPUID_1_ECX_VMX;
		if (!((eax & hidden[i].eax) | (ebx & hidden[i].ebx) | (ecx & hidden[i].ecx) | (edx & hidden[i].edx)))
			continue;
		seq_printf(out, "# CPUID %#x.%u: %#x %#x %#x %#x\n", hidden[i].leaf, hidden[i].subleaf, eax, ebx, ecx,
			   edx);
		seen++;
	}
	tap_check(out, !seen, "CPUID hides features that need a register which is refused (%u leaves do not)", seen);
}

static int show_vmx_probe(struct seq_file *out, void *unused)
{
	if (part("state")) {
		check_vmx_state(out);
		check_hidden_features(out);
		check_vmx_instructions(out);
		check_calls(out);
		check_xcr0(out);
		check_xcr0_combinations(out);
		check_control_registers(out);
		check_efer(out);
		check_apic_base(out);
		check_mtrr(out);
		check_exiting_instructions(out);
	}
	if (part("msr")) {
		check_microcode(out);
		check_msr_values(out);
		check_address_msrs(out);
		check_performance_msrs(out);
		if (monitor_runs())
			check_calls_under(out);
	}
	return 0;
}

TAP_MODULE("vmx_probe", show_vmx_probe, "Checks that VMX looks absent, or as offered");

// SPDX-License-Identifier: GPL-2.0
/* Control registers and MSRs that the gate relies on, and hostile arguments of GATE_SET. */
#include <linux/irqflags.h>
#include <linux/mm.h>
#include <linux/random.h>
#include <asm/cpufeature.h>
#include <asm/msr-index.h>
#include <asm/msr.h>
#include <asm/processor-flags.h>
#include <asm/special_insns.h>
#include <asm/trapnr.h>

#include "calls.h"
#include "compat.h"
#include "gate_attack.h"
#include "tap.h"

#define CR0_NEEDED (X86_CR0_PE | X86_CR0_PG | X86_CR0_WP)
#define CR4_NEEDED (X86_CR4_PAE | X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_LA57)
#define CANDIDATES 250
#define FUZZ 150

static int try_cr0(u64 value)
{
	return fault_of("mov %1, %%cr0", 0, "r"(value));
}

static int try_cr4(u64 value)
{
	return fault_of("mov %1, %%cr4", 0, "r"(value));
}

static u64 read_control(unsigned int number)
{
	u64 value;

	if (number == 0)
		asm volatile("mov %%cr0, %0" : "=r"(value)::"memory");
	else
		asm volatile("mov %%cr4, %0" : "=r"(value)::"memory");
	return value;
}

/* Each bit turned over: the gate goes on working, or is off until it is set again. */
static void attack_control_register(struct seq_file *out, unsigned int number, unsigned int bits, u64 needed,
				    int (*write)(u64 value))
{
	unsigned int bit, called = 0, off = 0, failed = 0;
	u64 expected_off = 0, seen_off = 0;

	for (bit = 0; bit < bits; bit++) {
		enum outcome outcome, again;
		unsigned long flags;
		u64 old, fault, cr3;
		bool on;

		local_irq_save(flags);
		/* CR4.PCIDE can be set only while the PCID is 0. */
		cr3 = __read_cr3();
		native_write_cr3(cr3 & PAGE_MASK);
		old = read_control(number);
		fault = write(old ^ BIT_ULL(bit));
		outcome = rig_call();
		write(old);
		/* Off means that not even index 0 is there. */
		on = try_vmfunc(0, 0) == VECTOR_NONE;
		if (!on)
			rig_on();
		again = rig_call();
		native_write_cr3(cr3);
		local_irq_restore(flags);
		called += outcome == CALLED;
		off += !on;
		if (needed & BIT_ULL(bit))
			expected_off |= BIT_ULL(bit);
		if (!on)
			seen_off |= BIT_ULL(bit);
		if (again == CALLED && outcome == (on ? CALLED : REFUSED))
			continue;
		failed++;
		seq_printf(out, "# CR%u bit %u: fault %lld, outcome %d, %s, afterwards %d\n", number, bit, fault,
			   outcome, on ? "on" : "off", again);
	}
	tap_check(out, called && off && !failed,
		  "each bit of CR%u turned over: the gate works (%u), or is off until it is set again (%u); else %u",
		  number, called, off, failed);
	tap_check(out, !(expected_off & ~seen_off), "those that the gate needs switched it off (%#llx of %#llx)",
		  seen_off, expected_off);
}

static int try_msr(u32 msr, u64 value)
{
	return fault_of("wrmsr", value, "c"(msr), "d"((u32)(value >> 32)));
}

static void attack_pat(struct seq_file *out)
{
	static const u64 values[] = {
		0, 0x0101010101010101, 0x0404040404040404, 0x0505050505050505, 0x0606060606060606, 0x0707070707070707
	};
	unsigned int called = 0;
	unsigned long flags;
	u64 pat;
	size_t i;

	rdmsrq(MSR_IA32_CR_PAT, pat);
	for (i = 0; i < ARRAY_SIZE(values); i++) {
		local_irq_save(flags);
		try_msr(MSR_IA32_CR_PAT, values[i]);
		called += rig_call() == CALLED;
		try_msr(MSR_IA32_CR_PAT, pat);
		local_irq_restore(flags);
	}
	tap_check(out, called == ARRAY_SIZE(values), "calls with the PAT all of one memory type (%u of %zu)", called,
		  ARRAY_SIZE(values));
}

static void attack_pkru(struct seq_file *out)
{
	enum outcome outcome;
	unsigned long flags;
	u32 old, unused;

	if (!boot_cpu_has(X86_FEATURE_OSPKE)) {
		tap_check(out, true, "protection keys # SKIP the CPU has none");
		return;
	}
	local_irq_save(flags);
	asm volatile("rdpkru" : "=a"(old), "=d"(unused) : "c"(0));
	asm volatile("wrpkru" ::"a"(~0U), "c"(0), "d"(0));
	outcome = rig_call();
	asm volatile("wrpkru" ::"a"(old), "c"(0), "d"(0));
	local_irq_restore(flags);
	tap_check(out, outcome == CALLED, "a call with PKRU all ones (outcome %d)", outcome);
}

/* Without NXE no page with bit 63 can be used, the stack's among them: back in a straight line. */
static void attack_efer(struct seq_file *out)
{
	enum outcome outcome;
	unsigned long flags;
	u64 efer;
	int index0;

	local_irq_save(flags);
	rdmsrq(MSR_EFER, efer);
	asm volatile("wrmsr; mov %3, %%eax; wrmsr" ::"c"(MSR_EFER), "a"((u32)(efer & ~(u64)EFER_NX)), "d"(0),
		     "r"((u32)efer)
		     : "memory");
	index0 = try_vmfunc(0, 0);
	outcome = rig_call();
	local_irq_restore(flags);
	tap_check(out, index0 == X86_TRAP_UD && outcome == REFUSED,
		  "clearing EFER.NXE switches the gate off (exception %d, outcome %d)", index0, outcome);
	tap_check(out, !rig_on() && rig_call() == CALLED, "the gate works when it is on again");
	local_irq_save(flags);
	try_msr(MSR_EFER, efer & ~(u64)EFER_SCE);
	outcome = rig_call();
	try_msr(MSR_EFER, efer);
	local_irq_restore(flags);
	tap_check(out, outcome == CALLED, "EFER.SCE does not matter (outcome %d)", outcome);
}

/* The two instructions that write a part of CR0. LMSW can set PE, but not clear it. */
static void attack_cr0_parts(struct seq_file *out)
{
	enum outcome set, cleared, again;
	unsigned long flags;
	u64 old;

	local_irq_save(flags);
	old = read_control(0);
	asm volatile("clts; lmsw %w0" ::"r"(0xf & ~X86_CR0_EM) : "memory");
	set = rig_call();
	asm volatile("lmsw %w0" ::"r"(0) : "memory");
	cleared = rig_call();
	try_cr0(old);
	again = rig_call();
	local_irq_restore(flags);
	tap_check(out, set == CALLED && cleared == CALLED && again == CALLED,
		  "CLTS and LMSW change nothing that the gate needs (outcomes %d, %d, %d)", set, cleared, again);
}

void attack_modes(struct seq_file *out)
{
	attack_control_register(out, 0, 32, CR0_NEEDED, try_cr0);
	attack_cr0_parts(out);
	attack_control_register(out, 4, 36, CR4_NEEDED, try_cr4);
	attack_pat(out);
	attack_pkru(out);
	attack_efer(out);
}

/* GATE_SET gives the error, the gate is off, and comes back on. */
static void refuse(struct seq_file *out, u64 linear, u64 top, const char *what)
{
	long error = gate_set(linear, top);
	unsigned int open = indices_open(0, 2);

	tap_check(out, error == HYPERPS_ERROR_INVALID && !open && !rig_on() && rig_call() == CALLED,
		  "GATE_SET with %s is refused (%ld), the gate is off, and works again", what, error);
}

static void attack_linear(struct seq_file *out)
{
	const u64 edge = MONITOR_LINEAR + (1ULL << 39) - PAGE_SIZE;
	const u64 good[] = { 0xfffffffffffff000ULL,           0xffff800000000000ULL + LIST_TO_GATE,
			     MONITOR_LINEAR + (3ULL << 39),   DIRECT_LINEAR - PAGE_SIZE,
			     edge + PAGE_SIZE + LIST_TO_GATE, rig.gate + PAGE_SIZE };
	unsigned int worked = 0;
	size_t i;

	refuse(out, rig.gate + 1, rig.top_address, "an address that is not a page's");
	refuse(out, rig.gate + 0xfff, rig.top_address, "a page's last byte");
	refuse(out, 0x400000, rig.top_address, "an address in the lower half");
	refuse(out, 0x00007ffffffff000ULL, rig.top_address, "the lower half's last page");
	refuse(out, 0x0000800000000000ULL, rig.top_address, "an address that is not canonical");
	refuse(out, 0xffff7ffffffff000ULL, rig.top_address, "the last one that is not canonical");
	refuse(out, 0xffff800000000000ULL, rig.top_address, "a list outside the upper half");
	refuse(out, MONITOR_LINEAR, rig.top_address, "the monitor's first page");
	refuse(out, edge, rig.top_address, "the last page of the monitor's slot");
	refuse(out, DIRECT_LINEAR, rig.top_address, "the first page of the monitor's direct map");
	refuse(out, MONITOR_LINEAR - PAGE_SIZE, rig.top_address, "the last page of the monitor's direct map");
	refuse(out, edge + LIST_TO_GATE, rig.top_address, "a list in the monitor's slot");
	refuse(out, BIT_ULL(63), rig.top_address, "bit 63 alone");
	refuse(out, PAGE_SIZE, rig.top_address, "the second page");
	for (i = 0; i < ARRAY_SIZE(good); i++)
		worked += !gate_set(good[i], rig.top_address);
	tap_check(out, worked == ARRAY_SIZE(good), "GATE_SET at the edges of what is allowed works (%u of %zu)", worked,
		  ARRAY_SIZE(good));
	tap_check(out, rig_call() == REFUSED, "the gate then is not at the old place");
	tap_check(out, !rig_on() && rig_call() == CALLED, "and it is when it is set back");
}

static void attack_top(struct seq_file *out)
{
	u64 base = read_word(HYPERPS_OBJECT_STATUS, offsetof(struct hyperps_status, memory_base));
	u64 size = read_word(HYPERPS_OBJECT_STATUS, offsetof(struct hyperps_status, memory_size)), at;
	unsigned int counts[3] = { 0 }, i, kept = 0, taken = 0;
	long error;

	refuse(out, rig.gate, 0, "no table");
	refuse(out, rig.gate, rig.top_address + 8, "a table that is not a page");
	refuse(out, rig.gate, rig.top_address | 0x904, "a PCID in the table's address");
	refuse(out, rig.gate, BIT_ULL(32), "a table at 4 GiB");
	refuse(out, rig.gate, BIT_ULL(32) + rig.top_address, "a table above 4 GiB");
	refuse(out, rig.gate, BIT_ULL(63) | rig.top_address, "bit 63 in the table's address");
	refuse(out, rig.gate, ~0ULL, "all ones as table");
	for (at = base; at < base + size; at += PAGE_SIZE)
		taken += gate_set(rig.gate, at) != HYPERPS_ERROR_INVALID;
	tap_check(out, !taken, "no frame of the monitor's memory can be the table (%llu tried, %u taken)",
		  size >> PAGE_SHIFT, taken);
	/* The monitor's start-up pages are among these. */
	for (at = PAGE_SIZE; at < 1 << 20; at += PAGE_SIZE)
		kept += gate_set(rig.gate, at) == HYPERPS_ERROR_INVALID;
	tap_check(out, kept >= 1 && kept < 200,
		  "below 1 MiB only the monitor's and the firmware's pages can't be the table (%u)", kept);
	for (i = 0; i < CANDIDATES; i++) {
		error = gate_set(rig.gate, (u64)(get_random_u32() % totalram_pages()) << PAGE_SHIFT);
		counts[error == HYPERPS_OK ? 0 : error == HYPERPS_ERROR_AGAIN ? 1 : 2]++;
	}
	tap_check(out, counts[0] && counts[1] && counts[2] < CANDIDATES / 8,
		  "of %u tables anywhere in memory %u make safe code, %u do not, %u are invalid", CANDIDATES, counts[0],
		  counts[1], counts[2]);
	refuse(out, rig.gate, 0xfee00000, "the APIC as table");
	refuse(out, rig.gate, 0xe0000000, "a table where no memory is");
}

void attack_set(struct seq_file *out)
{
	unsigned int i, strange = 0;

	attack_linear(out);
	attack_top(out);
	for (i = 0; i < FUZZ; i++) {
		long error = gate_set(get_random_u64() | (i & 1 ? 0xffff8ULL << 44 : 0), get_random_u64() >> (i % 64));

		strange += error != HYPERPS_OK && error != HYPERPS_ERROR_INVALID && error != HYPERPS_ERROR_AGAIN;
	}
	tap_check(out, !strange, "GATE_SET with %u arguments at random gives the errors that it may (%u others)", FUZZ,
		  strange);
	tap_check(out, !rig_on() && rig_call() == CALLED, "the gate works as before");
}

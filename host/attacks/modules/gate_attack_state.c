// SPDX-License-Identifier: GPL-2.0
/* Hostile processor state at the gate: flags, debug registers, interrupts, descriptor tables, CR3, TLB. */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/delay.h>
#include <linux/stop_machine.h>
#include <linux/string.h>
#include <asm/desc.h>
#include <asm/io.h>
#include <asm/irq_vectors.h>
#include <asm/msr.h>
#include <asm/special_insns.h>
#include <asm/trapnr.h>

#include "calls.h"
#include "compat.h"
#include "gate_attack.h"
#include "tap.h"

#define INTERRUPTED 2000
#define SWEEP 700
#define AFTER_NANOSECONDS 10000
#define OWN_PRIORITY 0xe0
#define DR7_EXACT 0x700
#define MONITOR_CODE 0x40000 /* from MONITOR_LINEAR on: linker.ld keeps the code below that */
#define DR7_GD BIT(13)
/* Breakpoint n: enabled, and what it is for: 0 fetch, 1 store, 3 load or store; 8 bytes but for fetches. */
#define DR7_ENABLE(n, kind) (2ULL << 2 * (n) | (u64)((kind) ? (kind) | 2 << 2 : 0) << (16 + 4 * (n)))

static const char *const names[OUTCOMES] = { "called", "refused", "passed", "WRONG" };

static void expect(struct seq_file *out, enum outcome outcome, u32 allowed, const char *what)
{
	bool works = (allowed & BIT(outcome)) && rig_call() == CALLED;

	tap_check(out, works, "%s: %s, and the gate works afterwards", what, names[outcome]);
	if (!works)
		seq_printf(out, "# vector %lld, RIP %#llx, status %lld\n", gate_attempt.vector, gate_attempt.fault_rip,
			   gate_attempt.status);
}

static void attack_flags(struct seq_file *out)
{
	static const struct {
		u64 flag;
		enum outcome outcome;
		const char *name;
	} flags[] = {
		{ X86_EFLAGS_TF, REFUSED, "TF set" },
		{ X86_EFLAGS_DF, CALLED, "DF set" },
		{ X86_EFLAGS_OF | X86_EFLAGS_SF | X86_EFLAGS_ZF | X86_EFLAGS_AF | X86_EFLAGS_PF | X86_EFLAGS_CF, CALLED,
		  "all arithmetic flags set" },
		{ X86_EFLAGS_IOPL, CALLED, "IOPL 3" },
		{ X86_EFLAGS_NT, CALLED, "NT set" },
		{ X86_EFLAGS_RF, CALLED, "RF set" },
		{ X86_EFLAGS_AC, CALLED, "AC set" },
		{ X86_EFLAGS_VIF | X86_EFLAGS_VIP | X86_EFLAGS_ID, CALLED, "VIF, VIP and ID set" },
		{ X86_EFLAGS_TF | X86_EFLAGS_RF | X86_EFLAGS_NT | X86_EFLAGS_AC, REFUSED, "TF, RF, NT and AC set" },
	};
	/* mov %r8d, %ss: a trap or interrupt waits for one more instruction. */
	static const u8 load_ss[] = { 0x41, 0x8e, 0xd0 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		rig_prepare(HYPERPS_GATE_ENTRY, NULL, 0);
		gate_attempt.flags |= flags[i].flag;
		expect(out, rig_run(), BIT(flags[i].outcome), flags[i].name);
	}
	rig_prepare(HYPERPS_GATE_ENTRY, load_ss, sizeof(load_ss));
	gate_attempt.registers[R8] = __KERNEL_DS;
	expect(out, rig_run(), BIT(CALLED), "a load of SS before the VMFUNC");
	rig_prepare(HYPERPS_GATE_ENTRY, load_ss, sizeof(load_ss));
	expect(out, rig_run(), BIT(CALLED), "a load of SS with a null selector before the VMFUNC");
}

/* Breakpoints on what the gate fetches and touches, alone, and also with the trap held back by a load of SS. */
static void attack_breakpoints(struct seq_file *out)
{
	static const u8 load_ss[] = { 0x41, 0x8e, 0xd0 };
	const struct {
		u64 linear;
		u32 kind;
		enum outcome outcome;
		const char *name;
	} breakpoints[] = {
		{ rig.gate + HYPERPS_GATE_ENTRY, 0, REFUSED, "a breakpoint at the airlock's fill" },
		{ rig.gate + HYPERPS_GATE_ENTRY + 11, 0, REFUSED, "a breakpoint behind the fill" },
		{ rig.gate + HYPERPS_GATE_ENTRY + 18, 0, REFUSED, "a breakpoint at the load of CR3" },
		{ rig.gate + HYPERPS_GATE_ENTRY + 25, 0, REFUSED, "a breakpoint at the load of DR7" },
		{ rig.gate + HYPERPS_GATE_ENTRY + 31, 0, CALLED, "a breakpoint at the second VMFUNC" },
		{ rig.gate + LANDING, 0, CALLED, "a breakpoint at the landing" },
		{ rig.gate + HYPERPS_GATE_RETURN, 0, CALLED, "a breakpoint at the return" },
		{ rig.list + 16, 1, REFUSED, "a watchpoint on the list's slot 2" },
		{ rig.list + 16, 3, REFUSED, "a watchpoint on the list's slot 2, loads, too" },
		{ rig.list, 3, CALLED, "a watchpoint on the list's slot 0" },
		{ MONITOR_LINEAR, 3, CALLED, "a watchpoint on the monitor's memory" },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(breakpoints); i++) {
		rig_prepare(HYPERPS_GATE_ENTRY, NULL, 0);
		gate_attempt.dr[i % 4] = breakpoints[i].linear;
		gate_attempt.dr7 = DR7_EXACT | DR7_ENABLE(i % 4, breakpoints[i].kind);
		expect(out, rig_run(), BIT(breakpoints[i].outcome), breakpoints[i].name);
	}
	rig_prepare(HYPERPS_GATE_ENTRY, NULL, 0);
	gate_attempt.dr7 = DR7_EXACT | DR7_GD;
	expect(out, rig_run(), BIT(REFUSED), "DR7.GD set");
	/* The trap of the watchpoint on the stack, which the load of SS holds back, is due behind the VMFUNC. */
	rig_prepare(HYPERPS_GATE_ENTRY, (const u8[]){ 0x8e, 0x14, 0x24 }, 3);
	gate_attempt.rsp -= 8;
	*(u64 *)gate_attempt.rsp = __KERNEL_DS;
	gate_attempt.dr[0] = gate_attempt.rsp;
	gate_attempt.dr7 = DR7_EXACT | DR7_ENABLE(0, 3);
	expect(out, rig_run(), BIT(REFUSED) | BIT(CALLED), "a debug exception held back by a load of SS");
	rig_prepare(HYPERPS_GATE_ENTRY, load_ss, sizeof(load_ss));
	gate_attempt.registers[R8] = __KERNEL_DS;
	gate_attempt.flags |= X86_EFLAGS_TF;
	rig_run();
	tap_check(out, gate_attempt.vector == X86_TRAP_UD || gate_attempt.vector == X86_TRAP_DB,
		  "TF and a load of SS: exception %lld", gate_attempt.vector);
}

/* Where the airlock's instructions begin, up to the one behind which DR7 is clear. */
static bool is_airlock_instruction(unsigned int offset)
{
	static const u8 instructions[] = { 0, 11, 12, 17, 18, 21, 23, 25 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(instructions); i++)
		if (offset == HYPERPS_GATE_ENTRY + instructions[i])
			return true;
	return false;
}

/* Calls with breakpoints on each step of [from, to), four at a time. Returns how many were not as they should be. */
static unsigned int break_on_each(u64 from, u64 to, unsigned int step, u32 kind, unsigned int *tried)
{
	unsigned int i, wrong = 0;
	u64 at;

	/* A call that goes through the lock and the page marks. */
	rig_prepare(HYPERPS_GATE_ENTRY, NULL, 0);
	gate_attempt.registers[R9] = HYPERPS_CALL_FRAME_QUERY;
	gate_attempt.registers[RSI] = rig.top_address >> PAGE_SHIFT;
	gate_attempt.dr7 = DR7_EXACT;
	for (i = 0; i < 4; i++)
		gate_attempt.dr7 |= DR7_ENABLE(i, kind);
	for (at = from; at < to; at += 4 * step) {
		for (i = 0; i < 4; i++)
			gate_attempt.dr[i] = at + i * step;
		gate_attempt_run();
		wrong += gate_attempt.vector != CAME_BACK || gate_attempt.status ||
			 gate_attempt.result != HYPERPS_FRAME_HOST;
		*tried += 4;
		if (*tried % 65536 == 0)
			cond_resched();
	}
	return wrong;
}

/* Breakpoints on every byte of the gate page's code and of the monitor's, watchpoints on the list and all its memory. */
static void attack_each_address(struct seq_file *out)
{
	u64 size = read_word(HYPERPS_OBJECT_STATUS, offsetof(struct hyperps_status, memory_size));
	u64 vmfunc = rig.gate + HYPERPS_GATE_ENTRY - VMFUNC_BYTES;
	unsigned int offset, slot, wrong = 0, hit = 0, tried = 0;

	for (offset = HYPERPS_GATE_ENTRY; offset < HYPERPS_GATE_RETURN + 16; offset++) {
		bool expected = is_airlock_instruction(offset);

		rig_prepare(HYPERPS_GATE_ENTRY, NULL, 0);
		gate_attempt.dr[offset % 4] = rig.gate + offset;
		gate_attempt.dr7 = DR7_EXACT | DR7_ENABLE(offset % 4, 0);
		wrong += rig_run() != (expected ? REFUSED : CALLED);
		hit += expected;
		wrong += rig_call() != CALLED;
	}
	tap_check(out, !wrong,
		  "breakpoints on each byte of the airlock and the landing: %u are hit, and refused (%u wrong)", hit,
		  wrong);
	for (slot = 0, wrong = 0; slot < 512; slot++) {
		rig_prepare(HYPERPS_GATE_ENTRY, NULL, 0);
		gate_attempt.dr[slot % 4] = rig.list + slot * 8;
		gate_attempt.dr7 = DR7_EXACT | DR7_ENABLE(slot % 4, 3);
		wrong += rig_run() != (slot == 2 ? REFUSED : CALLED);
	}
	tap_check(out, !wrong, "watchpoints on each slot of the list: slot 2 is refused (%u wrong)", wrong);
	tap_check(out, break_on_each(vmfunc, vmfunc + 1, 1, 0, &tried) == 1 && gate_attempt.vector == X86_TRAP_DB,
		  "positive control: a breakpoint on the host's own VMFUNC (exception %lld)", gate_attempt.vector);
	tried = 0;
	wrong = break_on_each(MONITOR_LINEAR, MONITOR_LINEAR + MONITOR_CODE, 1, 0, &tried);
	tap_check(out, !wrong && tried, "breakpoints on %u bytes of the monitor's code: none has any effect (%u wrong)",
		  tried, wrong);
	tried = 0;
	wrong = break_on_each(MONITOR_LINEAR, MONITOR_LINEAR + size, 8, 3, &tried);
	tap_check(out, !wrong && tried, "watchpoints on all %llu KiB of the monitor's memory: none has (%u wrong)",
		  (u64)tried * 8 / 1024, wrong);
	tap_check(out, rig_call() == CALLED, "the gate works as before");
}

static void send_to_self(void)
{
	apic->icr_write(APIC_DEST_SELF | APIC_DM_FIXED | RESCHEDULE_VECTOR, 0);
}

/* The APIC's timer, whatever mode Linux uses it in. step: how far away; the next ones are some instructions further. */
static void arm_timer(unsigned int step)
{
	unsigned int i;

	if (local_apic_read(APIC_LVTT) & APIC_LVT_TIMER_TSCDEADLINE) {
		wrmsrq(MSR_IA32_TSC_DEADLINE, rdtsc() + step);
		return;
	}
	/* It counts in units of 16 or so. */
	local_apic_write(APIC_TMICT, 1 + step / 16);
	for (i = 0; i < 16 - step % 16; i++)
		asm volatile("nop");
}

/* Whether the way in has eaten the interrupt: the APIC waits for its end all the same. */
static bool is_lost(void)
{
	bool in_service = local_apic_read(APIC_ISR + RESCHEDULE_VECTOR / 32 * 0x10) & BIT(RESCHEDULE_VECTOR % 32);

	if (in_service)
		local_apic_eoi();
	return in_service;
}

struct interrupts {
	enum outcome sti, sti_load_ss, before;
	unsigned int counts[OUTCOMES], lost[OUTCOMES], lost_first;
};

/*
 * While all other CPUs stand still, and with a priority that lets only the test's own interrupts through: one that is
 * lost must be nobody's.
 */
static int with_interrupts(void *data)
{
	static const u8 sti[] = { 0xfb }, sti_load_ss[] = { 0xfb, 0x41, 0x8e, 0xd0 }, sti_nop[] = { 0xfb, 0x90 };
	u32 priority = local_apic_read(APIC_TASKPRI), timer = local_apic_read(APIC_LVTT);
	struct interrupts *result = data;
	enum outcome outcome;
	unsigned int i;

	local_apic_write(APIC_TASKPRI, OWN_PRIORITY);
	rig_prepare(HYPERPS_GATE_ENTRY, sti, sizeof(sti));
	send_to_self();
	result->sti = rig_run();
	result->lost_first += is_lost();
	rig_prepare(HYPERPS_GATE_ENTRY, sti_load_ss, sizeof(sti_load_ss));
	gate_attempt.registers[R8] = __KERNEL_DS;
	send_to_self();
	result->sti_load_ss = rig_run();
	result->lost_first += is_lost();
	rig_prepare(HYPERPS_GATE_ENTRY, sti_nop, sizeof(sti_nop));
	send_to_self();
	result->before = rig_run();
	result->lost_first += is_lost();
	local_apic_write(APIC_LVTT, (timer & ~APIC_VECTOR_MASK) | RESCHEDULE_VECTOR);
	for (i = 0; i < INTERRUPTED; i++) {
		rig_prepare(HYPERPS_GATE_ENTRY, NULL, 0);
		gate_attempt.flags |= X86_EFLAGS_IF;
		arm_timer(i % SWEEP);
		outcome = rig_run();
		result->counts[outcome]++;
		result->lost[outcome] += is_lost();
		/* What has not arrived yet does so here. */
		local_irq_enable();
		ndelay(AFTER_NANOSECONDS);
		local_irq_disable();
		result->lost[CALLED] += is_lost();
	}
	local_apic_write(APIC_LVTT, timer);
	local_apic_write(APIC_TASKPRI, priority);
	arm_timer(100000);
	return 0;
}

/* An interrupt that is due right behind the VMFUNC; one before it; and one at each instruction on the way. */
static void attack_interrupts(struct seq_file *out)
{
	struct interrupts got = { .sti = WRONG };
	int error = stop_machine(with_interrupts, &got, cpumask_of(raw_smp_processor_id()));

	expect(out, got.sti, BIT(PASSED) | BIT(REFUSED), "STI before the VMFUNC with an interrupt pending");
	expect(out, got.sti_load_ss, BIT(PASSED) | BIT(CALLED) | BIT(REFUSED),
	       "STI and a load of SS with an interrupt pending");
	expect(out, got.before, BIT(CALLED), "an interrupt before the VMFUNC");
	tap_check(out, !error && got.counts[CALLED] && !got.counts[WRONG],
		  "with interrupts on and a timer: %u called, %u interrupted, %u refused, %u wrong", got.counts[CALLED],
		  got.counts[PASSED], got.counts[REFUSED], got.counts[WRONG]);
	seq_printf(out, "# interrupts lost: %u of 3, then %u in calls, %u interrupted, %u refused\n", got.lost_first,
		   got.lost[CALLED], got.lost[PASSED], got.lost[REFUSED]);
}

void attack_registers(struct seq_file *out)
{
	attack_flags(out);
	attack_breakpoints(out);
	attack_each_address(out);
	attack_interrupts(out);
}

/* TR's descriptor in a table of descriptors of our own, then LTR. */
static void load_tr(struct desc_struct *gdt, u64 base)
{
	struct desc_ptr saved, own = { .size = GDT_SIZE - 1, .address = (unsigned long)gdt };
	tss_desc tss;

	set_tssldt_descriptor(&tss, base, DESC_TSS, __KERNEL_TSS_LIMIT);
	memcpy(&gdt[GDT_ENTRY_TSS], &tss, sizeof(tss));
	native_store_gdt(&saved);
	native_load_gdt(&own);
	asm volatile("ltr %w0" ::"q"(GDT_ENTRY_TSS * 8));
	native_load_gdt(&saved);
}

/* What IDTR, GDTR or TR points at is mapped to a good table in the host view, and means something else further in. */
static void attack_descriptors(struct seq_file *out, u64 linear, const char *name)
{
	struct desc_struct *gdt = (void *)get_zeroed_page(GFP_KERNEL);
	void *own = (void *)get_zeroed_page(GFP_KERNEL);
	/* Entered at the fill, behind it (nothing is open), and where an exception follows at once. */
	static const unsigned int offsets[] = { HYPERPS_GATE_ENTRY, HYPERPS_GATE_ENTRY + 11, LANDING };
	static const u64 kinds[] = { 0, X86_EFLAGS_TF };
	u64 page = linear - linear % PAGE_SIZE;
	unsigned long flags;
	struct desc_ptr kernel_gdt;
	char what[80];
	size_t i, j;

	if (!gdt || !own || (page != rig.gate && !rig_map(page, own, 0)))
		return;
	native_store_gdt(&kernel_gdt);
	memcpy(gdt, (void *)kernel_gdt.address, GDT_SIZE);
	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		for (j = 0; j < ARRAY_SIZE(kinds); j++) {
			u32 allowed = !i && !j ? BIT(CALLED) : BIT(REFUSED);
			void *at = (page == rig.gate ? (void *)rig.page : own) + linear % PAGE_SIZE;

			rig_prepare(offsets[i], NULL, 0);
			memcpy(at, rig.idt, 32 * sizeof(gate_desc));
			gate_attempt.flags |= kinds[j];
			gate_attempt.idtr = (struct desc_ptr){ 32 * sizeof(gate_desc) - 1, linear };
			snprintf(what, sizeof(what), "IDTR at %s, entry at %#x%s", name, offsets[i], j ? ", TF" : "");
			expect(out, rig_run(), allowed, what);

			rig_prepare(offsets[i], NULL, 0);
			memcpy(at, gdt, GDT_SIZE);
			gate_attempt.flags |= kinds[j];
			gate_attempt.gdtr = (struct desc_ptr){ GDT_SIZE - 1, linear };
			snprintf(what, sizeof(what), "GDTR at %s, entry at %#x%s", name, offsets[i], j ? ", TF" : "");
			expect(out, rig_run(), allowed, what);

			rig_prepare(offsets[i], NULL, 0);
			gate_attempt.flags |= kinds[j];
			local_irq_save(flags);
			memcpy(at, &get_cpu_entry_area(smp_processor_id())->tss, 0x68);
			load_tr(gdt, linear);
			snprintf(what, sizeof(what), "TR at %s, entry at %#x%s", name, offsets[i], j ? ", TF" : "");
			{
				enum outcome outcome = rig_run();

				load_tr(gdt, (u64)&get_cpu_entry_area(smp_processor_id())->tss.x86_tss);
				local_irq_restore(flags);
				expect(out, outcome, allowed, what);
			}
		}
	}
}

static void attack_cr3(struct seq_file *out)
{
	u64 *other = (u64 *)__get_free_pages(GFP_KERNEL | GFP_DMA32 | __GFP_ZERO, 1);
	u64 cr3 = rig.cr3;
	const u64 values[] = { rig.top_address,      rig.top_address | 7,    rig.top_address | 0xfff,
			       cr3 | BIT_ULL(63),    rig.top_address | 0x18, rig.top_address | BIT_ULL(63) | 7,
			       rig.top_address | 0x6 };
	bool pcid = __read_cr4() & X86_CR4_PCIDE;
	char what[64];
	size_t i;

	if (!other)
		return;
	for (i = 0; i < ARRAY_SIZE(values); i++) {
		if (!pcid && values[i] >> 63)
			continue;
		rig_prepare(HYPERPS_GATE_ENTRY, NULL, 0);
		gate_attempt.cr3 = values[i];
		snprintf(what, sizeof(what), "CR3 %#llx instead of %#llx", values[i], cr3);
		expect(out, rig_run(), BIT(CALLED), what);
	}
	/* The same tables, but in a page that is not the gate's. */
	memcpy(other, rig.top, PAGE_SIZE);
	for (i = 0; i < 3; i++) {
		if (!pcid && i == 2)
			continue;
		rig_prepare(HYPERPS_GATE_ENTRY, NULL, 0);
		gate_attempt.cr3 = virt_to_phys(other) | (i ? cr3 & 0xfff : 0) | (i == 2 ? BIT_ULL(63) : 0);
		snprintf(what, sizeof(what), "another page of the host's in CR3 (%#llx)", gate_attempt.cr3);
		expect(out, rig_run(), BIT(REFUSED), what);
	}
}

/* A change of CR4.PGE does. */
void flush_global(void)
{
	unsigned long flags, cr4;

	local_irq_save(flags);
	cr4 = __read_cr4();
	asm volatile("mov %0, %%cr4; mov %1, %%cr4" ::"r"(cr4 ^ X86_CR4_PGE), "r"(cr4) : "memory");
	local_irq_restore(flags);
}

/* Global entries for the gate page and the list, used right before. */
static void attack_tlb(struct seq_file *out)
{
	void *fake = (void *)get_zeroed_page(GFP_KERNEL);
	/* mov (%r8), %r10 */
	static const u8 touch[] = { 0x4d, 0x8b, 0x10 };

	if (!fake || !rig_map(rig.gate, rig.page, _PAGE_GLOBAL) || !rig_map(rig.list, fake, _PAGE_GLOBAL))
		return;
	rig_prepare(HYPERPS_GATE_ENTRY, touch, sizeof(touch));
	gate_attempt.registers[R8] = rig.list + 16;
	expect(out, rig_run(), BIT(CALLED), "global TLB entries for the gate page and the list");
	tap_check(out, !memchr_inv(fake, 0, PAGE_SIZE), "nothing was stored in the page at the list's address");
	if (__read_cr4() & X86_CR4_PCIDE) {
		rig_prepare(HYPERPS_GATE_ENTRY, touch, sizeof(touch));
		gate_attempt.registers[R8] = rig.list + 16;
		gate_attempt.cr3 = rig.cr3 | BIT_ULL(63);
		expect(out, rig_run(), BIT(CALLED), "and with a CR3 that does not flush");
	}
	rig_map(rig.gate, rig.page, 0);
	flush_global();
}

void attack_tables(struct seq_file *out)
{
	attack_descriptors(out, rig.list, "the list");
	attack_descriptors(out, rig.gate, "the gate page");
	if (!rig.top[MONITOR_LINEAR >> 39 & 511]) {
		attack_descriptors(out, MONITOR_LINEAR, "the monitor's memory");
		attack_descriptors(out, MONITOR_LINEAR + 0x1000, "the monitor's second page");
	} else {
		tap_check(out, true, "tables at the monitor's addresses # SKIP Linux uses them itself");
	}
}

void attack_stale(struct seq_file *out)
{
	attack_cr3(out);
	attack_tlb(out);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * A hostile kernel at the gate of the CPU that reads the file. First the ways in: VMFUNC with any leaf and index, and the
 * gate page entered at each of its bytes. Others are in gate_attack_*.c.
 */
#include <linux/cpu.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/irqflags.h>
#include <linux/random.h>
#include <linux/smp.h>
#include <asm/msr.h>
#include <asm/segment.h>
#include <asm/special_insns.h>
#include <asm/trapnr.h>

#include "calls.h"
#include "gate_attack.h"
#include "tap.h"

#define LEAVES 64
#define INDICES 513
#define CODE_FIRST (HYPERPS_GATE_ENTRY - 8)
#define CODE_LAST (LANDING + 8)
#define SLOTS 512
#define TRIES 1000
#define NOP 0x90
#define EDGE_VECTORS 2 /* on the first page of a descriptor table: divide error and debug exception */

extern const u8 gate_attempt_vmfunc[];

TAP_PARTS;

/* VMFUNC from the module's text, with its own CR3 and with the gate's. */
static unsigned int leaves_open(void)
{
	unsigned int leaf, index, open = 0;
	unsigned long flags;

	for (leaf = 1; leaf < LEAVES; leaf++) {
		for (index = 0; index < 8; index++) {
			local_irq_save(flags);
			open += try_vmfunc(leaf, index) != X86_TRAP_UD;
			open += try_vmfunc(leaf, 508 + index) != X86_TRAP_UD;
			local_irq_restore(flags);
		}
	}
	return open;
}

static unsigned int open_with_gate_cr3(void)
{
	u64 at = (u64)gate_attempt_vmfunc;
	unsigned int i, open = 0;

	for (i = 1; i <= INDICES; i++) {
		rig_prepare(HYPERPS_GATE_ENTRY, NULL, 0);
		gate_attempt.rip = at;
		gate_attempt.registers[RCX] = i;
		rig_run();
		open += gate_attempt.vector != X86_TRAP_UD || gate_attempt.fault_rip != at;
	}
	return open;
}

void attack_entries(struct seq_file *out)
{
	unsigned long flags;
	unsigned int open;
	int on, off;

	local_irq_save(flags);
	on = try_vmfunc(0, 0);
	local_irq_restore(flags);
	tap_check(out, on == VECTOR_NONE, "VMFUNC to the view that the host is in does nothing (exception %d)", on);
	open = indices_open(1, INDICES);
	tap_check(out, !open, "VMFUNC with indices 1 to %d from another place is refused (%u not)", INDICES, open);
	open = leaves_open();
	tap_check(out, !open, "VMFUNC with leaves 1 to %d is refused (%u not)", LEAVES - 1, open);
	open = open_with_gate_cr3();
	tap_check(out, !open, "with the gate's CR3, too, indices 1 to %d (%u not)", INDICES, open);
	tap_check(out, rig_call() == CALLED, "the gate works as before");
	gate_set(0, 0);
	local_irq_save(flags);
	off = try_vmfunc(0, 0);
	local_irq_restore(flags);
	open = indices_open(0, INDICES) + leaves_open() + open_with_gate_cr3();
	tap_check(out, off == X86_TRAP_UD && !open, "with the gate off VMFUNC is refused always (%u not)", open);
	tap_check(out, !rig_on() && rig_call() == CALLED, "the gate works when it is on again");
}

/* One way in at an offset, with each register at a slot of the list that VMFUNC does not need. */
static enum outcome enter_at(unsigned int offset, u64 pointer)
{
	int i;

	rig_prepare(offset, NULL, 0);
	for (i = 0; i < REGISTERS; i++)
		if (i != R9)
			gate_attempt.registers[i] = pointer;
	/* Their lower halves are the leaf and the index. */
	gate_attempt.registers[RAX] = rig.list;
	gate_attempt.registers[RCX] = rig.list + 1;
	gate_attempt.rsp = pointer;
	return rig_run();
}

/* The way in is the fill's first byte, and its second: without the prefix it stores the same. */
static bool is_entry(unsigned int offset)
{
	return offset == HYPERPS_GATE_ENTRY || offset == HYPERPS_GATE_ENTRY + 1;
}

static bool expected_at(struct seq_file *out, unsigned int offset, u64 pointer, enum outcome *outcome)
{
	*outcome = enter_at(offset, pointer);
	if (*outcome == (is_entry(offset) ? CALLED : REFUSED))
		return true;
	seq_printf(out, "# at %#x, pointer %#llx: outcome %d, vector %lld, RIP %#llx, status %lld\n", offset, pointer,
		   *outcome, gate_attempt.vector, gate_attempt.fault_rip - rig.gate, gate_attempt.status);
	return false;
}

void attack_offsets(struct seq_file *out)
{
	unsigned int offset, slot, failed = 0, open = 0, called = 0, tried = 0;
	enum outcome outcome;

	for (offset = 0; offset < PAGE_SIZE; offset++) {
		failed += !expected_at(out, offset, rig.list + 16, &outcome);
		called += outcome == CALLED;
		open += indices_open(2, 4);
	}
	tap_check(out, called == 2, "entered at the fill, the same code calls the monitor (%u times)", called);
	tap_check(out, !failed && !open,
		  "the gate page entered at each other byte is refused (%u not, %u indices open)", failed, open);
	failed = open = 0;
	for (offset = CODE_FIRST; offset <= CODE_LAST; offset++) {
		failed += !expected_at(out, offset, rig.list + (u64)(get_random_u32() % SLOTS) * 8, &outcome);
		open += indices_open(1, SLOTS - 1);
	}
	tap_check(out, !failed && !open, "after each of these near its code, no index is open (%u, %u)", failed, open);
	failed = open = 0;
	for (slot = 0; slot < SLOTS; slot++) {
		for (offset = CODE_FIRST; offset <= CODE_LAST; offset++) {
			failed += !expected_at(out, offset, rig.list + (u64)slot * 8, &outcome);
			tried++;
		}
		open += indices_open(2, 2) + indices_open(slot ? slot : 1, slot ? slot : 1);
	}
	tap_check(out, !failed && !open,
		  "with all registers at each slot of the list (%u tries): %u not, %u indices open", tried, failed,
		  open);
	failed = open = 0;
	for (tried = 0; tried < 2000; tried++) {
		u64 pointer = rig.list + get_random_u32() % PAGE_SIZE;

		offset = CODE_FIRST + get_random_u32() % (CODE_LAST + 1 - CODE_FIRST);
		failed += !expected_at(out, offset, tried & 1 ? pointer : get_random_u64(), &outcome);
	}
	open = indices_open(1, SLOTS - 1);
	tap_check(out, !failed && !open, "with registers at random (%u tries): %u not, %u indices open", tried, failed,
		  open);
	tap_check(out, rig_call() == CALLED, "the gate works as before");
}

static void set_on_cpu(void *error)
{
	*(long *)error = rig_on();
}

static void vmfunc_on_cpu(void *vector)
{
	*(int *)vector = try_vmfunc(0, 0);
}

/* The CPU that comes back has no gate. No module that switches it on again may be loaded. */
static void attack_hotplug(struct seq_file *out)
{
	unsigned int cpu = cpumask_last(cpu_online_mask);
	int before = 0, after = 0, error;
	long set = -EINVAL;

	if (!cpu) {
		tap_check(out, true, "CPU hotplug # SKIP there is one CPU only");
		return;
	}
	smp_call_function_single(cpu, set_on_cpu, &set, 1);
	smp_call_function_single(cpu, vmfunc_on_cpu, &before, 1);
	error = remove_cpu(cpu);
	if (!error)
		error = start_cpu(cpu);
	smp_call_function_single(cpu, vmfunc_on_cpu, &after, 1);
	tap_check(out, !set && before == VECTOR_NONE && !error && after == X86_TRAP_UD,
		  "CPU %u has the gate, and not when it was offline in between (%ld, %d; exceptions %d, %d)", cpu, set,
		  error, before, after);
	smp_call_function_single(cpu, set_on_cpu, &set, 1);
	smp_call_function_single(cpu, vmfunc_on_cpu, &before, 1);
	tap_check(out, !set && before == VECTOR_NONE, "it can have it again (%ld)", set);
}

/* A NOP at the last byte below 4 GiB, outside 64-bit mode and single-stepped: the exception comes where RIP wraps. */
static void step_over_edge(u64 idt)
{
	rig_prepare(HYPERPS_GATE_ENTRY, NULL, 0);
	rig.page[PAGE_SIZE - 1] = NOP;
	gate_attempt.rip = U32_MAX;
	gate_attempt.cs = __KERNEL32_CS;
	gate_attempt.flags |= X86_EFLAGS_TF;
	gate_attempt.idtr.address = idt;
	rig_run();
}

static void attack_edge(struct seq_file *out)
{
	u64 tables = rig.gate + PAGE_SIZE, idt = tables + PAGE_SIZE - EDGE_VECTORS * sizeof(gate_desc);
	u64 monitor = read_word(HYPERPS_OBJECT_STATUS, offsetof(struct hyperps_status, memory_base));
	u8 *first = (u8 *)get_zeroed_page(GFP_KERNEL), *second = (u8 *)get_zeroed_page(GFP_KERNEL);

	if (!first || !second || !rig_map(U32_MAX & PAGE_MASK, rig.page, 0) || !rig_map(tables, first, 0) ||
	    !rig_map(tables + PAGE_SIZE, second, 0)) {
		tap_check(out, false, "pages at the edge of 4 GiB");
		return;
	}
	memcpy(first + PAGE_SIZE - EDGE_VECTORS * sizeof(gate_desc), rig.idt, EDGE_VECTORS * sizeof(gate_desc));
	memcpy(second, rig.idt + EDGE_VECTORS, PAGE_SIZE - EDGE_VECTORS * sizeof(gate_desc));
	step_over_edge(idt);
	tap_check(out, gate_attempt.vector == X86_TRAP_DB && !(u32)gate_attempt.fault_rip,
		  "positive control: a step past 4 GiB in compatibility mode (vector %lld, RIP %#llx)",
		  gate_attempt.vector, gate_attempt.fault_rip);
	rig_map(tables, phys_to_virt(monitor), 0);
	step_over_edge(idt);
	tap_check(out, gate_attempt.vector == X86_TRAP_GP && !gate_attempt.fault_rip,
		  "the same with the handler's descriptor in the monitor's memory (vector %lld, RIP %#llx)",
		  gate_attempt.vector, gate_attempt.fault_rip);
	rig_map(tables, first, 0);
	rig_map(U32_MAX & PAGE_MASK, rig.before, 0);
	tap_check(out, rig_call() == CALLED, "the gate works as before");
}

static void timed(struct seq_file *out, const char *name, void (*attack)(struct seq_file *out))
{
	u64 start = rdtsc(), refused = read_word(HYPERPS_OBJECT_STATUS, offsetof(struct hyperps_status, refused_gate));

	attack(out);
	seq_printf(out, "# %s: %llu million ticks, %llu refused at the gate\n", name, (rdtsc() - start) / 1000000,
		   read_word(HYPERPS_OBJECT_STATUS, offsetof(struct hyperps_status, refused_gate)) - refused);
}

static unsigned int not_refused(unsigned int offset, const u8 *before, unsigned int count, u64 cr3)
{
	rig_prepare(offset, before, count);
	gate_attempt.registers[R8] = rig.list + 16;
	gate_attempt.cr3 = cr3;
	return rig_run() != REFUSED;
}

/* Where the monitor offers no gate, there is no VMFUNC, and no way to ask for it. */
static void attack_closed(struct seq_file *out)
{
	/* mov (%r8), %r10: fills the TLB */
	static const u8 touch[] = { 0x4d, 0x8b, 0x10 };
	unsigned int i, open;

	rig_prepare(HYPERPS_GATE_ENTRY, NULL, 0);
	memcpy(rig.page + HYPERPS_GATE_ENTRY - VMFUNC_BYTES, "\x0f\x1f", 2); /* NOP of three bytes */
	tap_check(out, rig_run() == PASSED,
		  "positive control: another instruction in the VMFUNC's place, with the attacker's CR3, is executed");
	if (part("entries")) {
		open = indices_open(0, INDICES) + leaves_open() + open_with_gate_cr3();
		tap_check(out, !open, "VMFUNC with leaves 0 to %d and indices 0 to %d raises #UD (%u not)", LEAVES - 1,
			  INDICES, open);
	}
	if (part("offsets")) {
		for (i = open = 0; i < PAGE_SIZE; i++)
			open += not_refused(i, NULL, 0, rig.cr3);
		tap_check(out, !open, "VMFUNC before each byte of the gate page raises #UD (%u not)", open);
		for (i = open = 0; i < TRIES; i++)
			open += gate_set(i ? get_random_u64() : rig.gate, i ? get_random_u64() : rig.top_address) !=
				HYPERPS_ERROR_PERMISSION;
		tap_check(out, !open, "GATE_SET is refused (%u times not in %d)", open, TRIES);
	}
	if (part("stale") && rig_map(rig.gate, rig.page, _PAGE_GLOBAL) && rig_map(rig.list, rig.stack, _PAGE_GLOBAL)) {
		open = not_refused(HYPERPS_GATE_ENTRY, touch, sizeof(touch), rig.cr3);
		if (__read_cr4() & X86_CR4_PCIDE)
			open += not_refused(HYPERPS_GATE_ENTRY, touch, sizeof(touch), rig.cr3 | BIT_ULL(63));
		tap_check(out, !open, "with global TLB entries and a CR3 that does not flush, too (%u not)", open);
		flush_global();
	}
}

static const struct {
	const char *name;
	void (*run)(struct seq_file *out);
} attacks[] = {
	{ "edge", attack_edge },           { "entries", attack_entries }, { "offsets", attack_offsets },
	{ "registers", attack_registers }, { "tables", attack_tables },   { "stale", attack_stale },
	{ "modes", attack_modes },         { "set", attack_set },         { "latched", attack_latched },
	{ "hotplug", attack_hotplug },
};

static int show_attack(struct seq_file *out, void *unused)
{
	long error = rig_start();
	size_t i;

	if (error == HYPERPS_ERROR_PERMISSION) {
		attack_closed(out);
		return 0;
	}
	tap_check(out, !error, "a gate of the attacker's own is on (%ld)", error);
	if (error)
		return 0;
	tap_check(out, rig_call() == CALLED,
		  "positive control: a call through it (vector %lld, RIP %#llx, status %lld)", gate_attempt.vector,
		  gate_attempt.fault_rip, gate_attempt.status);
	for (i = 0; i < ARRAY_SIZE(attacks); i++)
		if (part(attacks[i].name))
			timed(out, attacks[i].name, attacks[i].run);
	rig_stop();
	return 0;
}

TAP_MODULE("gate_attack", show_attack, "Attacks the gate");

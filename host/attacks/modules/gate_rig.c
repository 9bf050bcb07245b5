// SPDX-License-Identifier: GPL-2.0
/* The attacker's own gate: gate_attack.h. */
#include <linux/build_bug.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/string.h>
#include <asm/desc.h>
#include <asm/io.h>
#include <asm/processor.h>
#include <asm/special_insns.h>
#include <asm/trapnr.h>

#include "calls.h"
#include "gate_attack.h"
#include "tap.h"

#define TRIES 8192
#define TABLE_BITS (_PAGE_PRESENT | _PAGE_RW | _PAGE_ACCESSED)
#define LEAF_BITS (TABLE_BITS | _PAGE_DIRTY)
#define TABLE_ADDRESS 0x000ffffffffff000ULL
#define MONITOR_SLOT 480
#define INT3 0xcc
#define DR7_NONE 0x400

struct gate_attempt gate_attempt;
struct gate_rig rig;

extern const struct {
	u64 vector;
	void *handler;
} gate_attempt_stubs[];
extern const u8 gate_attempt_returned[];

static u64 vmfunc_linear;

static_assert(offsetof(struct gate_attempt, rip) == 120);
static_assert(offsetof(struct gate_attempt, cr3) == 160);
static_assert(offsetof(struct gate_attempt, dr7) == 200);
static_assert(offsetof(struct gate_attempt, idtr) == 208);
static_assert(offsetof(struct gate_attempt, gdtr) == 218);
static_assert(offsetof(struct gate_attempt, done) == 232);
static_assert(offsetof(struct gate_attempt, status) == 272);

int try_vmfunc(u32 leaf, u64 index)
{
	return fault_of("vmfunc", leaf, "c"(index));
}

unsigned int indices_open(unsigned int first, unsigned int last)
{
	unsigned int i, open = 0;
	unsigned long flags;

	for (i = first; i <= last; i++) {
		local_irq_save(flags);
		open += try_vmfunc(0, i) != X86_TRAP_UD;
		local_irq_restore(flags);
	}
	return open;
}

long gate_set(u64 linear, u64 top)
{
	u64 cr3;
	long error = call(HYPERPS_CALL_GATE_SET, linear, top, 0, 0, &cr3);

	if (linear && !error)
		rig.cr3 = cr3;
	return error;
}

long rig_on(void)
{
	return gate_set(rig.gate, rig.top_address);
}

static void *new_page(void)
{
	return (void *)get_zeroed_page(GFP_KERNEL);
}

bool rig_map(u64 linear, const void *page, u64 flags)
{
	u64 *table = rig.top;
	int shift;

	for (shift = 39; shift > PAGE_SHIFT; shift -= 9) {
		u64 *entry = &table[linear >> shift & 511];

		if (!*entry) {
			void *next = new_page();

			if (!next)
				return false;
			*entry = virt_to_phys(next) | TABLE_BITS;
		}
		table = phys_to_virt(*entry & TABLE_ADDRESS);
	}
	table[linear >> PAGE_SHIFT & 511] = virt_to_phys((void *)page) | LEAF_BITS | flags;
	return true;
}

/*
 * The table's address is a part of the airlock's code. Entered in the middle of it, some addresses compute a value below
 * 4 GiB that then goes to CR3, which the attacker can do on its own: the monitor refuses what follows, but no kernel is
 * there any more to see it. So the address must have no byte that, as an opcode, writes all of EAX: its second byte is
 * 9 in the lower half there, and the last one has 0xf8 for its operands.
 */
static bool is_tame(u64 address)
{
	u8 second = (address >> 8 & 0xf0) | 9, third = address >> 16, fourth = address >> 24;

	if (second != 0x39 && second != 0x79 && second != 0x99 && second != 0xa9 && second != 0xf9)
		return false;
	switch (third) {
	case 0x38 ... 0x3d:
	case 0x70 ... 0x7f:
	case 0x84 ... 0x85:
	case 0x90:
	case 0xa8 ... 0xa9:
	case 0xf5:
	case 0xf8 ... 0xf9:
	case 0xfc ... 0xfd:
		return (fourth & 7) != 1 || fourth == 0x39;
	default:
		return false;
	}
}

/* A top-level table whose address the monitor accepts, with this kernel's half and nothing in the slot for the gate. */
static long find_top(void)
{
	static void *refused[TRIES];
	int i, tries = 0;
	long error = HYPERPS_ERROR_AGAIN;

	while (tries < TRIES && error == HYPERPS_ERROR_AGAIN) {
		rig.top = (u64 *)__get_free_pages(GFP_KERNEL | GFP_DMA32 | __GFP_ZERO, 1);
		if (!rig.top)
			return -ENOMEM;
		memcpy(rig.top + 256, (u64 *)__va(read_cr3_pa()) + 256, 256 * sizeof(u64));
		for (i = 257; i < 511 && (rig.top[i] || i == MONITOR_SLOT); i++)
			;
		rig.top_address = virt_to_phys(rig.top);
		/* The lower half of the list's address is 0, so that RAX can hold it although EAX is the leaf. */
		rig.list = (0xffffULL << 48 | (u64)i << 39) + (1ULL << 32);
		rig.gate = rig.list + LIST_TO_GATE;
		error = is_tame(rig.top_address) ? rig_on() : HYPERPS_ERROR_AGAIN;
		rig.cr3 = error ? rig.top_address : rig.cr3;
		if (error && error != HYPERPS_ERROR_PERMISSION)
			refused[tries++] = rig.top;
	}
	while (tries)
		free_pages((unsigned long)refused[--tries], 1);
	return error;
}

long rig_start(void)
{
	struct desc_ptr idtr;
	long error = find_top();
	int i;

	if (error && error != HYPERPS_ERROR_PERMISSION)
		return error;
	rig.page = new_page();
	rig.before = new_page();
	rig.stack = new_page();
	rig.idt = new_page();
	if (!rig.page || !rig.before || !rig.stack || !rig.idt || !rig_map(rig.gate, rig.page, 0) ||
	    !rig_map(rig.gate - PAGE_SIZE, rig.before, 0))
		return -ENOMEM;
	store_idt(&idtr);
	memcpy(rig.idt, (void *)idtr.address, min_t(size_t, idtr.size + 1, PAGE_SIZE));
	/* On the stack of double faults: whatever RSP is at the time. */
	for (i = 0; gate_attempt_stubs[i].vector; i++)
		pack_gate(&rig.idt[gate_attempt_stubs[i].vector], GATE_INTERRUPT,
			  (unsigned long)gate_attempt_stubs[i].handler, 0, IST_INDEX_DF + 1, __KERNEL_CS);
	memset(rig.before, INT3, PAGE_SIZE);
	return error;
}

/* The tables stay: nobody may know when their last use by the CPU is over, and it is a test. */
void rig_stop(void)
{
	gate_set(0, 0);
}

static void put_code(unsigned int offset, const u8 *bytes, unsigned int count, int displacement)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		int at = (int)(offset + i) + displacement;

		if (at < 0)
			rig.before[PAGE_SIZE + at] = bytes[i];
		else
			rig.page[at] = bytes[i];
	}
}

void rig_prepare(unsigned int offset, const u8 *before, unsigned int count)
{
	static const u8 vmfunc[VMFUNC_BYTES] = { 0x0f, 0x01, 0xd4 }, retry[] = { 0x31, 0xc0, 0x8d, 0x48, 0x01 };
	static const u8 jump[] = { 0xff, 0x25, 0, 0, 0, 0 };
	u64 returned = (u64)gate_attempt_returned;
	struct gate_attempt *a = &gate_attempt;

	/* Tens of thousands in a row, each of which takes long in another hypervisor. */
	cond_resched();
	memset(rig.page, INT3, PAGE_SIZE);
	memset(rig.before + PAGE_SIZE - 16, INT3, 16);
	put_code(HYPERPS_GATE_RETURN, jump, sizeof(jump), 0);
	put_code(HYPERPS_GATE_RETURN + sizeof(jump), (u8 *)&returned, sizeof(returned), 0);
	if (offset == HYPERPS_GATE_ENTRY)
		put_code(HYPERPS_GATE_RETRY, retry, sizeof(retry), 0);
	put_code(offset, vmfunc, VMFUNC_BYTES, -VMFUNC_BYTES);
	put_code(offset, before, count, -VMFUNC_BYTES - (int)count);

	memset(a, 0, sizeof(*a));
	vmfunc_linear = rig.gate + offset - VMFUNC_BYTES;
	a->registers[RCX] = 1;
	a->registers[R9] = HYPERPS_CALL_IDENTIFY;
	a->registers[RBP] = (u64)rig.stack + PAGE_SIZE;
	a->rip = vmfunc_linear - count;
	a->cs = __KERNEL_CS;
	a->flags = X86_EFLAGS_FIXED;
	a->rsp = (u64)rig.stack + PAGE_SIZE;
	a->ss = __KERNEL_DS;
	a->cr3 = rig.cr3;
	a->dr7 = DR7_NONE;
	a->idtr.address = (unsigned long)rig.idt;
	a->idtr.size = PAGE_SIZE - 1;
	native_store_gdt(&a->gdtr);
}

enum outcome rig_run(void)
{
	const struct gate_attempt *a = &gate_attempt;

	gate_attempt_run();
	if (a->vector == CAME_BACK)
		return !a->status && a->result == HYPERPS_SIGNATURE ? CALLED : WRONG;
	if (a->vector == X86_TRAP_UD && (a->fault_rip == vmfunc_linear || a->fault_rip - rig.gate < PAGE_SIZE))
		return REFUSED;
	/* The INT3 behind the VMFUNC, or where an interrupt found the CPU. */
	if (a->vector == X86_TRAP_BP && a->fault_rip - 1 - rig.gate < PAGE_SIZE)
		return PASSED;
	return WRONG;
}

enum outcome rig_call(void)
{
	rig_prepare(HYPERPS_GATE_ENTRY, NULL, 0);
	return rig_run();
}

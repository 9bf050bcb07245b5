// SPDX-License-Identifier: GPL-2.0
/*
 * What an attacker in the host's ring 0 does to reach memory that is not the host's: it writes a page-table entry of
 * its own for the frame, then reads, writes and executes through it. The same code runs on a page of the host's own
 * first, where it must succeed.
 */
#include <linux/kdebug.h>
#include <linux/mm.h>
#include <linux/preempt.h>
#include <linux/vmalloc.h>
#include <asm/nospec-branch.h>
#include <asm/pgtable.h>
#include <asm/trapnr.h>

#include "tap.h"

static unsigned long base;
module_param(base, ulong, 0400);
MODULE_PARM_DESC(base, "physical address of the protected memory, in bytes");
static unsigned long size;
module_param(size, ulong, 0400);
MODULE_PARM_DESC(size, "its size in bytes; 0 runs the positive control only");
static unsigned int frames = 32;
module_param(frames, uint, 0400);
MODULE_PARM_DESC(frames, "how many frames to try, evenly spread");

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_EXECUTE, ACCESSES };
static const char *const access_names[ACCESSES] = { "read", "write", "execute" };

/* mov $-1, %eax; ret: what fault_of() gives when nothing faulted. */
static const u8 code[] = { 0xb8, 0xff, 0xff, 0xff, 0xff, 0xc3 };

static unsigned long execute_address;

/* A refused fetch faults at the address that was called: return to the caller with the vector in RAX. */
static int on_die(struct notifier_block *block, unsigned long event, void *data)
{
	struct die_args *arguments = data;
	struct pt_regs *regs = arguments->regs;

	if (event != DIE_GPF || user_mode(regs) || !execute_address || regs->ip != execute_address)
		return NOTIFY_DONE;
	regs->ip = *(unsigned long *)regs->sp;
	regs->sp += sizeof(unsigned long);
	regs->ax = arguments->trapnr;
	return NOTIFY_STOP;
}

static struct notifier_block die_block = { .notifier_call = on_die };

static int try_read(unsigned long address)
{
	return fault_of("movb (%1), %%al", 0, "d"(address));
}

/*
 * First a write that changes nothing, in case it succeeds. Only where it is refused, or on an own page, a plain store.
 */
static int try_write(unsigned long address, bool own)
{
	int vector = fault_of("lock orb $0, (%1)", 0, "d"(address));

	if (vector == VECTOR_NONE && !own)
		return vector;
	return fault_of("movb $0xb8, (%1)", 0, "d"(address));
}

static int try_execute(unsigned long address)
{
	int vector = 0;

	execute_address = address;
	barrier();
	asm volatile(ANNOTATE_RETPOLINE_SAFE "\n"
					     "call *%2\n"
		     : "+a"(vector), ASM_CALL_CONSTRAINT
		     : "d"(address)
		     : "memory", "cc");
	barrier();
	execute_address = 0;
	return vector;
}

/*
 * Map one frame at address with an entry of our own, and try all accesses. vectors[] gets what each raised. Executing
 * is tried only where reading was refused, or on an own page: elsewhere the bytes could be any code.
 */
static void try_frame(pte_t *entry, unsigned long address, unsigned long frame, bool own, int vectors[ACCESSES])
{
	pte_t saved;

	preempt_disable();
	saved = READ_ONCE(*entry);
	native_set_pte(entry, __pte(frame << PAGE_SHIFT | _PAGE_PRESENT | _PAGE_RW | _PAGE_ACCESSED | _PAGE_DIRTY));
	asm volatile("invlpg (%0)" ::"r"(address) : "memory");
	vectors[ACCESS_READ] = try_read(address);
	vectors[ACCESS_WRITE] = try_write(address, own);
	vectors[ACCESS_EXECUTE] = VECTOR_NONE;
	if (own || vectors[ACCESS_READ] != VECTOR_NONE)
		vectors[ACCESS_EXECUTE] = try_execute(address);
	native_set_pte(entry, saved);
	asm volatile("invlpg (%0)" ::"r"(address) : "memory");
	preempt_enable();
}

static void check_own_page(struct seq_file *out, pte_t *entry, unsigned long address)
{
	struct page *page = alloc_page(GFP_KERNEL);
	int vectors[ACCESSES], i;
	u8 *bytes;
	bool stored;

	if (!page)
		return;
	bytes = page_address(page);
	memcpy(bytes, code, sizeof(code));
	bytes[0] = 0x90; /* the store puts the first byte of the code in its place */
	try_frame(entry, address, page_to_pfn(page), true, vectors);
	stored = bytes[0] == code[0];
	__free_page(page);

	for (i = 0; i < ACCESSES; i++)
		tap_check(out, vectors[i] == VECTOR_NONE && (i != ACCESS_WRITE || stored),
			  "positive control: %s through the same code works on an own page (exception %d)",
			  access_names[i], vectors[i]);
}

static void check_protected(struct seq_file *out, pte_t *entry, unsigned long address)
{
	unsigned long first = base >> PAGE_SHIFT, count = size >> PAGE_SHIFT;
	unsigned long step = max(count / max(frames, 1U), 1UL), frame = 0, tried = 0, total = 0;
	unsigned long refused[ACCESSES] = { 0 };
	int vectors[ACCESSES], i;

	while (frame < count) {
		try_frame(entry, address, first + frame, false, vectors);
		tried++;
		for (i = 0; i < ACCESSES; i++) {
			/* Linux can recover from a page fault at a read or write, and says less about it. */
			if (vectors[i] == (i == ACCESS_EXECUTE ? X86_TRAP_GP : X86_TRAP_PF))
				refused[i]++;
			else
				seq_printf(out, "# frame %#lx: %s gave exception %d\n", first + frame, access_names[i],
					   vectors[i]);
		}
		/* Every step-th frame, and the last one. */
		frame = frame < count - 1 && frame + step >= count ? count - 1 : frame + step;
	}
	for (i = 0; i < ACCESSES; i++) {
		tap_check(out, tried && refused[i] == tried,
			  "%s of memory that is not the host's is refused (%lu of %lu frames)", access_names[i],
			  refused[i], tried);
		total += refused[i];
	}
	seq_printf(out, "# refused %lu\n", total);
}

static int show_hostile(struct seq_file *out, void *unused)
{
	struct page *page = alloc_page(GFP_KERNEL);
	void *address = page ? vmap(&page, 1, VM_MAP, PAGE_KERNEL) : NULL;
	unsigned int level;
	pte_t *entry = address ? lookup_address((unsigned long)address, &level) : NULL;

	if (!entry || level != PG_LEVEL_4K) {
		tap_check(out, false, "a mapping to work with");
	} else if (!register_die_notifier(&die_block)) {
		check_own_page(out, entry, (unsigned long)address);
		if (size)
			check_protected(out, entry, (unsigned long)address);
		unregister_die_notifier(&die_block);
	}
	if (address)
		vunmap(address);
	if (page)
		__free_page(page);
	return 0;
}

TAP_MODULE("hostile", show_hostile, "Tries to reach memory that is not the host's");

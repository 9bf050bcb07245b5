// SPDX-License-Identifier: GPL-2.0
/*
 * vCPUs as a host's kernel sees them: what each exit says and nothing more, and what a hostile host may try with the calls:
 * wrong arguments and events, one vCPU on two CPUs, ending a VM that runs, answers to no question, poisoned pages.
 */
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/irqflags.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <asm/fpu/api.h>

#include "calls.h"
#include "compat.h"
#include "tap.h"

#define CODE 0x1000ULL
#define SHARED_PAGE 0x2000ULL
#define RAM_PAGES 512
#define MMIO 0x10000000ULL
#define READ_ONLY 0x20000000ULL
#define LATE_PAGE 0x100000ULL
#define MORE_RAM 0x40000000ULL
#define MORE_PAGES 600 /* more than the monitor handles at once */
#define TSC_WRITES 20000
#define RUNS 2000 /* of a call, until it comes to what is waited for */

/* Guests: 32-bit code without paging, each a vCPU's entry. Positions are those of a copy at CODE. */
#define AT(label) "(" label " - vcpu_guests + 0x1000)"
asm(".pushsection .rodata\n"
    ".balign 16\n"
    ".code32\n"
    "vcpu_guests:\n"
    "guest_io:\n"
    "	mov	$0xaabbccdd, %eax\n"
    "	out	%eax, $0x20\n"
    "	mov	$0xffffffff, %eax\n"
    "	in	$0x21, %al\n"
    "	out	%eax, $0x22\n"
    "	hlt\n"
    "	mov	%esi, %eax\n"
    "	out	%eax, $0x23\n"
    "1:	hlt\n"
    "	jmp	1b\n"
    "guest_mmio:\n"
    "	mov	$0x10000000, %edi\n"
    "	movl	$0x55667788, (%edi)\n"
    "	mov	8(%edi), %eax\n"
    "	movzbl	3(%edi), %ecx\n"
    "	out	%eax, $0x22\n"
    "	mov	%ecx, %eax\n"
    "	out	%eax, $0x22\n"
    "	lock addl $1, (%edi)\n"
    "	hlt\n"
    "guest_missing:\n"
    "	mov	0x100ff8, %eax\n"
    "	out	%eax, $0x22\n"
    "	movl	$1, 0x101000\n"
    "	hlt\n"
    "guest_read_only:\n"
    "	mov	0x20000000, %eax\n"
    "	out	%eax, $0x22\n"
    "	movl	$1, 0x20000000\n"
    "	hlt\n"
    "guest_undeclared:\n"
    "	mov	0x7fff0000, %eax\n"
    "	hlt\n"
    "guest_loop:\n"
    "	cli\n"
    "1:	jmp	1b\n"
    "guest_time:\n"
    "	rdtsc\n"
    "	out	%eax, $0x22\n"
    "	mov	%edx, %eax\n"
    "	out	%eax, $0x23\n"
    "	jmp	guest_time\n"
    "guest_cpuid:\n"
    "	cpuid\n"
    "	jmp	guest_cpuid\n"
    "guest_events:\n"
    "	lgdt	" AT(
	    "guest_gdtr") "\n"
			  "	lidt	" AT(
				  "guest_idtr") "\n"
						"	mov	$16, %eax\n"
						"	mov	%eax, %ss\n"
						"	mov	$0x3000, %esp\n" /* the shared page: memory is there */
						"	out	%al, $0x22\n"
						"1:	cpuid\n"
						"	in	$0x24, %al\n"
						"	test	$1, %al\n"
						"	jz	1b\n"
						"	sti\n"
						"	mov	$0, %eax\n"
						"1:	jmp	1b\n"
						"guest_interrupt:\n"
						"	out	%al, $0x30\n"
						"	iret\n"
						"guest_nmi:\n"
						"	out	%al, $0x31\n"
						"	iret\n"
						"guest_stack:\n"
						"	mov	$0x180000, %esp\n"
						"	call	1f\n"
						"1:	hlt\n"
						"guest_share:\n"
						"	movl	$0x11223344, 0x2000\n"
						"	mov	$0x48505381, %eax\n"
						"	mov	$0x2000, %edi\n"
						"	mov	$1, %esi\n"
						"	vmcall\n"
						"	out	%eax, $0x22\n"
						"	mov	0x2000, %eax\n"
						"	out	%eax, $0x22\n"
						"	mov	$0x48505382, %eax\n"
						"	vmcall\n"
						"	out	%eax, $0x22\n"
						"	mov	0x2000, %eax\n"
						"	out	%eax, $0x22\n"
						"	mov	$0x48505383, %eax\n"
						"	vmcall\n"
						"	out	%eax, $0x22\n"
						"	mov	0x2000, %eax\n"
						"	out	%eax, $0x22\n"
						"	mov	$0x48505386, %eax\n"
						"	mov	$0x107, %edi\n"
						"	vmcall\n"
						"	hlt\n"
						"	.balign	8\n"
						"guest_gdt:\n"
						"	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
						"guest_gdtr:\n"
						"	.word	23\n"
						"	.long	" AT("guest_gdt") "\n"
										  "guest_idtr:\n"
										  "	.word	0x41 * 8 - 1\n"
										  "	.long	0x1800\n"
										  "guests_end:\n"
										  ".code64\n"
										  ".popsection\n");
extern const char vcpu_guests[], guests_end[], guest_io[], guest_mmio[], guest_missing[], guest_read_only[],
	guest_undeclared[], guest_loop[], guest_time[], guest_cpuid[], guest_events[], guest_interrupt[], guest_nmi[],
	guest_stack[], guest_share[];

static const char *const guests[] = { guest_io,         guest_mmio, guest_missing, guest_read_only,
				      guest_undeclared, guest_loop, guest_events,  guest_stack,
				      guest_share,      guest_time, guest_cpuid };
enum { IO, MMIO_ACCESS, MISSING, WRITES_READ_ONLY, UNDECLARED, LOOP, EVENTS, STACK, SHARE, TIME, CPUID, GUESTS };

static u64 vm;
static struct page *code, *data, *constant, *late, *zero, *more[MORE_PAGES];

static s64 run(u64 index, u64 answer, u64 event, u64 words[HYPERPS_RESULTS])
{
	return run_vcpu(vm, index, answer, event, words);
}

/* Runs until something else than an interruption ends it. */
static s64 run_on(u64 index, u64 answer, u64 words[8])
{
	s64 error;
	int i = 0;

	do {
		error = run(index, answer, 0, words);
		cond_resched();
	} while (!error && (u32)words[0] == HYPERPS_EXIT_INTERRUPTED && ++i < RUNS);
	return error;
}

/* With an event, which the guest has even if something interrupts it before it exits. */
static s64 run_with(u64 index, u64 event, u64 words[8])
{
	s64 error;
	int i = 0;

	do
		error = run(index, 0, event, words);
	while (!error && (words[0] & HYPERPS_EXIT_NOT_ENTERED) && ++i < RUNS);
	if (!error && (u32)words[0] == HYPERPS_EXIT_INTERRUPTED)
		error = run_on(index, 0, words);
	return error;
}

/* The next exit has these words, and zeros in all others. */
static void exits(struct seq_file *out, const char *what, u64 index, u64 answer, u64 reason, u64 a, u64 b, u64 c)
{
	const u64 wanted[8] = { reason, a, b, c };
	u64 words[8] = { 0 };
	s64 error = run_on(index, answer, words);
	bool same;

	words[0] &= ~HYPERPS_EXIT_READY;
	same = !memcmp(words, wanted, sizeof(words));
	tap_check(out, !error && same, "%s (%lld: %llu %llx %llx %llx)", what, error, words[0], words[1], words[2],
		  words[3]);
}

static void expect(struct seq_file *out, s64 got, s64 wanted, const char *what)
{
	tap_check(out, got == wanted, "%s gives %lld (%lld)", what, wanted, got);
}

static s64 vcpu(u64 mode_and_argument, u64 entry, u64 cr3)
{
	u64 index;
	s64 error = call(HYPERPS_CALL_VCPU_CREATE, vm, mode_and_argument, entry, cr3, &index);

	return error ? error : (s64)index;
}

static s64 give(u64 gpa, struct page *page)
{
	s64 error = map(vm, gpa, page_to_pfn(page), 1);

	return error ? error : finish(HYPERPS_CALL_VM_SYNC, vm);
}

static void set_gate(u8 *idt, unsigned int vector, const char *handler)
{
	u64 at = CODE + (handler - vcpu_guests);

	*(u64 *)(idt + 8 * vector) = (at & 0xffff) | 8 << 16 | 0x8eULL << 40 | (at >> 16) << 48;
}

static bool make_vm(struct seq_file *out)
{
	u8 *page;
	int i;

	code = alloc_page(GFP_KERNEL | __GFP_ZERO);
	data = alloc_page(GFP_KERNEL | __GFP_ZERO);
	constant = alloc_page(GFP_KERNEL | __GFP_ZERO);
	late = alloc_page(GFP_KERNEL);
	zero = alloc_page(GFP_KERNEL | __GFP_ZERO); /* at gpa 0, where a guest's IDT begins: empty */
	for (i = 0; i < MORE_PAGES; i++)
		if (!(more[i] = alloc_page(GFP_KERNEL)))
			return false;
	if (!code || !data || !constant || !late || !zero || create(0, RAM_PAGES, &vm))
		return false;
	page = page_address(code);
	memcpy(page, vcpu_guests, guests_end - vcpu_guests);
	set_gate(page + 0x800, 2, guest_nmi);
	set_gate(page + 0x800, 0x40, guest_interrupt);
	*(u32 *)page_address(constant) = 0xc0ffee;
	memset(page_address(late), 0xa5, PAGE_SIZE);
	expect(out, call(HYPERPS_CALL_VM_DECLARE, vm, MMIO | HYPERPS_RANGE_MMIO, 1, 0, NULL), 0, "an MMIO range");
	expect(out, call(HYPERPS_CALL_VM_DECLARE, vm, READ_ONLY | 1, 1, 0, NULL), 0, "a read-only range");
	expect(out, call(HYPERPS_CALL_VM_DECLARE, vm, MORE_RAM | 3, MORE_PAGES, 0, NULL), 0, "more RAM");
	expect(out, map(vm, MMIO, page_to_pfn(late), 1), HYPERPS_ERROR_PERMISSION, "memory in an MMIO range");
	expect(out, give(0, zero) ?: give(CODE, code) ?: give(SHARED_PAGE, data) ?: give(READ_ONLY, constant), 0, "the VM's memory");
	expect(out, vcpu(HYPERPS_VCPU_MODES, CODE, 0), HYPERPS_ERROR_INVALID, "an unknown mode");
	expect(out, vcpu(HYPERPS_VCPU_PROTECTED, 1ULL << 32, 0), HYPERPS_ERROR_INVALID, "an entry above 4 GiB");
	expect(out, vcpu(HYPERPS_VCPU_REAL, 1 << 20, 0), HYPERPS_ERROR_INVALID, "a real-mode entry at 1 MiB");
	expect(out, vcpu(HYPERPS_VCPU_LONG, 1ULL << 47, 0), HYPERPS_ERROR_INVALID, "an entry that is not canonical");
	expect(out, vcpu(HYPERPS_VCPU_LONG, CODE, 1ULL << 63), HYPERPS_ERROR_INVALID, "a CR3 with bit 63");
	expect(out, vcpu(HYPERPS_VCPU_LONG, CODE, 1), HYPERPS_ERROR_INVALID, "a CR3 within a page");
	expect(out, vcpu(HYPERPS_VCPU_PROTECTED, CODE, PAGE_SIZE), HYPERPS_ERROR_INVALID, "a CR3 without paging");
	expect(out, vcpu(~0ULL, CODE, 0), HYPERPS_ERROR_INVALID, "mode 2^64-1");
	for (i = 0; i < GUESTS; i++)
		expect(out, vcpu(HYPERPS_VCPU_PROTECTED, CODE + (guests[i] - vcpu_guests), 0), i, "VCPU_CREATE");
	for (; i < HYPERPS_VCPUS; i++)
		vcpu(HYPERPS_VCPU_PROTECTED, CODE, 0);
	expect(out, vcpu(HYPERPS_VCPU_PROTECTED, CODE, 0), HYPERPS_ERROR_INVALID, "one vCPU too many");
	return true;
}

static void check_arguments(struct seq_file *out)
{
	u64 words[8], saved = vm, event, refused = 0;

	expect(out, run(IO, 0, 0, words), HYPERPS_ERROR_STATE, "VCPU_RUN before VM_SEAL");
	expect(out, finish(HYPERPS_CALL_VM_SEAL, vm), 0, "VM_SEAL");
	expect(out, vcpu(HYPERPS_VCPU_PROTECTED, CODE, 0), HYPERPS_ERROR_STATE, "VCPU_CREATE after VM_SEAL");
	expect(out, run(HYPERPS_VCPUS, 0, 0, words), HYPERPS_ERROR_INVALID, "VCPU_RUN of a vCPU past the last");
	expect(out, run(0xffffffff, 0, 0, words), HYPERPS_ERROR_INVALID, "VCPU_RUN of vCPU 2^32-1");
	expect(out, run(1ULL << 63, 0, 0, words), HYPERPS_ERROR_INVALID, "VCPU_RUN with an unknown flag");
	vm = ~0ULL;
	expect(out, run(IO, 0, 0, words), HYPERPS_ERROR_NO_VM, "VCPU_RUN of VM 2^64-1");
	expect(out, vcpu(HYPERPS_VCPU_PROTECTED, CODE, 0), HYPERPS_ERROR_NO_VM, "VCPU_CREATE in VM 2^64-1");
	vm = saved + (1ULL << 32);
	expect(out, run(IO, 0, 0, words), HYPERPS_ERROR_NO_VM, "VCPU_RUN of another generation");
	vm = saved;
	for (event = 0; event < 32; event++)
		refused += run(IO, 0, HYPERPS_EVENT_INTERRUPT | event, words) == HYPERPS_ERROR_INVALID;
	/* Exceptions by type, with error code, software interrupts, reserved bits, not valid. */
	for (event = 0x100; event < 0x1000; event += 0x100)
		refused += run(IO, 0, HYPERPS_EVENT_INTERRUPT | event | 0x40, words) == HYPERPS_ERROR_INVALID;
	refused += run(IO, 0, 0x40, words) == HYPERPS_ERROR_INVALID;
	refused += run(IO, 0, ~0ULL, words) == HYPERPS_ERROR_INVALID;
	expect(out, refused, 32 + 15 + 2, "events that no host may inject");
}

static void check_exits(struct seq_file *out)
{
	exits(out, "OUT of 4 bytes", IO, 0x5555, HYPERPS_EXIT_OUT, 0x20, 4, 0xaabbccdd);
	exits(out, "IN of 1 byte", IO, 0x5555, HYPERPS_EXIT_IN, 0x21, 1, 0);
	exits(out, "the answer is cut to a byte", IO, 0x1234567890abcd42, HYPERPS_EXIT_OUT, 0x22, 4, 0xffffff42);
	exits(out, "HLT", IO, ~0ULL, HYPERPS_EXIT_HLT, 0, 0, 0);
	exits(out, "an answer to no question is ignored; ESI is the index", IO, ~0ULL, HYPERPS_EXIT_OUT, 0x23, 4, IO);
	exits(out, "MMIO write", MMIO_ACCESS, 0, HYPERPS_EXIT_MMIO_WRITE, MMIO, 4, 0x55667788);
	exits(out, "MMIO read", MMIO_ACCESS, 0, HYPERPS_EXIT_MMIO_READ, MMIO + 8, 4, 0);
	exits(out, "MMIO read of a byte", MMIO_ACCESS, 0x99aabbccddULL, HYPERPS_EXIT_MMIO_READ, MMIO + 3, 1, 0);
	exits(out, "what the 4-byte read got", MMIO_ACCESS, 0x1ff, HYPERPS_EXIT_OUT, 0x22, 4, 0xaabbccdd);
	exits(out, "what the byte read got", MMIO_ACCESS, 0, HYPERPS_EXIT_OUT, 0x22, 4, 0xff);
	exits(out, "an MMIO access that is not known", MMIO_ACCESS, 0, HYPERPS_EXIT_FAILED, HYPERPS_FAILURE_INSTRUCTION,
	      0, 0);
	exits(out, "missing memory: page and access", MISSING, 0, HYPERPS_EXIT_MEMORY, LATE_PAGE, 1, 0);
	exits(out, "missing memory, not given", MISSING, 0, HYPERPS_EXIT_MEMORY, LATE_PAGE, 1, 0);
	expect(out, map(vm, LATE_PAGE, page_to_pfn(late), 1), 0, "a poisoned page");
	exits(out, "missing memory, not synced", MISSING, 0, HYPERPS_EXIT_MEMORY, LATE_PAGE, 1, 0);
	expect(out, finish(HYPERPS_CALL_VM_SYNC, vm), 0, "VM_SYNC");
	exits(out, "a page that comes after the seal is zero", MISSING, 0, HYPERPS_EXIT_OUT, 0x22, 4, 0);
	exits(out, "missing memory: write", MISSING, 0, HYPERPS_EXIT_MEMORY, LATE_PAGE + PAGE_SIZE, 2, 0);
	exits(out, "a missing stack page", STACK, 0, HYPERPS_EXIT_MEMORY, 0x17f000, 2, 0);
	exits(out, "read-only memory can be read", WRITES_READ_ONLY, 0, HYPERPS_EXIT_OUT, 0x22, 4, 0xc0ffee);
	exits(out, "and not written", WRITES_READ_ONLY, 0, HYPERPS_EXIT_FAILED, HYPERPS_FAILURE_TRIPLE_FAULT, 0, 0);
	exits(out, "memory that is not declared", UNDECLARED, 0, HYPERPS_EXIT_FAILED, HYPERPS_FAILURE_TRIPLE_FAULT, 0,
	      0);
}

static void check_events(struct seq_file *out)
{
	u64 words[8];
	s64 error;
	int i;

	exits(out, "a guest with interrupts off", EVENTS, 0, HYPERPS_EXIT_OUT, 0x22, 1, 16);
	expect(out, run(EVENTS, 0, HYPERPS_EVENT_INTERRUPT | 0x40, words), HYPERPS_ERROR_AGAIN, "its interrupt");
	error = run_with(EVENTS, HYPERPS_EVENT_NMI, words);
	tap_check(out, !error && words[0] == HYPERPS_EXIT_OUT && words[1] == 0x31, "positive control: an NMI arrives");
	expect(out, run(EVENTS, 0, HYPERPS_EVENT_NMI, words), HYPERPS_ERROR_AGAIN, "an NMI within an NMI");
	exits(out, "it goes on", EVENTS, 0, HYPERPS_EXIT_IN, 0x24, 1, 0);
	error = run_on(EVENTS | HYPERPS_RUN_INTERRUPT_WINDOW, 1, words);
	tap_check(out, !error && words[0] == (HYPERPS_EXIT_INTERRUPT_WINDOW | HYPERPS_EXIT_READY),
		  "an exit as soon as interrupts are on (%lld %llx)", error, words[0]);
	for (i = 0, error = HYPERPS_ERROR_AGAIN; error == HYPERPS_ERROR_AGAIN && i < RUNS; i++)
		error = run_with(EVENTS, HYPERPS_EVENT_INTERRUPT | 0x40, words);
	tap_check(out, !error && words[0] == HYPERPS_EXIT_OUT && words[1] == 0x30,
		  "positive control: an interrupt arrives");
}

/* What is to be synced before the guest goes on is more than a call does. Then the event is not the guest's yet. */
static void check_not_entered(struct seq_file *out)
{
	u64 words[8];
	s64 error = 0;
	int i;

	for (i = 0; i < MORE_PAGES && !error; i++)
		error = map(vm, MORE_RAM + i * PAGE_SIZE, page_to_pfn(more[i]), 1);
	expect(out, error, 0, "a lot to sync");
	error = run(SHARE, 0, HYPERPS_EVENT_NMI, words);
	tap_check(out, !error && words[0] == (HYPERPS_EXIT_INTERRUPTED | HYPERPS_EXIT_NOT_ENTERED),
		  "VCPU_RUN that only syncs says that it has not taken the event (%lld %llx)", error, words[0]);
	expect(out, finish(HYPERPS_CALL_VM_SYNC, vm), 0, "VM_SYNC");
}

static void check_sharing(struct seq_file *out)
{
	u32 *page = page_address(data);
	struct access access = { .address = page_address(data) };

	try_access(&access);
	tap_check(out, !access.read && !access.written, "a private page is out of reach");
	exits(out, "the guest shares it", SHARE, 0, HYPERPS_EXIT_SHARED, SHARED_PAGE, 1, 0);
	expect(out, READ_ONCE(*page), 0x11223344, "what the host reads there");
	WRITE_ONCE(*page, 0x55);
	exits(out, "the call's result", SHARE, 0, HYPERPS_EXIT_OUT, 0x22, 4, 0);
	exits(out, "what the guest reads there", SHARE, 0, HYPERPS_EXIT_OUT, 0x22, 4, 0x55);
	exits(out, "it takes the page back", SHARE, 0, HYPERPS_EXIT_UNSHARED, SHARED_PAGE, 1, 0);
	check_not_entered(out);
	try_access(&access);
	tap_check(out, !access.read && !access.written, "out of reach again");
	exits(out, "the call's result", SHARE, 0, HYPERPS_EXIT_OUT, 0x22, 4, 0);
	exits(out, "the page is zero", SHARE, 0, HYPERPS_EXIT_OUT, 0x22, 4, 0);
	exits(out, "it releases the page", SHARE, 0, HYPERPS_EXIT_RELEASED, SHARED_PAGE, 1, 0);
	expect(out, finish(HYPERPS_CALL_VM_RECLAIM, vm), 0, "VM_RECLAIM");
	tap_check(out, !memchr_inv(page_address(data), 0, PAGE_SIZE), "it comes back zeroed");
	exits(out, "the call's result", SHARE, 0, HYPERPS_EXIT_OUT, 0x22, 4, 0);
	exits(out, "touched again it is missing", SHARE, 0, HYPERPS_EXIT_MEMORY, SHARED_PAGE, 1, 0);
	memset(page_address(data), 0xa5, PAGE_SIZE);
	expect(out, give(SHARED_PAGE, data), 0, "another page there");
	exits(out, "is zero, too", SHARE, 0, HYPERPS_EXIT_OUT, 0x22, 4, 0);
	exits(out, "the guest ends", SHARE, 0, HYPERPS_EXIT_SHUTDOWN, 7, 0, 0);
}

static u64 guest_tsc(void)
{
	u64 low[8], high[8];

	return run(TIME, 0, 0, low) || run(TIME, 0, 0, high) ? 0 : high[3] << 32 | (u32)low[3];
}

/* The TSC as it would be had nobody written to it since IA32_TSC_ADJUST was `adjust`. */
static u64 tsc_unmoved(u64 adjust)
{
	u64 now;

	rdmsrq(MSR_IA32_TSC_ADJUST, now);
	return rdtsc() - (now - adjust);
}

/*
 * The host's writes of the TSC, which IA32_TSC_ADJUST counts: the guest's time goes on as if there were none, and a guest that
 * exits all the time is interrupted even if the TSC begins anew in the middle.
 */
static void check_time(struct seq_file *out)
{
	u64 words[8], adjust, start, time[4], guest, slice, from, longest = 0;
	unsigned long flags, cr8;
	int i;

	if (!boot_cpu_has(X86_FEATURE_TSC_ADJUST)) {
		tap_check(out, true, "the host writes the TSC # SKIP this CPU lacks IA32_TSC_ADJUST");
		return;
	}
	/* No interrupt ends a run: only the monitor does. */
	local_irq_save(flags);
	asm volatile("mov %%cr8, %0; mov %1, %%cr8" : "=&r"(cr8) : "r"(15UL));
	rdmsrq(MSR_IA32_TSC_ADJUST, adjust);
	time[0] = tsc_unmoved(adjust);
	guest = guest_tsc();
	time[1] = tsc_unmoved(adjust);
	for (i = 0; i < TSC_WRITES; i++)
		wrmsrq(MSR_IA32_TSC, rdtsc());
	time[2] = tsc_unmoved(adjust);
	guest = guest_tsc() - guest;
	time[3] = tsc_unmoved(adjust);
	wrmsrq(MSR_IA32_TSC_ADJUST, adjust);

	start = rdtsc();
	run(LOOP, 0, 0, words);
	slice = rdtsc() - start;
	for (from = slice - slice / 50; from < slice + slice / 200; from += slice / 5000) {
		wrmsrq(MSR_IA32_TSC_ADJUST, adjust - rdtsc() - from);
		start = rdtsc();
		run(CPUID, 0, 0, words);
		longest = max(longest, rdtsc() - start);
		wrmsrq(MSR_IA32_TSC_ADJUST, adjust);
	}
	asm volatile("mov %0, %%cr8" ::"r"(cr8));
	local_irq_restore(flags);
	/* How long the guest takes to be asked does not matter: a run can cost as much as all the writes, under another hypervisor. */
	tap_check(out, guest >= time[2] - time[1] && guest <= time[3] - time[0],
		  "%d writes of the TSC don't change a guest's (%llu ticks, the host's between %llu and %llu)",
		  TSC_WRITES, guest, time[2] - time[1], time[3] - time[0]);

	tap_check(out, longest < 3 * slice, "a guest is interrupted although the TSC wraps (%llu ticks, else %llu)",
		  longest, slice);
}

struct runner {
	bool stop;
	u64 turn; /* odd: VCPU_RUN is under way */
	u64 runs, errors;
	bool rests; /* between two runs */
};

static int loop(void *data)
{
	struct runner *runner = data;
	u64 words[8];

	while (!READ_ONCE(runner->stop)) {
		local_irq_disable();
		smp_store_release(&runner->turn, runner->turn + 1);
		runner->errors += run(LOOP, 0, 0, words) || (u32)words[0] != HYPERPS_EXIT_INTERRUPTED;
		smp_store_release(&runner->turn, runner->turn + 1);
		local_irq_enable();
		WRITE_ONCE(runner->runs, runner->runs + 1);
		if (READ_ONCE(runner->rests))
			msleep(20);
		cond_resched();
	}
	while (!kthread_should_stop())
		msleep(1);
	return 0;
}

/* While another CPU runs a vCPU of the VM. */
static void check_two_cpus(struct seq_file *out)
{
	struct runner runner = { 0 };
	unsigned int cpu = cpumask_last(cpu_online_mask), tries, busy = 0, alive = 0;
	struct task_struct *task = kthread_create(loop, &runner, "vcpu_attack");
	u64 words[8];

	if (IS_ERR(task))
		return;
	kthread_bind(task, cpu);
	wake_up_process(task);
	while (!READ_ONCE(runner.runs))
		msleep(1);
	for (tries = 0; tries < 20000 && (busy < 20 || alive < 20); tries++) {
		busy += run(LOOP, 0, 0, words) == HYPERPS_ERROR_STATE;
		alive += call(HYPERPS_CALL_VM_DESTROY, ~0ULL, 0, 0, 0, NULL) == HYPERPS_ERROR_NO_VM;
		udelay(50);
	}
	tap_check(out, busy >= 20, "a vCPU does not run on two CPUs at once (%u refused in %u)", busy, tries);
	WRITE_ONCE(runner.stop, true);
	kthread_stop(task);
}

/* Ends with the VM's end, which comes between two runs: each attempt in the middle of one is refused. */
static void check_destroy(struct seq_file *out)
{
	struct runner runner = { 0 };
	struct task_struct *task = kthread_create(loop, &runner, "vcpu_attack");
	unsigned int refused = 0;
	u64 turn, left = 0;
	s64 error;

	if (IS_ERR(task))
		return;
	kthread_bind(task, cpumask_last(cpu_online_mask));
	wake_up_process(task);
	while (!READ_ONCE(runner.runs))
		msleep(1);
	do {
		while (!((turn = smp_load_acquire(&runner.turn)) & 1))
			cpu_relax();
		udelay(20);
		/* Where the CPUs take turns on one, the other loses its in the middle of a run as good as always. */
		if (refused >= 1000)
			WRITE_ONCE(runner.rests, true);
		while (runner.rests && smp_load_acquire(&runner.turn) == turn)
			msleep(1);
		error = call(HYPERPS_CALL_VM_DESTROY, vm, 0, 0, 0, &left);
		refused += error == HYPERPS_ERROR_STATE;
	} while (error == HYPERPS_ERROR_STATE && refused < 1000000);
	turn = smp_load_acquire(&runner.turn) - turn;
	error = error ?: left ? finish(HYPERPS_CALL_VM_DESTROY, vm) : 0;
	tap_check(out, !error && turn, "VM_DESTROY of a VM that runs is refused (%u times), then done (%lld)", refused,
		  error);
	WRITE_ONCE(runner.stop, true);
	kthread_stop(task);
}

static int show_vcpu_attack(struct seq_file *out, void *unused)
{
	u64 words[8];
	int cpu;

	u64 start;
	int i;

	if (!make_vm(out)) {
		tap_check(out, false, "a VM");
		return 0;
	}
	check_arguments(out);
	check_exits(out);
	start = rdtsc();
	for (i = 0; i < 1000; i++)
		run(IO, 0, 0, words);
	seq_printf(out, "# a VCPU_RUN that ends at HLT takes %llu ticks\n", (rdtsc() - start) / 1000);
	check_events(out);
	check_sharing(out);
	check_time(out);
	expect(out, run(UNDECLARED, 0, 0, words), HYPERPS_ERROR_STATE, "VCPU_RUN of one that has ended");
	tap_check(out, !run(LOOP, 0, 0, words) && (u32)words[0] == HYPERPS_EXIT_INTERRUPTED,
		  "a guest that never exits comes back");
	for_each_online_cpu(cpu)
		tap_check(out, cpus_with_access(page_address(code)) == 0, "its code is out of reach (CPU %d)", cpu);
	if (num_online_cpus() > 1) {
		check_two_cpus(out);
		check_destroy(out);
	}
	expect(out, finish(HYPERPS_CALL_VM_DESTROY, vm), num_online_cpus() > 1 ? HYPERPS_ERROR_STATE : 0, "VM_DESTROY");
	expect(out, run(IO, 0, 0, words), HYPERPS_ERROR_STATE, "VCPU_RUN after VM_DESTROY");
	expect(out, finish(HYPERPS_CALL_VM_RECLAIM, vm), 0, "VM_RECLAIM");
	expect(out, run(IO, 0, 0, words), HYPERPS_ERROR_NO_VM, "VCPU_RUN after VM_RECLAIM");
	tap_check(out,
		  !memchr_inv(page_address(code), 0, PAGE_SIZE) && !memchr_inv(page_address(late), 0, PAGE_SIZE) &&
			  !memchr_inv(page_address(data), 0, PAGE_SIZE) &&
			  !memchr_inv(page_address(constant), 0, PAGE_SIZE),
		  "all pages come back zeroed");
	__free_page(code);
	__free_page(data);
	__free_page(constant);
	__free_page(late);
	__free_page(zero);
	for (i = 0; i < MORE_PAGES; i++)
		__free_page(more[i]);
	return 0;
}

TAP_MODULE("vcpu_attack", show_vcpu_attack, "vCPUs, and a hostile host");

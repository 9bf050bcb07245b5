// SPDX-License-Identifier: GPL-2.0
/* Frames that are not the host's, named by the VM's page tables and by all else that VMX takes an address for; a frame that goes. */
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/vmalloc.h>
#include <asm/msr-index.h>
#include <asm/pgtable.h>
#include <asm/trapnr.h>

#include "nested_vmx.h"

#define ENTRY_FAILED_MSR (BIT(31) | EXIT_REASON_MSR_LOAD_FAIL)
#define TABLE 8 /* the entry of pd that leads to a page table of the attack's */

/* All that is tried with one frame. */
struct tries {
	struct seq_file *out;
	struct vmx *v;
	u64 *window; /* linear address that leads to the frame; its page-table entry */
	pte_t *entry;
	unsigned int tried, wrong;
};

static void wants(struct tries *t, bool good, u64 frame, const char *what)
{
	t->tried++;
	if (good)
		return;
	t->wrong++;
	seq_printf(t->out, "# frame %#llx, %s: reason %#x, result %#x, RAX %#llx\n", frame, what, t->v->reason,
		   t->v->result, t->v->registers[RAX]);
}

/* Reads, or writes, at gpa; true: nothing was seen, the VM is over. */
static bool is_over(struct vmx *v, u64 gpa, const char *code)
{
	const u64 before = 0x0badcafe0badcafeULL;

	do_invept(2, 0, 0);
	v->registers[RDI] = gpa;
	v->registers[RAX] = before;
	vmx_call(v, code);
	return v->reason == EXIT_REASON_TRIPLE_FAULT && v->registers[RAX] == before;
}

static void point_at(struct tries *t, u64 address)
{
	native_set_pte(t->entry, __pte(address | _PAGE_PRESENT | _PAGE_RW | _PAGE_ACCESSED | _PAGE_DIRTY));
	asm volatile("invlpg (%0)" ::"r"(t->window) : "memory");
}

static void try_page_tables(struct tries *t, u64 frame)
{
	struct vmx *v = t->v;
	u64 *leaf = &v->pt[L2_WINDOW / PAGE_SIZE];

	*leaf = LEAF(frame, 7);
	wants(t, is_over(v, L2_WINDOW, l2_read), frame, "a page, read");
	wants(t, is_over(v, L2_WINDOW, l2_write), frame, "a page, written");
	set(GUEST_CS_BASE, L2_WINDOW - L2_CODE);
	wants(t, is_over(v, L2_WINDOW, l2_code), frame, "a page, executed");
	set(GUEST_CS_BASE, 0);
	*leaf = 0;
	v->pd[1] = LEAF(frame & PMD_MASK, 7) | LEAF_LARGE;
	wants(t, is_over(v, L2_LARGE + (frame & ~PMD_MASK), l2_read), frame, "2 MiB with it, read");
	wants(t, is_over(v, L2_LARGE + (frame & ~PMD_MASK), l2_write), frame, "2 MiB with it, written");
	v->pd[1] = 0;
	v->pd[TABLE] = frame | 7;
	is_over(v, (u64)TABLE << PMD_SHIFT, l2_read);
	wants(t, v->reason == EXIT_REASON_EPT_MISCONFIG, frame, "a page table");
	v->pd[TABLE] = 0;
	set(EPT_POINTER, frame | VMX_EPTP_PWL_4 | VMX_EPTP_MT_WB);
	vmx_call(v, l2_cpuid);
	wants(t, v->reason == EXIT_REASON_EPT_MISCONFIG, frame, "an EPT pointer");
	set(EPT_POINTER, vmx_eptp(v));
}

static void try_pointers(struct tries *t, u64 frame)
{
	struct vmx *v = t->v;
	u64 there = 0;
	int result;

	/* Nothing of it is seen, nothing is written: whoever has the frame will know. */
	wants(t, do_vmclear(frame) == VMX_OK, frame, "VMCLEAR, which writes nothing");
	wants(t, do_vmptrld(frame) == VMX_FAIL(11), frame, "VMPTRLD");
	do_vmptrst(&there);
	wants(t, there == __pa(v->vmcs), frame, "what is current after it");
	point_at(t, frame);
	wants(t, VMX_DO("vmptrst (%1)", "d"(t->window)) == GP, frame, "VMPTRST into it");
	wants(t, VMX_DO("vmptrld (%1)", "d"(t->window)) == GP, frame, "VMPTRLD's operand");
	/* With VMCS shadowing the CPU writes itself, which is refused as any access of a kernel's to its own half. */
	result = VMX_DO("vmread %1, (%2)", "r"((u64)GUEST_RIP), "d"(t->window));
	wants(t, result == GP || result == VMX_FAULT(X86_TRAP_PF), frame, "VMREAD into it");
	wants(t, VMX_DO("vmwrite (%2), %1", "r"((u64)TSC_OFFSET), "d"(t->window)) == GP, frame, "VMWRITE from it");
	wants(t, VMX_DO("invept (%2), %1", "r"(1ULL), "d"(t->window)) == GP, frame, "INVEPT's operand");
	set(MSR_BITMAP, frame);
	v->registers[RCX] = 0x10;
	vmx_call(v, l2_rdmsr);
	wants(t, v->reason == EXIT_REASON_MSR_READ, frame, "the MSR bitmap");
	set(MSR_BITMAP, __pa(v->bitmap));
	set(VM_ENTRY_MSR_LOAD_ADDR, frame);
	set(VM_ENTRY_MSR_LOAD_COUNT, 1);
	vmx_call(v, l2_cpuid);
	wants(t, v->reason == ENTRY_FAILED_MSR && get(EXIT_QUALIFICATION) == 1, frame, "the list of MSRs to load");
	set(VM_ENTRY_MSR_LOAD_COUNT, 0);
	/* A list of MSRs to store or to load at an exit would be a VMX abort, as on a bare machine: its end. */
}

/* The host's own frame by the same code. */
static void check_own(struct tries *t)
{
	struct vmx *v = t->v;
	u64 frame = __pa(v->spare);

	*(u32 *)v->spare = PATTERN_LOW;
	v->pt[L2_WINDOW / PAGE_SIZE] = LEAF(frame, 7);
	is_over(v, L2_WINDOW, l2_read);
	wants(t, v->reason == EXIT_REASON_IO_INSTRUCTION && (u32)v->registers[RAX] == PATTERN_LOW, frame,
	      "a page, read");
	is_over(v, L2_WINDOW, l2_write);
	wants(t, v->reason == EXIT_REASON_IO_INSTRUCTION && *(u32 *)v->spare == 0x0badcafe, frame, "a page, written");
	memcpy(v->spare, l2_code, l2_code_end - l2_code);
	set(GUEST_CS_BASE, L2_WINDOW - L2_CODE);
	is_over(v, 0, l2_cpuid);
	wants(t, v->reason == EXIT_REASON_CPUID, frame, "a page, executed");
	set(GUEST_CS_BASE, 0);
	v->pd[1] = LEAF(frame & PMD_MASK, 7) | LEAF_LARGE;
	*(u32 *)v->spare = PATTERN_LOW;
	is_over(v, L2_LARGE + (frame & ~PMD_MASK), l2_read);
	wants(t, v->reason == EXIT_REASON_IO_INSTRUCTION && (u32)v->registers[RAX] == PATTERN_LOW, frame,
	      "2 MiB with it, read");
	v->pd[1] = 0;
	memset(v->spare, 0, PAGE_SIZE);
	((u64 *)v->spare)[0] = LEAF(__pa(v->low) + L2_DATA, 7);
	*(u32 *)(v->low + L2_DATA) = 0x600df00d;
	v->pd[TABLE] = frame | 7;
	is_over(v, (u64)TABLE << PMD_SHIFT, l2_read);
	wants(t, v->reason == EXIT_REASON_IO_INSTRUCTION && (u32)v->registers[RAX] == 0x600df00d, frame,
	      "a page table");
	v->pd[TABLE] = 0;
	memset(v->spare, 0, PAGE_SIZE);
	*(u32 *)v->spare = *(u32 *)v->vmcs;
	wants(t,
	      do_vmclear(frame) == VMX_OK && do_vmptrld(frame) == VMX_OK && do_vmclear(frame) == VMX_OK &&
		      do_vmptrld(__pa(v->vmcs)) == VMX_OK,
	      frame, "VMCLEAR, VMPTRLD");
	v->launched = false;
	do_vmclear(__pa(v->vmcs));
	do_vmptrld(__pa(v->vmcs));
	point_at(t, frame);
	*t->window = 0;
	wants(t, VMX_DO("vmptrst (%1)", "d"(t->window)) == VMX_OK && *(u64 *)v->spare == __pa(v->vmcs), frame,
	      "VMPTRST into it");
	memset(v->spare, 0xff, PAGE_SIZE);
	set(MSR_BITMAP, frame);
	v->registers[RCX] = 0x10;
	vmx_call(v, l2_rdmsr);
	wants(t, v->reason == EXIT_REASON_MSR_READ, frame, "the MSR bitmap");
	memset(v->spare, 0, PAGE_SIZE);
	vmx_call(v, l2_rdmsr);
	wants(t, v->reason == EXIT_REASON_IO_INSTRUCTION, frame, "the MSR bitmap, all zeros");
	set(MSR_BITMAP, __pa(v->bitmap));
	((u64 *)v->spare)[0] = MSR_KERNEL_GS_BASE;
	rdmsrq_safe(MSR_KERNEL_GS_BASE, (u64 *)v->spare + 1);
	set(VM_ENTRY_MSR_LOAD_ADDR, frame);
	set(VM_ENTRY_MSR_LOAD_COUNT, 1);
	vmx_call(v, l2_cpuid);
	wants(t, v->reason == EXIT_REASON_CPUID, frame, "the list of MSRs to load");
	set(VM_ENTRY_MSR_LOAD_COUNT, 0);
	((u64 *)v->spare)[0] = MSR_LSTAR;
	set(VM_EXIT_MSR_STORE_ADDR, frame);
	set(VM_EXIT_MSR_STORE_COUNT, 1);
	vmx_call(v, l2_cpuid);
	wants(t, v->reason == EXIT_REASON_CPUID && ((u64 *)v->spare)[1] >> 47, frame, "the list of MSRs to store");
	set(VM_EXIT_MSR_STORE_COUNT, 0);
	tap_check(t->out, !t->wrong, "positive control: a frame of the host's own works in each place (%u of %u)",
		  t->tried - t->wrong, t->tried);
}

/* As VMXON region, outside VMX operation. */
static bool vmxon_is_refused(u64 frame)
{
	int result;

	asm volatile("mov %%cr4, %%rax\n\tbts $13, %%rax\n\tmov %%rax, %%cr4" ::: "rax", "memory", "cc");
	result = do_vmxon(frame);
	if (result == VMX_OK)
		VMX_DO("vmxoff", "d"(0));
	asm volatile("mov %%cr4, %%rax\n\tbtr $13, %%rax\n\tmov %%rax, %%cr4" ::: "rax", "memory", "cc");
	return result == VMX_FAIL_INVALID;
}

/* An exit that can't store an MSR in its list is a VMX abort, and the end of the machine. Not of the VM alone, and nothing is written. */
void attack_abort(struct seq_file *out)
{
	struct vmx *v = vmx_create();

	if (!v || !vmx_on(v)) {
		tap_check(out, false, "setup: VMX operation");
		return;
	}
	vmx_setup(v);
	set(VM_EXIT_MSR_STORE_ADDR, refuse[0]);
	set(VM_EXIT_MSR_STORE_COUNT, 1);
	vmx_call(v, l2_cpuid);
	vmx_off(v);
	tap_check(out, false, "a list of MSRs in a frame of the monitor's is a VMX abort (reason %#x, result %#x)",
		  v->reason, v->result);
	vmx_free(v);
}

void attack_frames(struct seq_file *out)
{
	struct page *page = alloc_page(GFP_KERNEL);
	void *address = page ? vmap(&page, 1, VM_MAP, PAGE_KERNEL) : NULL;
	struct tries t = { .out = out, .v = vmx_create(), .window = address };
	unsigned int i, level, refused = 0;
	pte_t saved;

	if (address)
		t.entry = lookup_address((unsigned long)address, &level);
	if (!t.v || !t.entry || !vmx_on(t.v)) {
		tap_check(out, false, "setup: VMX operation");
		return;
	}
	saved = *t.entry;
	vmx_setup(t.v);
	check_own(&t);
	t.tried = t.wrong = 0;
	for (i = 0; i < refuse_count; i++) {
		try_page_tables(&t, refuse[i] & PAGE_MASK);
		try_pointers(&t, refuse[i] & PAGE_MASK);
		/* Linux gets its own back before it may run. */
		native_set_pte(t.entry, saved);
		asm volatile("invlpg (%0)" ::"r"(t.window) : "memory");
	}
	vmx_call(t.v, l2_cpuid);
	if (refuse_count)
		tap_check(out, !t.wrong && t.v->reason == EXIT_REASON_CPUID,
			  "a frame that is not the host's is refused in each place (%u of %u, %u frames)",
			  t.tried - t.wrong, t.tried, refuse_count);
	vmx_off(t.v);
	local_irq_disable();
	for (i = 0; i < refuse_count; i++)
		refused += vmxon_is_refused(refuse[i] & PAGE_MASK);
	local_irq_enable();
	if (refuse_count)
		tap_check(out, refused == refuse_count, "and as VMXON region (%u of %u)", refused, refuse_count);
	vunmap(address);
	__free_page(page);
	vmx_free(t.v);
}

/*
 * The siege. A VM of the host's, on a CPU of its own where there is another one, reads and writes one frame in a loop; the frame goes
 * to a protected VM, whose guest writes a secret there and looks whether it stays; and comes back, thousands of times.
 */
#define SECRET 0x5ec2e75eU
#define OFFERED 0x0ffe2ed0U /* what the host's frame holds */
#define GUEST_PAGES 512
#define GUEST_CODE 0x1000ULL
#define GUEST_WINDOW 0x100000ULL

asm(".pushsection .rodata\n"
    ".balign 16\n"
    ".code32\n"
    "besieged:\n"
    "	mov	$0x100000, %edi\n"
    "	mov	(%edi), %eax\n" /* the first access after VM_SYNC: zero, or something was left or written */
    "	mov	%eax, %ebx\n"
    "	mov	$0x5ec2e75e, %eax\n"
    "	mov	$200, %ecx\n"
    "1:	mov	%eax, (%edi)\n"
    "	mov	%eax, 0x800(%edi)\n"
    "	cmp	%eax, (%edi)\n"
    "	jne	2f\n"
    "	dec	%ecx\n"
    "	jnz	1b\n"
    "	test	%ebx, %ebx\n"
    "	jnz	2f\n"
    "	mov	%eax, %eax\n"
    "	out	%eax, $0x40\n"
    "	jmp	3f\n"
    "2:	out	%eax, $0x41\n"
    "3:	mov	$0x48505383, %eax\n" /* RELEASE */
    "	mov	$0x100000, %edi\n"
    "	mov	$1, %esi\n"
    "	vmcall\n"
    "	test	%eax, %eax\n"
    "	jz	besieged\n"
    "	out	%eax, $0x42\n"
    "	jmp	3b\n"
    "besieged_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char besieged[], besieged_end[];

struct siege {
	struct vmx *v;
	struct page *page; /* the frame */
	u32 *seen; /* by the host's VM: what it read, its writes, how often there was something else than it or the host had put there */
	bool stop, pause, paused;
	u64 deaths, bad, leaks;
	u32 last;
	struct task_struct *task;
};

/* One entry of the host's VM, until it is over or an interrupt comes. */
static void beset(struct siege *s)
{
	struct vmx *v = s->v;

	v->registers[RDI] = L2_WINDOW;
	v->registers[RSI] = L2_DATA;
	v->registers[RDX] = SECRET;
	if (!vmx_on(v)) {
		s->bad++;
		return;
	}
	vmx_call(v, l2_loop);
	vmx_off(v);
	s->leaks += READ_ONCE(s->seen[2]) != 0;
	s->last = v->reason;
	if (v->reason == EXIT_REASON_TRIPLE_FAULT)
		s->deaths++;
	else if (v->reason != EXIT_REASON_EXTERNAL_INTERRUPT)
		s->bad++;
}

static int beset_all(void *data)
{
	struct siege *s = data;

	while (!READ_ONCE(s->stop)) {
		if (READ_ONCE(s->pause)) {
			smp_store_release(&s->paused, true);
			cpu_relax();
			cond_resched();
			continue;
		}
		smp_store_release(&s->paused, false);
		beset(s);
		cond_resched();
	}
	smp_store_release(&s->paused, true);
	while (!kthread_should_stop())
		msleep(1);
	return 0;
}

static bool await(const bool *what, bool wanted)
{
	u64 end = get_jiffies_64() + 10 * HZ;

	while (READ_ONCE(*what) != wanted) {
		if (time_after64(get_jiffies_64(), end))
			return false;
		cond_resched();
	}
	smp_mb();
	return true;
}

/* Until the guest has said something. The answer: the port. */
static u64 run_guest(u64 vm, u64 *reason)
{
	u64 words[HYPERPS_RESULTS];
	unsigned int i;

	for (i = 0; i < 10000; i++) {
		s64 error = run_vcpu(vm, 0, 0, 0, words);

		*reason = error ? error : (u32)words[0];
		if (error || (u32)words[0] != HYPERPS_EXIT_INTERRUPTED)
			break;
		cond_resched();
	}
	return words[1];
}

static s64 give(u64 vm, u64 frame)
{
	s64 error = call(HYPERPS_CALL_VM_MAP, vm, GUEST_WINDOW, frame, 1, NULL);

	return error ?: finish_at_last(HYPERPS_CALL_VM_SYNC, vm);
}

struct counts {
	u64 rounds, failed, wrong, alive, dirty;
	s64 error;
	u64 reason, port; /* of the first that was wrong */
};

static void siege_round(struct siege *s, u64 vm, bool alone, struct counts *c)
{
	u64 *content = page_address(s->page), reason, port, frame = page_to_pfn(s->page), before = READ_ONCE(s->deaths);
	unsigned int waited;
	s64 error;

	memset64(content, OFFERED | (u64)OFFERED << 32, PAGE_SIZE / 8);
	WRITE_ONCE(s->seen[1], 0);
	if (alone) {
		/* It uses the frame first, so that its tables have it. An interrupt may end it before that. */
		for (waited = 0; waited < 1000 && !READ_ONCE(s->seen[1]); waited++)
			beset(s);
	} else {
		WRITE_ONCE(s->pause, false);
		for (waited = 0; waited < 100000000 && !READ_ONCE(s->seen[1]); waited++)
			cpu_relax();
	}
	if (!READ_ONCE(s->seen[1]))
		c->failed++;
	error = give(vm, frame);
	if (!error) {
		for (waited = 0; alone && waited < 1000 && READ_ONCE(s->deaths) == before; waited++)
			beset(s);
		port = run_guest(vm, &reason);
		if (reason != HYPERPS_EXIT_OUT || port != 0x40) {
			if (!c->wrong++) {
				c->reason = reason;
				c->port = port;
			}
		}
		if (alone)
			beset(s);
		run_guest(vm, &reason);
		c->wrong += reason != HYPERPS_EXIT_RELEASED;
	}
	if (!alone) {
		/* An interrupt may have ended it last. The frame is not the host's yet, so that it must meet that. */
		for (waited = 0; waited < 100000000 && !error && READ_ONCE(s->deaths) == before; waited++)
			cpu_relax();
		WRITE_ONCE(s->pause, true);
		if (!await(&s->paused, true))
			c->failed++;
	}
	c->alive += READ_ONCE(s->deaths) == before;
	if (!error)
		error = finish_at_last(HYPERPS_CALL_VM_RECLAIM, vm);
	c->dirty += !error && memchr_inv(content, 0, PAGE_SIZE) != NULL;
	if (error) {
		c->error = error;
		c->failed++;
	}
	c->rounds++;
}

static s64 make_guest(u64 *vm, struct page *chunk)
{
	s64 error = create(0, GUEST_PAGES, vm);

	memcpy(page_address(chunk + 1), besieged, besieged_end - besieged);
	error = error ?: map(*vm, 0, page_to_pfn(chunk), 4);
	error = error ?: finish_at_last(HYPERPS_CALL_VM_SYNC, *vm);
	error = error ?: call(HYPERPS_CALL_VCPU_CREATE, *vm, HYPERPS_VCPU_PROTECTED, GUEST_CODE, 0, NULL);
	return error ?: finish_at_last(HYPERPS_CALL_VM_SEAL, *vm);
}

void attack_siege(struct seq_file *out)
{
	unsigned int other = cpumask_any_but(cpu_online_mask, raw_smp_processor_id());
	bool alone = other >= nr_cpu_ids;
	struct page *chunk = alloc_pages(GFP_KERNEL | __GFP_ZERO, 2);
	struct siege s = { .v = vmx_create(), .page = alloc_page(GFP_KERNEL | __GFP_ZERO), .pause = true };
	struct counts c = {};
	u64 vm, i;
	s64 error;

	if (!monitor_runs())
		return;
	if (!chunk || !s.v || !s.page || !vmx_on(s.v)) {
		tap_check(out, false, "setup: VMX operation");
		return;
	}
	vmx_setup(s.v);
	vmx_off(s.v);
	s.v->one_interrupt = true;
	s.v->pt[L2_WINDOW / PAGE_SIZE] = LEAF(page_to_phys(s.page), 7);
	s.seen = (u32 *)(s.v->low + L2_DATA);
	error = make_guest(&vm, chunk);
	tap_check(out, !error, "setup: a guest of the monitor's (%lld)", error);
	if (!alone) {
		s.task = kthread_create(beset_all, &s, "nested/%u", other);
		if (IS_ERR(s.task))
			return;
		kthread_bind(s.task, other);
		wake_up_process(s.task);
	}
	for (i = 0; !error && i < max(count / 20, 20U) && !c.failed && !s.bad; i++)
		siege_round(&s, vm, alone, &c);
	WRITE_ONCE(s.stop, true);
	if (!alone)
		kthread_stop(s.task);
	tap_check(out, c.rounds && !c.failed && !s.bad && c.rounds == i,
		  "positive control: the host's VM uses the frame until it goes, and the guest then (%llu rounds, "
		  "error %lld, reason %#x)",
		  c.rounds, c.error, s.last);
	tap_check(
		out, c.rounds && !c.wrong,
		"no write of the host's VM arrives after VM_SYNC (%llu of %llu times one did; reason %llu, port %#llx)",
		c.wrong, c.rounds, c.reason, c.port);
	tap_check(out, c.rounds && !c.alive, "and the VM ends (%llu of %llu times not, %llu ends)", c.alive, c.rounds,
		  s.deaths);
	tap_check(out, c.rounds && !s.leaks, "it never sees what the guest wrote (%llu times)", s.leaks);
	tap_check(out, !c.dirty, "what comes back is zero (%llu times not)", c.dirty);
	error = finish_at_last(HYPERPS_CALL_VM_DESTROY, vm) ?: finish_at_last(HYPERPS_CALL_VM_RECLAIM, vm);
	tap_check(out, !error, "the guest ends (%lld)", error);
	if (error)
		return;
	__free_pages(chunk, 2);
	__free_page(s.page);
	vmx_free(s.v);
}

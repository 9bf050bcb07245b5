// SPDX-License-Identifier: GPL-2.0
/*
 * A hostile kernel against the memory of a guest while another CPU runs it: reaching its frames, giving them away once
 * more, ending it; running one vCPU on all CPUs at once; reading what it releases. The first look
 * at /proc/vcpu_siege makes the attempts; the guest runs on until a write to the parameter `end`. hostile.ko can have the frames from the
 * parameter `base` on.
 */
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/irqflags.h>
#include <linux/kthread.h>
#include <linux/mm.h>

#include "calls.h"
#include "tap.h"

#define ORDER 9
#define CHUNK_FRAMES 512ULL
#define RAM_PAGES 1024
#define CODE 0x1000ULL
#define GIVEN 16 /* frames that the guest has at the start, from gpa 0 on */
#define FREE 0x100000ULL /* gpas that are free at the start */
#define FREE_PAGES 16
#define ALWAYS_FREE 0x200000ULL
#define CHURNED 0x180000ULL /* gpas that the guest fills and releases again and again */
#define CHURNED_PAGES 16
#define FIRST_FREE 32 /* frames of the chunk, from there on, for the former and the latter */
#define FIRST_CHURNED 64
#define SECRET 0x5ec2e75ec2e75ec2ULL /* what the guest writes */
#define POISON 0x9015019015019015ULL /* what the host's frames hold */
#define TRIES 200
#define REFUSALS 1000 /* of the VM's end, before the guest stops */

/* 32-bit code without paging, at CODE. ESI is the vCPU's index; vCPUs 2n and 2n + 1 have one counter. */
asm(".pushsection .rodata\n"
    ".balign 16\n"
    ".code32\n"
    "siege_guests:\n"
    /* Nobody else changes the counter in memory: as long as no other CPU is the same vCPU. */
    "siege_count:\n"
    "	shr	$1, %esi\n"
    "	shl	$4, %esi\n"
    "	lea	0x3000(%esi), %ebx\n"
    "	mov	(%ebx), %ecx\n"
    "1:	mov	(%ebx), %eax\n"
    "	cmp	%ecx, %eax\n"
    "	jne	2f\n"
    "	inc	%eax\n"
    "	mov	%eax, (%ebx)\n"
    "	inc	%ecx\n"
    "	test	$0xfff, %ecx\n"
    "	jnz	1b\n"
    "	mov	%ecx, %eax\n"
    "	out	%eax, $0x40\n"
    "	jmp	1b\n"
    "2:	mov	(%ebx), %ecx\n"
    "	out	%eax, $0x41\n"
    "	jmp	1b\n"
    "siege_spin:\n"
    "	jmp	siege_spin\n"
    "siege_touch:\n"
    "	mov	$0x100000, %edi\n"
    "1:	mov	(%edi), %eax\n"
    "	or	0xffc(%edi), %eax\n"
    "	out	%eax, $0x42\n"
    "	movl	$0x5ec2e75e, (%edi)\n"
    "	add	$0x1000, %edi\n"
    "	jmp	1b\n"
    "siege_churn:\n"
    "	mov	$0x180000, %edi\n"
    "1:	xor	%eax, %eax\n"
    "	xor	%edx, %edx\n"
    "2:	or	(%edi, %edx), %eax\n"
    "	movl	$0xc2e75ec2, (%edi, %edx)\n"
    "	movl	$0x5ec2e75e, 4(%edi, %edx)\n"
    "	add	$8, %edx\n"
    "	cmp	$0x1000, %edx\n"
    "	jne	2b\n"
    "	test	%eax, %eax\n"
    "	jz	3f\n"
    "	out	%eax, $0x43\n"
    "3:	add	$0x1000, %edi\n"
    "	cmp	$0x190000, %edi\n"
    "	jne	1b\n"
    "	mov	$0x48505383, %eax\n" /* RELEASE */
    "	mov	$0x180000, %edi\n"
    "	mov	$16, %esi\n"
    "	vmcall\n"
    "	test	%eax, %eax\n"
    "	jz	siege_churn\n"
    "	out	%eax, $0x43\n"
    "	jmp	siege_churn\n"
    "siege_guests_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char siege_guests[], siege_guests_end[], siege_count[], siege_spin[], siege_touch[], siege_churn[];

enum vcpu { COUNTER, SPINNER, SHARES_2, SHARES_3, TOUCHER, CHURNER, VCPUS };
static const char *const entries[] = { siege_count, siege_spin, siege_count, siege_count, siege_touch, siege_churn };

struct runner {
	enum vcpu vcpu;
	struct task_struct *task;
	bool stop;
	u64 turn; /* odd: VCPU_RUN is under way */
	u64 runs, busy, errors, progress, bad, cycles, dirty;
	s64 error;
};

static unsigned long base;
module_param(base, ulong, 0400);
MODULE_PARM_DESC(base, "physical address of the 16 frames that the guest has; set by the module");

static u64 vm, other;
static struct page *chunk;
static struct runner runner = { .vcpu = COUNTER };
static bool over;

static u64 frame(unsigned int i)
{
	return page_to_pfn(chunk) + i;
}

static s64 run(enum vcpu vcpu, u64 words[HYPERPS_RESULTS])
{
	s64 error = run_vcpu(vm, vcpu, 0, 0, words);

	words[0] = (u32)words[0];
	return error;
}

/* The host's part of the churner's exits. What comes back is zero before it is poisoned again. */
static s64 serve(struct runner *self, u64 reason)
{
	unsigned long *content = page_address(chunk + FIRST_CHURNED);
	s64 error;

	if (reason == HYPERPS_EXIT_RELEASED) {
		error = finish_at_last(HYPERPS_CALL_VM_RECLAIM, vm);
		/* The attacker's VM_RECLAIM may have done it. */
		if (error && error != HYPERPS_ERROR_STATE)
			return error;
		self->dirty += memchr_inv(content, 0, CHURNED_PAGES * PAGE_SIZE) != NULL;
		self->cycles++;
		return 0;
	}
	memset64((u64 *)content, POISON, CHURNED_PAGES * PAGE_SIZE / 8);
	error = map(vm, CHURNED, frame(FIRST_CHURNED), CHURNED_PAGES);
	if (error == HYPERPS_ERROR_OWNER) /* all of them are there, and wait for VM_SYNC */
		error = 0;
	return error ?: finish_at_last(HYPERPS_CALL_VM_SYNC, vm);
}

static void run_once(struct runner *self)
{
	u64 words[HYPERPS_RESULTS];
	s64 error;

	/* An interrupt ends the run, and must not come before it. */
	local_irq_disable();
	smp_store_release(&self->turn, self->turn + 1);
	error = run(self->vcpu, words);
	smp_store_release(&self->turn, self->turn + 1);
	local_irq_enable();
	if (error) {
		self->busy += error == HYPERPS_ERROR_STATE;
		self->errors += error != HYPERPS_ERROR_STATE;
		self->error = error;
		return;
	}
	WRITE_ONCE(self->runs, self->runs + 1);
	if (words[0] == HYPERPS_EXIT_OUT) {
		self->progress += words[1] == 0x40;
		self->bad += words[1] == 0x41 || words[1] == 0x43;
	} else if (words[0] != HYPERPS_EXIT_INTERRUPTED) {
		error = self->vcpu == CHURNER ? serve(self, words[0]) : -1;
		self->errors += error != 0;
		self->error = error ?: self->error;
	}
}

static int run_all(void *data)
{
	struct runner *self = data;

	while (!READ_ONCE(self->stop) && !self->errors) {
		run_once(self);
		cond_resched();
	}
	while (!kthread_should_stop())
		msleep(1);
	return 0;
}

static bool start(struct runner *self, unsigned int cpu)
{
	self->task = kthread_create(run_all, self, "vcpu_siege/%u", cpu);
	if (IS_ERR(self->task))
		return false;
	kthread_bind(self->task, cpu);
	wake_up_process(self->task);
	return true;
}

static void stop(struct runner *self)
{
	WRITE_ONCE(self->stop, true);
	kthread_stop(self->task);
}

static void await_runs(const struct runner *self, u64 count)
{
	u64 before = READ_ONCE(self->runs);
	unsigned int waited;

	for (waited = 0; waited < 5000 && READ_ONCE(self->runs) < before + count; waited++)
		msleep(1);
}

/* The frame's first 8 bytes, by the direct map; false: the access is refused. */
static bool read_frame(unsigned int i, u64 *value)
{
	return fault_of("pushq (%1)\n\tpopq (%2)", 0, "r"(page_address(chunk + i)), "r"(value)) == VECTOR_NONE;
}

enum attack {
	READ_IT,
	WRITE_IT,
	MAP_OTHER,
	MAP_AGAIN,
	MAP_OVER,
	MAP_CHUNK,
	DONATE,
	QUERY,
	SEAL,
	DECLARE,
	CREATE,
	RECLAIM,
	ATTACKS
};
static const struct {
	const char *part, *name;
} attacks[] = {
	{ "access", "reading its frame" },
	{ "access", "writing its frame" },
	{ "double", "VM_MAP of its frame into another VM" },
	{ "double", "VM_MAP of its frame at another gpa" },
	{ "remap", "VM_MAP of another frame at a gpa that it has" },
	{ "double", "VM_MAP of 2 MiB with its frames into another VM" },
	{ "owner", "POOL_DONATE of 2 MiB with its frames" },
	{ "owner", "FRAME_QUERY of its frame for another VM" },
	{ "race", "VM_SEAL" },
	{ "race", "VM_DECLARE" },
	{ "race", "VCPU_CREATE" },
	{ "race", "VM_RECLAIM when nothing is released" },
};

TAP_PARTS;

static bool refused(enum attack attack, unsigned int i)
{
	struct access access = { .address = page_address(chunk + i) };
	u64 value;

	switch (attack) {
	case READ_IT:
		return !read_frame(i, &value);
	case WRITE_IT:
		try_access(&access);
		return !access.written;
	case MAP_OTHER:
		return call(HYPERPS_CALL_VM_MAP, other, i * PAGE_SIZE, frame(i), 1, NULL) == HYPERPS_ERROR_OWNER;
	case MAP_AGAIN:
		return call(HYPERPS_CALL_VM_MAP, vm, ALWAYS_FREE + i * PAGE_SIZE, frame(i), 1, NULL) ==
		       HYPERPS_ERROR_OWNER;
	case MAP_OVER:
		return call(HYPERPS_CALL_VM_MAP, vm, i * PAGE_SIZE, frame(FIRST_FREE + i), 1, NULL) ==
		       HYPERPS_ERROR_OWNER;
	case MAP_CHUNK:
		return call(HYPERPS_CALL_VM_MAP, other, 0, frame(0), CHUNK_FRAMES, NULL) == HYPERPS_ERROR_OWNER;
	case DONATE:
		return call(HYPERPS_CALL_POOL_DONATE, frame(0), 0, 0, 0, NULL) == HYPERPS_ERROR_OWNER;
	case QUERY:
		return call(HYPERPS_CALL_FRAME_QUERY, other, frame(i), 0, 0, NULL) == HYPERPS_ERROR_OWNER;
	case SEAL:
		return call(HYPERPS_CALL_VM_SEAL, vm, 0, 0, 0, NULL) == HYPERPS_ERROR_STATE;
	case DECLARE:
		return call(HYPERPS_CALL_VM_DECLARE, vm, 1ULL << 40 | READ_WRITE_EXECUTE, 1, 0, NULL) ==
		       HYPERPS_ERROR_STATE;
	case CREATE:
		return call(HYPERPS_CALL_VCPU_CREATE, vm, HYPERPS_VCPU_PROTECTED, CODE, 0, NULL) == HYPERPS_ERROR_STATE;
	default:
		return call(HYPERPS_CALL_VM_RECLAIM, vm, 0, 0, 0, NULL) == HYPERPS_ERROR_STATE;
	}
}

/* Every attack but `skipped`, again and again, while the guest goes on. */
static void check_attacks(struct seq_file *out, const char *when, enum attack skipped)
{
	unsigned int attack, i, count;
	u64 runs;

	for (attack = 0; attack < ATTACKS; attack++) {
		if (attack == skipped || !part(attacks[attack].part))
			continue;
		runs = READ_ONCE(runner.runs);
		for (i = count = 0; i < TRIES; i++) {
			count += refused(attack, i % GIVEN);
			cond_resched();
			if (i % 32 == 31)
				await_runs(&runner, 1);
		}
		tap_check(out, count == TRIES && READ_ONCE(runner.runs) > runs && !runner.bad && !runner.errors,
			  "%s: %s is refused (%u of %d; %llu runs, %llu bad, %lld)", when, attacks[attack].name, count,
			  TRIES, runner.runs - runs, runner.bad, runner.error);
	}
}

static void check_controls(struct seq_file *out)
{
	struct access access = { .address = page_address(chunk + FIRST_FREE) };
	u64 value = 0;

	try_access(&access);
	tap_check(out, access.read && access.written && read_frame(FIRST_FREE, &value) && value == PATTERN,
		  "positive control: a frame of the host's can be read and written");
	tap_check(out,
		  call(HYPERPS_CALL_FRAME_QUERY, vm, frame(0), 0, 0, &value) == 0 && value == HYPERPS_FRAME_PRIVATE,
		  "positive control: FRAME_QUERY for the guest's own VM");
	tap_check(out, !map(other, 0, frame(FIRST_FREE + FREE_PAGES), 1) && !finish(HYPERPS_CALL_VM_SYNC, other),
		  "positive control: VM_MAP of another frame into the other VM");
}

/* Memory that a guest gets while it runs is zero, whatever the host has put there. */
static void check_new_pages(struct seq_file *out)
{
	unsigned int given = 0, zero = 0, tries = 0;
	u64 words[HYPERPS_RESULTS];
	s64 error = 0;

	memset64(page_address(chunk + FIRST_FREE), POISON, FREE_PAGES * PAGE_SIZE / 8);
	while (zero < FREE_PAGES && !error && ++tries < 20000) {
		error = run(TOUCHER, words);
		if (!error && words[0] == HYPERPS_EXIT_MEMORY && given < FREE_PAGES) {
			error = map(vm, FREE + given * PAGE_SIZE, frame(FIRST_FREE + given), 1)
					?: finish(HYPERPS_CALL_VM_SYNC, vm);
			given++;
		} else if (!error && words[0] == HYPERPS_EXIT_OUT) {
			zero += words[1] == 0x42 && !words[3];
			error = words[3] ? -1 : 0;
		}
		cond_resched();
	}
	tap_check(out, !error && zero == FREE_PAGES,
		  "positive control: VM_MAP into the VM that runs works; %u of %d pages are zero (%lld)", zero,
		  FREE_PAGES, error);
}

/* While the guest releases pages and gets them again, their frames are read all the time, and VM_RECLAIM is called. */
static void check_released(struct seq_file *out)
{
	struct runner churner = { .vcpu = CHURNER };
	u64 value, hidden = 0, zero = 0, poison = 0, found = 0, reclaimed = 0;
	unsigned long end = jiffies + HZ;
	unsigned int i;

	if (!start(&churner, cpumask_last(cpu_online_mask)))
		return;
	await_runs(&churner, 10);
	check_attacks(out, "while frames come and go", RECLAIM);
	while (time_before(jiffies, end)) {
		for (i = 0; i < CHURNED_PAGES; i++) {
			bool open = read_frame(FIRST_CHURNED + i, &value);

			hidden += !open;
			zero += open && !value;
			poison += open && value == POISON;
			found += open && value && value != POISON;
		}
		reclaimed += !call(HYPERPS_CALL_VM_RECLAIM, vm, 0, 0, 0, NULL);
		cond_resched();
	}
	stop(&churner);
	/* In another hypervisor all takes a hundred times as long. */
	tap_check(out,
		  churner.cycles > (boot_cpu_has(X86_FEATURE_HYPERVISOR) ? 2 : 20) && !churner.bad && !churner.errors &&
			  !churner.dirty,
		  "%llu times pages are released, zeroed and given anew (%llu bad, %llu dirty, %lld)", churner.cycles,
		  churner.bad, churner.dirty, churner.error);
	/* With one CPU this runs when the guest's side yields, and then the pages may all be the host's. */
	tap_check(out, (hidden || num_online_cpus() == 1) && !found,
		  "reading them never shows what the guest wrote (%llu refused, %llu zero, %llu the "
		  "host's, %llu else; %llu reclaimed)",
		  hidden, zero, poison, found, reclaimed);
}

/* All CPUs run these vCPUs for a while, by turns; returns how often the counters were wrong. */
static u64 run_everywhere(struct seq_file *out, enum vcpu first, enum vcpu second, const char *what)
{
	static struct runner all[NR_CPUS];
	u64 runs = 0, busy = 0, progress = 0, bad = 0, errors = 0, idle = 0;
	int cpu;

	memset(all, 0, sizeof(all));
	for_each_online_cpu(cpu)
	{
		all[cpu].vcpu = cpu % 2 ? second : first;
		start(&all[cpu], cpu);
	}
	if (num_online_cpus() == 1 && first != second) {
		all[1].vcpu = second;
		start(&all[1], 0);
	}
	msleep(1000);
	for (cpu = 0; cpu < NR_CPUS; cpu++) {
		if (!all[cpu].task)
			continue;
		stop(&all[cpu]);
		runs += all[cpu].runs;
		busy += all[cpu].busy;
		progress += all[cpu].progress;
		bad += all[cpu].bad;
		errors += all[cpu].errors;
		idle += !all[cpu].runs;
	}
	tap_check(out,
		  runs > 100 && progress && !errors && !idle && (busy || num_online_cpus() == 1 || first != second),
		  "%s: %llu runs, %llu refused, each CPU has its turns", what, runs, busy);
	return bad;
}

static void check_one_vcpu_everywhere(struct seq_file *out)
{
	u64 bad;

	stop(&runner);
	bad = run_everywhere(out, COUNTER, COUNTER, "one vCPU on all CPUs");
	tap_check(out, !bad, "no two CPUs were that vCPU at once (%llu bad)", bad);
	bad = run_everywhere(out, SHARES_2, SHARES_3, "two vCPUs with one counter");
	tap_check(out, bad, "positive control: the guest notices that (%llu bad)", bad);
	runner = (struct runner){ .vcpu = COUNTER };
	start(&runner, cpumask_last(cpu_online_mask));
	await_runs(&runner, 10);
}

static s64 make_vm(void)
{
	s64 error = create(0, RAM_PAGES, &vm) ?: create(0, RAM_PAGES, &other);
	unsigned int i;

	memset(page_address(chunk), 0, CHUNK_FRAMES * PAGE_SIZE);
	memcpy(page_address(chunk + CODE / PAGE_SIZE), siege_guests, siege_guests_end - siege_guests);
	error = error ?: map(vm, 0, frame(0), GIVEN) ?: finish(HYPERPS_CALL_VM_SYNC, vm);
	for (i = 0; i < VCPUS && !error; i++)
		error = call(HYPERPS_CALL_VCPU_CREATE, vm, HYPERPS_VCPU_PROTECTED, CODE + (entries[i] - siege_guests),
			     0, NULL);
	return error ?: finish(HYPERPS_CALL_VM_SEAL, vm);
}

/* Nothing is given back on a failure: the machine is the test's own. */
static s64 begin(void)
{
	s64 error;

	chunk = alloc_pages(GFP_KERNEL, ORDER);
	error = chunk ? make_vm() : -ENOMEM;
	if (error || !start(&runner, cpumask_last(cpu_online_mask)))
		return error ?: -ENOMEM;
	base = PFN_PHYS(page_to_pfn(chunk));
	return 0;
}

static int show_siege(struct seq_file *out, void *unused)
{
	s64 error = over ? -EINVAL : begin();

	tap_check(out, !error, "a guest that runs (%lld)", error);
	if (error)
		return 0;
	await_runs(&runner, 10);
	check_controls(out);
	check_attacks(out, "while it runs", ATTACKS);
	if (part("remap"))
		check_new_pages(out);
	if (part("content") || part("remap"))
		check_released(out);
	if (part("race"))
		check_one_vcpu_everywhere(out);
	tap_check(out, runner.progress && !runner.bad && !runner.errors, "the guest went on (%llu runs, %llu reports)",
		  runner.runs, runner.progress);
	return 0;
}

/*
 * Ends the VM that still runs. Each attempt comes in the middle of a run, and must be refused unless that run has ended
 * meanwhile. 0, or -EIO if anything is not as it should.
 */
static int end_vm(const char *text, const struct kernel_param *parameter)
{
	bool others = num_online_cpus() > 1;
	unsigned int refusals = 0;
	u64 left = 1, turn = 0;
	s64 error;

	if (over || !base)
		return -EINVAL;
	over = true;
	stop(&runner);
	runner = (struct runner){ .vcpu = SPINNER };
	start(&runner, cpumask_last(cpu_online_mask));
	await_runs(&runner, 10);
	do {
		while (others && !runner.stop && !((turn = smp_load_acquire(&runner.turn)) & 1))
			cpu_relax();
		udelay(20);
		error = call(HYPERPS_CALL_VM_DESTROY, vm, 0, 0, 0, &left);
		refusals += error == HYPERPS_ERROR_STATE;
		cond_resched();
		/* Where CPUs take turns on one, as a virtual machine's may, no attempt need ever come after the end of a run. */
		if (refusals == REFUSALS)
			WRITE_ONCE(runner.stop, true);
	} while (error == HYPERPS_ERROR_STATE && refusals < 1000000);
	if (!error && others && smp_load_acquire(&runner.turn) == turn)
		error = -EIO;
	error = error ?: (left ? finish(HYPERPS_CALL_VM_DESTROY, vm) : 0);
	stop(&runner);
	error = error ?: finish(HYPERPS_CALL_VM_RECLAIM, vm);
	error = error ?: finish(HYPERPS_CALL_VM_DESTROY, other) ?: finish(HYPERPS_CALL_VM_RECLAIM, other);
	pr_info("vcpu_siege: the end was refused %u times, then %lld\n", refusals, error);
	if (error || runner.errors)
		return -EIO;
	if (memchr_inv(page_address(chunk), 0, GIVEN * PAGE_SIZE) ||
	    memchr_inv(page_address(chunk + FIRST_FREE + FREE_PAGES), 0, PAGE_SIZE) ||
	    (part("remap") && memchr_inv(page_address(chunk + FIRST_FREE), 0, FREE_PAGES * PAGE_SIZE)))
		return -EIO;
	__free_pages(chunk, ORDER);
	return 0;
}

static const struct kernel_param_ops end_operations = { .set = end_vm };
module_param_cb(end, &end_operations, NULL, 0200);

TAP_MODULE("vcpu_siege", show_siege, "Attempts at a guest that runs");

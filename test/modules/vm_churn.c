// SPDX-License-Identifier: GPL-2.0
/*
 * All CPUs create, fill, sync, seal, run, destroy and reclaim VMs at once, several each, one call at a time in random
 * order, with random calls on the VMs of the others. A guest touches, shares, takes back and releases pages as it is
 * told. On request they hold between two calls: then no request is under way, and
 * a checker from outside can compare all views with the page marks.
 *
 * Commands, written to the parameter `command`: "donate" enlarges the monitor's pool, for ever; "start"; "quiet" returns when all hold; "go"; "stop" ends all VMs.
 * /proc/vm_churn: a line for each VM that the monitor has; after "stop" the checks.
 */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "calls.h"
#include "tap.h"

#define VMS 8 /* for each CPU */
#define SINGLES 24 /* frames of a VM that are mapped one by one */
#define ORDER 9 /* and one chunk of 2 MiB */
#define CHUNK_FRAMES (1UL << ORDER)
#define SPREAD (SZ_1G / PAGE_SIZE) /* pages among which the single frames lie */
#define GUEST_ORDER 4 /* the guest's own pages, at gpa 0 */
#define GUEST_PAGES (1UL << GUEST_ORDER)
#define CODE 0x1000ULL
#define FIRST_DATA 2 /* of the guest's pages */
#define ARGUMENT 0x2a5ec7c0d000ULL /* of all vCPUs: test/live/ownership.py looks for it */
#define GUEST_SHARE 0x48505381 /* then UNSHARE and RELEASE: hyperps/guest.h */
#define PORT_CALL 0x10
#define PORT_GPA 0x11
#define PORT_COUNT 0x12
#define FILL 0x5a
#define WAIT_MS 60000

/* 32-bit code without paging: reads a call's number, gpa and count, and makes it; 0 is a store at the gpa. */
asm(".pushsection .rodata\n"
    ".code32\n"
    "churn_guest:\n"
    "1:	in	$0x10, %eax\n"
    "	mov	%eax, %ebx\n"
    "	in	$0x11, %eax\n"
    "	mov	%eax, %edi\n"
    "	in	$0x12, %eax\n"
    "	mov	%eax, %esi\n"
    "	mov	%ebx, %eax\n"
    "	test	%eax, %eax\n"
    "	jz	2f\n"
    "	vmcall\n"
    "	out	%eax, $0x13\n"
    "	jmp	1b\n"
    "2:	movl	$0x5ec2e75e, (%edi)\n"
    "	jmp	1b\n"
    "churn_guest_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char churn_guest[], churn_guest_end[];

enum stage { NONE, ALIVE, SEALING, SEALED, DYING, DEAD };

struct churned_vm {
	enum stage stage;
	u64 handle, gpa, chunk_gpa;
	struct page *chunk, *own, *single[SINGLES];
	bool chunk_given, own_given, single_given[SINGLES], has_vcpu;
	u64 answer, target; /* to the guest's next IN; the gpa that it got last */
};

struct worker {
	struct task_struct *task;
	u64 seed;
	struct churned_vm vm[VMS];
	unsigned int ended, calls, attacks, late, dry, failed, dirty;
	unsigned int runs, shared, unshared, released, touched; /* by guests */
	u64 failed_call;
	s64 error; /* of the first call that failed */
	bool done;
};

static struct worker *workers;
static unsigned int running;
static atomic_t holding;
static bool quiet, stopping, stopped;

static u64 next_random(struct worker *worker)
{
	worker->seed ^= worker->seed << 13;
	worker->seed ^= worker->seed >> 7;
	worker->seed ^= worker->seed << 17;
	return worker->seed;
}

/* Counts what a call gave. Errors that only a broken monitor can cause end the worker. */
static s64 judge(struct worker *worker, u64 number, s64 error)
{
	worker->calls++;
	if (error == HYPERPS_ERROR_AGAIN)
		worker->late++;
	else if (error == HYPERPS_ERROR_MEMORY)
		worker->dry++;
	else if (error && !worker->failed++) {
		worker->failed_call = number;
		worker->error = error;
	}
	return error;
}

static s64 request(struct worker *worker, u64 number, u64 handle, u64 *left)
{
	return judge(worker, number, call(number, handle, 0, 0, 0, left));
}

/* Any harmless call on any VM: none that gives away memory which is not this worker's, or ends a VM. */
static void attack(struct worker *worker)
{
	static const u64 numbers[] = { HYPERPS_CALL_VM_SYNC, HYPERPS_CALL_VM_RECLAIM, HYPERPS_CALL_FRAME_QUERY,
				       HYPERPS_CALL_READ,    HYPERPS_CALL_VM_DECLARE, HYPERPS_CALL_TAKE_CPUS };
	u64 r = next_random(worker);
	struct worker *other = &workers[r % nr_cpu_ids];
	u64 victim = READ_ONCE(other->vm[(r >> 8) % VMS].handle);

	call(numbers[(r >> 16) % ARRAY_SIZE(numbers)], r & BIT(40) ? victim : r, r >> 3, r >> 5, r >> 7, NULL);
	worker->attacks++;
}

static void fill(struct churned_vm *vm)
{
	int i;

	memset(page_address(vm->chunk), FILL, CHUNK_FRAMES * PAGE_SIZE);
	for (i = 0; i < SINGLES; i++)
		memset(page_address(vm->single[i]), FILL, PAGE_SIZE);
	memset(page_address(vm->own), FILL, GUEST_PAGES * PAGE_SIZE);
	memcpy(page_address(vm->own) + CODE, churn_guest, churn_guest_end - churn_guest);
	vm->chunk_given = vm->own_given = vm->has_vcpu = false;
	vm->answer = 0;
	memset(vm->single_given, 0, sizeof(vm->single_given));
}

static void begin(struct worker *worker, struct churned_vm *vm)
{
	s64 error;

	fill(vm);
	/* Room above for the chunk and the single frames; far from the guest's own pages. */
	vm->gpa = (next_random(worker) & 0x1fffffe00000ULL) | BIT_ULL(40);
	error = call(HYPERPS_CALL_VM_CREATE, 0, 0, 0, 0, &vm->handle);
	if (judge(worker, HYPERPS_CALL_VM_CREATE, error))
		return;
	vm->stage = ALIVE;
	error = call(HYPERPS_CALL_VM_DECLARE, vm->handle, READ_WRITE_EXECUTE, VIEW_PAGES, 0, NULL);
	judge(worker, HYPERPS_CALL_VM_DECLARE, error);
	error = call(HYPERPS_CALL_VCPU_CREATE, vm->handle, HYPERPS_VCPU_PROTECTED | ARGUMENT, CODE, 0, NULL);
	vm->has_vcpu = !judge(worker, HYPERPS_CALL_VCPU_CREATE, error);
	vm->own_given = !judge(worker, HYPERPS_CALL_VM_MAP, map(vm->handle, 0, page_to_pfn(vm->own), GUEST_PAGES));
}

static void map_single(struct worker *worker, struct churned_vm *vm)
{
	u64 r = next_random(worker), gpa;
	int i = r % SINGLES;

	if (vm->single_given[i])
		return;
	/* In a row, so that they make one run, or anywhere in 1 GiB; each at a gpa that no other one has. */
	gpa = vm->gpa + SZ_4G + PAGE_SIZE * (r & BIT(20) ? i : SPREAD + (r >> 24) % (SPREAD / SINGLES) * SINGLES + i);
	vm->single_given[i] = !judge(worker, HYPERPS_CALL_VM_MAP, map(vm->handle, gpa, page_to_pfn(vm->single[i]), 1));
}

static void map_chunk(struct worker *worker, struct churned_vm *vm)
{
	u64 r = next_random(worker);

	if (vm->chunk_given)
		return;
	/* Every second one where the guest can name it. One page further on no large page fits. */
	vm->chunk_gpa = (r & 2 ? SZ_4M + SZ_2M * (r >> 8 & 0xff) : vm->gpa) + (r & 1 ? PAGE_SIZE : 0);
	vm->chunk_given = !judge(worker, HYPERPS_CALL_VM_MAP,
				 map(vm->handle, vm->chunk_gpa, page_to_pfn(vm->chunk), CHUNK_FRAMES));
}

/* A gpa that the guest can name, of its own pages or in the chunk. */
static u64 pick_gpa(struct worker *worker, struct churned_vm *vm)
{
	u64 r = next_random(worker);

	if (vm->chunk_given && vm->chunk_gpa < SZ_4G && r & 1)
		return vm->chunk_gpa + (r >> 8) % CHUNK_FRAMES * PAGE_SIZE;
	return (FIRST_DATA + (r >> 8) % (GUEST_PAGES - FIRST_DATA)) * PAGE_SIZE;
}

static void answer(struct worker *worker, struct churned_vm *vm, u64 port)
{
	u64 r = next_random(worker), left;

	switch (port) {
	case PORT_CALL:
		vm->answer = r % 8 < 2 ? 0 : GUEST_SHARE + (r % 8 < 5 ? 0 : r % 8 - 5);
		break;
	case PORT_GPA:
		vm->answer = vm->target = pick_gpa(worker, vm);
		break;
	default:
		left = vm->target < GUEST_PAGES * PAGE_SIZE ? GUEST_PAGES - vm->target / PAGE_SIZE
							    : CHUNK_FRAMES - (vm->target - vm->chunk_gpa) / PAGE_SIZE;
		vm->answer = r & 7 ? min(r >> 8 & 7, left - 1) + 1 : left;
	}
}

static void make_room(struct worker *worker, struct churned_vm *vm)
{
	s64 error;

	judge(worker, HYPERPS_CALL_VM_SYNC, finish(HYPERPS_CALL_VM_SYNC, vm->handle));
	error = call(HYPERPS_CALL_VM_RECLAIM, vm->handle, 0, 0, 0, NULL);
	/* Nothing is released. */
	judge(worker, HYPERPS_CALL_VM_RECLAIM, error == HYPERPS_ERROR_STATE ? 0 : error);
}

/* The guest waits for a page: what came back from there goes there again. */
static void bring(struct worker *worker, struct churned_vm *vm, u64 gpa)
{
	bool is_own = gpa < GUEST_PAGES * PAGE_SIZE;
	u64 frame = is_own ? page_to_pfn(vm->own) + gpa / PAGE_SIZE
			   : page_to_pfn(vm->chunk) + (gpa - vm->chunk_gpa) / PAGE_SIZE;
	u64 state;

	if (!is_own && (!vm->chunk_given || gpa - vm->chunk_gpa >= CHUNK_FRAMES * PAGE_SIZE))
		return;
	if (!judge(worker, HYPERPS_CALL_FRAME_QUERY, call(HYPERPS_CALL_FRAME_QUERY, vm->handle, frame, 0, 0, &state)) &&
	    state == HYPERPS_FRAME_HOST) {
		worker->dirty += memchr_inv(pfn_to_kaddr(frame), 0, PAGE_SIZE) != NULL;
		judge(worker, HYPERPS_CALL_VM_MAP, map(vm->handle, gpa, frame, 1));
	} else {
		make_room(worker, vm);
	}
}

static void run(struct worker *worker, struct churned_vm *vm)
{
	u64 words[HYPERPS_RESULTS];

	if (!vm->has_vcpu || !vm->own_given)
		return;
	if (judge(worker, HYPERPS_CALL_VCPU_RUN, run_vcpu(vm->handle, 0, vm->answer, 0, words)))
		return;
	worker->runs++;
	switch ((u32)words[0]) {
	case HYPERPS_EXIT_IN:
		answer(worker, vm, words[1]);
		break;
	case HYPERPS_EXIT_SHARED:
		worker->shared++;
		break;
	case HYPERPS_EXIT_UNSHARED:
		worker->unshared++;
		break;
	case HYPERPS_EXIT_RELEASED:
		worker->released++;
		break;
	case HYPERPS_EXIT_MEMORY:
		worker->touched++;
		bring(worker, vm, words[1]);
		break;
	case HYPERPS_EXIT_ROOM:
		make_room(worker, vm);
		break;
	case HYPERPS_EXIT_OUT:
	case HYPERPS_EXIT_INTERRUPTED:
		break;
	default:
		judge(worker, HYPERPS_CALL_VCPU_RUN, -1000 - (s64)(u32)words[0]);
	}
}

/* The VM is gone. What it had is zero; what it did not have is as it was. */
static void check_contents(struct worker *worker, struct churned_vm *vm)
{
	int i;

	worker->dirty +=
		memchr_inv(page_address(vm->chunk), vm->chunk_given ? 0 : FILL, CHUNK_FRAMES * PAGE_SIZE) != NULL;
	worker->dirty += vm->own_given && memchr_inv(page_address(vm->own), 0, GUEST_PAGES * PAGE_SIZE);
	for (i = 0; i < SINGLES; i++)
		worker->dirty +=
			memchr_inv(page_address(vm->single[i]), vm->single_given[i] ? 0 : FILL, PAGE_SIZE) != NULL;
	worker->ended++;
	vm->stage = NONE;
}

/* One call of VM_DESTROY or VM_RECLAIM: a VM stays half-way for a while. */
static void go_on_ending(struct worker *worker, struct churned_vm *vm)
{
	u64 left;
	s64 error;

	if (vm->stage != DEAD) {
		vm->stage = DYING;
		if (!request(worker, HYPERPS_CALL_VM_DESTROY, vm->handle, &left) && !left)
			vm->stage = DEAD;
		return;
	}
	error = call(HYPERPS_CALL_VM_RECLAIM, vm->handle, 0, 0, 0, &left);
	/* Another worker's attack may have finished it: then the handle is gone, and the memory is back. */
	if (error == HYPERPS_ERROR_NO_VM || (!judge(worker, HYPERPS_CALL_VM_RECLAIM, error) && !left))
		check_contents(worker, vm);
}

/* Some calls of VM_SEAL: a VM stays half sealed for a while. */
static void seal(struct worker *worker, struct churned_vm *vm)
{
	unsigned int calls = next_random(worker) % 16 + 1;
	u64 left;

	/* Nothing may wait. */
	if (vm->stage == ALIVE)
		judge(worker, HYPERPS_CALL_VM_SYNC, finish(HYPERPS_CALL_VM_SYNC, vm->handle));
	while (calls-- && vm->stage != SEALED && !request(worker, HYPERPS_CALL_VM_SEAL, vm->handle, &left))
		vm->stage = left ? SEALING : SEALED;
}

static void run_on(struct worker *worker, struct churned_vm *vm)
{
	unsigned int runs = next_random(worker) % 32 + 1;

	while (runs-- && !worker->failed)
		run(worker, vm);
}

static void step(struct worker *worker)
{
	struct churned_vm *vm = &worker->vm[next_random(worker) % VMS];
	unsigned int dice = next_random(worker) % 100;
	u64 left;

	if (dice < 15)
		attack(worker);
	else if (vm->stage == NONE)
		begin(worker, vm);
	else if (vm->stage == SEALING && dice < 95)
		seal(worker, vm);
	else if (vm->stage >= DYING || vm->stage == SEALING)
		go_on_ending(worker, vm);
	else if (vm->stage == SEALED && dice < 80)
		run_on(worker, vm);
	else if (dice < 74)
		map_single(worker, vm);
	else if (dice < 80)
		map_chunk(worker, vm);
	else if (dice < 87)
		request(worker, HYPERPS_CALL_VM_SYNC, vm->handle, &left);
	else if (dice < 97 && vm->stage == ALIVE)
		seal(worker, vm);
	else if (dice < 97)
		map_single(worker, vm);
	else
		go_on_ending(worker, vm);
}

static void end_all(struct worker *worker)
{
	unsigned long deadline = jiffies + msecs_to_jiffies(WAIT_MS);
	int i;

	for (i = 0; i < VMS; i++)
		while (worker->vm[i].stage != NONE && !worker->failed && time_before(jiffies, deadline)) {
			go_on_ending(worker, &worker->vm[i]);
			cond_resched();
		}
}

static int work(void *argument)
{
	struct worker *worker = argument;

	while (!READ_ONCE(stopping)) {
		if (READ_ONCE(quiet)) {
			atomic_inc(&holding);
			while (READ_ONCE(quiet))
				msleep(1);
			atomic_dec(&holding);
		}
		if (worker->failed || worker->dirty)
			msleep(1);
		else
			step(worker);
		cond_resched();
	}
	end_all(worker);
	WRITE_ONCE(worker->done, true);
	while (!kthread_should_stop())
		msleep(1);
	return 0;
}

static bool get_memory(struct churned_vm *vm)
{
	int i;

	vm->chunk = alloc_pages(GFP_KERNEL, ORDER);
	vm->own = alloc_pages(GFP_KERNEL, GUEST_ORDER);
	for (i = 0; i < SINGLES; i++)
		vm->single[i] = alloc_page(GFP_KERNEL);
	return vm->chunk && vm->own && vm->single[SINGLES - 1];
}

static void put_memory(struct churned_vm *vm)
{
	int i;

	__free_pages(vm->chunk, ORDER);
	__free_pages(vm->own, GUEST_ORDER);
	for (i = 0; i < SINGLES; i++)
		__free_page(vm->single[i]);
}

/* Memory that cannot be had, and CPUs that come and go, are no part of this: the machine is the test's own. */
static int start(void)
{
	int cpu, i;

	workers = kcalloc(nr_cpu_ids, sizeof(*workers), GFP_KERNEL);
	if (!workers)
		return -ENOMEM;
	for_each_online_cpu(cpu)
	{
		struct worker *worker = &workers[cpu];

		worker->seed = 88172645463325252ULL + cpu * 1000003;
		for (i = 0; i < VMS; i++)
			if (!get_memory(&worker->vm[i]))
				return -ENOMEM;
		worker->task = kthread_create(work, worker, "vm_churn/%d", cpu);
		if (IS_ERR(worker->task))
			return PTR_ERR(worker->task);
		kthread_bind(worker->task, cpu);
		running++;
	}
	for_each_online_cpu(cpu) wake_up_process(workers[cpu].task);
	return 0;
}

/* Never freed: it is the monitor's now. */
static int donate(void)
{
	struct page *chunk = alloc_pages(GFP_KERNEL, ORDER);

	return chunk ? call(HYPERPS_CALL_POOL_DONATE, page_to_pfn(chunk), 0, 0, 0, NULL) : -ENOMEM;
}

static int wait_until_holding(int count)
{
	int waited;

	for (waited = 0; waited < WAIT_MS && atomic_read(&holding) != count; waited++)
		msleep(1);
	return atomic_read(&holding) == count ? 0 : -ETIMEDOUT;
}

static int stop(void)
{
	int cpu, i, waited;

	WRITE_ONCE(stopping, true);
	for_each_online_cpu(cpu)
	{
		for (waited = 0; waited < WAIT_MS && !READ_ONCE(workers[cpu].done); waited++)
			msleep(1);
		kthread_stop(workers[cpu].task);
	}
	stopped = true;
	for_each_online_cpu(cpu) for (i = 0; i < VMS; i++)
	{
		/* After a failure the memory may still be a VM's. */
		if (!workers[cpu].failed && workers[cpu].vm[i].stage == NONE)
			put_memory(&workers[cpu].vm[i]);
	}
	return 0;
}

static int set_command(const char *text, const struct kernel_param *parameter)
{
	if (sysfs_streq(text, "start") && !workers)
		return start();
	if (sysfs_streq(text, "donate") && !workers)
		return donate();
	if (!running || stopped)
		return -EINVAL;
	if (sysfs_streq(text, "quiet")) {
		WRITE_ONCE(quiet, true);
		return wait_until_holding(running);
	}
	if (sysfs_streq(text, "go") || sysfs_streq(text, "stop")) {
		int error;

		WRITE_ONCE(quiet, false);
		error = wait_until_holding(0);
		return error || sysfs_streq(text, "go") ? error : stop();
	}
	return -EINVAL;
}

static const struct kernel_param_ops command_operations = { .set = set_command };
module_param_cb(command, &command_operations, NULL, 0200);

/* How many vCPUs the VM of this handle has. */
static unsigned int vcpus_of(u64 handle)
{
	unsigned int count = 0;
	int cpu, i;

	for_each_online_cpu(cpu) for (i = 0; workers && i < VMS; i++)
	{
		const struct churned_vm *vm = &workers[cpu].vm[i];

		count += vm->handle == handle && vm->has_vcpu && vm->stage != NONE && vm->stage < DYING;
	}
	return count;
}

static void show_vms(struct seq_file *out)
{
	u64 slot;

	for (slot = 0; slot < HYPERPS_VMS; slot++) {
		struct hyperps_vm vm;

		BUILD_BUG_ON(sizeof(vm) != HYPERPS_READ_BYTES);
		if (read_words(slot << 32 | HYPERPS_OBJECT_VM, 0, (u64 *)&vm) || vm.state == HYPERPS_VM_FREE)
			continue;
		seq_printf(out,
			   "vm slot=%llu state=%llu frames=%llu pending=%llu view_eptp=%llu view_4k=%llu view_2m=%llu "
			   "handle=%llu vcpus=%u\n",
			   slot, vm.state, vm.frames, vm.pending, vm.view_eptp, vm.view_4k, vm.view_2m, vm.handle,
			   vcpus_of(vm.handle));
	}
}

static int show_churn(struct seq_file *out, void *unused)
{
	int cpu;

	show_vms(out);
	if (!stopped)
		return 0;
	for_each_online_cpu(cpu)
	{
		struct worker *worker = &workers[cpu];

		tap_check(out, worker->done && worker->ended && !worker->failed && !worker->dirty,
			  "CPU %d: %u VMs ended, %u calls, %u hostile, %u too early, %u pool dry, %u failed (%llx: "
			  "%lld), %u dirty",
			  cpu, worker->ended, worker->calls, worker->attacks, worker->late, worker->dry, worker->failed,
			  worker->failed_call, worker->error, worker->dirty);
		tap_check(out, worker->shared && worker->unshared && worker->released && worker->touched,
			  "CPU %d: %u runs; guests shared %u times, took back %u, released %u, missed %u", cpu,
			  worker->runs, worker->shared, worker->unshared, worker->released, worker->touched);
	}
	return 0;
}

TAP_MODULE("vm_churn", show_churn, "All CPUs create and end VMs, with quiet points");

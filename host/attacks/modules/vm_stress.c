// SPDX-License-Identifier: GPL-2.0
/*
 * All CPUs create VMs, give them memory, sync, destroy and reclaim at once, each with memory of its own, while hostile
 * calls hit the handles of the others. What comes back must be zero, and no call may fail in a way that only a broken
 * monitor can cause.
 */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "calls.h"
#include "tap.h"

#define PAGES 48 /* single ones for each CPU */
#define ORDER 9
static unsigned int rounds = 60; /* for each CPU */
module_param(rounds, uint, 0);

static u64 handles[NR_CPUS]; /* of the VMs in use: read without any lock by those who attack them */

struct worker {
	struct task_struct *task;
	int cpu;
	u64 seed;
	unsigned int done, failed, dirty, attacks, refused;
	s64 error; /* of the first failed call */
	struct page *chunk, *pages[PAGES];
};

static u64 next_random(struct worker *worker)
{
	worker->seed ^= worker->seed << 13;
	worker->seed ^= worker->seed >> 7;
	worker->seed ^= worker->seed << 17;
	return worker->seed;
}

static void note_error(struct worker *worker, s64 error)
{
	if (error && !worker->failed++)
		worker->error = error;
}

/* Any call on any handle, with any argument; but none that gives away memory which is not this worker's. */
static void attack(struct worker *worker)
{
	u64 victim = READ_ONCE(handles[next_random(worker) % nr_cpu_ids]), r = next_random(worker);
	static const u64 numbers[] = { HYPERPS_CALL_VM_SYNC, HYPERPS_CALL_VM_RECLAIM, HYPERPS_CALL_FRAME_QUERY,
				       HYPERPS_CALL_READ,    HYPERPS_CALL_VM_DECLARE, HYPERPS_CALL_TAKE_CPUS };

	worker->refused +=
		call(numbers[r % ARRAY_SIZE(numbers)], r & BIT(40) ? victim : r, r >> 3, r >> 5, r >> 7, NULL) < 0;
	worker->attacks++;
}

/* -EAGAIN means that another CPU did not flush in time, or that runs are pending: sync and try again. */
static s64 map_with_sync(u64 handle, u64 gpa, u64 frame, u64 count)
{
	unsigned int again = 0;
	s64 error;

	while ((error = map(handle, gpa, frame, count)) == HYPERPS_ERROR_AGAIN && ++again < 3) {
		error = finish_at_last(HYPERPS_CALL_VM_SYNC, handle);
		if (error)
			break;
	}
	return error;
}

static void one_round(struct worker *worker)
{
	u64 handle, gpa = next_random(worker) & 0x3fffffe00000ULL;
	s64 error;
	int i;

	memset(page_address(worker->chunk), 0x5a, PAGE_SIZE << ORDER);
	for (i = 0; i < PAGES; i++)
		memset(page_address(worker->pages[i]), 0xa5, PAGE_SIZE);
	note_error(worker, create(0, VIEW_PAGES, &handle));
	WRITE_ONCE(handles[worker->cpu], handle);
	note_error(worker, map_with_sync(handle, gpa, page_to_pfn(worker->chunk), 1 << ORDER));
	if (next_random(worker) & 1)
		note_error(worker, finish_at_last(HYPERPS_CALL_VM_SYNC, handle));
	for (i = 0; i < PAGES; i++) {
		u64 at = (gpa ^ BIT_ULL(45)) + (u64)i * (next_random(worker) & 1 ? PAGE_SIZE : 0x200000) * 2;

		note_error(worker, map_with_sync(handle, at & ~BIT_ULL(46), page_to_pfn(worker->pages[i]), 1));
		attack(worker);
	}
	if (next_random(worker) & 1)
		note_error(worker, finish_at_last(HYPERPS_CALL_VM_SYNC, handle));
	note_error(worker, finish(HYPERPS_CALL_VM_DESTROY, handle));
	/* Another worker's attack may have finished it: then the handle is gone, and the memory is back. */
	error = finish_at_last(HYPERPS_CALL_VM_RECLAIM, handle);
	note_error(worker, error == HYPERPS_ERROR_NO_VM ? 0 : error);
	/* What was not given, or is not back, is not expected to be zero. */
	if (worker->failed)
		return;
	worker->dirty += memchr_inv(page_address(worker->chunk), 0, PAGE_SIZE << ORDER) != NULL;
	for (i = 0; i < PAGES; i++)
		worker->dirty += memchr_inv(page_address(worker->pages[i]), 0, PAGE_SIZE) != NULL;
	worker->done++;
}

static int work(void *argument)
{
	struct worker *worker = argument;

	while (worker->done < rounds && !worker->failed && !worker->dirty) {
		one_round(worker);
		cond_resched();
	}
	while (!kthread_should_stop())
		msleep(1);
	return 0;
}

static bool start_worker(struct worker *worker, int cpu)
{
	int i;

	worker->cpu = cpu;
	worker->seed = 88172645463325252ULL + cpu * 1000003;
	worker->chunk = alloc_pages(GFP_KERNEL, ORDER);
	for (i = 0; i < PAGES; i++)
		worker->pages[i] = alloc_page(GFP_KERNEL);
	if (!worker->chunk || !worker->pages[PAGES - 1])
		return false;
	worker->task = kthread_create(work, worker, "vm_stress/%d", cpu);
	if (IS_ERR(worker->task))
		return false;
	kthread_bind(worker->task, cpu);
	wake_up_process(worker->task);
	return true;
}

static int show_stress(struct seq_file *out, void *unused)
{
	struct worker *workers = kcalloc(nr_cpu_ids, sizeof(*workers), GFP_KERNEL);
	int cpu, i, waited;

	if (!workers)
		return -ENOMEM;
	cpus_read_lock();
	for_each_online_cpu(cpu) if (!start_worker(&workers[cpu], cpu))
		tap_check(out, false, "starting a worker on CPU %d", cpu);
	for_each_online_cpu(cpu)
	{
		struct worker *worker = &workers[cpu];

		if (IS_ERR_OR_NULL(worker->task))
			continue;
		for (waited = 0; waited < 120000 && worker->done < rounds && !worker->failed && !worker->dirty;
		     waited++)
			msleep(1);
		kthread_stop(worker->task);
		tap_check(out, worker->done == rounds && !worker->failed,
			  "positive control: CPU %d's own calls work, all CPUs at once (%u of %u rounds; %u failed, "
			  "first %lld)",
			  cpu, worker->done, rounds, worker->failed, worker->error);
		tap_check(out, !worker->dirty && worker->refused && worker->attacks >= worker->refused,
			  "CPU %d: %u hostile calls, %u refused; %u pages come back not zero", cpu, worker->attacks,
			  worker->refused, worker->dirty);
		/* After a failure the memory may still be a VM's. */
		if (worker->failed)
			continue;
		__free_pages(worker->chunk, ORDER);
		for (i = 0; i < PAGES; i++)
			__free_page(worker->pages[i]);
	}
	cpus_read_unlock();
	kfree(workers);
	return 0;
}

TAP_MODULE("vm_stress", show_stress, "All CPUs use the memory calls at once");

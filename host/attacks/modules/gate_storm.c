// SPDX-License-Identifier: GPL-2.0
/*
 * All CPUs in the gate at once: while NMIs arrive, while another CPU sets its gate again and again, and with arguments at
 * random among VMCALLs.
 */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <asm/nmi.h>

#include "calls.h"
#include "compat.h"
#include "counted_nmi.h"
#include "gate.h"
#include "gate_storm.h"
#include "tap.h"

#define NMIS 3000
#define SETS 300
#define ROUNDS 150
#define HOSTILE_CALLS 20
#define GPA 0x200000ULL

static u64 handles[NR_CPUS]; /* of the VMs in use: read without any lock by those who attack them */
static bool fuzz;

struct caller {
	struct task_struct *task;
	u64 seed, calls, failed, rounds, by_gate;
	s64 error;
	struct page *page;
	int cpu;
};

static u64 next_random(struct caller *caller)
{
	caller->seed ^= caller->seed << 13;
	caller->seed ^= caller->seed >> 7;
	caller->seed ^= caller->seed << 17;
	return caller->seed;
}

static s64 gate_or_vmcall(struct caller *caller, u64 number, u64 a, u64 b, u64 c, u64 *value)
{
	const u64 argument[4] = { a, b, c };
	s64 error = hyperps_gate_call(number, argument, value);

	caller->by_gate += error != HYPERPS_ERROR_USE_VMCALL;
	return error == HYPERPS_ERROR_USE_VMCALL ? call(number, a, b, c, 0, value) : error;
}

static void note(struct caller *caller, s64 error)
{
	if (error && !caller->failed++)
		caller->error = error;
}

static s64 repeat(struct caller *caller, u64 number, u64 handle)
{
	u64 left = 0;
	s64 error;

	do {
		error = gate_or_vmcall(caller, number, handle, 0, 0, &left);
		cond_resched();
	} while ((!error && left) || error == HYPERPS_ERROR_AGAIN);
	return error;
}

/* Any call, but none that gives away memory or ends another caller's VM. */
static void attack(struct caller *caller)
{
	static const u64 numbers[] = { HYPERPS_CALL_IDENTIFY,    HYPERPS_CALL_VM_DECLARE, HYPERPS_CALL_FRAME_QUERY,
				       HYPERPS_CALL_VM_MAP,      HYPERPS_CALL_VM_RECLAIM, HYPERPS_CALL_READ,
				       HYPERPS_CALL_TAKE_CPUS,   HYPERPS_CALL_VM_SYNC,    0,
				       HYPERPS_CALL_VM_MAP + 99, HYPERPS_CALL_VM_SEAL };
	u64 victim = READ_ONCE(handles[next_random(caller) % nr_cpu_ids]), r = next_random(caller), value;
	u64 number = numbers[r % ARRAY_SIZE(numbers)], handle = r & BIT(40) ? victim : r;

	if (number == HYPERPS_CALL_VM_SEAL)
		handle = r;
	/* Frames that are no RAM. */
	gate_or_vmcall(caller, number, handle, r >> 3, number == HYPERPS_CALL_VM_MAP ? r | BIT(30) : r >> 5, &value);
	caller->calls++;
}

static void one_round(struct caller *caller)
{
	u64 handle = 0, value, gpa = GPA;
	s64 error;
	int i;

	memset(page_address(caller->page), 0xa5, PAGE_SIZE);
	note(caller, gate_or_vmcall(caller, HYPERPS_CALL_VM_CREATE, 0, 0, 0, &handle));
	note(caller, gate_or_vmcall(caller, HYPERPS_CALL_VM_DECLARE, handle, gpa | READ_WRITE_EXECUTE, 1, &value));
	WRITE_ONCE(handles[caller->cpu], handle);
	for (i = 0; i < HOSTILE_CALLS; i++)
		attack(caller);
	do {
		const u64 argument[4] = { handle, gpa, page_to_pfn(caller->page), 1 };

		error = hyperps_gate_call(HYPERPS_CALL_VM_MAP, argument, &value);
		if (error == HYPERPS_ERROR_AGAIN)
			repeat(caller, HYPERPS_CALL_VM_SYNC, handle);
	} while (error == HYPERPS_ERROR_AGAIN);
	note(caller, error);
	note(caller, repeat(caller, HYPERPS_CALL_VM_SYNC, handle));
	note(caller, repeat(caller, HYPERPS_CALL_VM_DESTROY, handle));
	error = repeat(caller, HYPERPS_CALL_VM_RECLAIM, handle);
	/* Another's attack may have finished it. */
	note(caller, error == HYPERPS_ERROR_NO_VM ? 0 : error);
	if (memchr_inv(page_address(caller->page), 0, PAGE_SIZE))
		note(caller, -EIO);
	caller->rounds++;
}

static int work(void *data)
{
	static const u64 none[4];
	struct caller *caller = data;

	while (!kthread_should_stop() && !(fuzz && (caller->rounds == ROUNDS || caller->failed))) {
		u64 value = 0;
		int i;

		if (fuzz) {
			one_round(caller);
			cond_resched();
			continue;
		}
		for (i = 0; i < 100; i++) {
			s64 error = hyperps_gate_call(HYPERPS_CALL_IDENTIFY, none, &value);

			note(caller, error ? error : value == HYPERPS_SIGNATURE ? 0 : -EIO);
		}
		caller->calls += 100;
		cond_resched();
	}
	while (!kthread_should_stop())
		msleep(1);
	return 0;
}

static bool start(struct caller *caller, int cpu)
{
	memset(caller, 0, sizeof(*caller));
	caller->cpu = cpu;
	caller->seed = 88172645463325252ULL + cpu * 1000003;
	caller->page = alloc_page(GFP_KERNEL);
	caller->task = kthread_create(work, caller, "gate_storm/%d", cpu);
	if (!caller->page || IS_ERR(caller->task))
		return false;
	kthread_bind(caller->task, cpu);
	wake_up_process(caller->task);
	return true;
}

/*
 * This CPU's gate at other addresses, and off, while the others call. The top-level tables come from all over the RAM:
 * some of their address bytes make code that is refused, and neighbours share these.
 */
static unsigned int set_again(void)
{
	u64 frames = min_t(u64, totalram_pages(), BIT_ULL(32 - PAGE_SHIFT)), value;
	unsigned int i, done = 0;

	for (i = 0; i < SETS; i++) {
		u64 linear = i % 3 ? 0xffffffff00000000ULL + (u64)i * PAGE_SIZE : 0;

		u64 top = (i * 40503ULL % frames) << PAGE_SHIFT;

		done += !call(HYPERPS_CALL_GATE_SET, linear, top, 0, 0, &value);
	}
	return done;
}

static void stop(struct seq_file *out, struct caller *caller, const char *what)
{
	kthread_stop(caller->task);
	tap_check(out, !caller->failed && caller->calls, "CPU %d, %s: %llu calls, %llu wrong (first %lld)", caller->cpu,
		  what, caller->calls, caller->failed, caller->error);
	if (!caller->failed)
		__free_page(caller->page);
}

static void storm_nmis(struct seq_file *out, struct caller *callers)
{
	int cpu, got;

	for_each_online_cpu(cpu)
	{
		if (!start(&callers[cpu], cpu))
			return;
		msleep(10);
		got = send_counted_nmis(cpu, NMIS);
		tap_check(out, got == NMIS, "NMIs reach CPU %d while it is in the gate (%d of %d)", cpu, got, NMIS);
		stop(out, &callers[cpu], "under NMIs");
	}
}

static void storm_sets(struct seq_file *out, struct caller *callers)
{
	unsigned int done;
	int cpu;

	for_each_online_cpu(cpu) if (cpu && !start(&callers[cpu], cpu)) return;
	done = set_again();
	tap_check(out, done > SETS / 3, "CPU 0 sets its gate again meanwhile (%u of %d accepted)", done, SETS);
	for_each_online_cpu(cpu) if (cpu) stop(out, &callers[cpu], "while CPU 0's gate changes");
}

static void storm_fuzz(struct seq_file *out, struct caller *callers)
{
	int cpu, waited;

	fuzz = true;
	for_each_online_cpu(cpu) if (!start(&callers[cpu], cpu)) return;
	for_each_online_cpu(cpu)
	{
		struct caller *caller = &callers[cpu];

		for (waited = 0; waited < 60000 && READ_ONCE(caller->rounds) < ROUNDS && !caller->failed; waited++)
			msleep(1);
		tap_check(out, READ_ONCE(caller->rounds) == ROUNDS && caller->by_gate,
			  "CPU %d: %llu of %d rounds of a VM's life, %llu calls through the gate", cpu, caller->rounds,
			  ROUNDS, caller->by_gate);
	}
	for_each_online_cpu(cpu) stop(out, &callers[cpu], "with arguments at random");
	fuzz = false;
}

void check_storms(struct seq_file *out)
{
	struct caller *callers = kcalloc(nr_cpu_ids, sizeof(*callers), GFP_KERNEL);

	if (!callers || register_nmi_handler(NMI_LOCAL, count_nmi, 0, "gate_probe"))
		return;
	cpus_read_lock();
	storm_nmis(out, callers);
	storm_fuzz(out, callers);
	storm_sets(out, callers);
	cpus_read_unlock();
	unregister_nmi_handler(NMI_LOCAL, "gate_probe");
	kfree(callers);
}

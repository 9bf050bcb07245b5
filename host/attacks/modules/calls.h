/* SPDX-License-Identifier: GPL-2.0 */
/* The monitor's memory calls, as any code in ring 0 can make them. */
#ifndef CALLS_H
#define CALLS_H

#include <linux/cpu.h>
#include <linux/sched.h>
#include <linux/smp.h>

#include "tap.h"
#include "vmcall.h"

#define READ_WRITE_EXECUTE 7
#define PATTERN 0x5ec2e75ec2e75ec2ULL
#define PATTERN_LOW 0xc2e75ec2U /* the lower half */

static inline s64 call(u64 number, u64 a, u64 b, u64 c, u64 d, u64 *result)
{
	const u64 argument[HYPERPS_ARGUMENTS] = { a, b, c, d };
	u64 words[HYPERPS_RESULTS];
	s64 error = hyperps_vmcall(number, argument, words);

	if (result)
		*result = words[0];
	return error;
}

/*
 * Has Linux start a CPU. Linux sends the SIPI right after the INIT; it is lost when it comes before the INIT has been handled,
 * as it may where a hypervisor below takes its time, but then the CPU waits for the next one.
 */
static inline int start_cpu(unsigned int cpu)
{
	int error = add_cpu(cpu);

	return error ? add_cpu(cpu) : 0;
}

#define VIEW_PAGES (1ULL << 34) /* all of a VM's guest-physical addresses */

/* A VM whose RAM may be the `count` pages from gpa on. */
static inline s64 create(u64 gpa, u64 count, u64 *handle)
{
	s64 error = call(HYPERPS_CALL_VM_CREATE, 0, 0, 0, 0, handle);

	return error ? error : call(HYPERPS_CALL_VM_DECLARE, *handle, gpa | READ_WRITE_EXECUTE, count, 0, NULL);
}

/* VM_MAP until all are in, or an error. */
static inline s64 map(u64 handle, u64 gpa, u64 frame, u64 count)
{
	u64 done = 0;
	s64 error;

	do {
		error = call(HYPERPS_CALL_VM_MAP, handle, gpa, frame, count, &done);
		gpa += done * PAGE_SIZE;
		frame += done;
		count -= done;
	} while (!error && count);
	return error;
}

/* A call that is repeated until it says 0. */
static inline s64 finish(u64 number, u64 handle)
{
	u64 left;
	s64 error;

	do {
		error = call(number, handle, 0, 0, 0, &left);
		cond_resched();
	} while (!error && left);
	return error;
}

/* The same where other CPUs' calls and guests may overtake each flush: HYPERPS_ERROR_AGAIN is no answer then. */
static inline s64 finish_at_last(u64 number, u64 handle)
{
	unsigned int again = 0;
	s64 error;

	do
		error = finish(number, handle);
	while (error == HYPERPS_ERROR_AGAIN && ++again < 100);
	return error;
}

/* VCPU_RUN. The words are those of the exit where the result is 0. */
static inline s64 run_vcpu(u64 vm, u64 index, u64 answer, u64 event, u64 words[HYPERPS_RESULTS])
{
	const u64 argument[HYPERPS_ARGUMENTS] = { vm, index, answer, event };

	return hyperps_vmcall(HYPERPS_CALL_VCPU_RUN, argument, words);
}

/* 64 bytes of an object of HYPERPS_CALL_READ, from a multiple of 64 on. */
static inline s64 read_words(u64 object_and_index, u64 offset, u64 words[HYPERPS_RESULTS])
{
	const u64 argument[HYPERPS_ARGUMENTS] = { object_and_index, offset };

	return hyperps_vmcall(HYPERPS_CALL_READ, argument, words);
}

/* One word of an object; ~0 if there is none. */
static inline u64 read_word(u64 object_and_index, u64 offset)
{
	u64 words[HYPERPS_RESULTS];

	if (read_words(object_and_index, offset / HYPERPS_READ_BYTES * HYPERPS_READ_BYTES, words))
		return ~0ULL;
	return words[offset % HYPERPS_READ_BYTES / 8];
}

struct access {
	u64 *address;
	bool read, written;
};

/* On whichever CPU it runs: tries both, through the kernel's own mapping. */
static inline void try_access(void *argument)
{
	struct access *access = argument;

	access->read = fault_of("cmpq $0, (%1)", 0, "r"(access->address)) == VECTOR_NONE;
	access->written = fault_of("mov %2, (%1)", 0, "r"(access->address), "r"(PATTERN)) == VECTOR_NONE;
}

/* How many of the CPUs could read or write the page. */
static inline int cpus_with_access(void *address)
{
	int cpu, count = 0;

	for_each_online_cpu(cpu)
	{
		struct access access = { .address = address };

		smp_call_function_single(cpu, try_access, &access, 1);
		count += access.read || access.written;
	}
	return count;
}

#endif

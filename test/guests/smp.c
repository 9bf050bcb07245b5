// SPDX-License-Identifier: MIT
/*
 * vCPUs work together: barriers, an atomic counter, a lock, and messages that go round in a ring. Command line: CPUS
 * [ROUNDS].
 */
#include "guest.h"

static u64 atomic_count, locked_count, lock, sums[HYPERPS_VCPUS];

/* A message to each vCPU: a number, full if it is not 0. Cache lines of their own. */
static struct {
	u64 number;
	u64 padding[7];
} mailbox[HYPERPS_VCPUS];

static void send(u64 to, u64 number)
{
	while (__atomic_load_n(&mailbox[to].number, __ATOMIC_ACQUIRE))
		pause();
	__atomic_store_n(&mailbox[to].number, number, __ATOMIC_RELEASE);
}

static u64 receive(u64 index)
{
	u64 number;

	while (!(number = __atomic_exchange_n(&mailbox[index].number, 0, __ATOMIC_ACQ_REL)))
		pause();
	return number;
}

int guest_main(u64 index, const char *command_line)
{
	u64 count = number_argument(command_line, 0, 1), rounds = number_argument(command_line, 1, 1000), total = 0;

	if (index >= count)
		return 0;
	barrier(count);
	print("smp: vCPU %lu of %lu is here\n", index, count);
	barrier(count);
	for (u64 i = 0; i < rounds; i++) {
		__atomic_add_fetch(&atomic_count, 1, __ATOMIC_RELAXED);
		while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
			pause();
		locked_count++;
		__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
	}
	/* One number goes round; each vCPU adds 1. A mailbox holds one message, so with one vCPU nothing waits. */
	for (u64 i = 0; i < rounds; i++) {
		if (!index)
			send(1 % count, i * count + 1);
		sums[index] += receive(index);
		if (index)
			send((index + 1) % count, i * count + index + 1);
	}
	barrier(count);
	if (index)
		return 0;
	check(atomic_count == count * rounds, "the atomic counter is %lu", atomic_count);
	check(locked_count == count * rounds, "the counter under the lock is %lu", locked_count);
	for (u64 i = 0; i < count; i++) {
		u64 of = i ? i : count;

		check(sums[i] == count * (rounds * (rounds - 1) / 2) + rounds * of, "vCPU %lu received %lu", i,
		      sums[i]);
		total += sums[i];
	}
	print("smp: %lu vCPUs, %lu rounds, counters %lu and %lu, messages %lu, %lu wrong\n", count, rounds,
	      atomic_count, locked_count, total, failures);
	return failures != 0;
}

// SPDX-License-Identifier: MIT
/*
 * Uses all its memory: fills, verifies, releases, shares, takes back. Command line: MIB [ROUNDS [CPUS [SEED]]], where
 * RAM is [0, MIB) and each of CPUS vCPUs has its part; with another SEED the content is another one. The last line is a
 * checksum of all that was read, the same for the same command line.
 */
#include "guest.h"

#define RUN 512 /* pages of one hypercall at most */
#define WORDS (PAGE_SIZE / 8)

static u64 total, seed;

static u64 word_at(u64 page, u64 i, u64 round)
{
	return (page + i * 8 + round * 0x9e3779b97f4a7c15 + seed * 0x94d049bb133111eb) * 0xbf58476d1ce4e5b9;
}

static void fill(u64 page, u64 round)
{
	volatile u64 *words = (u64 *)page;

	for (u64 i = 0; i < WORDS; i++)
		words[i] = word_at(page, i, round);
}

static u64 sum;

static void verify(u64 page, u64 round)
{
	volatile u64 *words = (u64 *)page;
	u64 wrong = 0, here = 0;

	for (u64 i = 0; i < WORDS; i++) {
		here += words[i];
		wrong += words[i] != word_at(page, i, round);
	}
	check(!wrong, "%lu words of the page at %lx changed in round %lu", wrong, page, round);
	__atomic_add_fetch(&sum, here, __ATOMIC_RELAXED);
}

static void expect_zero(u64 page, const char *what)
{
	volatile u64 *words = (u64 *)page;
	u64 other = 0;

	for (u64 i = 0; i < WORDS; i++)
		other += words[i] != 0;
	check(!other, "%lu words of the page at %lx are not zero %s", other, page, what);
}

static void call(u64 number, u64 page, u64 count)
{
	s64 error = has_hypercalls() ? hyperps_guest_call(number, page, count) : 0;

	check(!error, "call %lx of %lu pages at %lx gives %ld", number, count, page, error);
}

/* Runs of random lengths; every third is released, every fifth of the others shared and taken back. */
static void give_and_take(u64 first, u64 end, u64 round, u64 *random)
{
	for (u64 page = first, bytes; page < end; page += bytes) {
		u64 count = next_random(random) % RUN + 1, choice = next_random(random) % 15;

		count = count > (end - page) / PAGE_SIZE ? (end - page) / PAGE_SIZE : count;
		bytes = count * PAGE_SIZE;
		if (choice % 3 == 0 && has_hypercalls()) {
			call(HYPERPS_GUEST_RELEASE, page, count);
			for (u64 at = page; at < page + bytes; at += PAGE_SIZE)
				expect_zero(at, "after RELEASE");
		} else if (choice % 5 == 0 && has_hypercalls()) {
			count = count > 32 ? 32 : count;
			bytes = count * PAGE_SIZE;
			call(HYPERPS_GUEST_SHARE, page, count);
			for (u64 at = page; at < page + bytes; at += PAGE_SIZE)
				verify(at, round);
			call(HYPERPS_GUEST_UNSHARE, page, count);
			for (u64 at = page; at < page + bytes; at += PAGE_SIZE)
				expect_zero(at, "after UNSHARE");
		} else {
			for (u64 at = page; at < page + bytes; at += PAGE_SIZE)
				verify(at, round);
		}
	}
}

int guest_main(u64 index, const char *command_line)
{
	u64 mib = number_argument(command_line, 0, 32), rounds = number_argument(command_line, 1, 2);
	u64 count = number_argument(command_line, 2, 1), begin = (u64)image_end, end = mib << 20;
	u64 share = count && end > begin ? ALIGN_DOWN((end - begin) / count, PAGE_SIZE) : 0;
	u64 first = begin + index * share, last = first + share, random = index;

	if (index >= count)
		return 0;
	seed = number_argument(command_line, 3, 0);
	if (!share) {
		print("burner: MIB [ROUNDS [CPUS [SEED]]], at least 4 MiB\n");
		return 2;
	}
	barrier(count);
	for (u64 round = 0; round < rounds; round++) {
		for (u64 page = first; page < last; page += PAGE_SIZE)
			fill(page, round);
		barrier(count);
		for (u64 page = first; page < last; page += PAGE_SIZE)
			verify(page, round);
		give_and_take(first, last, round, &random);
		barrier(count);
		if (!index)
			print("burner: round %lu of %lu\n", round + 1, rounds);
	}
	__atomic_add_fetch(&total, (last - first) / PAGE_SIZE, __ATOMIC_RELAXED);
	barrier(count);
	if (!index)
		print("burner: %lu pages, %lu checks, %lu wrong, checksum %016lx\n", total, checks, failures, sum);
	return failures != 0;
}

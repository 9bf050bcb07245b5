// SPDX-License-Identifier: MIT
/*
 * msr_sweep CPU: reads every MSR of the bitmap's ranges, and some outside of them, through the kernel's msr driver, and
 * writes back what it read. What vmx/msr_policy.c does not list must raise #GP, for the value read and for its
 * complement, and be what it was. Run it on that CPU. Positive control: those that are listed take their own value.
 * Without the monitor an unlisted MSR takes it, too (in the emulator nearly each one does), and the check fails.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "monitor_device.h"
#include "msr_policy.h"
#include "tap.h"

/* The host's clock, and what sends an interrupt again: not for a test to write, even with the value read. */
#define MSR_TSC 0x10
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC_ICR 0x830
#define LISTED_AT_LEAST 40 /* that any CPU has */
#define SHOWN 8

static int device;
static uint64_t listed, taken, refused, unlisted, writes, changed, readable, unreadable;

static void judge(bool passed, const char *what, uint64_t count, uint64_t of)
{
	check(passed, "MSRs: %s (%" PRIu64 " of %" PRIu64 ")", what, count, of);
}

static bool read_msr(uint32_t msr, uint64_t *value)
{
	return pread(device, value, sizeof(*value), msr) == sizeof(*value);
}

static bool write_msr(uint32_t msr, uint64_t value)
{
	writes++;
	return pwrite(device, &value, sizeof(value), msr) == sizeof(value);
}

static void try_unlisted(uint32_t msr, bool is_readable, uint64_t value)
{
	uint64_t second = 0, third = 0;
	bool counts = is_readable && read_msr(msr, &second) && second != value;

	unlisted++;
	if (write_msr(msr, value) || write_msr(msr, ~value)) {
		if (unlisted - refused <= SHOWN)
			printf("# MSR %#" PRIx32 " is not on the list and was written\n", msr);
		return;
	}
	refused++;
	if (is_readable && !counts && (!read_msr(msr, &third) || third != value)) {
		printf("# MSR %#" PRIx32 " was %#" PRIx64 " and is %#" PRIx64 "\n", msr, value, third);
		changed++;
	}
}

static void try_msr(uint32_t msr)
{
	enum msr_access write = host_msr_access(msr, true);
	uint64_t value = 0;
	bool is_readable = read_msr(msr, &value);

	if (host_msr_access(msr, false) == MSR_DENY) {
		unreadable++;
		readable += is_readable;
	}
	if (write == MSR_DENY) {
		try_unlisted(msr, is_readable, value);
	} else if (is_readable && msr != MSR_TSC && msr != MSR_TSC_DEADLINE && msr != MSR_X2APIC_ICR) {
		listed++;
		taken += write_msr(msr, value);
	}
}

int main(int argc, char **argv)
{
	static const struct {
		uint32_t first, last;
	} ranges[] = {
		{ 0, 0x4fff },
		{ 0x40000000, 0x400000ff }, /* Hyper-V, and KVM's old ones */
		{ 0x4b564d00, 0x4b564d08 }, /* KVM */
		{ 0x80000000, 0x800000ff },
		{ 0xbffffff0, 0xc0002010 },
		{ 0xc0010000, 0xc00103ff }, /* AMD */
		{ 0xfffffff0, 0xffffffff },
	};
	struct hyperps_status before = { 0 }, after = { 0 };
	int monitor = monitor_open();
	uint64_t count;
	char path[64];

	snprintf(path, sizeof(path), "/dev/cpu/%s/msr", argc > 1 ? argv[1] : "0");
	device = open(path, O_RDWR);
	if (device < 0) {
		perror(path);
		return 1;
	}
	monitor_read_status(monitor, &before);
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		for (uint64_t msr = ranges[i].first; msr <= ranges[i].last; msr++)
			try_msr((uint32_t)msr);
	monitor_read_status(monitor, &after);
	count = after.refused_msr - before.refused_msr;
	judge(taken >= LISTED_AT_LEAST, "positive control: those on the list take their own value", taken, listed);
	judge(refused == unlisted, "a write of one that is not on the list raises #GP", refused, unlisted);
	judge(!changed, "and changes nothing", changed, unlisted);
	judge(!readable, "those that can't be read raise #GP", unreadable - readable, unreadable);
	judge(count >= 2 * unlisted, "the monitor counted each refusal", count, 2 * unlisted + unreadable);
	printf("# %" PRIu64 " writes\n", writes);
	return summary();
}

// SPDX-License-Identifier: MIT
/*
 * perf's counters count, or the kernel says cleanly that there are none; so does each PMU of the kernel's drivers. The
 * MSRs behind them are read by vmx_probe.ko.
 */
#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tap.h"

#define DEVICES "/sys/bus/event_source/devices"
#define UNNAMED 16 /* events to try where a PMU names none */

static void judge(bool passed, const char *name, const char *detail)
{
	check(passed, "perf: %s %s", name, detail);
}

static void count(uint32_t type, uint64_t config, const char *name)
{
	struct perf_event_attr attributes = {
		.type = type, .size = sizeof(attributes), .config = config, .disabled = 1
	};
	int counter = syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
	uint64_t value = 0;
	char detail[64];

	if (counter < 0) {
		int absent = errno == ENOENT || errno == EOPNOTSUPP || errno == ENODEV;

		snprintf(detail, sizeof(detail), "is not there: %s", strerror(errno));
		judge(absent && type == PERF_TYPE_HARDWARE, name, detail);
		return;
	}
	ioctl(counter, PERF_EVENT_IOC_ENABLE, 0);
	for (volatile int i = 0; i < 1000000; i++)
		;
	ioctl(counter, PERF_EVENT_IOC_DISABLE, 0);
	snprintf(detail, sizeof(detail), "counts");
	if (read(counter, &value, sizeof(value)) == sizeof(value))
		snprintf(detail, sizeof(detail), "counts (%llu)", (unsigned long long)value);
	judge(value > 0, name, detail);
	close(counter);
}

/* An event of a PMU, on CPU 0 or of this process. Returns 0 or an error number. */
static int try_event(uint32_t type, uint64_t config, int process, int cpu)
{
	struct perf_event_attr attributes = {
		.type = type, .size = sizeof(attributes), .config = config, .disabled = 1
	};
	int counter = syscall(SYS_perf_event_open, &attributes, process, cpu, -1, 0);
	uint64_t value;

	if (counter < 0)
		return errno;
	ioctl(counter, PERF_EVENT_IOC_ENABLE, 0);
	for (volatile int i = 0; i < 10000; i++)
		;
	ioctl(counter, PERF_EVENT_IOC_DISABLE, 0);
	if (read(counter, &value, sizeof(value)) != sizeof(value))
		printf("# event %#llx: no value: %s\n", (unsigned long long)config, strerror(errno));
	close(counter);
	return 0;
}

/* Tries an event on CPU 0 and of this process, and counts what can be had, and errors that are none of perf's. */
static void try_both(uint32_t type, uint64_t config, int *opened, int *strange)
{
	for (int process = -1; process <= 0; process++) {
		int error = try_event(type, config, process, -1 - process);

		*opened += !error;
		*strange += error && error != EINVAL && error != ENOENT && error != EOPNOTSUPP && error != ENODEV &&
			    error != EACCES && error != EBUSY;
	}
}

/* The events that the PMU names; the number of them. With other numbers some of Linux's drivers write to MSR 0. */
static int try_named(const char *pmu, uint32_t type, int *opened, int *strange)
{
	char path[600];
	struct dirent *entry;
	DIR *events;
	int named = 0;

	snprintf(path, sizeof(path), DEVICES "/%.255s/events", pmu);
	events = opendir(path);
	while (events && (entry = readdir(events))) {
		unsigned event, mask = 0;
		FILE *file;

		snprintf(path, sizeof(path), DEVICES "/%.255s/events/%.255s", pmu, entry->d_name);
		file = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
		if (file && fscanf(file, "event=%x,umask=%x", &event, &mask) >= 1) {
			try_both(type, event | (uint64_t)mask << 8, opened, strange);
			named++;
		}
		if (file)
			fclose(file);
	}
	if (events)
		closedir(events);
	return named;
}

static void try_all_pmus(void)
{
	DIR *devices = opendir(DEVICES);
	int pmus = 0, opened_any = 0, strange = 0;
	struct dirent *entry;

	while (devices && (entry = readdir(devices))) {
		char path[320];
		unsigned type;
		int opened = 0;
		FILE *file;

		snprintf(path, sizeof(path), DEVICES "/%.255s/type", entry->d_name);
		file = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
		if (!file)
			continue;
		if (fscanf(file, "%u", &type) == 1) {
			pmus++;
			if (!try_named(entry->d_name, type, &opened, &strange))
				for (uint64_t config = 0; config < UNNAMED; config++)
					try_both(type, config, &opened, &strange);
			printf("# PMU %s: %d events\n", entry->d_name, opened);
			opened_any += opened;
		}
		fclose(file);
	}
	if (devices)
		closedir(devices);
	judge(pmus && opened_any && !strange, "each PMU", "counts, or says cleanly that it can't");
}

int main(void)
{
	count(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK, "task-clock");
	count(PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES, "cycles");
	count(PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS, "instructions");
	try_all_pmus();
	return summary();
}

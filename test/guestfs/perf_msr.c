// SPDX-License-Identifier: MIT
/*
 * perf's counters count, or the kernel says cleanly that there are none. The MSRs behind them are read by vmx_probe.ko.
 */
#include <errno.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int checks, failed;

static void check(int passed, const char *name, const char *detail)
{
	checks++;
	failed += !passed;
	printf("%s - perf: %s %s\n", passed ? "ok" : "not ok", name, detail);
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
		check(absent && type == PERF_TYPE_HARDWARE, name, detail);
		return;
	}
	ioctl(counter, PERF_EVENT_IOC_ENABLE, 0);
	for (volatile int i = 0; i < 1000000; i++)
		;
	ioctl(counter, PERF_EVENT_IOC_DISABLE, 0);
	snprintf(detail, sizeof(detail), "counts");
	if (read(counter, &value, sizeof(value)) == sizeof(value))
		snprintf(detail, sizeof(detail), "counts (%llu)", (unsigned long long)value);
	check(value > 0, name, detail);
	close(counter);
}

int main(void)
{
	count(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK, "task-clock");
	count(PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES, "cycles");
	count(PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS, "instructions");
	printf("# failed %d of %d\n", failed, checks);
	return failed != 0;
}

// SPDX-License-Identifier: MIT
/* hpsctl check: the machine that it runs on, for check.c. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "hpsctl.h"
#include "monitor_device.h"

/* CPUID tells of the CPU that it runs on. One that can't be had says nothing, as a CPU without features. */
static struct cpuid_result read_cpuid(unsigned int cpu, u32 leaf, u32 subleaf)
{
	struct cpuid_result result = { 0 };
	cpu_set_t before, wanted;

	CPU_ZERO(&wanted);
	CPU_SET(cpu % CPU_SETSIZE, &wanted);
	if (sched_getaffinity(0, sizeof(before), &before) || sched_setaffinity(0, sizeof(wanted), &wanted))
		return result;
	__cpuid_count(leaf, subleaf, result.eax, result.ebx, result.ecx, result.edx);
	sched_setaffinity(0, sizeof(before), &before);
	return result;
}

static bool read_msr(unsigned int cpu, u32 msr, u64 *value)
{
	char path[32];
	int file;
	bool done;

	snprintf(path, sizeof(path), "/dev/cpu/%u/msr", cpu);
	file = open(path, O_RDONLY | O_CLOEXEC);
	done = file >= 0 && pread(file, value, sizeof(*value), msr) == sizeof(*value);
	if (file >= 0)
		close(file);
	return done;
}

static long read_text(const char *path, char *text, size_t size)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	long done = 0, got = 0;

	if (file < 0)
		return errno == EACCES || errno == EPERM || errno == EBUSY ? 0 : -1;
	while (size && done < (long)size - 1 && (got = read(file, text + done, size - 1 - done)) > 0)
		done += got;
	if (size)
		text[done] = 0;
	close(file);
	return done;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	if (key != 'j')
		return refuse_arguments(key, text, state);
	*(bool *)state->input = true;
	return 0;
}

static int run_check(const struct command *command, int argc, char **argv)
{
	static const struct machine this_machine = { read_cpuid, read_msr, read_text };
	static struct check check;
	struct hyperps_status status;
	bool json = false;
	int device;

	parse_command(command, argc, argv, &json);
	device = monitor_open();
	/* It hides VT-x from those above it. */
	if (device >= 0 && !monitor_read_status(device, &status))
		check_add(&check, "running", ANSWER_YES, "see hpsctl status",
			  "HyperPS %.*s runs below this kernel already", (int)sizeof(status.version), status.version);
	else if (device < 0 && (errno == EACCES || errno == EPERM))
		check_add(&check, "running", ANSWER_UNKNOWN, "run it as root",
			  "HyperPS may run below this kernel: /dev/hyperps can't be opened");
	else
		check_machine(&this_machine, &check);
	if (device >= 0)
		close(device);
	(json ? check_print_json : check_print_text)(stdout, &check);
	return output_is_written() ? (int)check_verdict(&check) : VERDICT_UNKNOWN;
}

static const struct argp_option options[] = {
	OPTION_JSON("one JSON object: verdict (fit, unfit, unknown), and checks, each with check, answer (yes, no, "
		    "unknown, note), "
		    "found and to_do"),
	{ 0 },
};

const struct command check_command = {
	.name = "check",
	.summary = "whether this machine can run HyperPS",
	.argp = { .options = options,
		  .parser = parse,
		  .doc = "Looks at the machine from a Linux that runs without the monitor, and says whether HyperPS "
			 "can run on it, "
			 "what is missing, and what to do about it. Needs root and the module msr (modprobe msr). What "
			 "only the "
			 "firmware knows the loader checks itself when it starts: free memory in one piece, and "
			 "5-level paging.\v"
			 "Exit status: 0 it can, or HyperPS runs already; 1 it can't; 2 not all could be looked at, or "
			 "wrong usage." },
	.usage_status = EXIT_USAGE,
	.run = run_check,
};

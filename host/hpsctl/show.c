// SPDX-License-Identifier: MIT
/* hpsctl status, log, frames, vm list and exits: what the monitor says of itself. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hpsctl.h"
#include "hpsctl_format.h"
#include "monitor_device.h"

/* Far above any real ring: guards the allocation against a nonsensical size. */
#define LOG_BYTES_MAX (64ULL << 20)

struct options {
	bool json;
	bool one_cpu;
	uint32_t cpu;
};

/* Behind what a command does. */
#define STATUSES "\vExit status: 0 success, 1 HyperPS is not running or not reachable, 2 wrong usage."

static const struct argp_option no_options[] = { { 0 } };
static const struct argp_option json_options[] = { OPTION_JSON("one JSON object; sizes and addresses are in bytes"),
						   { 0 } };

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 'j':
		options->json = true;
		return 0;
	case 'c':
		options->one_cpu = true;
		if (!parse_number(text, &options->cpu))
			argp_error(state, "--cpu wants a number, not '%s'", text);
		return 0;
	default:
		return refuse_arguments(key, text, state);
	}
}

/* Calls show() with the monitor's device. */
static int ask(const struct command *command, int argc, char **argv,
	       int (*show)(int device, const struct options *options))
{
	struct options options = { 0 };
	int device, status;

	parse_command(command, argc, argv, &options);
	device = open_device();
	if (device < 0)
		return EXIT_NOT_RUNNING;
	status = show(device, &options);
	close(device);
	return output_is_written() ? status : EXIT_NOT_RUNNING;
}

static int report_read_error(const char *what)
{
	switch (errno) {
	case ENODEV:
		fprintf(stderr, "hpsctl: HyperPS is not running below this kernel: the monitor does not answer\n");
		break;
	case EPROTO:
		fprintf(stderr,
			"hpsctl: the monitor is of another version than hpsctl: install those of one release\n");
		break;
	default:
		fprintf(stderr, "hpsctl: cannot read the %s from the monitor: %s\n", what, strerror(errno));
	}
	return EXIT_NOT_RUNNING;
}

static int show_status(int device, const struct options *options)
{
	struct hyperps_status status;

	if (monitor_read_status(device, &status))
		return report_read_error("status");
	if (options->json)
		format_status_json(stdout, &status);
	else
		format_status_text(stdout, &status);
	return EXIT_OK;
}

static int show_log(int device, const struct options *options)
{
	struct hyperps_log log;
	char *ring;
	int status = EXIT_OK;

	(void)options;
	if (monitor_read(device, HYPERPS_OBJECT_LOG, 0, 0, &log, sizeof(log)))
		return report_read_error("log");
	if (!log.size || log.size > LOG_BYTES_MAX) {
		errno = EPROTO;
		return report_read_error("log");
	}
	ring = malloc(log.size);
	if (!ring || monitor_read(device, HYPERPS_OBJECT_LOG, 0, sizeof(log), ring, log.size))
		status = report_read_error("log");
	else
		format_log(stdout, &log, ring);
	free(ring);
	return status;
}

static int show_frames(int device, const struct options *options)
{
	struct hyperps_frames frames;

	if (monitor_read(device, HYPERPS_OBJECT_FRAMES, 0, 0, &frames, sizeof(frames)))
		return report_read_error("frame counts");
	if (options->json)
		format_frames_json(stdout, &frames);
	else
		format_frames_text(stdout, &frames);
	return EXIT_OK;
}

static int show_vm_list(int device, const struct options *options)
{
	struct hyperps_vm slots[HYPERPS_VMS];

	for (uint32_t i = 0; i < HYPERPS_VMS; i++)
		if (monitor_read(device, HYPERPS_OBJECT_VM, i, 0, &slots[i], sizeof(slots[i])))
			return report_read_error("list of VMs");
	if (options->json)
		format_vms_json(stdout, slots, HYPERPS_VMS);
	else
		format_vms_text(stdout, slots, HYPERPS_VMS);
	return EXIT_OK;
}

static int show_exits(int device, const struct options *options)
{
	struct hyperps_status status;
	struct hyperps_exits *cpus;
	size_t first = options->one_cpu ? options->cpu : 0, used = 0, count;
	int result = EXIT_OK;

	if (monitor_read_status(device, &status))
		return report_read_error("status");
	cpus = calloc(status.cpu_slots, sizeof(*cpus));
	if (!cpus)
		return report_read_error("exit counters");
	/* Slots are in use from 0 on; a CPU that has stopped keeps its slot. */
	for (size_t i = 0; i < status.cpu_slots && result == EXIT_OK; i++) {
		if (monitor_read_exits(device, i, &cpus[i]))
			result = report_read_error("exit counters");
		/* The object comes in pieces, and reading it exits: what adds up is the sum of what was read. */
		cpus[i].total = 0;
		for (size_t reason = 0; reason < HYPERPS_EXIT_REASONS; reason++)
			cpus[i].total += cpus[i].reason[reason];
		if (cpus[i].state != HYPERPS_CPU_STATE_NOT_STARTED || cpus[i].total)
			used = i + 1;
	}
	if (result == EXIT_OK && options->one_cpu && options->cpu >= used) {
		fprintf(stderr, "hpsctl: no CPU %u: the monitor has CPUs 0 to %zu\n", options->cpu, used - 1);
		result = EXIT_USAGE;
	}
	count = options->one_cpu ? 1 : used;
	if (result == EXIT_OK && options->json)
		format_exits_json(stdout, cpus + first, count, first);
	else if (result == EXIT_OK)
		format_exits_text(stdout, cpus + first, count, first);
	free(cpus);
	return result;
}

static int run_status(const struct command *command, int argc, char **argv)
{
	return ask(command, argc, argv, show_status);
}

const struct command status_command = {
	.name = "status",
	.summary = "the monitor's state and what it protects",
	.argp = { .options = json_options,
		  .parser = parse,
		  .doc = "Shows version, CPUs, memory, features, refused accesses, and what is protected and what is "
			 "not." STATUSES },
	.usage_status = EXIT_USAGE,
	.run = run_status,
};

static int run_log(const struct command *command, int argc, char **argv)
{
	return ask(command, argc, argv, show_log);
}

const struct command log_command = {
	.name = "log",
	.summary = "the monitor's log",
	.argp = { .options = no_options,
		  .parser = parse,
		  .doc = "Prints what the monitor's log ring holds, oldest line first." STATUSES },
	.usage_status = EXIT_USAGE,
	.run = run_log,
};

static int run_frames(const struct command *command, int argc, char **argv)
{
	return ask(command, argc, argv, show_frames);
}

const struct command frames_command = {
	.name = "frames",
	.summary = "frames of RAM by owner and state",
	.argp = { .options = json_options,
		  .parser = parse,
		  .doc = "Counts the 4 KiB frames of RAM by who owns them, from the monitor's page marks." STATUSES },
	.usage_status = EXIT_USAGE,
	.run = run_frames,
};

static int run_vm_list(const struct command *command, int argc, char **argv)
{
	return ask(command, argc, argv, show_vm_list);
}

const struct command vm_list_command = {
	.name = "vm list",
	.summary = "VMs and their memory",
	.argp = { .options = json_options,
		  .parser = parse,
		  .doc = "Lists the VMs that exist: slot, state (open, sealing, sealed, dying, dead), declared ranges, "
			 "4 KiB frames of memory, of these those that are pending until every CPU has flushed, pages "
			 "by size, and the memory's size." STATUSES },
	.usage_status = EXIT_USAGE,
	.run = run_vm_list,
};

static const struct argp_option exits_options[] = {
	OPTION_JSON("one JSON object; reasons that never occurred are left out"),
	{ "cpu", 'c', "N", 0, "this CPU only", 0 },
	{ 0 },
};

static int run_exits(const struct command *command, int argc, char **argv)
{
	return ask(command, argc, argv, show_exits);
}

const struct command exits_command = {
	.name = "exits",
	.summary = "VM exits by reason and CPU",
	.argp = { .options = exits_options,
		  .parser = parse,
		  .doc = "Counts the VM exits since the monitor's start, by CPU and basic exit reason. CPUs are "
			 "numbered in the order in which the monitor took them; the APIC ID tells which one it "
			 "is." STATUSES },
	.usage_status = EXIT_USAGE,
	.run = run_exits,
};

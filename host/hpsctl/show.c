// SPDX-License-Identifier: MIT
/* hpsctl status, log, frames, vm list and exits: what the monitor says of itself. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "hpsctl.h"
#include "hpsctl_format.h"
#include "monitor_device.h"

/* Far above any real ring: guards the allocation against a nonsensical size. */
#define LOG_BYTES_MAX (64ULL << 20)

#define ALL UINT32_MAX
#define WATCH_SECONDS 2
#define CLEAR_SCREEN "\033[H\033[J"

struct options {
	bool json, vms, l2, watch;
	uint32_t cpu, vm; /* a slot, or ALL */
	uint32_t seconds; /* 0: not given */
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
		if (!parse_number(text, &options->cpu))
			argp_error(state, "--cpu wants a number, not '%s'", text);
		return 0;
	case 'm':
		options->vms = true;
		if (strcmp(text, "all") && (!parse_number(text, &options->vm) || options->vm >= HYPERPS_VMS))
			argp_error(state, "--vm wants all, or a slot from 0 to %d, not '%s'", HYPERPS_VMS - 1, text);
		return 0;
	case '2':
		options->l2 = true;
		return 0;
	case 'w':
		options->watch = true;
		return 0;
	case ARGP_KEY_ARG:
		if (!options->watch || options->seconds)
			return refuse_arguments(key, text, state);
		if (!parse_number(text, &options->seconds) || !options->seconds || options->seconds > 3600)
			argp_error(state, "--watch wants 1 to 3600 seconds, not '%s'", text);
		return 0;
	case ARGP_KEY_END:
		if (options->vms && options->l2)
			argp_error(state, "--l2 is about VMs that have no slot: write --vm or --l2");
		if (options->watch && options->json)
			argp_error(state, "--watch draws a table: there is no JSON of it");
		return 0;
	default:
		return refuse_arguments(key, text, state);
	}
}

/* Calls show() with the monitor's device. */
static int ask(const struct command *command, int argc, char **argv,
	       int (*show)(int device, const struct options *options))
{
	struct options options = { .cpu = ALL, .vm = ALL };
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
	struct hyperps_frames frames;

	if (monitor_read_status(device, &status))
		return report_read_error("status");
	if (monitor_read(device, HYPERPS_OBJECT_FRAMES, 0, 0, &frames, sizeof(frames)))
		return report_read_error("frame counts");
	if (options->json)
		format_status_json(stdout, &status, &frames);
	else
		format_status_text(stdout, &status, &frames);
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

/* The CPUs that are wanted. */
static int read_cpus(int device, const struct options *options, struct exits_table *table)
{
	struct hyperps_status status;
	struct hyperps_exits exits;
	size_t used = 0;

	if (monitor_read_status(device, &status))
		return report_read_error("status");
	table->l2 = options->l2;
	if (options->l2 && !(status.flags & HYPERPS_FLAG_KVM)) {
		fprintf(stderr, "hpsctl: the host has no VMX, and so no VMs of its own: %.*s\n",
			(int)sizeof(status.kvm), status.kvm);
		return EXIT_USAGE;
	}
	table->column = calloc(status.cpu_slots, sizeof(*table->column));
	/* Slots are in use from 0 on; a CPU that has stopped keeps its slot. */
	for (uint32_t i = 0; i < status.cpu_slots; i++) {
		struct exits_column *column = &table->column[table->count];
		uint64_t total = 0;

		if (!table->column || monitor_read(device, options->l2 ? HYPERPS_OBJECT_L2_EXITS : HYPERPS_OBJECT_EXITS,
						   i, 0, &exits, sizeof(exits)))
			return report_read_error("exit counters");
		/* The object comes in pieces, and reading it exits: what adds up is the sum of what was read. */
		for (size_t reason = 0; reason < HYPERPS_EXIT_REASONS; reason++)
			total += exits.reason[reason];
		if (exits.state == HYPERPS_CPU_STATE_NOT_STARTED && !total)
			continue;
		used = i + 1;
		if (options->cpu != ALL && options->cpu != i)
			continue;
		*column = (struct exits_column){ .number = i,
						 .id = exits.apic_id,
						 .in_vmx = exits.state == HYPERPS_CPU_STATE_IN_VMX,
						 .calls = exits.vmcall };
		memcpy(column->reason, exits.reason, sizeof(column->reason));
		table->count++;
	}
	if (table->count)
		return EXIT_OK;
	fprintf(stderr, "hpsctl: no CPU %u: the monitor has CPUs 0 to %zu\n", options->cpu, used - 1);
	return EXIT_USAGE;
}

/* The VMs that are wanted, as far as they exist. */
static int read_vms(int device, const struct options *options, struct exits_table *table)
{
	struct hyperps_vm vm;
	struct hyperps_vm_exits exits;

	table->vms = true;
	table->column = calloc(HYPERPS_VMS, sizeof(*table->column));
	for (uint32_t i = 0; i < HYPERPS_VMS; i++) {
		struct exits_column *column = &table->column[table->count];

		if (options->vm != ALL && options->vm != i)
			continue;
		if (!table->column || monitor_read(device, HYPERPS_OBJECT_VM, i, 0, &vm, sizeof(vm)))
			return report_read_error("list of VMs");
		if (monitor_read(device, HYPERPS_OBJECT_VM_EXITS, i, 0, &exits, sizeof(exits))) {
			if (errno != EINVAL)
				return report_read_error("exit counters");
			fprintf(stderr, "hpsctl: this monitor does not count VMs' exits: install a newer one\n");
			return EXIT_NOT_RUNNING;
		}
		if (vm.state == HYPERPS_VM_FREE)
			continue;
		*column = (struct exits_column){ .number = i, .id = exits.handle };
		memcpy(column->reason, exits.reason, sizeof(column->reason));
		table->count++;
	}
	if (table->count || options->vm == ALL)
		return EXIT_OK;
	fprintf(stderr, "hpsctl: no VM in slot %u; see hpsctl vm list\n", options->vm);
	return EXIT_USAGE;
}

static int read_exits(int device, const struct options *options, struct exits_table *table)
{
	*table = (struct exits_table){ .count = 0 };
	return options->vms ? read_vms(device, options, table) : read_cpus(device, options, table);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Shows what came since the last time, again and again. */
static int watch_exits(int device, const struct options *options)
{
	struct exits_table before, table, difference;
	double then = now();
	int status = read_exits(device, options, &before);

	while (status == EXIT_OK) {
		sleep(options->seconds ? options->seconds : WATCH_SECONDS);
		status = read_exits(device, options, &table);
		if (status == EXIT_OK && !exits_since(&difference, &before, &table))
			status = report_read_error("exit counters");
		free(before.column);
		before = table;
		if (status != EXIT_OK)
			break;
		difference.seconds = now() - then;
		then += difference.seconds;
		fputs(isatty(STDOUT_FILENO) ? CLEAR_SCREEN : "", stdout);
		format_exits_text(stdout, &difference);
		fputs(isatty(STDOUT_FILENO) ? "\nCtrl-C ends this.\n" : "\n", stdout);
		free(difference.column);
		if (!output_is_written())
			status = EXIT_NOT_RUNNING;
	}
	free(before.column);
	return status;
}

static int show_exits(int device, const struct options *options)
{
	struct exits_table table;
	int status;

	if (options->watch)
		return watch_exits(device, options);
	status = read_exits(device, options, &table);
	if (status == EXIT_OK && options->json)
		format_exits_json(stdout, &table);
	else if (status == EXIT_OK)
		format_exits_text(stdout, &table);
	free(table.column);
	return status;
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
	{ "vm", 'm', "SLOT", 0,
	  "the exits of this VM's vCPUs, or with `all' of each VM's; hpsctl vm list shows the slots", 0 },
	{ "l2", '2', NULL, 0, "the exits of the VMs that the host's own hypervisor, as KVM, runs on these CPUs", 0 },
	{ "watch", 'w', NULL, 0,
	  "shows each SECONDS, 2 if not given, how many came per second, until Ctrl-C. Looking costs exits, too: calls "
	  "to the "
	  "monitor",
	  0 },
	{ 0 },
};

static int run_exits(const struct command *command, int argc, char **argv)
{
	return ask(command, argc, argv, show_exits);
}

const struct command exits_command = {
	.name = "exits",
	.summary = "VM exits by reason and CPU, or VM",
	.argp = { .options = exits_options,
		  .parser = parse,
		  .args_doc = "[SECONDS]",
		  .doc = "Counts the VM exits since the monitor's start, by CPU and basic exit reason. CPUs are "
			 "numbered in the order in which the monitor took them; the APIC ID tells which one it "
			 "is. Of a VM only what ended a run counts: what the monitor handles for a guest by itself "
			 "is none of the host's business." STATUSES },
	.usage_status = EXIT_USAGE,
	.run = run_exits,
};

// SPDX-License-Identifier: MIT
/* hpsctl: shows what the HyperPS monitor says about itself; runs VMs (run.c). Exit status: enum exit_status. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hpsctl.h"
#include "hpsctl_format.h"
#include "hyperps_ioctl.h"
#include "monitor_device.h"

#ifndef HPSCTL_VERSION
#define HPSCTL_VERSION "unknown"
#endif

/* Far above any real ring: guards the allocation against a nonsensical size. */
#define LOG_BYTES_MAX (64ULL << 20)

struct options {
	bool json;
	bool one_cpu;
	uint32_t cpu;
};

struct command {
	const char *name;
	const char *action; /* the word that must follow, or NULL */
	const char *summary;
	const char *help;
	const char *short_options;
	int (*run)(int device, const struct options *options);
	int (*main)(int argc, char **argv); /* of a command that does all itself, or NULL */
};

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

static int run_status(int device, const struct options *options)
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

static int run_log(int device, const struct options *options)
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

static int run_frames(int device, const struct options *options)
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

static int run_vm_list(int device, const struct options *options)
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

static int run_exits(int device, const struct options *options)
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

static const struct command commands[] = {
	{ "status", NULL, "the monitor's state and what it protects",
	  "usage: hpsctl status [--json]\n"
	  "\n"
	  "Shows version, CPUs, memory, features, refused accesses, and what is protected and what is not.\n"
	  "\n"
	  "  -j, --json   one JSON object, a key a line; sizes and addresses are numbers in bytes\n"
	  "  -h, --help   this text\n",
	  "jh", run_status, NULL },
	{ "log", NULL, "the monitor's log",
	  "usage: hpsctl log\n"
	  "\n"
	  "Prints what the monitor's log ring holds, oldest line first.\n"
	  "\n"
	  "  -h, --help   this text\n",
	  "h", run_log, NULL },
	{ "frames", NULL, "frames of RAM by owner and state",
	  "usage: hpsctl frames [--json]\n"
	  "\n"
	  "Counts the 4 KiB frames of RAM by who owns them, from the monitor's page marks.\n"
	  "\n"
	  "  -j, --json   one JSON object\n"
	  "  -h, --help   this text\n",
	  "jh", run_frames, NULL },
	{ "vm", "list", "VMs and their memory",
	  "usage: hpsctl vm list [--json]\n"
	  "\n"
	  "Lists the VMs that exist: slot, state (open, sealing, sealed, dying, dead), declared ranges, 4 KiB\n"
	  "frames of memory, of these those that are pending until every CPU has flushed, pages by size, and the\n"
	  "memory's size.\n"
	  "\n"
	  "  -j, --json   one JSON object, a VM a line; sizes are numbers in bytes\n"
	  "  -h, --help   this text\n",
	  "jh", run_vm_list, NULL },
	{ "exits", NULL, "VM exits by reason and CPU",
	  "usage: hpsctl exits [--json] [--cpu N]\n"
	  "\n"
	  "Counts the VM exits since the monitor's start, by CPU and basic exit reason. CPUs are numbered in the "
	  "order\n"
	  "in which the monitor took them; the APIC ID tells which one it is.\n"
	  "\n"
	  "  -j, --json   one JSON object; reasons that never occurred are left out\n"
	  "  -c, --cpu N  this CPU only\n"
	  "  -h, --help   this text\n",
	  "jc:h", run_exits, NULL },
	{ .name = "run", .summary = "run an image as a VM", .main = run_main },
	{ .name = "measure", .summary = "the measurement that such a VM will have", .main = measure_main },
	{ .name = "demo", .summary = "a hostile kernel module against a VM that keeps a key", .main = demo_main },
	{ .name = "attack",
	  .summary = "hostile kernel modules against the monitor, its gate and VMs",
	  .main = attack_main },
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_usage(FILE *out)
{
	fprintf(out, "usage: hpsctl COMMAND [OPTION]...\n"
		     "\n"
		     "Shows the state of the HyperPS monitor below this kernel, and runs VMs. Most commands need root\n"
		     "and the module hyperps.ko.\n"
		     "\n"
		     "Commands (hpsctl COMMAND --help says more):\n");
	for (size_t i = 0; i < COMMANDS; i++)
		fprintf(out, "  %s%s%-*s %s\n", commands[i].name, commands[i].action ? " " : "",
			8 - (int)strlen(commands[i].name) - !!commands[i].action,
			commands[i].action ? commands[i].action : "", commands[i].summary);
	fprintf(out,
		"\n"
		"  --help     this text\n"
		"  --version  the version of hpsctl\n"
		"\n"
		"Exit status: 0 success, 1 HyperPS is not running or not reachable, 2 wrong usage; run, measure, demo\n"
		"and attack have their own.\n");
}

int open_device(void)
{
	int device = monitor_open();

	if (device >= 0)
		return device;
	if (errno == EACCES || errno == EPERM)
		fprintf(stderr, "hpsctl: %s: permission denied: run hpsctl as root\n", HYPERPS_DEVICE);
	else if (errno == ENOENT || errno == ENXIO || errno == ENODEV)
		fprintf(stderr, "hpsctl: no %s: load hyperps.ko (insmod hyperps.ko); if it refuses, dmesg says why\n",
			HYPERPS_DEVICE);
	else
		fprintf(stderr, "hpsctl: cannot open %s: %s\n", HYPERPS_DEVICE, strerror(errno));
	return -1;
}

bool parse_number(const char *text, uint32_t *value)
{
	char *end;
	unsigned long number;

	errno = 0;
	number = strtoul(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || number > UINT32_MAX)
		return false;
	*value = number;
	return true;
}

static int run_command(const struct command *command, int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "cpu", required_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct options options = { 0 };
	int option, device, status;

	opterr = 0;
	while ((option = getopt_long(argc, argv, command->short_options, long_options, NULL)) != -1) {
		if (option == 'h') {
			fputs(command->help, stdout);
			return EXIT_OK;
		}
		/* The long options are those of all commands. */
		if (option == '?' || !strchr(command->short_options, option)) {
			fprintf(stderr, "hpsctl %s: bad option %s; see hpsctl %s --help\n", command->name,
				argv[optind - 1], command->name);
			return EXIT_USAGE;
		}
		if (option == 'j')
			options.json = true;
		if (option == 'c') {
			options.one_cpu = true;
			if (!parse_number(optarg, &options.cpu)) {
				fprintf(stderr, "hpsctl %s: --cpu wants a number, not '%s'\n", command->name, optarg);
				return EXIT_USAGE;
			}
		}
	}
	if (command->action && (optind == argc || strcmp(argv[optind++], command->action))) {
		fprintf(stderr, "hpsctl %s: it goes on with '%s'; see hpsctl %s --help\n", command->name,
			command->action, command->name);
		return EXIT_USAGE;
	}
	if (optind < argc) {
		fprintf(stderr, "hpsctl %s: unexpected '%s'; see hpsctl %s --help\n", command->name, argv[optind],
			command->name);
		return EXIT_USAGE;
	}
	device = open_device();
	if (device < 0)
		return EXIT_NOT_RUNNING;
	status = command->run(device, &options);
	close(device);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "hpsctl: cannot write: %s\n", strerror(errno));
		return EXIT_NOT_RUNNING;
	}
	return status;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		print_usage(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		print_usage(stdout);
		return EXIT_OK;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("hpsctl " HPSCTL_VERSION);
		return EXIT_OK;
	}
	for (size_t i = 0; i < COMMANDS; i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].main ? commands[i].main(argc - 1, argv + 1)
						: run_command(&commands[i], argc - 1, argv + 1);
	fprintf(stderr, "hpsctl: no command '%s'; see hpsctl --help\n", argv[1]);
	return EXIT_USAGE;
}

// SPDX-License-Identifier: MIT
/* hpsctl: shows what the HyperPS monitor says about itself; runs VMs. The command line, and what all commands need. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hpsctl.h"
#include "hyperps_ioctl.h"
#include "monitor_device.h"

#ifndef HPSCTL_VERSION
#define HPSCTL_VERSION "unknown"
#endif

#define KEY_USAGE 0x100

const struct command *const commands[] = {
	&status_command, &log_command,     &frames_command,  &vm_list_command,   &exits_command,
	&run_command,    &measure_command, &image_command,   &demo_command,      &attack_command,
	&check_command,  &bench_command,   &install_command, &uninstall_command, &completion_command,
};
const char *const command_version = HPSCTL_VERSION;
const size_t command_count = sizeof(commands) / sizeof(commands[0]);

/* What hpsctl's own command line names. */
struct choice {
	const struct command *command;
	int first; /* its last word in argv */
};

static error_t parse_help(int key, char *text, struct argp_state *state)
{
	(void)text;
	if (key == 'h')
		argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
	else if (key == KEY_USAGE)
		argp_state_help(state, stdout, ARGP_HELP_USAGE | ARGP_HELP_EXIT_OK);
	else
		return ARGP_ERR_UNKNOWN;
	return 0;
}

/* argp's own help would have no -h. In order: what stands behind `--' would be mixed with what stands before it. */
static void parse(struct argp argp, int argc, char **argv, void *input)
{
	static const struct argp_option options[] = {
		{ "help", 'h', NULL, 0, "this text", -1 },
		{ "usage", KEY_USAGE, NULL, 0, "the options in short", -1 },
		{ 0 },
	};
	static const struct argp help = { .options = options, .parser = parse_help };
	static const struct argp_child children[] = { { .argp = &help }, { 0 } };
	error_t error;

	argp.children = children;
	error = argp_parse(&argp, argc, argv, ARGP_NO_HELP | ARGP_IN_ORDER, NULL, input);
	if (!error)
		return;
	fprintf(stderr, "%s: %s\n", argv[0], strerror(error));
	exit(argp_err_exit_status);
}

void parse_command(const struct command *command, int argc, char **argv, void *options)
{
	static char name[32];

	snprintf(name, sizeof(name), "hpsctl %s", command->name);
	argv[0] = name;
	argp_err_exit_status = command->usage_status;
	parse(command->argp, argc, argv, options);
}

error_t refuse_arguments(int key, const char *text, struct argp_state *state)
{
	if (key != ARGP_KEY_ARG)
		return ARGP_ERR_UNKNOWN;
	argp_error(state, "unexpected '%s'", text);
	return EINVAL;
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

bool output_is_written(void)
{
	if (!fflush(stdout) && !ferror(stdout))
		return true;
	fprintf(stderr, "hpsctl: cannot write: %s\n", strerror(errno));
	return false;
}

void to_hex(const uint8_t sha256[32], char hex[65])
{
	for (int i = 0; i < 32; i++)
		sprintf(hex + 2 * i, "%02x", sha256[i]);
}

/* Ends with an error if there is no command of these words. */
static struct choice find_command(struct argp_state *state, char **words, int count)
{
	for (size_t i = 0; i < command_count; i++) {
		const char *name = commands[i]->name, *second = strchr(name, ' ');
		size_t length = second ? (size_t)(second - name) : strlen(name);

		if (strlen(words[0]) != length || strncmp(words[0], name, length))
			continue;
		if (!second)
			return (struct choice){ commands[i], state->argc - count };
		if (count > 1 && !strcmp(words[1], second + 1))
			return (struct choice){ commands[i], state->argc - count + 1 };
		argp_error(state, "%s: it goes on with '%s'", words[0], second + 1);
	}
	argp_error(state, "no command '%s'", words[0]);
	return (struct choice){ NULL, 0 };
}

static error_t parse_main(int key, char *text, struct argp_state *state)
{
	struct choice *choice = state->input;

	(void)text;
	switch (key) {
	case 'V':
		puts("hpsctl " HPSCTL_VERSION);
		exit(EXIT_OK);
	case ARGP_KEY_ARG:
		*choice = find_command(state, state->argv + state->next - 1, state->argc - state->next + 1);
		/* What follows is the command's. */
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_usage(state);
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int main(int argc, char **argv)
{
	struct argp_option options[sizeof(commands) / sizeof(commands[0]) + 3] = {
		{ "version", 'V', NULL, 0, "the version of hpsctl", -1 },
		{ .doc = "Commands (hpsctl COMMAND --help says more):", .group = 1 },
	};
	const struct argp argp = {
		.options = options,
		.parser = parse_main,
		.args_doc = "COMMAND [ARGUMENT...]",
		.doc = "Shows the state of the HyperPS monitor below this kernel, and runs VMs. Most commands need "
		       "root and "
		       "the module hyperps.ko.\v"
		       "Exit status: 0 success, 1 HyperPS is not running or not reachable, 2 wrong usage; run, "
		       "measure, "
		       "demo, attack and bench have their own.",
	};
	struct choice choice = { NULL, 0 };

	for (size_t i = 0; i < command_count; i++)
		options[2 + i] = (struct argp_option){
			.name = commands[i]->name, .flags = OPTION_DOC, .doc = commands[i]->summary, .group = 1
		};
	setenv("ARGP_HELP_FMT", "no-dup-args-note", 0);
	argp_err_exit_status = EXIT_USAGE;
	parse(argp, argc, argv, &choice);
	return choice.command->run(choice.command, argc - choice.first, argv + choice.first);
}

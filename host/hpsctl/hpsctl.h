/* SPDX-License-Identifier: MIT */
/* What the parts of hpsctl share. */
#ifndef HPSCTL_H
#define HPSCTL_H

#include <argp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the commands that only ask the monitor end with; the others have statuses of their own, which their help names. */
enum exit_status { EXIT_OK = 0, EXIT_NOT_RUNNING = 1, EXIT_USAGE = 2 };

/*
 * A command. Its help, its part of the manual page and the shell's completion are made of this: argp.doc says what it
 * does, and behind a '\v' what its exit status means.
 */
struct command {
	const char *name; /* a word, or two: "vm list" */
	const char *summary;
	struct argp argp; /* parse_command() adds --help and --usage */
	int usage_status; /* the exit status after wrong usage */
	int (*run)(const struct command *command, int argc, char **argv); /* returns the exit status */
};

#define OPTION_JSON(what)                                                                                              \
	{                                                                                                              \
		"json", 'j', NULL, 0, what, 0                                                                          \
	}

/*
 * Parses the command line; the options' parser finds `options` as state->input. Ends the process after --help, and with
 * command->usage_status after wrong usage.
 */
void parse_command(const struct command *command, int argc, char **argv, void *options);

/* For a command's parser: ends with an error if there is a word behind the options. */
error_t refuse_arguments(int key, const char *text, struct argp_state *state);

/* Opens /dev/hyperps; on failure says why, and returns -1. */
int open_device(void);

/* Parses a decimal number that fits 32 bits. */
bool parse_number(const char *text, uint32_t *value);

/* Flushes standard output; says so if that does not work. */
bool output_is_written(void);

/* 64 hexadecimal digits. */
void to_hex(const uint8_t sha256[32], char hex[65]);

extern const struct command status_command, log_command, frames_command, vm_list_command, exits_command; /* show.c */
extern const struct command run_command, measure_command; /* run.c */
extern const struct command install_command, uninstall_command; /* install_command.c */
extern const struct command check_command, image_command, demo_command, attack_command, completion_command,
	bench_command;

/* What hpsctl calls itself. */
extern const char *const command_version;

/* All commands, and how many; hpsctl.c. */
extern const struct command *const commands[];
extern const size_t command_count;

#endif

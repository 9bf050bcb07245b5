// SPDX-License-Identifier: MIT
/* hpsctl install, hpsctl uninstall: their command lines. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hpsctl.h"
#include "install.h"

/* As for the other commands, but 1 is any failure. */
#define EXIT_FAILED EXIT_NOT_RUNNING
#define STATUSES "\vExit status: 0 success, 1 it failed, 2 wrong usage."
#define OPTION_ESP                                                                                                     \
	{                                                                                                              \
		"esp", 'e', "DIR", 0, "where the EFI system partition is mounted; else /efi, /boot/efi, /boot", 0      \
	}
#define OPTION_DRY_RUN                                                                                                 \
	{                                                                                                              \
		"dry-run", 'n', NULL, 0, "only say what would be done", 0                                              \
	}

static const struct argp_option install_options[] = {
	OPTION_ESP,
	{ "loader", 'l', "FILE", 0, "the loader; else ../lib/hyperps/hyperps.efi, as seen from hpsctl", 0 },
	{ "chainload", 'c', "PATH", 0, "what the loader starts, as on the EFI system partition, with backslashes", 0 },
	OPTION_DRY_RUN,
	{ 0 },
};
static const struct argp_option uninstall_options[] = { OPTION_ESP, OPTION_DRY_RUN, { 0 } };

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct install *options = state->input;

	switch (key) {
	case 'e':
		options->esp = text;
		return 0;
	case 'l':
		options->loader = text;
		return 0;
	case 'c':
		options->chainload = text;
		return 0;
	case 'n':
		options->dry_run = true;
		return 0;
	default:
		return refuse_arguments(key, text, state);
	}
}

/* Where `make install` puts the loader, whatever the prefix. */
static const char *installed_loader(void)
{
	static char path[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);

	for (int i = 0; length > 0 && i < 2; i++)
		while (--length > 0 && path[length] != '/')
			;
	if (length < 0 || (size_t)length > sizeof(path) - sizeof("/lib/hyperps/hyperps.efi"))
		length = 0;
	strcpy(path + length, "/lib/hyperps/hyperps.efi");
	return path;
}

static int act(const struct command *command, int argc, char **argv, bool (*what)(const struct install *))
{
	struct install options = { .loader = installed_loader(),
				   .efi = "/sys/firmware/efi",
				   .mountinfo = "/proc/self/mountinfo",
				   .block = "/sys/dev/block",
				   .efibootmgr = "efibootmgr" };

	parse_command(command, argc, argv, &options);
	if (geteuid() && !options.dry_run) {
		fprintf(stderr, "hpsctl: this writes to the EFI system partition and the firmware's variables: run "
				"hpsctl as root, or with --dry-run\n");
		return EXIT_FAILED;
	}
	return what(&options) && output_is_written() ? EXIT_OK : EXIT_FAILED;
}

static int run_install(const struct command *command, int argc, char **argv)
{
	return act(command, argc, argv, install);
}

const struct command install_command = {
	.name = "install",
	.summary = "have this system start under the monitor",
	.argp = { .options = install_options,
		  .parser = parse,
		  .doc = "Copies the loader to \\EFI\\HYPERPS on the EFI system partition, writes a hyperps.conf with "
			 "which "
			 "it starts what starts this system now (unless there is a hyperps.conf already), and puts a "
			 "boot "
			 "entry for it in front of the firmware's boot order. The old entries stay, and if the loader "
			 "stops the firmware goes on with them. Repeat it after an update. It needs UEFI without "
			 "Secure "
			 "Boot, and efibootmgr." STATUSES },
	.usage_status = EXIT_USAGE,
	.run = run_install,
};

static int run_uninstall(const struct command *command, int argc, char **argv)
{
	return act(command, argc, argv, uninstall);
}

const struct command uninstall_command = {
	.name = "uninstall",
	.summary = "undo hpsctl install",
	.argp = { .options = uninstall_options,
		  .parser = parse,
		  .doc = "Removes the boot entry, the loader and hyperps.conf. A monitor that runs goes on until the "
			 "machine "
			 "is switched off or restarted." STATUSES },
	.usage_status = EXIT_USAGE,
	.run = run_uninstall,
};

// SPDX-License-Identifier: MIT
/*
 * hpsctl attack: programs that attack the monitor, its gate and VMs from the host's kernel, one after the other. Each
 * prints TAP lines. Those with "positive control: " say that the same thing works where it may, those with "setup: " that
 * it could be tried at all; all others that it was refused. Between any two, the monitor and a key vault in a VM must be as
 * before.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hpsctl.h"
#include "json.h"
#include "keyvault.h"
#include "monitor_device.h"

#define DIRECTORY "/test"
#define GATE_PARAMETER "/sys/module/hyperps/parameters/gate"
#define ATTACKS_MAX 99
#define FAILURES_SHOWN 4096
#define ENDED_CHECKS 1 /* exit status of a program with a check that failed */

enum attack_status { ATTACK_REFUSED = 0, ATTACK_GOT_THROUGH = 1, ATTACK_NOT_RUN = 2 };

struct options {
	const char *directory, *guest;
	bool list, json, verbose;
	const char *names[ATTACKS_MAX];
	int count;
};

struct attack {
	char file[NAME_MAX + 1]; /* NN-name */
	char text[200];
	unsigned int controls, refusals, skipped, failed_controls, failed_refusals, failed_setup;
	char failures[FAILURES_SHOWN]; /* lines of the checks that failed */
};

struct suite {
	struct options options;
	int device;
	struct vault vault;
	uint8_t mac[32];
	uint64_t cpus, counted;
	const char *gate;
	struct json json;
};

static const char *name_of(const struct attack *attack)
{
	return attack->file + 3;
}

static int is_attack(const struct dirent *entry)
{
	const char *name = entry->d_name;

	return name[0] >= '0' && name[0] <= '9' && name[1] >= '0' && name[1] <= '9' && name[2] == '-' && name[3];
}

/* The third line of a program says what it does. */
static void read_text(struct attack *attack, const char *path)
{
	FILE *file = fopen(path, "re");

	for (int line = 0; file && line < 3; line++)
		if (!fgets(attack->text, sizeof(attack->text), file))
			break;
	attack->text[strcspn(attack->text, "\n")] = 0;
	memmove(attack->text, attack->text + strspn(attack->text, "# "),
		strlen(attack->text) + 1 - strspn(attack->text, "# "));
	if (file)
		fclose(file);
}

/* All programs of the directory, by number. Their count, or -1. */
static int find_attacks(const char *directory, struct attack *attacks)
{
	struct dirent **entries;
	char path[PATH_MAX];
	int count, used = 0;

	snprintf(path, sizeof(path), "%s/attacks", directory);
	count = scandir(path, &entries, is_attack, alphasort);
	for (int i = 0; i < count; i++) {
		if (used < ATTACKS_MAX) {
			strcpy(attacks[used].file, entries[i]->d_name);
			snprintf(path, sizeof(path), "%s/attacks/%s", directory, entries[i]->d_name);
			read_text(&attacks[used++], path);
		}
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	if (count <= 0)
		fprintf(stderr, "hpsctl attack: no attacks in %s: say --directory DIR\n", path);
	return count > 0 ? used : -1;
}

static void note_failure(struct attack *attack, const char *line)
{
	strncat(attack->failures, line, sizeof(attack->failures) - strlen(attack->failures) - 1);
}

static void take_line(struct attack *attack, const char *line)
{
	bool passed = !strncmp(line, "ok - ", 5);
	unsigned int *failed = &attack->failed_refusals, *count = &attack->refusals;

	if (!passed && strncmp(line, "not ok - ", 9))
		return;
	if (passed && strstr(line, "# SKIP"))
		count = &attack->skipped;
	else if (strstr(line, "positive control: "))
		count = &attack->controls, failed = &attack->failed_controls;
	else if (strstr(line, "- setup: "))
		count = NULL, failed = &attack->failed_setup;
	if (!passed) {
		++*failed;
		note_failure(attack, line);
	} else if (count) {
		++*count;
	}
}

/* Runs one program to its end. */
static void run_attack(const struct options *options, struct attack *attack)
{
	char path[PATH_MAX], line[1024];
	int ends[2], status = -1;
	pid_t child;
	FILE *output;

	snprintf(path, sizeof(path), "%s/attacks/%s", options->directory, attack->file);
	fflush(NULL);
	if (pipe(ends) || (child = fork()) < 0) {
		note_failure(attack, strerror(errno));
		attack->failed_setup++;
		return;
	}
	if (!child) {
		dup2(ends[1], STDOUT_FILENO);
		dup2(ends[1], STDERR_FILENO);
		close(ends[0]);
		close(ends[1]);
		execl(path, path, NULL);
		printf("# %s: %s\n", path, strerror(errno));
		fflush(stdout);
		_exit(127);
	}
	close(ends[1]);
	output = fdopen(ends[0], "r");
	while (output && fgets(line, sizeof(line), output)) {
		take_line(attack, line);
		if (options->verbose)
			fputs(line, options->json ? stderr : stdout);
	}
	if (output)
		fclose(output);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (status && (!WIFEXITED(status) || WEXITSTATUS(status) != ENDED_CHECKS)) {
		attack->failed_setup++;
		snprintf(line, sizeof(line), "%s ended with wait status %#x\n", attack->file, status);
		note_failure(attack, line);
	}
}

static bool ask_vault(struct suite *suite, uint8_t mac[32])
{
	static const char challenge[] = "HyperPS attack";
	struct vault_page page;

	if (!vault_ask(&suite->vault, sizeof(challenge) - 1, challenge, sizeof(challenge) - 1, &page) ||
	    page.status != VAULT_OK)
		return false;
	memcpy(mac, page.mac, sizeof(page.mac));
	return true;
}

/* Every CPU that the monitor had is still in VMX. The counters of what it refused, in sum. */
static bool monitor_is_intact(struct suite *suite, uint64_t *counted)
{
	struct hyperps_status status;
	struct hyperps_exits exits;
	uint64_t in_vmx = 0;

	if (monitor_read_status(suite->device, &status))
		return false;
	for (uint32_t i = 0; i < status.cpu_slots; i++)
		in_vmx += !monitor_read_exits(suite->device, i, &exits) && exits.state == HYPERPS_CPU_STATE_IN_VMX;
	*counted = status.refused_memory + status.refused_msr + status.refused_instruction + status.refused_register +
		   status.refused_gate + status.refused_dma;
	suite->cpus = suite->cpus ? suite->cpus : status.cpus_taken;
	suite->gate = status.gate == HYPERPS_GATE_OFFERED ? "vmfunc" : "vmcall";
	return (status.flags & HYPERPS_FLAG_ALL_CPUS_TAKEN) && in_vmx == suite->cpus &&
	       status.cpus_taken == suite->cpus;
}

static void check_state(struct suite *suite, struct attack *attack)
{
	uint8_t mac[32];

	if (!monitor_is_intact(suite, &suite->counted)) {
		attack->failed_refusals++;
		note_failure(attack, "not ok - the monitor answers, and has all its CPUs\n");
	}
	if (!ask_vault(suite, mac) || memcmp(mac, suite->mac, sizeof(mac))) {
		attack->failed_refusals++;
		note_failure(attack, "not ok - the key vault in its VM answers as before\n");
	}
}

static bool has_control(const struct attack *attack)
{
	return attack->controls && !attack->failed_controls;
}

static bool is_refused(const struct attack *attack)
{
	return attack->refusals && !attack->failed_refusals;
}

/* It can't be tried on this machine, and nothing is wrong. */
static bool is_skipped(const struct attack *attack)
{
	return attack->skipped && !attack->controls && !attack->refusals && !attack->failures[0];
}

static enum attack_status status_of(const struct attack *attack)
{
	if (is_skipped(attack))
		return ATTACK_REFUSED;
	if (attack->failed_refusals)
		return ATTACK_GOT_THROUGH;
	return has_control(attack) && is_refused(attack) && !attack->failed_setup ? ATTACK_REFUSED : ATTACK_NOT_RUN;
}

static void print_result(struct suite *suite, const struct attack *attack, uint64_t counted)
{
	FILE *details = suite->options.json ? stderr : stdout;
	const char *line = attack->failures;

	if (suite->options.json) {
		json_begin(&suite->json, NULL, '{');
		json_text_or_null(&suite->json, "name", name_of(attack));
		json_number(&suite->json, "cpus", suite->cpus);
		json_text_or_null(&suite->json, "gate", suite->gate);
		json_bool(&suite->json, "control", has_control(attack));
		json_bool(&suite->json, "refused", is_refused(attack) && !attack->failed_setup);
		json_bool(&suite->json, "skipped", is_skipped(attack));
		json_end(&suite->json);
	} else if (is_skipped(attack)) {
		printf("%.2s %-18s skipped: it can't be tried on this machine (-v says why)\n", attack->file,
		       name_of(attack));
	} else {
		printf("%.2s %-18s control %-7s %-14s %u checks", attack->file, name_of(attack),
		       has_control(attack) ? "works," : "FAILS,",
		       attack->failed_refusals                       ? "GOT THROUGH;"
		       : is_refused(attack) && !attack->failed_setup ? "refused;"
								     : "NOT RUN;",
		       attack->controls + attack->refusals + attack->failed_controls + attack->failed_refusals);
		if (attack->skipped)
			printf(", %u skipped", attack->skipped);
		printf("; the monitor counted %" PRIu64 "\n", counted);
	}
	while (*line) {
		int length = (int)strcspn(line, "\n");

		fprintf(details, "   %s%s%.*s\n", suite->options.json ? name_of(attack) : "",
			suite->options.json ? ": " : "", length, line);
		line += length + (line[length] == '\n');
	}
	fflush(stdout);
}

/*
 * Whether hyperps.ko uses the gate: not while the attacks set up gates of their own. Gives what it was, or 0 if it can't be
 * changed.
 */
static char set_gate(char value)
{
	FILE *file = fopen(GATE_PARAMETER, "r+e");
	int old = file ? fgetc(file) : EOF;
	bool done = old != EOF && !fseek(file, 0, SEEK_SET) && fputc(value, file) != EOF;

	if (file && fclose(file))
		done = false;
	return done ? (char)old : 0;
}

static bool is_wanted(const struct options *options, const struct attack *attack)
{
	for (int i = 0; i < options->count; i++)
		if (!strcmp(options->names[i], name_of(attack)))
			return true;
	return !options->count;
}

static enum attack_status run_all(struct suite *suite, struct attack *attacks, int count)
{
	bool through = false, not_run = false;

	suite->json = (struct json){ .out = stdout };
	if (suite->options.json)
		json_begin_lines(&suite->json, NULL, '[');
	for (int i = 0; i < count; i++) {
		struct attack *attack = &attacks[i];
		uint64_t before = suite->counted;

		if (!is_wanted(&suite->options, attack))
			continue;
		run_attack(&suite->options, attack);
		check_state(suite, attack);
		print_result(suite, attack, suite->counted - before);
		through |= status_of(attack) == ATTACK_GOT_THROUGH;
		not_run |= status_of(attack) == ATTACK_NOT_RUN;
	}
	if (suite->options.json)
		json_end(&suite->json);
	if (through)
		fprintf(stderr, "hpsctl attack: FAILED: an attack got through\n");
	else if (not_run)
		fprintf(stderr, "hpsctl attack: FAILED: a control failed, or an attack could not be run\n");
	return through ? ATTACK_GOT_THROUGH : not_run ? ATTACK_NOT_RUN : ATTACK_REFUSED;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 'l':
		options->list = true;
		return 0;
	case 'd':
		options->directory = text;
		return 0;
	case 'g':
		options->guest = text;
		return 0;
	case 'j':
		options->json = true;
		return 0;
	case 'v':
		options->verbose = true;
		return 0;
	case ARGP_KEY_ARG:
		if (options->count == ATTACKS_MAX)
			argp_error(state, "no attack '%s'", text);
		options->names[options->count++] = text;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* Each name is that of an attack. */
static bool names_are_known(const struct options *options, const struct attack *attacks, int count)
{
	for (int i = 0; i < options->count; i++) {
		int at = 0;

		while (at < count && strcmp(options->names[i], name_of(&attacks[at])))
			at++;
		if (at == count) {
			fprintf(stderr, "hpsctl attack: no attack '%s'; see hpsctl attack --list\n", options->names[i]);
			return false;
		}
	}
	return true;
}

static enum attack_status run_suite(struct suite *suite, struct attack *attacks, int count)
{
	enum attack_status status = ATTACK_NOT_RUN;
	char gate;

	suite->device = open_device();
	if (suite->device < 0)
		return status;
	gate = set_gate('N');
	if (!gate)
		fprintf(stderr, "hpsctl attack: cannot write " GATE_PARAMETER ": %s\n", strerror(errno));
	else if (!monitor_is_intact(suite, &suite->counted))
		fprintf(stderr, "hpsctl attack: the monitor does not have all CPUs; see hpsctl status\n");
	else if (!vault_start(&suite->vault, suite->device, suite->options.guest, "") || !ask_vault(suite, suite->mac))
		fprintf(stderr, "hpsctl attack: the key vault does not start: %s\n", suite->vault.error);
	else
		status = run_all(suite, attacks, count);
	vault_end(&suite->vault);
	if (gate)
		set_gate(gate);
	close(suite->device);
	return status;
}

static int run_attack_command(const struct command *command, int argc, char **argv)
{
	static struct attack attacks[ATTACKS_MAX];
	static struct suite suite = { .options = { .directory = DIRECTORY, .guest = "/guests/vault" } };
	enum attack_status status = ATTACK_REFUSED;
	int count;

	parse_command(command, argc, argv, &suite.options);
	count = find_attacks(suite.options.directory, attacks);
	if (count < 0)
		return ATTACK_NOT_RUN;
	if (!names_are_known(&suite.options, attacks, count))
		return EXIT_USAGE;
	if (suite.options.list)
		for (int i = 0; i < count; i++)
			printf("%.2s %-18s %s\n", attacks[i].file, name_of(&attacks[i]), attacks[i].text);
	else
		status = run_suite(&suite, attacks, count);
	return output_is_written() ? status : ATTACK_NOT_RUN;
}

static const struct argp_option options[] = {
	{ "list", 'l', NULL, 0, "number, name and what each does; attacks nothing", 0 },
	{ "directory", 'd', "DIR", 0,
	  "where the programs are (" DIRECTORY "); they lie in DIR/attacks, their modules, built for this kernel, in "
	  "DIR/modules",
	  0 },
	{ "guest", 'g', "FILE", 0, "the vault's image; /guests/vault if not given", 0 },
	OPTION_JSON("a JSON list: name, cpus, gate (vmfunc or vmcall), control, refused, skipped"),
	{ "verbose", 'v', NULL, 0, "all that the programs print", 0 },
	{ 0 },
};

const struct command attack_command = {
	.name = "attack",
	.summary = "hostile kernel modules against the monitor, its gate and VMs",
	.argp = { .options = options,
		  .parser = parse,
		  .args_doc = "[NAME...]",
		  .doc = "Has hostile kernel modules and programs attack the monitor's memory, VMs, the gate and the "
			 "CPUs, one "
			 "attack after the other, or those named. Each first shows that it works where it may (the "
			 "control), "
			 "then must be refused. A key vault runs in a VM meanwhile, and must be unharmed. Takes a "
			 "minute or "
			 "two; the machine should do nothing else. `stale-tlb' costs the host 2 MiB of memory until it "
			 "restarts.\v"
			 "Exit status: 0 every control worked, and every attack was refused, or can't be tried on this "
			 "machine; 1 an attack got through; "
			 "2 a "
			 "control failed, or an attack could not be run; also wrong usage." },
	.usage_status = EXIT_USAGE,
	.run = run_attack_command,
};

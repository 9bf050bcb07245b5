// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <cpuid.h>
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "bench_environment.h"

#define FACTS (sizeof(((struct bench_environment *)0)->fact) / sizeof(((struct bench_environment *)0)->fact[0]))
#define TRIES 50
#define VULNERABILITIES "/sys/devices/system/cpu/vulnerabilities"
#define OEM_OFFSET 10 /* in an ACPI table: 6 bytes, then 8 of the table's own name */

__attribute__((format(printf, 3, 4))) static void note(struct bench_environment *environment, const char *key,
						       const char *format, ...)
{
	struct bench_fact *fact = &environment->fact[environment->count];
	va_list arguments;

	if (environment->count == FACTS)
		return;
	va_start(arguments, format);
	vsnprintf(fact->value, sizeof(fact->value), format, arguments);
	va_end(arguments);
	fact->key = key;
	if (fact->value[0])
		environment->count++;
}

/* The first line of a file, or "". */
static const char *read_line(const char *path, char *text, size_t size)
{
	FILE *file = fopen(path, "re");

	text[0] = 0;
	if (file && fgets(text, (int)size, file))
		text[strcspn(text, "\n")] = 0;
	if (file)
		fclose(file);
	return text;
}

static void note_file(struct bench_environment *environment, const char *key, const char *path)
{
	char text[2048];

	note(environment, key, "%s", read_line(path, text, sizeof(text)));
}

/* What stands behind a name in /proc/cpuinfo. */
static void note_cpuinfo(struct bench_environment *environment, const char *key, const char *name)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	char line[4096];

	while (file && fgets(line, sizeof(line), file)) {
		char *value = strchr(line, ':');

		if (!value || strncmp(line, name, strlen(name)) ||
		    (line[strlen(name)] != '\t' && line[strlen(name)] != ' '))
			continue;
		value[strcspn(value, "\n")] = 0;
		note(environment, key, "%.2000s", value + 1 + strspn(value + 1, " "));
		break;
	}
	if (file)
		fclose(file);
}

static void note_mitigations(struct bench_environment *environment)
{
	struct dirent **entries;
	char all[2048] = "", path[512], text[256];
	int count = scandir(VULNERABILITIES, &entries, NULL, alphasort);

	for (int i = 0; i < count; i++) {
		size_t used = strlen(all);

		snprintf(path, sizeof(path), VULNERABILITIES "/%s", entries[i]->d_name);
		if (entries[i]->d_name[0] != '.' && *read_line(path, text, sizeof(text)))
			snprintf(all + used, sizeof(all) - used, "%s%s: %s", used ? "; " : "", entries[i]->d_name,
				 text);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	note(environment, "mitigations", "%s", all);
}

/* Who made the ACPI tables: on an emulator the only ones that name it. */
static void note_acpi(struct bench_environment *environment)
{
	unsigned char table[OEM_OFFSET + 14];
	FILE *file = fopen("/sys/firmware/acpi/tables/FACP", "re");

	if (file && fread(table, sizeof(table), 1, file) == 1) {
		for (size_t i = OEM_OFFSET; i < sizeof(table); i++)
			if (table[i] < ' ' || table[i] > '~')
				table[i] = ' ';
		note(environment, "acpi_tables", "%.6s %.8s", table + OEM_OFFSET, table + OEM_OFFSET + 6);
	}
	if (file)
		fclose(file);
}

static void note_cpu(struct bench_environment *environment)
{
	unsigned int eax, ebx, ecx, edx, words[3];
	char signature[13] = "";

	note_cpuinfo(environment, "cpu", "model name");
	if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) {
		note(environment, "cpu_signature", "%08x", eax);
		if (ecx & 1U << 31) {
			__cpuid(0x40000000, eax, words[0], words[1], words[2]);
			memcpy(signature, words, sizeof(words));
			/* HyperPS does not show itself there. */
			note(environment, "hypervisor", "%s", signature[0] ? signature : "one without a name");
		}
	}
	note_cpuinfo(environment, "microcode", "microcode");
	note(environment, "cpus", "%ld", sysconf(_SC_NPROCESSORS_ONLN));
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void note_tsc(struct bench_environment *environment)
{
	double start = now();
	uint64_t ticks = __rdtsc();

	while (now() - start < 0.05)
		;
	ticks = __rdtsc() - ticks;
	note(environment, "tsc_mhz", "%.0f", (double)ticks / (now() - start) / 1e6);
}

void bench_look_around(struct bench_environment *environment, const struct hyperps_status *status, const char *version)
{
	time_t seconds = time(NULL);
	struct utsname kernel;
	struct tm day;
	char date[32] = "";

	if (gmtime_r(&seconds, &day))
		strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &day);
	note(environment, "date", "%s", date);
	note(environment, "hpsctl", "%s", version);
	if (status)
		note(environment, "monitor", "%.*s", (int)sizeof(status->version), status->version);
	else
		note(environment, "monitor", "none, or its version is not hpsctl's");
	if (status) {
		note(environment, "gate", "%s", status->gate == HYPERPS_GATE_OFFERED ? "vmfunc" : "vmcall");
		note(environment, "dma", "%.*s", (int)sizeof(status->dma), status->dma);
		note(environment, "kvm_in_the_host", "%.*s", (int)sizeof(status->kvm),
		     status->kvm[0] ? status->kvm : "on");
	}
	note_cpu(environment);
	note_tsc(environment);
	note_file(environment, "system", "/sys/class/dmi/id/sys_vendor");
	note_file(environment, "product", "/sys/class/dmi/id/product_name");
	note_file(environment, "firmware", "/sys/class/dmi/id/bios_version");
	note_acpi(environment);
	if (!uname(&kernel))
		note(environment, "kernel", "%s %s", kernel.release, kernel.version);
	note_file(environment, "command_line", "/proc/cmdline");
	note_mitigations(environment);
	note_file(environment, "governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
	note(environment, "compiler", "gcc " __VERSION__ " (of hpsctl)");
}

/* Ticks of 200 divisions that wait for each other, or of as many instructions that do nothing. The best of some tries. */
static uint64_t fastest(bool divide)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < TRIES; i++) {
		uint64_t start, ticks, number = 1, high = 0;

		_mm_lfence();
		start = __rdtsc();
		if (divide)
			asm volatile(".rept 200\n divq %2\n .endr\n" : "+a"(number), "+d"(high) : "r"(1UL) : "cc");
		else
			asm volatile(".rept 200\n nop\n .endr\n");
		_mm_lfence();
		ticks = __rdtsc() - start;
		best = ticks < best ? ticks : best;
	}
	return best;
}

const char *bench_unit(void)
{
	uint64_t divisions = fastest(true), nothing = fastest(false);

	/* No CPU divides as fast as it does nothing; what counts instructions does. */
	return divisions < nothing + nothing / 4 ? "ticks" : "cycles";
}

void bench_environment_json(struct json *json, const struct bench_environment *environment)
{
	json_begin_lines(json, "environment", '{');
	for (size_t i = 0; i < environment->count; i++)
		json_text(json, environment->fact[i].key, environment->fact[i].value,
			  sizeof(environment->fact[i].value));
	json_end(json);
}

void bench_environment_text(FILE *out, const struct bench_environment *environment)
{
	for (size_t i = 0; i < environment->count; i++)
		fprintf(out, "%-16s %s\n", environment->fact[i].key, environment->fact[i].value);
}

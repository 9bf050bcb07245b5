// SPDX-License-Identifier: MIT
/*
 * hpsctl bench: what calls, memory, VMs and guests' exits take, in samples of the time-stamp counter. Through /dev/hyperps and /dev/kvm
 * as they are: what these do not show is named as not measured.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#include "bench_environment.h"
#include "bench_figures.h"
#include "bench_guest.h"
#include "hpsctl.h"
#include "hyperps_ioctl.h"
#include "monitor_device.h"

enum bench_status { BENCH_DONE = 0, BENCH_FAILED = 1 };

#define PAGE 4096UL
#define LARGE (2UL << 20)
#define RAM_BYTES (64UL << 20)
#define SMALL_GPA 0x40001000UL /* up to 2 MiB from here hold no 2 MiB page */
#define LARGE_GPA 0x40000000UL
#define LONG_READ 257 /* pieces of HYPERPS_READ_BYTES, one more than are measured */
#define GATE_PARAMETER "/sys/module/hyperps/parameters/gate"
#define NAMES_MAX 64

struct bench {
	bool json, list;
	const char *names[NAMES_MAX];
	int name_count;
	int device, kvm; /* below 0: not there */
	char no_device[120], no_kvm[120]; /* why */
	cpu_set_t cpus;
	int cpu; /* on which it measures */
	bool failed;
	struct bench_figure figure;
};

/* What can be measured. measure() fills figure.sample, or returns what could not be done, with errno. */
struct item {
	const char *name, *text;
	const char *(*measure)(struct bench *bench, const struct item *item);
	uint64_t argument;
	size_t samples;
	uint64_t operations;
	const char *routine;
	const char *never; /* why it is not measured at all */
};

static bool is_kvm(const struct item *item)
{
	return !strncmp(item->name, "kvm.", 4);
}

/* The first time warms up, and is not kept. */
static void keep(struct bench_figure *figure, size_t round, uint64_t ticks)
{
	if (round)
		figure->sample[figure->count++] = ticks;
}

static const char *measure_cpuid(struct bench *bench, const struct item *item)
{
	for (size_t round = 0; round <= item->samples; round++) {
		uint64_t start = __rdtsc();

		for (uint64_t i = 0; i < item->operations; i++) {
			unsigned int eax = item->argument, ebx, ecx = 0, edx;

			asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
		}
		keep(&bench->figure, round, __rdtsc() - start);
	}
	return NULL;
}

/* Returns whether hyperps.ko uses the gate, as 'Y' or 'N', after setting it, unless value is 0. 0: can't be read or set. */
static char gate(char value)
{
	int file = open(GATE_PARAMETER, (value ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	char was = 0;

	if (file < 0 || pread(file, &was, 1, 0) != 1 || (value && pwrite(file, &value, 1, 0) != 1))
		was = 0;
	if (file >= 0)
		close(file);
	return was;
}

/* The log's ring is the longest object: a long read makes many calls, and the module copies what each gives. */
static const char *measure_calls(struct bench *bench, const struct item *item)
{
	static char buffer[LONG_READ * HYPERPS_READ_BYTES];

	for (size_t round = 0; round <= item->samples; round++) {
		uint64_t begin = __rdtsc(), middle;

		if (monitor_read(bench->device, HYPERPS_OBJECT_LOG, 0, 0, buffer, HYPERPS_READ_BYTES))
			return "read the monitor's log";
		middle = __rdtsc();
		if (monitor_read(bench->device, HYPERPS_OBJECT_LOG, 0, 0, buffer, sizeof(buffer)))
			return "read the monitor's log";
		begin = 2 * middle - begin; /* the short read is taken off */
		middle = __rdtsc();
		keep(&bench->figure, round, middle > begin ? middle - begin : 0);
	}
	return NULL;
}

/* A VM with RAM declared, nothing in it. */
static int empty_vm(const struct bench *bench)
{
	struct hyperps_vm_declare range = { LARGE_GPA, 1UL << 30, 7 };
	int vm = ioctl(bench->device, HYPERPS_IOC_CREATE_VM, 0);

	if (vm >= 0 && ioctl(vm, HYPERPS_VM_IOC_DECLARE, &range)) {
		close(vm);
		vm = -1;
	}
	return vm;
}

/* VM_DECLARE of what is declared already: the ioctl makes this one call, which changes nothing. */
static const char *measure_declare(struct bench *bench, const struct item *item)
{
	struct hyperps_vm_declare range = { LARGE_GPA, 1UL << 30, 7 };
	const char *what = NULL;
	int vm = empty_vm(bench);

	if (vm < 0)
		return "create a VM";
	for (size_t round = 0; round <= item->samples && !what; round++) {
		uint64_t start = __rdtsc();

		for (uint64_t i = 0; i < item->operations && !what; i++)
			if (!ioctl(vm, HYPERPS_VM_IOC_DECLARE, &range) || errno != EACCES)
				what = "have a range refused that is declared";
		keep(&bench->figure, round, __rdtsc() - start);
	}
	close(vm);
	return what;
}

static const char *measure_gate(struct bench *bench, const struct item *item)
{
	char wanted = item->argument ? 'Y' : 'N', was = gate(0);
	struct hyperps_status status;
	const char *what = NULL;

	if (was != wanted && (!was || !gate(wanted)))
		return item->argument ? "switch the gate on" : "switch the gate off";
	if (monitor_read_status(bench->device, &status)) {
		what = "read the monitor's status";
	} else if (item->argument ? status.gate_cpus < status.cpus_taken : status.gate_cpus > 0) {
		/* Somebody else has set up a gate. */
		errno = EBUSY;
		what = "have the gate as hyperps.ko says that it is";
	} else {
		what = measure_declare(bench, item);
	}
	if (was != wanted && !gate(was))
		return "switch the gate back";
	return what;
}

static const char *measure_create(struct bench *bench, const struct item *item)
{
	for (size_t round = 0; round <= item->samples; round++) {
		uint64_t start = __rdtsc();
		int vm = ioctl(bench->device, HYPERPS_IOC_CREATE_VM, 0);

		if (vm < 0)
			return "create a VM";
		close(vm);
		keep(&bench->figure, round, __rdtsc() - start);
	}
	return NULL;
}

static const char *populate(int vm, uint64_t gpa, uint64_t size)
{
	struct hyperps_vm_populate request = { gpa, size, 0 };
	int done = ioctl(vm, HYPERPS_VM_IOC_POPULATE, &request);

	if (done == (int)size)
		return NULL;
	errno = done < 0 ? errno : ENOMEM;
	return "give a VM memory";
}

/* item->operations pages of item->argument bytes with each call. */
static const char *measure_populate(struct bench *bench, const struct item *item)
{
	uint64_t size = item->argument * item->operations, gpa = item->argument == LARGE ? LARGE_GPA : SMALL_GPA;
	const char *what = NULL;
	int vm = empty_vm(bench);

	if (vm < 0)
		return "create a VM";
	for (size_t round = 0; round <= item->samples && !what; round++, gpa += size) {
		uint64_t start = __rdtsc();

		what = populate(vm, gpa, size);
		if (!what)
			keep(&bench->figure, round, __rdtsc() - start);
	}
	close(vm);
	return what;
}

static pid_t keep_busy(int cpu)
{
	pid_t child = fork();
	cpu_set_t cpus;

	if (child)
		return child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	for (;;)
		_mm_pause();
}

/* While item->argument CPUs run, this one among them, and the others of the machine idle. */
static const char *measure_busy(struct bench *bench, const struct item *item)
{
	struct item pages = *item;
	pid_t child[CPU_SETSIZE];
	const char *what = NULL;
	size_t children = 0;

	for (int cpu = 0; cpu < CPU_SETSIZE && children + 1 < item->argument && !what; cpu++) {
		if (cpu == bench->cpu || !CPU_ISSET(cpu, &bench->cpus))
			continue;
		child[children] = keep_busy(cpu);
		if (child[children] < 0)
			what = "start a process";
		else
			children++;
	}
	usleep(20000);
	pages.argument = PAGE;
	if (!what)
		what = measure_populate(bench, &pages);
	while (children) {
		kill(child[--children], SIGKILL);
		waitpid(child[children], NULL, 0);
	}
	return what;
}

static const char *measure_vm(struct bench *bench, const struct item *item)
{
	for (size_t round = 0; round <= item->samples; round++) {
		uint64_t start = __rdtsc();
		int vm = empty_vm(bench);
		const char *what;

		if (vm < 0)
			return "create a VM";
		/* In this order: what a VM has when it is sealed is measured, byte by byte. */
		what = ioctl(vm, HYPERPS_VM_IOC_SEAL, 0) ? "seal a VM" : populate(vm, LARGE_GPA, item->argument);
		close(vm);
		if (what)
			return what;
		keep(&bench->figure, round, __rdtsc() - start);
	}
	return NULL;
}

/* Of a VM's loops the first warms up. Only so many find pages that are not touched yet. */
static const char *measure_guest(struct bench *bench, const struct item *item)
{
	bool kvm = is_kvm(item), touches = item->routine == bench_guest_touch;
	size_t rounds = touches ? BENCH_TOUCHED_BYTES / PAGE / BENCH_TOUCHES : item->samples + 1;
	struct bench_vm vm = { .failed = NULL };
	uint32_t ticks;

	while (bench->figure.count < item->samples && !vm.failed) {
		if (bench_vm_make(&vm, kvm, kvm ? bench->kvm : bench->device, LARGE, touches, item->routine))
			for (size_t round = 0; round < rounds && bench_vm_run(&vm, &ticks); round++)
				keep(&bench->figure, round, ticks);
		bench_vm_end(&vm);
	}
	return vm.failed;
}

/* From nothing to the first exit of a guest that has all its RAM. */
static const char *measure_start(struct bench *bench, const struct item *item)
{
	bool kvm = is_kvm(item);

	for (size_t round = 0; round <= item->samples; round++) {
		uint64_t start = __rdtsc();
		struct bench_vm vm;
		uint32_t ticks;

		if (bench_vm_make(&vm, kvm, kvm ? bench->kvm : bench->device, item->argument, false, item->routine) &&
		    bench_vm_run(&vm, &ticks))
			keep(&bench->figure, round, __rdtsc() - start);
		bench_vm_end(&vm);
		if (vm.failed)
			return vm.failed;
	}
	return NULL;
}

#define NO_CALL "hyperps.ko makes this call only as a part of others: see vm.populate"
#define GUEST_ITEMS(family)                                                                                            \
	{ family ".cpuid", "a guest's CPUID", measure_guest, 0, 50, BENCH_LOOP, bench_guest_cpuid, NULL },             \
		{ family ".hypercall",                                                                                 \
		  "a guest's hypercall that does not exist",                                                           \
		  measure_guest,                                                                                       \
		  0,                                                                                                   \
		  50,                                                                                                  \
		  BENCH_LOOP,                                                                                          \
		  bench_guest_hypercall,                                                                               \
		  NULL },                                                                                              \
		{ family ".out_user",                                                                                  \
		  "a guest's OUT, to user space and back",                                                             \
		  measure_guest,                                                                                       \
		  0,                                                                                                   \
		  50,                                                                                                  \
		  BENCH_LOOP,                                                                                          \
		  bench_guest_out,                                                                                     \
		  NULL },                                                                                              \
		{ family ".mmio_user",                                                                                 \
		  "a guest's MMIO read, to user space and back",                                                       \
		  measure_guest,                                                                                       \
		  0,                                                                                                   \
		  50,                                                                                                  \
		  BENCH_LOOP,                                                                                          \
		  bench_guest_mmio,                                                                                    \
		  NULL },                                                                                              \
		{ family ".first_touch_4k",                                                                            \
		  "a guest's first write to a 4 KiB page",                                                             \
		  measure_guest,                                                                                       \
		  0,                                                                                                   \
		  5,                                                                                                   \
		  BENCH_TOUCHES,                                                                                       \
		  bench_guest_touch,                                                                                   \
		  NULL },                                                                                              \
	{                                                                                                              \
		family ".start_64m", "from nothing to the first exit of a guest with 64 MiB", measure_start,           \
			RAM_BYTES, 5, 1, bench_guest_out, NULL                                                         \
	}

static const struct item items[] = {
	{ "host.cpuid", "CPUID leaf 0 in the host; a VM exit under the monitor", measure_cpuid, 0, 100, 100, NULL,
	  NULL },
	{ "host.cpuid_1", "CPUID leaf 1 in the host, which the monitor changes", measure_cpuid, 1, 100, 100, NULL,
	  NULL },
	{ "call.read", "one READ call, always by VMCALL, and hyperps.ko's copy of 64 bytes", measure_calls, 0, 50,
	  LONG_READ - 1, NULL, NULL },
	{ "call.gate", "an ioctl that makes one call through the gate, VM_DECLARE", measure_gate, 1, 50, 100, NULL,
	  NULL },
	{ "call.vmcall", "the same ioctl, by VMCALL", measure_gate, 0, 50, 100, NULL, NULL },
	{ "vm.create_destroy", "an empty VM is created and destroyed", measure_create, 0, 50, 1, NULL, NULL },
	{ "vm.create_destroy_64m", "a VM is created and sealed, gets 64 MiB, and is destroyed", measure_vm, RAM_BYTES,
	  5, 1, NULL, NULL },
	{ "vm.populate_4k", "a VM gets a 4 KiB page, one with each request", measure_populate, PAGE, 100, 1, NULL,
	  NULL },
	{ "vm.populate_4k.batch64", "likewise, 64 with each request", measure_populate, PAGE, 20, 64, NULL, NULL },
	{ "vm.populate_4k.batch512", "likewise, 512 with each request", measure_populate, PAGE, 10, 512, NULL, NULL },
	{ "vm.populate_2m", "a VM gets a 2 MiB page", measure_populate, LARGE, 20, 1, NULL, NULL },
	{ "vm.populate_4k.cpus2", "a VM gets a 4 KiB page while 2 CPUs are busy", measure_busy, 2, 50, 1, NULL, NULL },
	{ "vm.populate_4k.cpus4", "likewise, 4 CPUs", measure_busy, 4, 50, 1, NULL, NULL },
	{ "vm.populate_4k.cpus8", "likewise, 8 CPUs", measure_busy, 8, 50, 1, NULL, NULL },
	{ "vm.populate_4k.cpus16", "likewise, 16 CPUs", measure_busy, 16, 50, 1, NULL, NULL },
	{ "vm.populate_4k.cpus32", "likewise, 32 CPUs", measure_busy, 32, 50, 1, NULL, NULL },
	{ "vm.populate_4k.cpus64", "likewise, 64 CPUs", measure_busy, 64, 50, 1, NULL, NULL },
	GUEST_ITEMS("guest"),
	GUEST_ITEMS("kvm"),
	{ .name = "vm.map", .text = "VM_MAP alone", .never = NO_CALL },
	{ .name = "vm.sync", .text = "VM_SYNC alone", .never = NO_CALL },
	{ .name = "dma.flush",
	  .text = "a flush of the DMA-remapping units",
	  .never = "it is a part of VM_SYNC: measure vm.populate_4k with dma = off and with auto" },
	{ .name = "protected", .text = "exits of a protected VM of KVM's", .never = "there are none yet" },
};

#define ITEMS (sizeof(items) / sizeof(items[0]))

/* Why it is not there on this machine, or NULL. */
static const char *absent(const struct bench *bench, const struct item *item)
{
	if (item->never)
		return item->never;
	if (item->measure == measure_cpuid)
		return NULL;
	if (is_kvm(item))
		return bench->kvm < 0 ? bench->no_kvm : NULL;
	if (bench->device < 0)
		return bench->no_device;
	if (item->measure == measure_gate && item->argument && gate(0) == 'N')
		return "hyperps.ko does not use the gate: see hpsctl status";
	if (item->measure == measure_busy && (int)item->argument > CPU_COUNT(&bench->cpus))
		return "there are fewer CPUs";
	return NULL;
}

static void measure(struct bench *bench, const struct item *item)
{
	struct bench_figure *figure = &bench->figure;
	const char *what = absent(bench, item);

	*figure = (struct bench_figure){ .name = item->name, .text = item->text, .operations = item->operations };
	if (what) {
		snprintf(figure->missing, sizeof(figure->missing), "%s", what);
		/* It was asked for by its own name. */
		for (int i = 0; i < bench->name_count; i++)
			bench->failed |= !strcmp(bench->names[i], item->name);
		return;
	}
	errno = 0;
	what = item->measure(bench, item);
	if (!what)
		return;
	figure->count = 0;
	snprintf(figure->missing, sizeof(figure->missing), "cannot %s: %s", what, strerror(errno));
	fprintf(stderr, "hpsctl bench: %s: cannot %s: %s\n", item->name, what, strerror(errno));
	bench->failed = true;
}

/* A name is a figure, or what stands before a point in the names of several. */
static bool is_named(const char *name, const struct item *item)
{
	size_t length = strlen(name);

	return !strncmp(item->name, name, length) && (!item->name[length] || item->name[length] == '.');
}

static bool is_wanted(const struct bench *bench, const struct item *item)
{
	bool wanted = !bench->name_count;

	for (int i = 0; i < bench->name_count; i++)
		wanted |= is_named(bench->names[i], item);
	return wanted;
}

static void open_devices(struct bench *bench, struct hyperps_status *status, bool *running)
{
	bench->device = monitor_open();
	if (bench->device < 0)
		snprintf(bench->no_device, sizeof(bench->no_device), HYPERPS_DEVICE ": %s", strerror(errno));
	*running = bench->device >= 0 && !monitor_read_status(bench->device, status);
	if (bench->device >= 0 && !*running) {
		snprintf(bench->no_device, sizeof(bench->no_device), "the monitor does not answer: %s",
			 strerror(errno));
		close(bench->device);
		bench->device = -1;
	}
	bench->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (bench->kvm < 0)
		snprintf(bench->no_kvm, sizeof(bench->no_kvm), "/dev/kvm: %s", strerror(errno));
}

/* Of one CPU's time-stamp counter. The last one, which has least to do. */
static void stay_on_a_cpu(struct bench *bench)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	if (sched_getaffinity(0, sizeof(bench->cpus), &bench->cpus))
		CPU_SET(0, &bench->cpus);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &bench->cpus))
			bench->cpu = cpu;
	CPU_SET(bench->cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

static void print_json(struct bench *bench, const struct bench_environment *environment, const char *unit)
{
	static char reasons[ITEMS][sizeof(bench->figure.missing)];
	struct json json = { .out = stdout };

	json_begin_lines(&json, NULL, '{');
	json_text(&json, "unit", unit, strlen(unit));
	bench_environment_json(&json, environment);
	json_begin_lines(&json, "figures", '{');
	for (size_t i = 0; i < ITEMS; i++) {
		if (!is_wanted(bench, &items[i]))
			continue;
		measure(bench, &items[i]);
		memcpy(reasons[i], bench->figure.missing, sizeof(reasons[i]));
		if (bench->figure.count)
			bench_print_json(&json, &bench->figure, unit);
	}
	json_end(&json);
	json_begin_lines(&json, "not_measured", '{');
	for (size_t i = 0; i < ITEMS; i++)
		if (reasons[i][0])
			json_text(&json, items[i].name, reasons[i], sizeof(reasons[i]));
	json_end(&json);
	json_end(&json);
}

static void print_text(struct bench *bench, const struct bench_environment *environment, const char *unit)
{
	bench_environment_text(stdout, environment);
	printf("\n%-24s %14s %14s %14s %5s  %s for one; the median, and where it lies with 95 %% confidence\n", "",
	       "median", "from", "to", "runs", unit);
	for (size_t i = 0; i < ITEMS; i++) {
		if (!is_wanted(bench, &items[i]))
			continue;
		measure(bench, &items[i]);
		bench_print_text(stdout, &bench->figure);
		fflush(stdout);
	}
	if (!strcmp(unit, "ticks"))
		puts("\nA tick is one instruction of an emulator: this is the length of the software's path, not the "
		     "cost on "
		     "hardware.");
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct bench *bench = state->input;
	bool known = false;

	switch (key) {
	case 'j':
		bench->json = true;
		return 0;
	case 'l':
		bench->list = true;
		return 0;
	case ARGP_KEY_ARG:
		for (size_t i = 0; i < ITEMS; i++)
			known |= is_named(text, &items[i]);
		if (!known || bench->name_count == NAMES_MAX)
			argp_error(state, "no figure '%s'; see hpsctl bench --list", text);
		else
			bench->names[bench->name_count++] = text;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int run_bench(const struct command *command, int argc, char **argv)
{
	static struct bench_environment environment;
	static struct bench bench;
	struct hyperps_status status;
	const char *unit;
	bool running;

	parse_command(command, argc, argv, &bench);
	if (bench.list) {
		for (size_t i = 0; i < ITEMS; i++)
			printf("%-24s %s%s\n", items[i].name, items[i].text, items[i].never ? " (not measured)" : "");
		return output_is_written() ? BENCH_DONE : BENCH_FAILED;
	}
	open_devices(&bench, &status, &running);
	stay_on_a_cpu(&bench);
	bench_look_around(&environment, running ? &status : NULL, command_version);
	unit = bench_unit();
	(bench.json ? print_json : print_text)(&bench, &environment, unit);
	return output_is_written() && !bench.failed ? BENCH_DONE : BENCH_FAILED;
}

static const struct argp_option options[] = {
	OPTION_JSON(
		"one JSON object: unit, environment, figures with all their samples, and why others were not measured"),
	{ "list", 'l', NULL, 0, "what can be measured, and measures nothing", 0 },
	{ 0 },
};

const struct command bench_command = {
	.name = "bench",
	.summary = "what calls, memory and exits take on this machine",
	.argp = { .options = options,
		  .parser = parse,
		  .args_doc = "[NAME...]",
		  .doc = "Measures these figures, or those whose names begin with NAME, as `guest': calls to the "
			 "monitor, memory "
			 "for a VM, VMs, exits of a guest of HyperPS's, and the same of KVM's where /dev/kvm is there. "
			 "Without "
			 "the monitor it measures what there is. It says where it measured. The unit is cycles of the "
			 "time-stamp counter; in an emulator that counts instructions it is ticks, which say nothing "
			 "of the "
			 "cost on hardware.\v"
			 "Exit status: 0 all was measured that this machine has; 1 something failed, or a figure was "
			 "named that "
			 "this machine does not have; 2 wrong usage." },
	.usage_status = EXIT_USAGE,
	.run = run_bench,
};

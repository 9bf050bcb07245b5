// SPDX-License-Identifier: MIT
/*
 * hpsctl run and hpsctl measure: a VM with one thread for each vCPU, a serial port and a debug-exit port.
 *
 * Locks: machine.lock guards the serial port and the machine's end; it is not held while output is written.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hpsctl.h"
#include "image_command.h"
#include "hpsctl_format.h"
#include "image.h"
#include "uart.h"
#include "vm.h"

#define DEBUG_EXIT_PORT 0xf4
/* QEMU's fw_cfg device: a key is written to the first port, and its item's bytes are read from the second. */
#define FW_CFG_PORT 0x510
#define FW_CFG_SIGNATURE 0x00
#define FW_CFG_ID 0x01
#define FW_CFG_RAM_SIZE 0x03
#define FW_CFG_CPUS 0x05
#define MESSAGE_BYTES sizeof(((struct run_result *)0)->message)
#define RWX 7
#define SIGNAL_ENDED SIGUSR1 /* to the main thread */
#define SIGNAL_KICK SIGUSR2 /* to a vCPU's thread, to end HYPERPS_VCPU_IOC_RUN */
#define KICK_INTERVAL_NS 10000000
/* Options without a letter. */
#define KEY_MACHINE 0x101
#define KEY_SHARED_BIT 0x102
#define KEY_ACPI 0x103

enum run_status { RUN_NOT_STARTED = 125, RUN_MEASUREMENT = 126, RUN_GUEST_FAILED = 127, RUN_SIGNAL = 128 };

struct options {
	const char *name; /* of the command */
	const char *file;
	const char *arguments;
	uint64_t memory;
	uint32_t cpus;
	uint64_t mmio_base, mmio_size; /* size 0: none */
	const char *measurement; /* as hexadecimal digits, or NULL */
	struct image_vm vm; /* for the image of a protected VM */
	bool lazy, json;
};

#define DEFAULTS(command)                                                                                              \
	{                                                                                                              \
		.name = (command)->name, .arguments = "", .memory = 128 << 20, .cpus = 1, .vm = {.machine = "q35" }    \
	}

struct machine;

struct cpu {
	struct machine *machine;
	size_t index;
	pthread_t thread;
	struct vm_vcpu *vcpu;
	uint64_t exits[HYPERPS_EXITS];
};

struct machine {
	const struct options *options;
	struct guest guest;
	struct vm vm;
	struct cpu cpu[HYPERPS_VCPUS];
	pthread_mutex_t lock;
	struct uart uart;
	uint64_t fw_cfg; /* what is left of the item */
	bool input_ended;
	size_t halted;
	volatile bool ended;
	volatile size_t running;
	struct run_result result;
};

static sigset_t awaited; /* by the main thread; all threads block them */

__attribute__((format(printf, 2, 3))) static bool complain(const struct options *options, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fprintf(stderr, "hpsctl %s: ", options->name);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	return false;
}

/* A number and what follows it. */
static bool parse_u64(const char *text, uint64_t *value, char **end)
{
	errno = 0;
	*value = strtoull(text, end, 0);
	return !errno && *end != text && text[0] >= '0' && text[0] <= '9';
}

static bool parse_size(const char *text, uint64_t *size)
{
	static const char units[] = "KMG";
	char *end;
	const char *unit;

	if (!parse_u64(text, size, &end) || !*end || end[1] || *size >= IMAGE_MEMORY_MAX)
		return false;
	unit = strchr(units, *end);
	if (!unit)
		return false;
	*size <<= 10 * (unit - units + 1);
	return *size % IMAGE_PAGE == 0 && *size >= IMAGE_MEMORY_MIN && *size <= IMAGE_MEMORY_MAX;
}

static bool parse_range(const char *text, uint64_t *base, uint64_t *size)
{
	char *end;

	if (!parse_u64(text, base, &end) || *end != ',' || !parse_u64(end + 1, size, &end) || *end)
		return false;
	return *size && !((*base | *size) % IMAGE_PAGE) && *base < HYPERPS_VM_GPA_LIMIT &&
	       *size <= HYPERPS_VM_GPA_LIMIT - *base;
}

/* The words, with spaces between them. */
static const char *join(int count, char **words)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	for (int i = 0; out && i < count; i++)
		fprintf(out, "%s%s", i ? " " : "", words[i]);
	if (out && !fclose(out))
		return text;
	perror("hpsctl");
	exit(RUN_NOT_STARTED);
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 'm':
		if (!parse_size(text, &options->memory))
			argp_error(state, "--memory wants 64K to 1024G, in steps of 4K, not '%s'", text);
		return 0;
	case 'c':
		if (!parse_number(text, &options->cpus) || !options->cpus || options->cpus > HYPERPS_VCPUS)
			argp_error(state, "--cpus wants 1 to %d, not '%s'", HYPERPS_VCPUS, text);
		return 0;
	case 'i':
		if (!parse_range(text, &options->mmio_base, &options->mmio_size))
			argp_error(state, "--mmio-ignore wants BASE,SIZE in multiples of 4096, not '%s'", text);
		return 0;
	case 's':
		options->measurement = text;
		if (strlen(text) != 64 || strspn(text, "0123456789abcdefABCDEF") != 64)
			argp_error(state, "--measure wants 64 hexadecimal digits, not '%s'", text);
		return 0;
	case KEY_MACHINE:
		options->vm.machine = text;
		if (!image_is_machine(text))
			argp_error(state, "--machine wants q35 or pc, not '%s'", text);
		return 0;
	case KEY_SHARED_BIT:
		if (!parse_number(text, &options->vm.shared_bit) || options->vm.shared_bit < 35 ||
		    options->vm.shared_bit > 47)
			argp_error(state, "--shared-bit wants 35 to 47, not '%s'", text);
		return 0;
	case KEY_ACPI:
		options->vm.acpi = text;
		if (strlen(text) != 96 || strspn(text, "0123456789abcdefABCDEF") != 96)
			argp_error(state, "--acpi wants 96 hexadecimal digits, not '%s'", text);
		return 0;
	case 'l':
		options->lazy = true;
		return 0;
	case 'j':
		options->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (state->quoted && options->file) {
			options->arguments = join(state->argc - state->next + 1, state->argv + state->next - 1);
			state->next = state->argc;
		} else if (options->file) {
			argp_error(state, "unexpected '%s': the guest's arguments stand after --", text);
		}
		options->file = options->file ? options->file : text;
		return 0;
	case ARGP_KEY_END:
		if (!options->file)
			argp_error(state, "which image?");
		if (options->mmio_size && options->mmio_base < options->memory)
			argp_error(state, "--mmio-ignore lies in the RAM, which ends at 0x%" PRIx64, options->memory);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* From the options to what the VM begins with. False: the message says why not. */
static bool prepare(const struct options *options, struct guest *guest, char *message)
{
	char error[200];
	size_t size;
	void *file = read_file(options->file, &size);
	bool done;

	if (!file) {
		snprintf(message, MESSAGE_BYTES, "cannot read %s: %s", options->file, strerror(errno));
		return false;
	}
	*guest = (struct guest){ .range[0] = { 0, options->memory, RWX }, .ranges = 1, .vcpus = options->cpus };
	if (options->mmio_size)
		guest->range[guest->ranges++] =
			(struct hyperps_vm_declare){ options->mmio_base, options->mmio_size, HYPERPS_RANGE_MMIO };
	done = image_load(&guest->image, file, size, options->memory, options->arguments, error);
	free(file);
	if (!done)
		snprintf(message, MESSAGE_BYTES, "%s: %s", options->file, error);
	return done;
}

static int run_measure(const struct command *command, int argc, char **argv)
{
	struct options options = DEFAULTS(command);
	struct guest guest;
	uint8_t sha256[32];
	char hex[65], message[MESSAGE_BYTES];

	parse_command(command, argc, argv, &options);
	options.vm.memory = options.memory;
	if (image_is_file(options.file))
		return image_measure(options.file, &options.vm);
	if (!prepare(&options, &guest, message)) {
		complain(&options, "%s", message);
		return EXIT_NOT_RUNNING;
	}
	guest_measure(&guest, sha256);
	to_hex(sha256, hex);
	image_free(&guest.image);
	puts(hex);
	return output_is_written() ? EXIT_OK : EXIT_NOT_RUNNING;
}

/* The first reason for the machine's end counts; returns whether this is it. */
__attribute__((format(printf, 4, 5))) static bool end(struct machine *machine, int status, const char *how,
						      const char *format, ...)
{
	struct run_result *result = &machine->result;
	va_list arguments;
	bool is_first;

	pthread_mutex_lock(&machine->lock);
	is_first = !machine->ended;
	if (is_first) {
		va_start(arguments, format);
		vsnprintf(result->message, sizeof(result->message), format, arguments);
		va_end(arguments);
		result->exit_code = status;
		result->end = how;
		machine->ended = true;
	}
	pthread_mutex_unlock(&machine->lock);
	kill(getpid(), SIGNAL_ENDED);
	return is_first;
}

static void write_output(struct machine *machine, const void *text, size_t bytes)
{
	const char *at = text;

	while (bytes && !machine->ended) {
		struct pollfd out = { STDOUT_FILENO, POLLOUT, 0 };
		ssize_t done = write(STDOUT_FILENO, at, bytes);

		if (done < 0 && errno == EAGAIN)
			poll(&out, 1, -1);
		else if (done < 0 && errno != EINTR)
			end(machine, RUN_NOT_STARTED, "host_error", "cannot write the guest's output: %s",
			    strerror(errno));
		if (done < 0)
			continue;
		at += done;
		bytes -= done;
	}
}

static void serial_write(struct machine *machine, unsigned int number, uint8_t value)
{
	bool sends;

	pthread_mutex_lock(&machine->lock);
	sends = uart_write(&machine->uart, number, value);
	pthread_mutex_unlock(&machine->lock);
	if (sends)
		write_output(machine, &value, 1);
}

static uint8_t serial_read(struct machine *machine, unsigned int number)
{
	struct pollfd in = { STDIN_FILENO, POLLIN, 0 };
	struct uart *uart = &machine->uart;
	uint8_t value;

	pthread_mutex_lock(&machine->lock);
	if (uart_wants_input(uart, number) && !machine->input_ended && poll(&in, 1, 0) > 0) {
		ssize_t got = read(STDIN_FILENO, uart->input, sizeof(uart->input));

		uart->begin = 0;
		uart->end = got > 0 ? got : 0;
		machine->input_ended = !got || (got < 0 && errno != EINTR && errno != EAGAIN);
	}
	value = uart_read(uart, number);
	pthread_mutex_unlock(&machine->lock);
	return value;
}

static void fw_cfg_select(struct machine *machine, uint16_t key)
{
	const struct options *options = machine->options;
	uint64_t item = key == FW_CFG_SIGNATURE  ? 'Q' | 'E' << 8 | 'M' << 16 | 'U' << 24
			: key == FW_CFG_ID       ? 1 /* by these ports only */
			: key == FW_CFG_RAM_SIZE ? options->memory
			: key == FW_CFG_CPUS     ? options->cpus
						 : 0;

	pthread_mutex_lock(&machine->lock);
	machine->fw_cfg = item;
	pthread_mutex_unlock(&machine->lock);
}

static uint8_t fw_cfg_read(struct machine *machine)
{
	uint8_t value;

	pthread_mutex_lock(&machine->lock);
	value = machine->fw_cfg;
	machine->fw_cfg >>= 8;
	pthread_mutex_unlock(&machine->lock);
	return value;
}

static void port_write(struct machine *machine, uint64_t port, uint64_t size, uint64_t data)
{
	if (port == FW_CFG_PORT && size == 2)
		fw_cfg_select(machine, data);
	if (port == DEBUG_EXIT_PORT)
		end(machine, (data << 1 | 1) & 0xff, "debug_exit", "%s", "");
	for (uint64_t i = 0; i < size; i++)
		if (port + i - UART_PORT < UART_PORTS)
			serial_write(machine, port + i - UART_PORT, data >> 8 * i);
}

static uint64_t port_read(struct machine *machine, uint64_t port, uint64_t size)
{
	uint64_t value = UINT64_MAX;

	if (port == FW_CFG_PORT + 1 && size == 1)
		return fw_cfg_read(machine);
	for (uint64_t i = 0; i < size; i++)
		if (port + i - UART_PORT < UART_PORTS)
			value ^= (serial_read(machine, port + i - UART_PORT) ^ 0xffULL) << 8 * i;
	return value;
}

static void halt(struct machine *machine)
{
	bool is_last;

	pthread_mutex_lock(&machine->lock);
	is_last = ++machine->halted == machine->guest.vcpus;
	pthread_mutex_unlock(&machine->lock);
	if (is_last)
		end(machine, RUN_GUEST_FAILED, "halted",
		    "every vCPU waits by HLT for an interrupt, and this machine has none");
}

/* Does what the exit asks for. Returns false if this vCPU is done. */
static bool serve(struct machine *machine, struct cpu *cpu)
{
	struct hyperps_run *run = cpu->vcpu->run;

	switch (run->exit) {
	case HYPERPS_EXIT_OUT:
		port_write(machine, run->io.port, run->io.size, run->io.data);
		return true;
	case HYPERPS_EXIT_IN:
		run->answer = port_read(machine, run->io.port, run->io.size);
		return true;
	case HYPERPS_EXIT_MMIO_READ:
		run->answer = 0;
		return true;
	case HYPERPS_EXIT_CONSOLE:
		write_output(machine, run->console.text,
			     run->console.bytes < sizeof(run->console.text) ? run->console.bytes
									    : sizeof(run->console.text));
		return true;
	case HYPERPS_EXIT_HLT:
		halt(machine);
		return false;
	case HYPERPS_EXIT_MEMORY:
		end(machine, RUN_GUEST_FAILED, "memory",
		    "vCPU %zu %s 0x%" PRIx64 ", where the guest has no RAM; it may need --memory or --mmio-ignore",
		    cpu->index,
		    run->memory.access & 2   ? "wrote to"
		    : run->memory.access & 4 ? "fetched an instruction from"
					     : "read from",
		    run->memory.gpa);
		return false;
	case HYPERPS_EXIT_SHUTDOWN:
		end(machine, run->code & 0xff, "shutdown", "%s", "");
		return false;
	case HYPERPS_EXIT_FAILED:
		if (end(machine, RUN_GUEST_FAILED, "failed", "vCPU %zu of the guest failed: %s", cpu->index,
			failure_text(run->failure)))
			machine->result.failure = failure_name(run->failure);
		return false;
	default:
		return true;
	}
}

static void *run_vcpu(void *argument)
{
	struct cpu *cpu = argument;
	struct machine *machine = cpu->machine;
	bool goes_on = true;

	/* LAZY also without --lazy: what the guest has released it may touch again. */
	cpu->vcpu->run->flags = HYPERPS_RUN_LAZY;
	while (goes_on && !machine->ended) {
		if (!ioctl(cpu->vcpu->fd, HYPERPS_VCPU_IOC_RUN, 0)) {
			cpu->exits[cpu->vcpu->run->exit < HYPERPS_EXITS ? cpu->vcpu->run->exit : 0]++;
			goes_on = serve(machine, cpu);
		} else if (errno == ENOMEM) {
			end(machine, RUN_NOT_STARTED, "host_error",
			    "no memory is left in the host for the guest: free some, or give it less --memory");
		} else if (errno != EINTR && errno != EAGAIN) {
			end(machine, RUN_NOT_STARTED, "host_error", "cannot run vCPU %zu: %s", cpu->index,
			    vm_error(errno));
		}
	}
	__atomic_sub_fetch(&machine->running, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* errno's reason, and what to do. */
static void not_started(struct machine *machine, const char *what)
{
	const char *advice = errno == ENOMEM   ? "; free memory in the host, give the VM less --memory, or use --lazy"
			     : errno == EPERM  ? "; is every CPU under the monitor? See hpsctl status"
			     : errno == ENOTTY ? "; is hyperps.ko of the same release as hpsctl?"
			     : errno == EAGAIN ? "; a CPU does not answer the monitor: see hpsctl log"
					       : "";

	end(machine, RUN_NOT_STARTED, "not_started", "cannot %s: %s%s", what, vm_error(errno), advice);
}

/* All of the RAM but the image's pages, which are there. */
static bool populate_the_rest(struct machine *machine)
{
	const struct image *image = &machine->guest.image;
	uint64_t end_of_last = 0;

	for (size_t i = 0; i < image->pages; i++) {
		if (!vm_populate(&machine->vm, end_of_last, image->gpa[i] - end_of_last, NULL))
			return false;
		end_of_last = image->gpa[i] + IMAGE_PAGE;
	}
	return vm_populate(&machine->vm, end_of_last, machine->options->memory - end_of_last, NULL);
}

/* Bytes that Linux can give away, as it says; all, if it does not say. */
static uint64_t available(void)
{
	char line[128];
	uint64_t kib;
	FILE *file = fopen("/proc/meminfo", "r");
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file))
		found = sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1;
	if (file)
		fclose(file);
	return found ? kib << 10 : UINT64_MAX;
}

/* A VM's memory counts for no process: unless told, Linux would kill all others first when it runs out of memory. */
static void be_killed_first(void)
{
	FILE *file = fopen("/proc/self/oom_score_adj", "w");

	if (!file)
		return;
	fputs("1000", file);
	fclose(file);
}

/* A sealed VM that has all its memory. */
static bool build(struct machine *machine)
{
	const char *expected = machine->options->measurement;
	char *hex = machine->result.measurement;
	int device = open_device();

	if (device < 0) {
		end(machine, RUN_NOT_STARTED, "not_started", "there is no VM without %s", HYPERPS_DEVICE);
		return false;
	}
	be_killed_first();
	if (!machine->options->lazy && machine->options->memory > available()) {
		end(machine, RUN_NOT_STARTED, "not_started",
		    "the host has %" PRIu64 " MiB left: give the VM less --memory, or use --lazy", available() >> 20);
		return false;
	}
	if (!vm_make(&machine->vm, device, &machine->guest)) {
		not_started(machine, machine->vm.failed);
		return false;
	}
	to_hex(machine->vm.measurement, hex);
	if (expected && strcasecmp(expected, hex)) {
		end(machine, RUN_MEASUREMENT, "measurement",
		    "the measurement differs: the monitor measured %s, --measure says %s. The guest was not started",
		    hex, expected);
		return false;
	}
	if (machine->options->lazy || populate_the_rest(machine))
		return true;
	not_started(machine, machine->vm.failed);
	return false;
}

static void do_nothing(int signal)
{
	(void)signal;
}

/* Runs all vCPUs until the machine's end. */
static void run_machine(struct machine *machine)
{
	const struct timespec interval = { .tv_nsec = KICK_INTERVAL_NS };
	struct sigaction kick = { .sa_handler = do_nothing };
	size_t started;
	int signal;

	/* From here on these, too, are for sigwait(). */
	sigaddset(&awaited, SIGINT);
	sigaddset(&awaited, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &awaited, NULL);
	sigaction(SIGNAL_KICK, &kick, NULL);
	for (started = 0; started < machine->guest.vcpus; started++) {
		machine->cpu[started] = (struct cpu){ machine, started, .vcpu = &machine->vm.vcpu[started] };
		__atomic_add_fetch(&machine->running, 1, __ATOMIC_SEQ_CST);
		errno = pthread_create(&machine->cpu[started].thread, NULL, run_vcpu, &machine->cpu[started]);
		if (errno) {
			__atomic_sub_fetch(&machine->running, 1, __ATOMIC_SEQ_CST);
			not_started(machine, "start a thread");
			break;
		}
	}
	/* SIGNAL_ENDED may come from anyone: it only says that it is worth looking. */
	while (!machine->ended) {
		sigwait(&awaited, &signal);
		if (signal != SIGNAL_ENDED)
			end(machine, RUN_SIGNAL + signal, "signal", "ended by %s", strsignal(signal));
	}
	/* Again and again: a thread may just be about to enter RUN. */
	while (machine->running) {
		for (size_t i = 0; i < started; i++)
			pthread_kill(machine->cpu[i].thread, SIGNAL_KICK);
		nanosleep(&interval, NULL);
	}
	for (size_t i = 0; i < started; i++)
		pthread_join(machine->cpu[i].thread, NULL);
}

static int run_run(const struct command *command, int argc, char **argv)
{
	static struct machine machine = { .lock = PTHREAD_MUTEX_INITIALIZER };
	struct run_result *result = &machine.result;
	struct options options = DEFAULTS(command);
	char message[MESSAGE_BYTES];

	parse_command(command, argc, argv, &options);
	machine.options = &options;
	sigemptyset(&awaited);
	sigaddset(&awaited, SIGNAL_ENDED);
	pthread_sigmask(SIG_BLOCK, &awaited, NULL);
	if (!prepare(&options, &machine.guest, message))
		end(&machine, RUN_NOT_STARTED, "not_started", "%s", message);
	else if (build(&machine))
		run_machine(&machine);
	for (size_t i = 0; i < machine.guest.vcpus; i++)
		for (size_t reason = 0; reason < HYPERPS_EXITS; reason++)
			result->exits[reason] += machine.cpu[i].exits[reason];
	if (*result->message)
		complain(&options, "%s", result->message);
	if (options.json)
		format_run_json(stderr, result);
	return result->exit_code;
}

#define IMAGE_OPTIONS                                                                                                  \
	{ "memory", 'm', "SIZE", 0, "RAM: a number with K, M or G; 128M if not given", 0 },                            \
		{ "cpus", 'c', "N", 0, "vCPUs: 1 (default) to 16; all start at the image's entry", 0 },                \
	{                                                                                                              \
		"mmio-ignore", 'i', "BASE,SIZE", 0, "from this address on reads give 0, and writes do nothing", 0      \
	}

static const struct argp_option run_options[] = {
	IMAGE_OPTIONS,
	{ "measure", 's', "HEX", 0, "start only if the monitor measures this; see hpsctl measure", 0 },
	{ "lazy", 'l', NULL, 0, "RAM beyond the image is given when the guest touches it, not in advance", 0 },
	OPTION_JSON("the last line of standard error is a JSON object that says how it ended"),
	{ 0 },
};

static const struct argp_option measure_options[] = {
	IMAGE_OPTIONS,
	{ .doc = "Of an image of hpsctl image, as a VM of QEMU:", .group = 1 },
	{ "machine", KEY_MACHINE, "NAME", 0, "q35 (default) or pc", 1 },
	{ "shared-bit", KEY_SHARED_BIT, "N", 0, "the host's physical address bits less 1; this machine's if not given",
	  1 },
	{ "acpi", KEY_ACPI, "HEX", 0, "the digest of the ACPI tables, as the VM's loader prints it", 1 },
	{ 0 },
};

const struct command run_command = {
	.name = "run",
	.summary = "run an image as a VM",
	.argp = { .options = run_options,
		  .parser = parse,
		  .args_doc = "IMAGE [-- ARGUMENT...]",
		  .doc = "Runs an image as a VM: an ELF file with a multiboot header, another ELF file for x86-64, or "
			 "a flat "
			 "binary for real mode. The VM has RAM from address 0 on, a serial port at 0x3f8 on standard "
			 "input and "
			 "output, and a debug-exit port at 0xf4. The arguments become its command line.\v"
			 "Exit status: the guest's own, 0 to 255; of a write of V to the debug-exit port, V * 2 + 1. "
			 "Also 125 "
			 "the VM can't start or go on, or wrong usage, 126 the measurement differs, 127 the guest "
			 "failed, "
			 "128 + N ended by signal N." },
	.usage_status = RUN_NOT_STARTED,
	.run = run_run,
};

const struct command measure_command = {
	.name = "measure",
	.summary = "the measurement that such a VM will have",
	.argp = { .options = measure_options,
		  .parser = parse,
		  .args_doc = "IMAGE [-- ARGUMENT...]",
		  .doc = "Prints the measurement (SHA-256) that the monitor takes of the VM that hpsctl run makes of "
			 "the same "
			 "options, image and arguments; or of an image of hpsctl image the registers (SHA-384) of its "
			 "protected VM: MRTD of loader and memory, RTMR1 of the kernel, RTMR2 of command line and "
			 "initrd, RTMR0 of boot parameters and, with --acpi, ACPI tables. Needs neither root nor the "
			 "monitor.\v"
			 "Exit status: 0 success, 1 the image can't be loaded, 2 wrong usage." },
	.usage_status = EXIT_USAGE,
	.run = run_measure,
};

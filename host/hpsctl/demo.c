// SPDX-License-Identifier: MIT
/*
 * hpsctl demo: a key vault in a VM, and a hostile kernel (hyperps_demo.ko) that wants its key. Each attack is first made
 * on a page of the attacker's own, where it must work.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hpsctl.h"
#include "hpsctl_format.h"
#include "hyperps_demo.h"
#include "keyvault.h"
#include "monitor_device.h"

#define MODULE "/hyperps_demo.ko"
#define PAGE ((uint64_t)4096)
#define BIOS_AREA 0xf0000 /* RAM or ROM that is not Linux's: /dev/mem may map it */
#define LOG_BYTES_MAX (64ULL << 20)
#define RUNS_AT_MOST 1000
#define INTERRUPT_NS 2000
#define PATTERN 0x4850530000000000ULL /* | number, in the registers before a call */

struct options {
	const char *module, *guest;
	bool shared, json;
};

struct demo {
	struct options options;
	struct demo_result result;
	int device, attacker;
	struct demo_own own;
	struct vault vault;
	uint64_t vm; /* the vault's handle */
	uint64_t gpa, frame; /* the page that is attacked, */
	uint32_t offset; /* and where in it */
	uint64_t log_seen; /* bytes */
	uint64_t refused_seen; /* memory accesses that the monitor had refused */
};

/* A line of progress. */
__attribute__((format(printf, 2, 3))) static void say(const struct demo *demo, const char *format, ...)
{
	va_list arguments;

	if (demo->options.json)
		return;
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	fflush(stdout);
}

/* The first reason why the demo fails counts. */
__attribute__((format(printf, 2, 3))) static bool fail(struct demo *demo, const char *format, ...)
{
	va_list arguments;

	if (*demo->result.message)
		return false;
	va_start(arguments, format);
	vsnprintf(demo->result.message, sizeof(demo->result.message), format, arguments);
	va_end(arguments);
	return false;
}

/* What the monitor has logged since the last time, as far as it fits into text. */
static void read_log(struct demo *demo, char *text, size_t size)
{
	struct hyperps_log log;
	uint64_t first = demo->log_seen;
	size_t n = 0;
	char *ring;

	*text = 0;
	if (monitor_read(demo->device, HYPERPS_OBJECT_LOG, 0, 0, &log, sizeof(log)) || !log.size ||
	    log.size > LOG_BYTES_MAX)
		return;
	demo->log_seen = log.written;
	ring = log.written - first > log.size ? NULL : malloc(log.size);
	if (ring && !monitor_read(demo->device, HYPERPS_OBJECT_LOG, 0, sizeof(log), ring, log.size))
		for (; first < log.written && n < size - 1; first++)
			text[n++] = ring[first % log.size];
	text[n] = 0;
	free(ring);
}

/* How many memory accesses the monitor has refused since the last time. */
static uint64_t refused(struct demo *demo)
{
	struct hyperps_status status = { 0 };
	uint64_t before = demo->refused_seen;

	if (!monitor_read_status(demo->device, &status))
		demo->refused_seen = status.refused_memory;
	return demo->refused_seen - before;
}

static struct demo_attack *begin_attack(struct demo *demo, const char *key, const char *text)
{
	struct demo_attack *attack = &demo->result.attack[demo->result.attacks++];

	*attack = (struct demo_attack){ .key = key, .text = text };
	read_log(demo, attack->log, sizeof(attack->log));
	refused(demo);
	return attack;
}

static void end_attack(struct demo *demo, struct demo_attack *attack)
{
	attack->counted = refused(demo);
	read_log(demo, attack->log, sizeof(attack->log));
	if (!demo->options.json)
		format_demo_attack(stdout, attack);
	fflush(stdout);
	if (!attack->control)
		fail(demo, "'%s' does not even work on a page of the module's own, so that its refusal says nothing",
		     attack->text);
	else if (!attack->refused)
		fail(demo, "the attempt to %s was NOT refused", attack->text);
}

static void attack_memory(struct demo *demo, const char *key, const char *text, uint32_t mapping, bool write)
{
	static uint64_t readable[DEMO_MAPPINGS];
	struct demo_attack *attack = begin_attack(demo, key, text);
	struct demo_access own = { .frame = demo->own.frame[0],
				   .mapping = mapping,
				   .write = write,
				   .value = DEMO_VALUE },
			   on = { .frame = demo->frame,
				  .offset = demo->offset,
				  .mapping = mapping,
				  .write = write,
				  .value = readable[mapping] };

	attack->control = !ioctl(demo->attacker, DEMO_IOC_ACCESS, &own) && own.fault == DEMO_NO_FAULT &&
			  own.value == (write ? DEMO_WRITTEN : DEMO_VALUE);
	if (ioctl(demo->attacker, DEMO_IOC_ACCESS, &on)) {
		fail(demo, "the module cannot try to %s: %s", text, strerror(errno));
	} else if (on.fault == DEMO_NO_FAULT) {
		snprintf(attack->note, sizeof(attack->note), "%s %016" PRIx64, write ? "it left" : "it read", on.value);
		if (!write)
			readable[mapping] = on.value;
	} else {
		attack->refused = true;
		snprintf(attack->note, sizeof(attack->note), "exception %d (%s)", on.fault,
			 on.fault == 14   ? "page fault"
			 : on.fault == 13 ? "general protection"
					  : "unexpected");
	}
	end_attack(demo, attack);
	if (attack->refused && !attack->counted)
		fail(demo, "something refused to %s, but it was not the monitor", text);
}

static int64_t map(struct demo *demo, uint64_t vm, uint64_t gpa, uint64_t frame)
{
	struct demo_map request = { vm, gpa, frame, -EIO };

	if (ioctl(demo->attacker, DEMO_IOC_MAP, &request))
		return -errno;
	return request.result;
}

/* VM, address and frame: for the control, and for the attack. */
static void attack_map(struct demo *demo, const char *key, const char *text, const char *why, const uint64_t own[3],
		       const uint64_t on[3])
{
	struct demo_attack *attack = begin_attack(demo, key, text);
	int64_t result;

	attack->control = !map(demo, own[0], own[1], own[2]);
	result = map(demo, on[0], on[1], on[2]);
	attack->refused = result == HYPERPS_ERROR_OWNER;
	snprintf(attack->note, sizeof(attack->note), "VM_MAP: the monitor answers %" PRId64 "%s%s", result,
		 attack->refused ? ": " : "", attack->refused ? why : "");
	end_attack(demo, attack);
}

/* The frame at gpa, or false: there is none. */
static bool frame_at(const struct demo *demo, uint64_t gpa, uint64_t *frame)
{
	struct hyperps_vm_frame request = { .gpa = gpa };

	if (ioctl(demo->vault.vm.fd, HYPERPS_VM_IOC_FRAME, &request))
		return false;
	*frame = request.frame;
	return true;
}

static void attack_mappings(struct demo *demo)
{
	const uint64_t *page = demo->own.frame, own = demo->own.vm, vm = demo->vm;
	uint64_t end = KEYVAULT_MEMORY, frame;

	/* Two addresses where the vault has no page yet. */
	while (end && (frame_at(demo, end - PAGE, &frame) || frame_at(demo, end - 2 * PAGE, &frame)))
		end -= PAGE;
	attack_map(demo, "second_vm", "map it into a second VM", "the frame is not the host's",
		   (uint64_t[]){ own, 0, page[1] }, (uint64_t[]){ own, PAGE, demo->frame });
	attack_map(demo, "second_address", "map it at a second address of its VM", "the frame is not the host's",
		   (uint64_t[]){ vm, end - PAGE, page[2] }, (uint64_t[]){ vm, end - 2 * PAGE, demo->frame });
	attack_map(demo, "remap", "map another page in its place", "there is a page already",
		   (uint64_t[]){ own, PAGE, page[3] }, (uint64_t[]){ vm, demo->gpa, page[4] });
}

static sigjmp_buf recovery;

static void on_fault(int number)
{
	siglongjmp(recovery, number);
}

/* 1: the byte can be read and written; 0: it can't; -1: Linux does not map it. */
static int try_devmem(int memory, uint64_t address)
{
	struct sigaction action = { .sa_handler = on_fault }, segv, bus;
	volatile uint8_t *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, address & ~(PAGE - 1));
	volatile int result = 0;

	if (page == MAP_FAILED)
		return -1;
	sigaction(SIGSEGV, &action, &segv);
	sigaction(SIGBUS, &action, &bus);
	if (!sigsetjmp(recovery, 1)) {
		volatile uint8_t *byte = page + address % PAGE;
		/* Changes nothing. */
		asm volatile("lock orb $0, %0" : "+m"(*byte)::"cc");
		result = 1;
	}
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	munmap((void *)page, PAGE);
	return result;
}

static void attack_devmem(struct demo *demo)
{
	int memory = open("/dev/mem", O_RDWR | O_CLOEXEC), result;
	struct demo_attack *attack;

	if (memory < 0) {
		say(demo, "  (/dev/mem can't be tried: %s)", strerror(errno));
		return;
	}
	attack = begin_attack(demo, "devmem", "read and overwrite it by /dev/mem");
	attack->control = try_devmem(memory, BIOS_AREA) == 1;
	result = try_devmem(memory, demo->frame * PAGE + demo->offset);
	attack->refused = result != 1;
	if (result < 0)
		snprintf(attack->note, sizeof(attack->note),
			 "Linux itself maps no RAM there (CONFIG_STRICT_DEVMEM); control: the BIOS area");
	else
		snprintf(attack->note, sizeof(attack->note), "%s; control: the BIOS area",
			 result ? "it could" : "a signal");
	end_attack(demo, attack);
	close(memory);
}

/* Which registers hold the words of an answer, in their order. */
static const int answers[8] = {
	DEMO_RBX, DEMO_RDX, DEMO_RSI, DEMO_RDI, DEMO_R8, DEMO_R8 + 1, DEMO_R8 + 2, DEMO_R8 + 3
};

static void fill(struct demo_call *call, uint64_t number)
{
	call->interrupt = 0;
	for (int i = 0; i < DEMO_REGISTERS; i++)
		call->general[i] = PATTERN | i;
	for (int i = 0; i < 2 * DEMO_REGISTERS; i++)
		call->xmm[i] = PATTERN | 0x100 | i;
	call->general[DEMO_RAX] = number;
}

/* How many registers hold what they should not: all keep their value, but for these words of the answer and RAX = 0. */
static int strange_registers(const struct demo_call *call, const uint64_t word[8])
{
	struct demo_call wanted;
	int strange = 0;

	fill(&wanted, 0);
	for (int i = 0; i < 8; i++)
		wanted.general[answers[i]] = word[i];
	wanted.general[DEMO_RSP] = call->general[DEMO_RSP];
	for (int i = 0; i < DEMO_REGISTERS; i++)
		strange += call->general[i] != wanted.general[i];
	for (int i = 0; i < 2 * DEMO_REGISTERS; i += 2)
		strange += call->xmm[i] != wanted.xmm[i] || call->xmm[i + 1] != wanted.xmm[i + 1];
	return strange;
}

/* Runs the vault's vCPU from the hostile kernel while it computes with its key. */
static void attack_registers(struct demo *demo)
{
	struct demo_attack *attack = begin_attack(demo, "registers", "see its registers while it uses the key");
	static uint8_t message[VAULT_MESSAGE_BYTES];
	uint64_t word[8] = { HYPERPS_SIGNATURE, HYPERPS_ABI_VERSION };
	uint64_t request;
	struct vault_page page;
	struct demo_call call;
	int runs = 0, strange = 0, n;

	/* The code that looks must notice registers that change: those with the answer to another call. */
	fill(&call, HYPERPS_CALL_IDENTIFY);
	attack->control = !ioctl(demo->attacker, DEMO_IOC_CALL, &call) && !strange_registers(&call, word) &&
			  strange_registers(&call, (uint64_t[8]){ 0 }) == 2;
	request = vault_request(&demo->vault, sizeof(message), message, sizeof(message));
	do {
		fill(&call, HYPERPS_CALL_VCPU_RUN);
		call.general[DEMO_RDI] = demo->vm;
		/* Each gets further, whatever the CPU's speed. */
		call.interrupt = INTERRUPT_NS * (runs + 1);
		call.general[DEMO_RSI] = call.general[DEMO_RDX] = call.general[DEMO_R8] = 0;
		if (ioctl(demo->attacker, DEMO_IOC_CALL, &call) || call.general[DEMO_RAX])
			break;
		runs++;
		memset(word, 0, sizeof(word));
		word[0] = call.general[DEMO_RBX];
		strange += strange_registers(&call, word);
	} while ((uint32_t)word[0] == HYPERPS_EXIT_INTERRUPTED && runs < RUNS_AT_MOST);
	if (!request || vault_read(&demo->vault, demo->vault.page, &page, sizeof(page)) != sizeof(page) ||
	    page.answer != request)
		fail(demo, "the vault did not compute while the module ran it");
	attack->refused = runs && !strange && (uint32_t)word[0] == HYPERPS_EXIT_HLT;
	n = snprintf(attack->note, sizeof(attack->note), "VCPU_RUN says INTERRUPTED %d times, then %s; ", runs - 1,
		     (uint32_t)word[0] == HYPERPS_EXIT_HLT ? "HLT" : "something else");
	snprintf(attack->note + n, sizeof(attack->note) - n,
		 strange ? "registers that show more: %d" : "31 registers show nothing else", strange);
	end_attack(demo, attack);
}

/* The challenge's MAC, in hex. */
static bool ask(struct demo *demo, char hex[65])
{
	static const char challenge[] = "HyperPS demo";
	struct vault_page page;

	if (!vault_ask(&demo->vault, sizeof(challenge) - 1, challenge, sizeof(challenge) - 1, &page) ||
	    page.status != VAULT_OK)
		return false;
	to_hex(page.mac, hex);
	return true;
}

/* All frames of the VM, as the host lent them. */
static void find_frames(struct demo *demo, uint64_t *frame)
{
	for (uint64_t gpa = 0; gpa < KEYVAULT_MEMORY; gpa += PAGE)
		if (frame_at(demo, gpa, &frame[demo->result.frames]))
			demo->result.frames++;
}

/* Of these frames, those that the hostile kernel can read, and those with anything but zeros. */
static void look(struct demo *demo, const uint64_t *frame, uint64_t *readable, uint64_t *not_zero)
{
	*readable = *not_zero = 0;
	for (uint64_t i = 0; i < demo->result.frames; i++) {
		struct demo_look request = { .frame = frame[i], .fault = 0 };

		if (ioctl(demo->attacker, DEMO_IOC_LOOK, &request) || request.fault != DEMO_NO_FAULT)
			continue;
		++*readable;
		*not_zero += !!request.words;
	}
}

/* The hostile kernel ends the VM, and looks before hyperps.ko gives the memory back to Linux. */
static bool end_vm(struct demo *demo)
{
	static uint64_t frame[KEYVAULT_MEMORY / PAGE];
	struct demo_result *result = &demo->result;
	uint64_t not_zero_before;

	find_frames(demo, frame);
	result->given_not_zero = demo->vault.not_zero;
	refused(demo);
	look(demo, frame, &result->readable_before, &not_zero_before);
	result->counted = refused(demo);
	say(demo, "\nThe VM has %" PRIu64 " frames. When the host gave them, %" PRIu64 " were not zero.",
	    result->frames, result->given_not_zero);
	say(demo, "  The module can read %" PRIu64 " (the page that the vault shares); refused: %" PRIu64 ".",
	    result->readable_before, result->counted);
	if (ioctl(demo->attacker, DEMO_IOC_END, &demo->vm))
		return fail(demo, "the module could not end the VM: %s", strerror(errno));
	look(demo, frame, &result->readable_after, &result->not_zero_after);
	say(demo, "  It ends the VM. Now it can read %" PRIu64 "; not zero: %" PRIu64 ".", result->readable_after,
	    result->not_zero_after);
	if (result->readable_before != 1 || result->counted < result->frames - 1)
		return fail(demo, "%" PRIu64 " of the VM's %" PRIu64 " frames could be read, of which it shares one",
			    result->readable_before, result->frames);
	/* The page that it shares is not zero: the module can tell. */
	if (not_zero_before != 1)
		return fail(demo, "the module does not see that the shared page is not zero");
	if (!result->frames || result->readable_after != result->frames || result->not_zero_after)
		return fail(demo, "the VM's frames did not all come back, or not all of them zeroed");
	return true;
}

static bool attack_all(struct demo *demo)
{
	struct demo_result *result = &demo->result;
	struct hyperps_vm info;

	say(demo, "Starting a key vault in a VM ...");
	if (!vault_start(&demo->vault, demo->device, demo->options.guest, ""))
		return fail(demo, "the key vault does not start: %s", demo->vault.error);
	if (ioctl(demo->vault.vm.fd, HYPERPS_VM_IOC_INFO, &info) || ioctl(demo->attacker, DEMO_IOC_OWN, &demo->own))
		return fail(demo, "cannot ask for the VM: %s", strerror(errno));
	demo->vm = info.handle;
	memcpy(result->fingerprint, demo->vault.fingerprint, sizeof(result->fingerprint));
	to_hex(demo->vault.measurement, result->measurement);
	demo->gpa = demo->options.shared ? demo->vault.page + offsetof(struct vault_page, mac) : demo->vault.key;
	demo->offset = demo->gpa % PAGE;
	demo->gpa -= demo->offset;
	if (!frame_at(demo, demo->gpa, &demo->frame))
		return fail(demo, "hyperps.ko does not know where the key lies");
	if (!ask(demo, result->mac))
		return fail(demo, "the vault does not answer: %s", demo->vault.error);
	say(demo, "  measurement of its VM, which is that of the image:\n  %s", result->measurement);
	say(demo, "  SHA-256 of the key that it has made:\n  %s", result->fingerprint);
	say(demo, "  its HMAC of a challenge:\n  %s", result->mac);
	say(demo, "\nA hostile kernel module knows where %s lies: at 0x%" PRIx64 ".\n", result->target,
	    demo->frame * PAGE + demo->offset);
	if (!demo->options.json)
		format_demo_header(stdout, result);
	/* The monitor logs ten refusals a second, and there may have been some. */
	nanosleep(&(struct timespec){ .tv_sec = 1, .tv_nsec = 100000000 }, NULL);
	attack_memory(demo, "read_direct", "read it by the direct mapping", DEMO_DIRECT, false);
	attack_memory(demo, "write_direct", "overwrite it by the direct mapping", DEMO_DIRECT, true);
	attack_memory(demo, "read_fresh", "read it by a fresh mapping", DEMO_FRESH, false);
	attack_memory(demo, "write_fresh", "overwrite it by a fresh mapping", DEMO_FRESH, true);
	attack_devmem(demo);
	attack_mappings(demo);
	attack_registers(demo);
	if (!ask(demo, result->mac_after))
		fail(demo, "the vault does not answer any more: %s", demo->vault.error);
	else if (strcmp(result->mac, result->mac_after))
		fail(demo, "the vault's answer to the same challenge has changed");
	say(demo, "\nThe vault answers the same challenge%s:\n  %s",
	    strcmp(result->mac, result->mac_after) ? " DIFFERENTLY" : ", with the same HMAC", result->mac_after);
	return end_vm(demo);
}

static bool load(struct demo *demo, bool *loaded)
{
	const char *path = demo->options.module ? demo->options.module : MODULE;
	int file, status = -1;
	pid_t child;

	demo->attacker = open(DEMO_DEVICE, O_RDWR | O_CLOEXEC);
	if (demo->attacker >= 0)
		return true;
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file >= 0) {
		*loaded = !syscall(SYS_finit_module, file, "", 0);
		if (!*loaded)
			fail(demo, "cannot load %s: %s; dmesg may say why", path, strerror(errno));
		close(file);
	} else if (demo->options.module) {
		return fail(demo, "cannot open %s: %s", path, strerror(errno));
	} else {
		child = fork();
		if (!child) {
			execlp("modprobe", "modprobe", "-q", "hyperps_demo", NULL);
			_exit(127);
		}
		*loaded = child > 0 && waitpid(child, &status, 0) == child && !status;
		if (!*loaded)
			fail(demo, "there is no " MODULE ", and modprobe finds no hyperps_demo: say --module FILE");
	}
	if (!*loaded)
		return false;
	demo->attacker = open(DEMO_DEVICE, O_RDWR | O_CLOEXEC);
	return demo->attacker >= 0 || fail(demo, "cannot open " DEMO_DEVICE ": %s", strerror(errno));
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 'm':
		options->module = text;
		return 0;
	case 'g':
		options->guest = text;
		return 0;
	case 't':
		options->shared = !strcmp(text, "shared");
		if (!options->shared && strcmp(text, "key"))
			argp_error(state, "--target wants key or shared, not '%s'", text);
		return 0;
	case 'j':
		options->json = true;
		return 0;
	default:
		return refuse_arguments(key, text, state);
	}
}

static int run_demo(const struct command *command, int argc, char **argv)
{
	static struct demo demo = { .options.guest = "/guests/vault" };
	struct demo_result *result = &demo.result;
	bool loaded = false;

	parse_command(command, argc, argv, &demo.options);
	result->target = demo.options.shared ? "the shared page" : "the key";
	demo.device = open_device();
	if (demo.device < 0) {
		fprintf(stderr,
			"hpsctl demo: nothing to show: HyperPS is not running below this kernel, or hyperps.ko is "
			"not loaded\n");
		return EXIT_NOT_RUNNING;
	}
	demo.attacker = -1;
	if (load(&demo, &loaded))
		attack_all(&demo);
	vault_end(&demo.vault);
	if (demo.attacker >= 0)
		close(demo.attacker);
	if (loaded && syscall(SYS_delete_module, "hyperps_demo", O_NONBLOCK))
		fail(&demo, "cannot unload hyperps_demo.ko: %s", strerror(errno));
	close(demo.device);
	if (demo.options.json)
		format_demo_json(stdout, result);
	else if (!*result->message)
		puts("\nThe demo passed: what works on the module's pages is refused on the vault's.");
	if (fflush(stdout) || ferror(stdout))
		fail(&demo, "cannot write: %s", strerror(errno));
	if (*result->message)
		fprintf(stderr, "hpsctl demo: FAILED: %s\n", result->message);
	return *result->message ? EXIT_NOT_RUNNING : EXIT_OK;
}

static const struct argp_option options[] = {
	{ "module", 'm', "FILE", 0, "hyperps_demo.ko; if not given, " MODULE ", or by modprobe", 0 },
	{ "guest", 'g', "FILE", 0, "the vault's image; /guests/vault if not given", 0 },
	{ "target", 't', "WHAT", 0,
	  "key (default), or shared: the page that the vault shares with the host, which is not protected. The "
	  "attempts "
	  "must succeed then, and the demo ends with 1",
	  0 },
	OPTION_JSON("one JSON object at the end, and nothing else"),
	{ 0 },
};

const struct command demo_command = {
	.name = "demo",
	.summary = "a hostile kernel module against a VM that keeps a key",
	.argp = { .options = options,
		  .parser = parse,
		  .doc = "Starts a key vault in a VM, then has a hostile kernel module, hyperps_demo.ko, try to get "
			 "its key or "
			 "to change it: by the kernel's direct mapping, by a fresh one, by /dev/mem, by mapping it "
			 "elsewhere, by "
			 "mapping something else over it, and from the registers. Each attempt is made on a page of "
			 "the "
			 "module's own first. Then the module ends the VM, and looks at its memory. Takes a few "
			 "seconds.\v"
			 "Exit status: 0 each attempt worked on the module's own page and was refused on the key; 1 "
			 "not so, or "
			 "it could not be tried; 2 wrong usage." },
	.usage_status = EXIT_USAGE,
	.run = run_demo,
};

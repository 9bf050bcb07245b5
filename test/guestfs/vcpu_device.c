// SPDX-License-Identifier: MIT
/*
 * vCPUs through /dev/hyperps: what the requests of host/module/hyperps_ioctl.h promise, with a guest that does what it is told
 * by port; and that all memory comes back, whatever is closed or killed first.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hyperps/guest.h"
#include "hyperps_ioctl.h"
#include "image.h"
#include "monitor_device.h"
#include "tap.h"

#define MIB (1ULL << 20)
#define PAGE 4096ULL
#define RWX 7
#define CODE 0x1000ULL
#define RAM (64 * MIB)
#define SMALL (256 * MIB + PAGE) /* RAM in which no 2 MiB piece fits */
#define SMALL_PAGES 510ULL
#define MMIO 0xfee00000ULL
#define CGROUPS "/tmp/cgroups"
#define COMMAND_PORT 0x10
#define RESULT_PORT 0x12

/* The guest's commands, with what they take. */
enum { READ = 1, WRITE, CALL, SPIN, HALT, STI, CLI, TOGGLE, CRASH, STORM, ADD };

/* 32-bit code without a stack: a command is read from port 0x10, its arguments from 0x11; 0x12 gets the result. */
asm(".pushsection .rodata\n"
    ".code32\n"
    "guest_begin:\n"
    "1:	in	$0x10, %eax\n"
    "	cmp	$1, %eax\n"
    "	jne	2f\n"
    "	in	$0x11, %eax\n"
    "	mov	(%eax), %eax\n"
    "	out	%eax, $0x12\n"
    "	jmp	1b\n"
    "2:	cmp	$2, %eax\n"
    "	jne	2f\n"
    "	in	$0x11, %eax\n"
    "	mov	%eax, %ebx\n"
    "	in	$0x11, %eax\n"
    "	mov	%eax, (%ebx)\n"
    "	jmp	1b\n"
    "2:	cmp	$3, %eax\n"
    "	jne	2f\n"
    "	in	$0x11, %eax\n"
    "	mov	%eax, %ebx\n"
    "	in	$0x11, %eax\n"
    "	mov	%eax, %edi\n"
    "	in	$0x11, %eax\n"
    "	mov	%eax, %esi\n"
    "	in	$0x11, %eax\n"
    "	mov	%eax, %edx\n"
    "	mov	%ebx, %eax\n"
    "	vmcall\n"
    "	out	%eax, $0x12\n"
    "	jmp	1b\n"
    "2:	cmp	$4, %eax\n"
    "	jne	2f\n"
    "3:	jmp	3b\n"
    "2:	cmp	$5, %eax\n"
    "	jne	2f\n"
    "	hlt\n"
    "	jmp	1b\n"
    "2:	cmp	$6, %eax\n"
    "	jne	2f\n"
    "	sti\n"
    "	nop\n"
    "	nop\n"
    "	jmp	1b\n"
    "2:	cmp	$7, %eax\n"
    "	jne	2f\n"
    "	cli\n"
    "	jmp	1b\n"
    "2:	cmp	$8, %eax\n"
    "	jne	2f\n"
    "	in	$0x11, %eax\n"
    "	mov	%eax, %edi\n"
    "	mov	$1, %esi\n"
    "3:	mov	$0x48505381, %eax\n"
    "	vmcall\n"
    "	mov	$0x48505382, %eax\n"
    "	vmcall\n"
    "	jmp	3b\n"
    "2:	cmp	$9, %eax\n"
    "	jne	2f\n"
    "	ud2\n"
    "2:	cmp	$10, %eax\n" /* writes to so many pages and releases each, for ever */
    "	jne	2f\n"
    "	in	$0x11, %eax\n"
    "	mov	%eax, %ebp\n"
    "	in	$0x11, %eax\n"
    "	mov	%eax, %ebx\n"
    "3:	mov	%ebp, %edi\n"
    "	mov	%ebx, %ecx\n"
    "4:	movl	$1, (%edi)\n"
    "	mov	$1, %esi\n"
    "	mov	$0x48505383, %eax\n"
    "	vmcall\n"
    "	add	$4096, %edi\n"
    "	dec	%ecx\n"
    "	jnz	4b\n"
    "	jmp	3b\n"
    "2:	in	$0x11, %eax\n" /* from there on so many pages are touched; the sum of what was there is the result */
    "	mov	%eax, %ebx\n"
    "	in	$0x11, %eax\n"
    "	mov	%eax, %ecx\n"
    "	xor	%eax, %eax\n"
    "3:	add	(%ebx), %eax\n"
    "	movl	$1, (%ebx)\n"
    "	add	$4096, %ebx\n"
    "	dec	%ecx\n"
    "	jnz	3b\n"
    "	out	%eax, $0x12\n"
    "	jmp	1b\n"
    "guest_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char guest_begin[], guest_end[];

static int device;

struct machine {
	int vm, vcpu[2];
	struct hyperps_run *run[2];
	uint64_t exits[HYPERPS_EXITS];
	uint8_t expected[32]; /* measurement */
};

static struct hyperps_vm info(const struct machine *machine)
{
	struct hyperps_vm out = { 0 };

	if (ioctl(machine->vm, HYPERPS_VM_IOC_INFO, &out))
		check(false, "INFO: %s", strerror(errno));
	return out;
}

static long populate(const struct machine *machine, uint64_t gpa, uint64_t size, const void *source)
{
	struct hyperps_vm_populate request = { gpa, size, (uintptr_t)source };

	return value(ioctl(machine->vm, HYPERPS_VM_IOC_POPULATE, &request));
}

static long create_vcpu(const struct machine *machine, uint64_t mode, uint64_t argument, uint64_t entry, uint64_t cr3)
{
	struct hyperps_vm_create_vcpu request = { mode, argument, entry, cr3 };

	return value(ioctl(machine->vm, HYPERPS_VM_IOC_CREATE_VCPU, &request));
}

static long shared(const struct machine *machine, bool write, uint64_t gpa, uint64_t size, void *buffer)
{
	struct hyperps_vm_shared request = { gpa, size, (uintptr_t)buffer };

	return value(ioctl(machine->vm, write ? HYPERPS_VM_IOC_WRITE_SHARED : HYPERPS_VM_IOC_READ_SHARED, &request));
}

/* A VM that is not sealed yet, with two vCPUs. */
static struct machine new_machine(void)
{
	static char code[PAGE];
	const struct hyperps_vm_declare ranges[] = { { 0, RAM, RWX },
						     { SMALL, SMALL_PAGES * PAGE, RWX },
						     { MMIO, PAGE, HYPERPS_RANGE_MMIO } };
	struct machine machine = { .vm = ioctl(device, HYPERPS_IOC_CREATE_VM, 0) };
	uint64_t gpa = CODE;
	struct guest guest = {
		.image = { .pages = 1,
			   .gpa = &gpa,
			   .data = (void *)code,
			   .start = { HYPERPS_VCPU_PROTECTED, 2 * MIB, CODE, 0 } },
		.ranges = 3,
		.vcpus = 2,
	};
	bool done = machine.vm >= 0;

	memcpy(code, guest_begin, guest_end - guest_begin);
	memcpy(guest.range, ranges, sizeof(ranges));
	for (int i = 0; i < 3; i++)
		done = done && !ioctl(machine.vm, HYPERPS_VM_IOC_DECLARE, &ranges[i]);
	done = done && populate(&machine, CODE, PAGE, code) == (long)PAGE;
	for (int i = 0; i < 2 && done; i++) {
		machine.vcpu[i] = create_vcpu(&machine, HYPERPS_VCPU_PROTECTED, 2 * MIB, CODE, 0);
		machine.run[i] = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, machine.vcpu[i], 0);
		done = machine.vcpu[i] >= 0 && machine.run[i] != MAP_FAILED;
	}
	guest_measure(&guest, machine.expected);
	if (!done)
		check(false, "making a VM with two vCPUs: %s", strerror(errno));
	return machine;
}

static long run(struct machine *machine, int vcpu)
{
	long result = value(ioctl(machine->vcpu[vcpu], HYPERPS_VCPU_IOC_RUN, 0));

	if (!result && machine->run[vcpu]->exit < HYPERPS_EXITS)
		machine->exits[machine->run[vcpu]->exit]++;
	return result;
}

static bool waits_for_command(const struct machine *machine, int vcpu)
{
	return machine->run[vcpu]->exit == HYPERPS_EXIT_IN && machine->run[vcpu]->io.port == COMMAND_PORT;
}

/* Sealed, and each vCPU waits for a command. */
static struct machine new_guest(void)
{
	struct machine machine = new_machine();

	expect(value(ioctl(machine.vm, HYPERPS_VM_IOC_SEAL, 0)), 0, "SEAL");
	for (int i = 0; i < 2; i++) {
		machine.run[i]->flags = HYPERPS_RUN_LAZY;
		if (run(&machine, i) || !waits_for_command(&machine, i))
			check(false, "vCPU %d starts (exit %u)", i, machine.run[i]->exit);
	}
	return machine;
}

static void end(struct machine *machine)
{
	for (int i = 0; i < 2; i++) {
		munmap(machine->run[i], PAGE);
		close(machine->vcpu[i]);
	}
	close(machine->vm);
}

/*
 * Gives a vCPU, which waits for it, a command and its arguments. Returns the exit at which it ended: HYPERPS_EXIT_IN if
 * the vCPU waits for the next one; or an error. *result: what it gave. Exits SHARED are passed over.
 */
static long command(struct machine *machine, int vcpu, uint32_t *result, const uint32_t *words, size_t count)
{
	struct hyperps_run *out = machine->run[vcpu];
	size_t next = 0;
	long error;

	do {
		out->answer = next < count ? words[next] : 0xdead;
		next += out->exit == HYPERPS_EXIT_IN;
		error = run(machine, vcpu);
		if (error)
			return error;
		if (out->exit == HYPERPS_EXIT_OUT && out->io.port == RESULT_PORT && result)
			*result = out->io.data;
	} while ((out->exit == HYPERPS_EXIT_IN && next < count) || out->exit == HYPERPS_EXIT_OUT ||
		 out->exit == HYPERPS_EXIT_SHARED);
	return out->exit;
}

#define COMMAND(machine, vcpu, result, ...)                                                                            \
	command(machine, vcpu, result, (const uint32_t[]){ __VA_ARGS__ },                                              \
		sizeof((const uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t))

static long hypercall(struct machine *machine, uint32_t number, uint32_t edi, uint32_t esi)
{
	uint32_t result = 77;
	long exit = COMMAND(machine, 0, &result, CALL, number, edi, esi, 0);

	return exit == HYPERPS_EXIT_IN ? (int32_t)result : 1000 + exit;
}

static uint32_t peek(struct machine *machine, uint32_t gpa)
{
	uint32_t result = 0xbad;

	if (COMMAND(machine, 0, &result, READ, gpa) != HYPERPS_EXIT_IN)
		check(false, "the guest reads %x", gpa);
	return result;
}

static void poke(struct machine *machine, uint32_t gpa, uint32_t word)
{
	if (COMMAND(machine, 0, NULL, WRITE, gpa, word) != HYPERPS_EXIT_IN)
		check(false, "the guest writes %x", gpa);
}

static void check_arguments(void)
{
	struct hyperps_frames before = frames(device);
	struct machine machine = new_machine();
	struct hyperps_measurement measurement;
	int extra[HYPERPS_VCPUS];
	long got;

	check(fcntl(machine.vcpu[0], F_GETFD) == FD_CLOEXEC, "CREATE_VCPU gives a descriptor that is close-on-exec");
	check(machine.run[0]->index == 0 && machine.run[1]->index == 1, "the vCPUs know their index");
	expect(create_vcpu(&machine, HYPERPS_VCPU_MODES, 0, CODE, 0), -EINVAL, "CREATE_VCPU in another mode");
	expect(create_vcpu(&machine, HYPERPS_VCPU_PROTECTED, 1, CODE, 0), -EINVAL, "CREATE_VCPU with an odd argument");
	expect(create_vcpu(&machine, HYPERPS_VCPU_PROTECTED, 1ULL << 46, CODE, 0), -EINVAL, "... with one of 2^46");
	expect(create_vcpu(&machine, HYPERPS_VCPU_REAL, 0, MIB, 0), -EINVAL, "... in real mode at 1 MiB");
	expect(create_vcpu(&machine, PAGE, 0, CODE, 0), -EINVAL, "... in mode 4096");
	expect(value(ioctl(machine.vm, HYPERPS_VM_IOC_CREATE_VCPU, NULL)), -EFAULT, "... at NULL");
	expect(value((long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, machine.vcpu[0], 0)), -EINVAL, "a private mapping");
	expect(value((long)mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, machine.vcpu[0], 0)), -EINVAL, "two pages");
	expect(value((long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, machine.vcpu[0], PAGE)), -EINVAL, "the second page");
	expect(value(ioctl(machine.vcpu[0], HYPERPS_VM_IOC_SEAL, 0)), -ENOTTY, "SEAL of a vCPU");
	expect(value(ioctl(machine.vm, HYPERPS_VCPU_IOC_RUN, 0)), -ENOTTY, "RUN of a VM");
	expect(run(&machine, 0), -EBUSY, "RUN before SEAL");
	expect(value(ioctl(machine.vm, HYPERPS_VM_IOC_MEASUREMENT, &measurement)), -ENODATA, "MEASUREMENT before SEAL");
	expect(value(ioctl(machine.vm, HYPERPS_VM_IOC_SEAL, 0)), 0, "SEAL");
	expect(value(ioctl(machine.vm, HYPERPS_VM_IOC_SEAL, 0)), -EBUSY, "SEAL again");
	expect(create_vcpu(&machine, HYPERPS_VCPU_PROTECTED, 0, CODE, 0), -EBUSY, "CREATE_VCPU after SEAL");
	expect(value(ioctl(machine.vm, HYPERPS_VM_IOC_MEASUREMENT, NULL)), -EFAULT, "MEASUREMENT at NULL");
	expect(value(ioctl(machine.vm, HYPERPS_VM_IOC_MEASUREMENT, &measurement)), 0, "MEASUREMENT");
	check(measurement.sealed == 1 && measurement.vcpus == 2 &&
		      !memcmp(measurement.sha256, machine.expected, sizeof(machine.expected)),
	      "it is what hpsctl measure computes");
	expect(value(ioctl(machine.vcpu[0], HYPERPS_VCPU_IOC_RUN, 1)), -EINVAL, "RUN with an argument");
	machine.run[0]->flags = 1;
	expect(run(&machine, 0), -EINVAL, "RUN with an unknown flag");
	machine.run[0]->flags = 0;
	machine.run[0]->event = HYPERPS_EVENT_INTERRUPT | 14;
	expect(run(&machine, 0), -EINVAL, "RUN with vector 14");
	machine.run[0]->event = 0;
	got = run(&machine, 0);
	check(!got && waits_for_command(&machine, 0) && machine.run[0]->io.size == 4, "RUN reaches the first IN (%ld)",
	      got);
	expect(shared(&machine, false, CODE, 16, &got), -EACCES, "READ_SHARED of private memory");
	expect(shared(&machine, true, CODE, 16, &got), -EACCES, "WRITE_SHARED of private memory");
	expect(shared(&machine, false, RAM, 16, &got), -EACCES, "READ_SHARED of no memory");
	expect(shared(&machine, false, CODE, 0, &got), -EINVAL, "READ_SHARED of nothing");
	expect(shared(&machine, false, HYPERPS_VM_GPA_LIMIT - 8, 16, &got), -EINVAL, "READ_SHARED past the end");
	end(&machine);

	machine = new_machine();
	for (int i = 2; i < HYPERPS_VCPUS; i++)
		extra[i] = create_vcpu(&machine, HYPERPS_VCPU_PROTECTED, 0, CODE, 0);
	check(extra[HYPERPS_VCPUS - 1] >= 0, "%d vCPUs", HYPERPS_VCPUS);
	expect(create_vcpu(&machine, HYPERPS_VCPU_PROTECTED, 0, CODE, 0), -EINVAL, "one more");
	for (int i = 2; i < HYPERPS_VCPUS; i++)
		close(extra[i]);
	end(&machine);
	expect_frames(device, &before, "after wrong requests");
}

static void check_exits(void)
{
	struct machine machine = new_guest();
	struct hyperps_run *out = machine.run[0];

	poke(&machine, 3 * MIB, 0x12345678);
	expect(peek(&machine, 3 * MIB), 0x12345678, "memory that the guest wrote");
	expect(hypercall(&machine, 0x48505399, 0, 0), -ENOSYS, "a hypercall that there is not");
	expect(COMMAND(&machine, 0, NULL, WRITE, MMIO + 16, 0x55aa), HYPERPS_EXIT_MMIO_WRITE, "an MMIO write");
	check(out->mmio.gpa == MMIO + 16 && out->mmio.size == 4 && out->mmio.data == 0x55aa, "address, size and data");
	expect(run(&machine, 0), 0, "RUN after it");
	expect(COMMAND(&machine, 0, NULL, READ, MMIO + 32), HYPERPS_EXIT_MMIO_READ, "an MMIO read");
	check(out->mmio.gpa == MMIO + 32 && out->mmio.size == 4, "address and size");
	out->answer = 0x99;
	check(!run(&machine, 0) && out->exit == HYPERPS_EXIT_OUT && out->io.data == 0x99, "the guest gets the answer");
	expect(run(&machine, 0), 0, "RUN after it");
	expect(COMMAND(&machine, 0, NULL, CALL, HYPERPS_GUEST_CONSOLE, 3, 0x00434241, 0), HYPERPS_EXIT_CONSOLE,
	       "a console call");
	check(out->console.bytes == 3 && !memcmp(out->console.text, "ABC", 3), "its text");
	check(!run(&machine, 0) && out->exit == HYPERPS_EXIT_OUT && !out->io.data && !run(&machine, 0),
	      "the guest goes on");
	expect(COMMAND(&machine, 0, NULL, HALT), HYPERPS_EXIT_HLT, "HLT");
	check(!run(&machine, 0) && waits_for_command(&machine, 0), "after it the guest goes on");

	check(!out->ready, "the guest takes no interrupt at first");
	out->event = HYPERPS_EVENT_INTERRUPT | 32;
	out->answer = STI;
	expect(run(&machine, 0), -EAGAIN, "an interrupt that it can't take");
	check(out->event, "the event was not taken");
	out->event = 0;
	out->flags |= HYPERPS_RUN_INTERRUPT_WINDOW;
	expect(run(&machine, 0), 0, "RUN with the interrupt window");
	check(out->exit == HYPERPS_EXIT_INTERRUPT_WINDOW && out->ready, "it opens after STI (exit %u)", out->exit);
	out->flags &= ~HYPERPS_RUN_INTERRUPT_WINDOW;
	check(!run(&machine, 0) && waits_for_command(&machine, 0) && out->ready, "then the guest is ready");
	out->event = HYPERPS_EVENT_INTERRUPT | 32;
	expect(run(&machine, 0), 0, "an interrupt, for which the guest has no table");
	check(out->exit == HYPERPS_EXIT_FAILED && out->failure == HYPERPS_FAILURE_TRIPLE_FAULT && !out->event,
	      "the event was taken, and killed the vCPU (exit %u)", out->exit);
	expect(run(&machine, 0), -EBUSY, "RUN after that");
	check(!run(&machine, 1) && !waits_for_command(&machine, 1), "the other vCPU goes on");
	end(&machine);

	machine = new_guest();
	expect(COMMAND(&machine, 0, NULL, CRASH), HYPERPS_EXIT_FAILED, "a triple fault");
	expect(COMMAND(&machine, 1, NULL, CALL, HYPERPS_GUEST_SHUTDOWN, 42, 0, 0), HYPERPS_EXIT_SHUTDOWN, "a shutdown");
	expect(machine.run[1]->code, 42, "its code");
	end(&machine);
}

static void check_lazy(void)
{
	struct hyperps_frames before = frames(device), now;
	struct machine machine = new_guest();
	struct hyperps_vm vm_info = info(&machine);
	uint32_t sum = 1;

	expect(vm_info.frames, 1, "frames at first");
	expect(COMMAND(&machine, 0, &sum, ADD, SMALL, SMALL_PAGES), HYPERPS_EXIT_IN, "touching 510 pages by and by");
	expect(sum, 0, "what was there");
	vm_info = info(&machine);
	check(vm_info.frames == 511 && !vm_info.pending, "the VM has one page for each (%llu)",
	      (unsigned long long)vm_info.frames);
	poke(&machine, 4 * MIB + 0x5000, 1);
	vm_info = info(&machine);
	check(vm_info.frames == 511 + 512 && vm_info.view_2m == 1, "a touch elsewhere gives 2 MiB (%llu)",
	      (unsigned long long)vm_info.frames);
	poke(&machine, 0x5000, 1);
	expect(info(&machine).frames, 511 + 512 + 1, "frames after a touch beside the image");

	/* Without LAZY user space is asked. */
	machine.run[0]->flags = 0;
	expect(COMMAND(&machine, 0, NULL, WRITE, 8 * MIB + 8, 7), HYPERPS_EXIT_MEMORY, "a touch without LAZY");
	check(machine.run[0]->memory.gpa == 8 * MIB && machine.run[0]->memory.access == 2,
	      "page and access (%llx, %llu)", (unsigned long long)machine.run[0]->memory.gpa,
	      (unsigned long long)machine.run[0]->memory.access);
	expect(populate(&machine, 8 * MIB, PAGE, NULL), PAGE, "POPULATE of that page");
	check(!run(&machine, 0) && waits_for_command(&machine, 0), "the guest goes on");
	machine.run[0]->flags = HYPERPS_RUN_LAZY;
	expect(peek(&machine, 8 * MIB + 8), 7, "what it wrote");
	end(&machine);
	expect_frames(device, &before, "after close");

	/* Release: one page out of 2 MiB, all of another 2 MiB, single pages. */
	machine = new_guest();
	for (uint32_t i = 0; i < 3; i++)
		expect(COMMAND(&machine, 0, &sum, ADD, (4 + 2 * i) * MIB, 512), HYPERPS_EXIT_IN, "touching 2 MiB");
	COMMAND(&machine, 0, &sum, ADD, SMALL, 100);
	now = frames(device);
	expect(hypercall(&machine, HYPERPS_GUEST_RELEASE, 4 * MIB + 5 * PAGE, 1), 0, "RELEASE of a page of 2 MiB");
	expect(hypercall(&machine, HYPERPS_GUEST_RELEASE, 6 * MIB, 512), 0, "RELEASE of 2 MiB");
	expect(hypercall(&machine, HYPERPS_GUEST_RELEASE, SMALL + PAGE, 98), 0, "RELEASE of 98 pages");
	expect(frames(device).count[HYPERPS_FRAME_HOST] - now.count[HYPERPS_FRAME_HOST], 1 + 512 + 98,
	       "frames that come back");
	expect(info(&machine).frames, 1 + 3 * 512 + 100 - (1 + 512 + 98), "frames of the VM");
	expect(COMMAND(&machine, 0, &sum, ADD, 4 * MIB, 512), HYPERPS_EXIT_IN, "touching the first 2 MiB again");
	expect(sum, 511, "all that was not released is there still");
	expect(COMMAND(&machine, 0, &sum, ADD, 6 * MIB, 512), HYPERPS_EXIT_IN, "touching the second 2 MiB again");
	expect(sum, 0, "what was released is zero");
	expect(COMMAND(&machine, 0, &sum, ADD, SMALL, 100), HYPERPS_EXIT_IN, "touching the pages again");
	expect(sum, 2, "pages that were not released");
	for (int i = 0; i < 200; i++)
		if (hypercall(&machine, HYPERPS_GUEST_RELEASE, SMALL + (i % 50) * 2 * PAGE, 1) ||
		    peek(&machine, SMALL + (i % 50) * 2 * PAGE))
			check(false, "RELEASE and touch, round %d", i);
	expect(info(&machine).frames, 1 + 3 * 512 + 100, "frames of the VM after 200 rounds of RELEASE and touch");
	end(&machine);
	expect_frames(device, &before, "after close");
}

static void check_shared(void)
{
	struct hyperps_frames before = frames(device);
	struct machine machine = new_guest();
	char buffer[3 * PAGE] = { 0 };
	uint32_t word = 0xcafe;

	poke(&machine, SMALL + 8, 0x1234);
	poke(&machine, SMALL + PAGE, 0x5678);
	machine.exits[HYPERPS_EXIT_SHARED] = 0;
	expect(hypercall(&machine, HYPERPS_GUEST_SHARE, SMALL, 2), 0, "SHARE of two pages");
	expect(machine.exits[HYPERPS_EXIT_SHARED], 1, "exits SHARED");
	expect(shared(&machine, false, SMALL + 8, 4, &word), 4, "READ_SHARED");
	expect(word, 0x1234, "what the guest wrote");
	expect(shared(&machine, false, SMALL + PAGE - 8, 16, buffer), 16, "READ_SHARED across two pages");
	check(!memcmp(buffer + 8, "\x78\x56", 2), "what the guest wrote there");
	memcpy(buffer, "ABCD", 4);
	expect(shared(&machine, true, SMALL + PAGE - 2, 4, buffer), 4, "WRITE_SHARED across two pages");
	expect(peek(&machine, SMALL + PAGE), 0x4443, "the guest reads it");
	expect(shared(&machine, false, SMALL, 3 * PAGE, buffer), 2 * PAGE, "READ_SHARED beyond what is shared");
	expect(shared(&machine, false, SMALL, 4, (void *)8), -EFAULT, "READ_SHARED to a wrong address");
	expect(shared(&machine, true, SMALL, 4, (void *)8), -EFAULT, "WRITE_SHARED from a wrong address");
	expect(hypercall(&machine, HYPERPS_GUEST_UNSHARE, SMALL, 1), 0, "UNSHARE of one page");
	expect(shared(&machine, false, SMALL, 4, &word), -EACCES, "READ_SHARED of it");
	expect(shared(&machine, false, SMALL + PAGE, 4, &word), 4, "READ_SHARED of the other");
	expect(peek(&machine, SMALL + 8), 0, "what the guest finds in the page");
	end(&machine);
	expect_frames(device, &before, "after close with a page shared");
}

struct other {
	struct machine *machine;
	int vcpu;
	long result;
};

static void *run_thread(void *argument)
{
	struct other *other = argument;

	do {
		other->result = value(ioctl(other->machine->vcpu[other->vcpu], HYPERPS_VCPU_IOC_RUN, 0));
	} while (!other->result && other->machine->run[other->vcpu]->exit == HYPERPS_EXIT_SHARED);
	return NULL;
}

static void on_signal(int signal)
{
	(void)signal;
}

/* Ends run_thread(). A signal that comes between two RUNs ends none. */
static void interrupt(pthread_t thread)
{
	do {
		pthread_kill(thread, SIGUSR1);
		usleep(20000);
	} while (pthread_tryjoin_np(thread, NULL));
}

/* Reads and writes a page while the guest shares it and takes it back all the time. */
static void check_race(void)
{
	struct hyperps_frames before = frames(device);
	struct machine machine = new_guest();
	struct other other = { &machine, 1, 0 };
	struct timeval begin, now;
	long counts[3] = { 0 };
	char buffer[PAGE];
	bool known = true;
	pthread_t thread;

	poke(&machine, SMALL, 1);
	machine.run[1]->answer = TOGGLE;
	expect(run(&machine, 1), 0, "a vCPU that shares a page and takes it back for ever");
	machine.run[1]->answer = SMALL;
	expect(run(&machine, 1), 0, "its first exit");
	pthread_create(&thread, NULL, run_thread, &other);
	gettimeofday(&begin, NULL);
	do {
		long got = shared(&machine, counts[0] & 1, SMALL, PAGE, buffer);

		counts[got == (long)PAGE ? 0 : got == -EACCES ? 1 : 2]++;
		known = known && (got == (long)PAGE || got == -EACCES || got == -EFAULT);
		gettimeofday(&now, NULL);
	} while (now.tv_sec - begin.tv_sec < 3);
	check(known, "%ld copies meanwhile succeed, %ld are refused, %ld fail in the middle", counts[0], counts[1],
	      counts[2]);
	interrupt(thread);
	expect(other.result, -EINTR, "the thread's RUN after a signal");
	end(&machine);
	expect_frames(device, &before, "after it");
}

static void check_threads(void)
{
	struct hyperps_frames before = frames(device);
	struct machine machine = new_guest();
	struct other other = { &machine, 0, 0 };
	pthread_t thread;
	long got;

	machine.run[0]->answer = SPIN;
	pthread_create(&thread, NULL, run_thread, &other);
	usleep(100000);
	expect(run(&machine, 0), -EBUSY, "RUN of a vCPU that another thread runs");
	got = COMMAND(&machine, 1, NULL, WRITE, SMALL, 7);
	expect(got, HYPERPS_EXIT_IN, "a command to the other vCPU meanwhile");
	close(machine.vm);
	check(frames(device).count[HYPERPS_FRAME_PRIVATE] > before.count[HYPERPS_FRAME_PRIVATE],
	      "the VM lives on when only its vCPUs are open");
	got = COMMAND(&machine, 1, NULL, WRITE, SMALL + PAGE, 7);
	expect(got, HYPERPS_EXIT_IN, "a command to it");
	interrupt(thread);
	expect(other.result, -EINTR, "the thread's RUN after a signal");
	machine.vm = -1;
	end(&machine);
	expect_frames(device, &before, "after the last vCPU's close");
}

static void spin_for_ever(struct machine *machine, int out)
{
	machine->run[0]->answer = SPIN;
	if (write(out, "x", 1) == 1)
		run(machine, 0);
	_exit(1);
}

/* A child that runs a vCPU is killed: with a VM of its own, or the parent's. */
static void check_kill(void)
{
	struct hyperps_frames before = frames(device);
	struct machine machine = new_guest();
	int ends[2], status = 0;
	bool killed = true;
	char byte;
	pid_t child;

	for (int i = 0; i < 6; i++) {
		if (pipe(ends))
			return;
		child = fork();
		if (!child) {
			struct machine own = i ? new_guest() : machine;

			spin_for_ever(&own, ends[1]);
		}
		killed = read(ends[0], &byte, 1) == 1 && killed;
		usleep(5000 + 17000 * i);
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
		killed = killed && status == SIGKILL;
		close(ends[0]);
		close(ends[1]);
	}
	check(killed, "6 children that are killed in RUN");
	expect(COMMAND(&machine, 1, NULL, WRITE, SMALL, 7), HYPERPS_EXIT_IN, "the parent's VM afterwards");
	end(&machine);
	expect_frames(device, &before, "after it");
}

/* Both vCPUs touch and release the same pages all the time, and the host gives some, too. */
static void check_storm(void)
{
	struct hyperps_frames before = frames(device);
	struct machine machine = new_guest();
	struct other other[2] = { { &machine, 0, 0 }, { &machine, 1, 0 } };
	const uint32_t words[] = { STORM, 4 * MIB, 600 };
	struct timeval begin, now;
	pthread_t thread[2];
	long populated = 0;

	for (int i = 0; i < 2; i++) {
		for (int j = 0; j < 2; j++) {
			machine.run[i]->answer = words[j];
			run(&machine, i);
		}
		machine.run[i]->answer = words[2];
	}
	for (int i = 0; i < 2; i++)
		pthread_create(&thread[i], NULL, run_thread, &other[i]);
	gettimeofday(&begin, NULL);
	do {
		populated += populate(&machine, 4 * MIB + populated % 600 * PAGE, PAGE, NULL) == (long)PAGE;
		gettimeofday(&now, NULL);
	} while (now.tv_sec - begin.tv_sec < 5);
	for (int i = 0; i < 2; i++) {
		interrupt(thread[i]);
		expect(other[i].result, -EINTR, "RUN of a vCPU that touches and releases pages");
	}
	check(info(&machine).frames <= 1 + 1024 && populated, "the VM has %llu frames; the host gave a page %ld times",
	      (unsigned long long)info(&machine).frames, populated);
	end(&machine);
	expect_frames(device, &before, "after it");
}

static void drain_pool(const struct machine *other)
{
	static uint64_t next;
	struct hyperps_status status;

	while (!monitor_read_status(device, &status) && status.memory_free > 40 * PAGE)
		if (populate(other, next++ * 2 * MIB, PAGE, NULL) != (long)PAGE)
			break;
}

/* Each page that the guest shares out of 2 MiB takes tables in two views: the monitor's pool runs dry. */
static void check_room(void)
{
	struct hyperps_frames before = frames(device), now;
	struct machine machine = new_guest(), other = { .vm = ioctl(device, HYPERPS_IOC_CREATE_VM, 0) };
	struct hyperps_vm_declare range = { 0, 1ULL << 40, RWX };
	uint64_t monitor = before.count[HYPERPS_FRAME_MONITOR] + before.count[HYPERPS_FRAME_TO_MONITOR];
	int extra[HYPERPS_VCPUS], vcpus = 2;
	uint32_t shared_pages = 0;

	for (uint32_t gpa = 2 * MIB; gpa < RAM; gpa += 2 * MIB)
		poke(&machine, gpa, 1);
	expect(value(ioctl(other.vm, HYPERPS_VM_IOC_DECLARE, &range)), 0,
	       "another VM, which uses the monitor's memory up");
	drain_pool(&other);
	now = frames(device);
	expect(now.count[HYPERPS_FRAME_MONITOR] + now.count[HYPERPS_FRAME_TO_MONITOR], monitor,
	       "the number of the monitor's frames until then");
	for (uint32_t gpa = 2 * MIB; gpa < RAM; gpa += 2 * MIB)
		shared_pages += !hypercall(&machine, HYPERPS_GUEST_SHARE, gpa, 1);
	expect(shared_pages, RAM / (2 * MIB) - 1, "pages that the guest shares all the same");
	now = frames(device);
	expect(now.count[HYPERPS_FRAME_MONITOR] + now.count[HYPERPS_FRAME_TO_MONITOR] - monitor, 2 * MIB / PAGE,
	       "frames that hyperps.ko gave the monitor for it");
	for (uint32_t gpa = 2 * MIB; gpa < RAM; gpa += 2 * MIB)
		shared_pages -= !hypercall(&machine, HYPERPS_GUEST_UNSHARE, gpa, 1) && !peek(&machine, gpa);
	expect(shared_pages, 0, "pages that it does not get back");
	end(&machine);

	drain_pool(&other);
	machine = new_machine();
	while (vcpus < HYPERPS_VCPUS && (extra[vcpus] = create_vcpu(&machine, HYPERPS_VCPU_PROTECTED, 0, CODE, 0)) >= 0)
		vcpus++;
	expect(vcpus, HYPERPS_VCPUS, "vCPUs of another VM, whose pages the monitor has not got");
	while (vcpus > 2)
		close(extra[--vcpus]);
	end(&machine);
	close(other.vm);
	now = frames(device);
	monitor = now.count[HYPERPS_FRAME_MONITOR] + now.count[HYPERPS_FRAME_TO_MONITOR] - monitor;
	expect(monitor, 2 * 2 * MIB / PAGE, "frames that the monitor got in all");
	before.count[HYPERPS_FRAME_HOST] -= monitor;
	expect_frames(device, &before, "but for these");
}

/* In a memory cgroup that is smaller than the guest's RAM. */
static void touch_in_cgroup(void)
{
	struct machine machine;
	char text[16];

	snprintf(text, sizeof(text), "%d", getpid());
	check(write_file(CGROUPS "/vcpu/cgroup.procs", text), "entering the cgroup");
	machine = new_guest();
	expect(COMMAND(&machine, 0, NULL, ADD, 2 * MIB, 62 * MIB / PAGE), -ENOMEM, "touching 62 MiB");
	expect(run(&machine, 0), -ENOMEM, "RUN again");
	expect(COMMAND(&machine, 1, NULL, WRITE, 2 * MIB, 7), HYPERPS_EXIT_IN, "another vCPU, which wants nothing new");
	_exit(failed != 0);
}

static void check_cgroup(void)
{
	struct hyperps_frames before = frames(device);
	pid_t child;
	int status;

	mkdir(CGROUPS, 0755);
	check((!mount("none", CGROUPS, "cgroup2", 0, NULL) || errno == EBUSY) &&
		      write_file(CGROUPS "/cgroup.subtree_control", "+memory") && !mkdir(CGROUPS "/vcpu", 0755) &&
		      write_file(CGROUPS "/vcpu/memory.max", "33554432"),
	      "a memory cgroup of 32 MiB");
	child = fork();
	if (!child)
		touch_in_cgroup();
	check(waitpid(child, &status, 0) == child && !status, "a child whose guest needs more");
	rmdir(CGROUPS "/vcpu");
	umount(CGROUPS);
	expect_frames(device, &before, "after it");
}

int main(void)
{
	static void (*const parts[])(void) = { check_arguments, check_exits, check_lazy,  check_shared, check_threads,
					       check_race,      check_kill,  check_storm, check_cgroup, check_room };
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &action, NULL);
	device = monitor_open();
	check(device >= 0, "opening " HYPERPS_DEVICE);
	for (size_t i = 0; device >= 0 && i < sizeof(parts) / sizeof(parts[0]); i++)
		parts[i]();
	return summary();
}

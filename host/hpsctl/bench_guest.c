// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench_guest.h"
#include "hyperps_ioctl.h"

#define PAGE 4096UL
#define SLOTS 3
#define TIME_LIMIT 10 /* seconds for a guest's loop, which takes a few milliseconds */

/* LOOP(name, what is repeated): position-independent, since it is copied. */
#define LOOP(name, count, code)                                                                                        \
	asm(".pushsection .rodata.bench, \"a\"\n"                                                                      \
	    ".code32\n"                                                                                                \
	    ".globl " #name "\n" #name ":\n"                                                                           \
	    "1:	mov	$" #count ", %esi\n"                                                                           \
	    "	rdtsc\n"                                                                                                 \
	    "	mov	%eax, %ebp\n"                                                                                        \
	    "2:	" code "\n"                                                                                            \
	    "	dec	%esi\n"                                                                                              \
	    "	jnz	2b\n"                                                                                                \
	    "	rdtsc\n"                                                                                                 \
	    "	sub	%ebp, %eax\n"                                                                                        \
	    "	out	%eax, $0x22\n"                                                                                       \
	    "	jmp	1b\n"                                                                                                \
	    ".code64\n"                                                                                                \
	    ".popsection\n")

asm(".pushsection .rodata.bench, \"a\"\n"
    ".globl bench_guest_begin\n"
    "bench_guest_begin:\n"
    ".popsection\n");
LOOP(bench_guest_cpuid, 100, "xor %eax, %eax\n cpuid");
LOOP(bench_guest_hypercall, 100, "xor %eax, %eax\n vmcall"); /* there is none of that number, neither here nor in KVM */
LOOP(bench_guest_out, 100, "out %al, $0x80");
LOOP(bench_guest_mmio, 100, "mov 0x10000000, %ecx");
asm(".pushsection .rodata.bench, \"a\"\n"
    ".code32\n"
    ".globl bench_guest_touch\n"
    "bench_guest_touch:\n"
    "	mov	$0x40080000, %ebx\n"
    ".code64\n"
    ".popsection\n");
LOOP(bench_guest_touches, 128, "movl $1, (%ebx)\n add $4096, %ebx");
asm(".pushsection .rodata.bench, \"a\"\n"
    ".globl bench_guest_end\n"
    "bench_guest_end:\n"
    ".popsection\n");

static bool failed(struct bench_vm *vm, const char *what)
{
	vm->failed = what;
	return false;
}

static bool map_run(struct bench_vm *vm, uint64_t bytes)
{
	void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);

	if (page == MAP_FAILED)
		return failed(vm, "map a vCPU");
	vm->run = page;
	vm->run_bytes = bytes;
	return true;
}

static bool populate(struct bench_vm *vm, uint64_t gpa, uint64_t size, const void *source)
{
	while (size) {
		struct hyperps_vm_populate request = { gpa, size, (uintptr_t)source };
		int done = ioctl(vm->fd, HYPERPS_VM_IOC_POPULATE, &request);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return failed(vm, "give a VM its RAM");
		gpa += done;
		size -= done;
	}
	return true;
}

static bool make_hyperps(struct bench_vm *vm, int device, uint64_t ram_bytes, bool touched, const char *routine)
{
	struct hyperps_vm_declare ranges[] = { { 0, ram_bytes, 7 },
					       { BENCH_MMIO, PAGE, HYPERPS_RANGE_MMIO },
					       { BENCH_TOUCHED, BENCH_TOUCHED_BYTES, 7 } };
	struct hyperps_vm_create_vcpu start = { HYPERPS_VCPU_PROTECTED, 0, BENCH_CODE + (routine - bench_guest_begin),
						0 };
	static char code[BENCH_CODE_BYTES];

	memcpy(code, bench_guest_begin, bench_guest_end - bench_guest_begin);
	vm->fd = ioctl(device, HYPERPS_IOC_CREATE_VM, 0);
	if (vm->fd < 0)
		return failed(vm, "create a VM");
	for (int i = 0; i < (touched ? 3 : 2); i++)
		if (ioctl(vm->fd, HYPERPS_VM_IOC_DECLARE, &ranges[i]))
			return failed(vm, "declare a VM's addresses");
	if (!populate(vm, BENCH_CODE, BENCH_CODE_BYTES, code))
		return false;
	vm->vcpu = ioctl(vm->fd, HYPERPS_VM_IOC_CREATE_VCPU, &start);
	if (vm->vcpu < 0)
		return failed(vm, "create a vCPU");
	if (!map_run(vm, PAGE))
		return false;
	if (ioctl(vm->fd, HYPERPS_VM_IOC_SEAL, 0))
		return failed(vm, "seal a VM");
	return populate(vm, 0, BENCH_CODE, NULL) &&
	       populate(vm, BENCH_CODE + BENCH_CODE_BYTES, ram_bytes - BENCH_CODE - BENCH_CODE_BYTES, NULL);
}

/* Memory that the host has present, in pages of 4 KiB, as a slot. */
static bool add_slot(struct bench_vm *vm, unsigned int slot, uint64_t gpa, uint64_t bytes)
{
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region region = {
		.slot = slot, .guest_phys_addr = gpa, .userspace_addr = (uintptr_t)memory, .memory_size = bytes
	};

	if (memory == MAP_FAILED)
		return failed(vm, "get memory for a VM");
	vm->memory[slot] = memory;
	vm->memory_bytes[slot] = bytes;
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	for (uint64_t at = 0; at < bytes; at += PAGE)
		memory[at] = 1;
	return !ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) || failed(vm, "give a VM its RAM");
}

static struct kvm_segment flat(unsigned int type)
{
	return (struct kvm_segment){
		.limit = 0xffffffff, .selector = 8, .type = type, .present = 1, .db = 1, .s = 1, .g = 1
	};
}

static bool make_kvm(struct bench_vm *vm, int device, uint64_t ram_bytes, bool touched, const char *routine)
{
	struct kvm_regs registers = { .rip = BENCH_CODE + (routine - bench_guest_begin), .rflags = 2 };
	struct kvm_sregs special;
	int bytes;

	vm->fd = ioctl(device, KVM_CREATE_VM, 0);
	if (vm->fd < 0)
		return failed(vm, "create a VM");
	if (!add_slot(vm, 0, 0, ram_bytes) || (touched && !add_slot(vm, 1, BENCH_TOUCHED, BENCH_TOUCHED_BYTES)))
		return false;
	memcpy((char *)vm->memory[0] + BENCH_CODE, bench_guest_begin, bench_guest_end - bench_guest_begin);
	vm->vcpu = ioctl(vm->fd, KVM_CREATE_VCPU, 0);
	bytes = ioctl(device, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (vm->vcpu < 0 || bytes < 0)
		return failed(vm, "create a vCPU");
	if (!map_run(vm, bytes))
		return false;
	if (ioctl(vm->vcpu, KVM_GET_SREGS, &special))
		return failed(vm, "read a vCPU's registers");
	special.cs = flat(0xb);
	special.ds = special.es = special.ss = special.fs = special.gs = flat(3);
	special.cr0 |= 1; /* PE */
	if (ioctl(vm->vcpu, KVM_SET_SREGS, &special) || ioctl(vm->vcpu, KVM_SET_REGS, &registers))
		return failed(vm, "set a vCPU's registers");
	return true;
}

bool bench_vm_make(struct bench_vm *vm, bool kvm, int device, uint64_t ram_bytes, bool touched, const char *routine)
{
	*vm = (struct bench_vm){ .kvm = kvm };
	return (kvm ? make_kvm : make_hyperps)(vm, device, ram_bytes, touched, routine);
}

/* Whether the guest reported; else what it did is answered, if it is what its routines do. */
static bool take_exit_hyperps(struct bench_vm *vm, uint32_t *ticks, bool *known)
{
	const struct hyperps_run *run = vm->run;

	*known = run->exit == HYPERPS_EXIT_OUT || run->exit == HYPERPS_EXIT_MMIO_READ;
	*ticks = run->io.data;
	return run->exit == HYPERPS_EXIT_OUT && run->io.port == BENCH_REPORT;
}

static bool take_exit_kvm(struct bench_vm *vm, uint32_t *ticks, bool *known)
{
	const struct kvm_run *run = vm->run;

	*known = run->exit_reason == KVM_EXIT_IO || run->exit_reason == KVM_EXIT_MMIO;
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != BENCH_REPORT)
		return false;
	memcpy(ticks, (const char *)run + run->io.data_offset, sizeof(*ticks));
	return true;
}

static void on_alarm(int number)
{
	(void)number;
}

/* The alarm interrupts the run, for a guest that would never end it. */
bool bench_vm_run(struct bench_vm *vm, uint32_t *ticks)
{
	struct sigaction action = { .sa_handler = on_alarm };
	bool known, reported;

	sigaction(SIGALRM, &action, NULL);
	alarm(TIME_LIMIT);
	do {
		if (!vm->kvm)
			((struct hyperps_run *)vm->run)->flags = HYPERPS_RUN_LAZY;
		if (ioctl(vm->vcpu, vm->kvm ? KVM_RUN : HYPERPS_VCPU_IOC_RUN, 0)) {
			if (errno == EINTR)
				errno = ETIMEDOUT;
			return failed(vm, "run a vCPU");
		}
		reported = (vm->kvm ? take_exit_kvm : take_exit_hyperps)(vm, ticks, &known);
		if (!known) {
			errno = EPROTO;
			return failed(vm, "run the guest to its end");
		}
	} while (!reported);
	alarm(0);
	return true;
}

void bench_vm_end(struct bench_vm *vm)
{
	int reason = errno;

	if (vm->run)
		munmap(vm->run, vm->run_bytes);
	if (vm->vcpu > 0)
		close(vm->vcpu);
	if (vm->fd > 0)
		close(vm->fd);
	for (int i = 0; i < SLOTS; i++)
		if (vm->memory[i])
			munmap(vm->memory[i], vm->memory_bytes[i]);
	errno = reason;
}

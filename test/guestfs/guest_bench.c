// SPDX-License-Identifier: MIT
/*
 * Ticks of a guest's exits for `make bench`: those that the monitor answers, those that user space does, memory that is
 * missing, and the way from nothing to the first instruction. Prints "bench NAME TICKS"; the guest counts them, but for the last.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hyperps_ioctl.h"

#define PAGE 4096UL
#define CODE 0x1000UL
#define CODE_PAGES 2
#define SMALL 0x40080000UL /* RAM in which no 2 MiB piece fits */
#define SMALL_PAGES 384UL
#define MMIO 0x10000000UL
#define LARGE_BYTES (64UL << 20)
#define COUNT 100
#define TOUCHES 128
#define RUNS 50
#define REPORT 0x22 /* port by which the guest says how many ticks its loop took */

/* Guests: flat 32-bit code; each measures its loop, reports, and begins again. */
asm(".pushsection .rodata\n"
    ".code32\n"
    "bench_begin:\n"
    "bench_cpuid:\n"
    "1:	mov	$100, %esi\n"
    "	rdtsc\n"
    "	mov	%eax, %ebp\n"
    "2:	xor	%eax, %eax\n"
    "	cpuid\n"
    "	dec	%esi\n"
    "	jnz	2b\n"
    "	rdtsc\n"
    "	sub	%ebp, %eax\n"
    "	out	%eax, $0x22\n"
    "	jmp	1b\n"
    "bench_hypercall:\n"
    "1:	mov	$100, %esi\n"
    "	rdtsc\n"
    "	mov	%eax, %ebp\n"
    "2:	xor	%eax, %eax\n"
    "	vmcall\n"
    "	dec	%esi\n"
    "	jnz	2b\n"
    "	rdtsc\n"
    "	sub	%ebp, %eax\n"
    "	out	%eax, $0x22\n"
    "	jmp	1b\n"
    "bench_out:\n"
    "1:	mov	$100, %esi\n"
    "	rdtsc\n"
    "	mov	%eax, %ebp\n"
    "2:	out	%al, $0x80\n"
    "	dec	%esi\n"
    "	jnz	2b\n"
    "	rdtsc\n"
    "	sub	%ebp, %eax\n"
    "	out	%eax, $0x22\n"
    "	jmp	1b\n"
    "bench_mmio:\n"
    "1:	mov	$100, %esi\n"
    "	rdtsc\n"
    "	mov	%eax, %ebp\n"
    "2:	mov	0x10000000, %ecx\n"
    "	dec	%esi\n"
    "	jnz	2b\n"
    "	rdtsc\n"
    "	sub	%ebp, %eax\n"
    "	out	%eax, $0x22\n"
    "	jmp	1b\n"
    "bench_touch:\n"
    "	mov	$0x40080000, %ebx\n"
    "1:	mov	$128, %esi\n"
    "	rdtsc\n"
    "	mov	%eax, %ebp\n"
    "2:	movl	$1, (%ebx)\n"
    "	add	$4096, %ebx\n"
    "	dec	%esi\n"
    "	jnz	2b\n"
    "	rdtsc\n"
    "	sub	%ebp, %eax\n"
    "	out	%eax, $0x22\n"
    "	jmp	1b\n"
    "bench_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char bench_begin[], bench_cpuid[], bench_hypercall[], bench_out[], bench_mmio[], bench_touch[],
	bench_end[];

static int device;

static int checked(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
	return result;
}

static uint64_t rdtsc(void)
{
	uint32_t low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

static void declare(int vm, uint64_t gpa, uint64_t size, uint64_t permissions)
{
	struct hyperps_vm_declare range = { gpa, size, permissions };

	checked(ioctl(vm, HYPERPS_VM_IOC_DECLARE, &range), "HYPERPS_VM_IOC_DECLARE");
}

static void populate(int vm, uint64_t gpa, uint64_t size, const void *source)
{
	struct hyperps_vm_populate request = { gpa, size, (uintptr_t)source };

	if (checked(ioctl(vm, HYPERPS_VM_IOC_POPULATE, &request), "HYPERPS_VM_IOC_POPULATE") != (int)size) {
		fprintf(stderr, "guest_bench: not all memory was populated\n");
		exit(1);
	}
}

static int make_vcpu(int vm, const char *routine, struct hyperps_run **run)
{
	struct hyperps_vm_create_vcpu start = { HYPERPS_VCPU_PROTECTED, 0, CODE + (routine - bench_begin), 0 };
	int vcpu = checked(ioctl(vm, HYPERPS_VM_IOC_CREATE_VCPU, &start), "HYPERPS_VM_IOC_CREATE_VCPU");

	*run = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (*run == MAP_FAILED)
		checked(-1, "mmap of the vCPU");
	return vcpu;
}

/* Until it reports: the ticks. */
static uint32_t run_guest(int vcpu, struct hyperps_run *run)
{
	run->flags = HYPERPS_RUN_LAZY;
	do {
		checked(ioctl(vcpu, HYPERPS_VCPU_IOC_RUN, 0), "HYPERPS_VCPU_IOC_RUN");
		if (run->exit != HYPERPS_EXIT_OUT && run->exit != HYPERPS_EXIT_MMIO_READ) {
			fprintf(stderr, "guest_bench: the guest ended with exit %u (%llu)\n", run->exit,
				(unsigned long long)run->words[0]);
			exit(1);
		}
	} while (run->exit != HYPERPS_EXIT_OUT || run->io.port != REPORT);
	return run->io.data;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* The median of the runs, which leaves out the host's timer. */
static void bench(int vcpu, struct hyperps_run *run, const char *name, unsigned int count, unsigned int runs)
{
	uint32_t ticks[RUNS];

	for (unsigned int i = 0; i < runs; i++)
		ticks[i] = run_guest(vcpu, run);
	qsort(ticks, runs, sizeof(ticks[0]), compare);
	printf("bench run.%s %u\n", name, ticks[runs / 2] / count);
}

static int make_vm(const char *code)
{
	int vm = checked(ioctl(device, HYPERPS_IOC_CREATE_VM, 0), "HYPERPS_IOC_CREATE_VM");

	declare(vm, 0, LARGE_BYTES, 7);
	declare(vm, SMALL, SMALL_PAGES * PAGE, 7);
	declare(vm, MMIO, PAGE, HYPERPS_RANGE_MMIO);
	populate(vm, CODE, CODE_PAGES * PAGE, code);
	return vm;
}

/* From nothing to the first exit of a guest whose 64 MiB are all there. */
static void bench_start(const char *code)
{
	struct hyperps_run *run;
	uint64_t start = rdtsc();
	int vm = make_vm(code), vcpu = make_vcpu(vm, bench_out, &run);

	checked(ioctl(vm, HYPERPS_VM_IOC_SEAL, 0), "HYPERPS_VM_IOC_SEAL");
	populate(vm, 0, CODE, NULL);
	populate(vm, CODE + CODE_PAGES * PAGE, LARGE_BYTES - CODE - CODE_PAGES * PAGE, NULL);
	checked(ioctl(vcpu, HYPERPS_VCPU_IOC_RUN, 0), "HYPERPS_VCPU_IOC_RUN");
	printf("bench run.start_64m %llu\n", (unsigned long long)(rdtsc() - start));
	munmap(run, PAGE);
	close(vcpu);
	close(vm);
}

int main(void)
{
	static const struct {
		const char *name, *routine;
		unsigned int count, runs;
	} routines[] = {
		{ "cpuid", bench_cpuid, COUNT, RUNS },
		{ "hypercall", bench_hypercall, COUNT, RUNS },
		{ "out_user", bench_out, COUNT, RUNS },
		{ "mmio_user", bench_mmio, COUNT, RUNS },
		{ "missing_memory", bench_touch, TOUCHES, SMALL_PAGES / TOUCHES },
	};
	enum { ROUTINES = sizeof(routines) / sizeof(routines[0]) };
	static char code[CODE_PAGES * PAGE];
	struct hyperps_run *run[ROUTINES];
	int vm, vcpu[ROUTINES];

	setvbuf(stdout, NULL, _IOLBF, 0);
	device = open(HYPERPS_DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0) {
		printf("bench-skipped guests: no %s\n", HYPERPS_DEVICE);
		return 0;
	}
	memcpy(code, bench_begin, bench_end - bench_begin);
	vm = make_vm(code);
	for (int i = 0; i < ROUTINES; i++)
		vcpu[i] = make_vcpu(vm, routines[i].routine, &run[i]);
	checked(ioctl(vm, HYPERPS_VM_IOC_SEAL, 0), "HYPERPS_VM_IOC_SEAL");
	for (int i = 0; i < ROUTINES; i++)
		bench(vcpu[i], run[i], routines[i].name, routines[i].count, routines[i].runs);
	bench_start(code);
	return 0;
}

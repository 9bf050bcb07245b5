// SPDX-License-Identifier: MIT
/*
 * KVM's figures for `make bench`, from the same kernel and emulator: a hypercall's round trip, and a guest's first touch of
 * a page that the host has present. Loads kvm_intel from /test/modules. Prints "bench NAME TICKS"; the guest counts them.
 * Under the monitor with kvm = on also "bench-exits NAME.of_100 N": exits to the monitor for each 100 of the guest; and by what.
 * Without VT-x it says so and measures nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hpsctl_format.h"
#include "monitor_device.h"

#define SIZE_4K 4096UL
#define SIZE_2M (2UL << 20)

/* The guest: flat 32-bit protected mode without paging; its addresses are guest-physical. */
#define LOW_BYTES (64UL << 10) /* slot 0: code and result */
#define CODE 0x1000
#define RESULT 0x8000
#define MEMORY (1UL << 30) /* slot 1: what is touched */

#define CALLS 100 /* for each run of the guest: so few that the timer of the host disturbs few runs */
#define CALL_RUNS 100

/* Each routine measures its loop and stores the ticks at EDI. Registers on entry: see struct kvm_regs in run_guest(). */
asm(".pushsection .rodata\n"
    ".code32\n"
    "guest_calls:\n" /* ECX calls */
    "	rdtsc\n"
    "	mov	%eax, %ebp\n"
    "1:	mov	$1, %eax\n" /* KVM_HC_VAPIC_POLL_IRQ: does nothing */
    "	vmcall\n"
    "	dec	%ecx\n"
    "	jnz	1b\n"
    "	rdtsc\n"
    "	sub	%ebp, %eax\n"
    "	mov	%eax, (%edi)\n"
    "	hlt\n"
    "guest_cpuids:\n" /* ECX times leaf 0 */
    "	mov	%ecx, %esi\n"
    "	rdtsc\n"
    "	mov	%eax, %ebp\n"
    "1:	xor	%eax, %eax\n"
    "	cpuid\n"
    "	dec	%esi\n"
    "	jnz	1b\n"
    "	rdtsc\n"
    "	sub	%ebp, %eax\n"
    "	mov	%eax, (%edi)\n"
    "	hlt\n"
    "guest_outs:\n" /* ECX bytes to port 0x80 */
    "	rdtsc\n"
    "	mov	%eax, %ebp\n"
    "1:	out	%al, $0x80\n"
    "	dec	%ecx\n"
    "	jnz	1b\n"
    "	rdtsc\n"
    "	sub	%ebp, %eax\n"
    "	mov	%eax, (%edi)\n"
    "	hlt\n"
    "guest_touches:\n" /* ECX writes, the first at EBX, ESI bytes apart */
    "	rdtsc\n"
    "	mov	%eax, %ebp\n"
    "1:	movl	$1, (%ebx)\n"
    "	add	%esi, %ebx\n"
    "	dec	%ecx\n"
    "	jnz	1b\n"
    "	rdtsc\n"
    "	sub	%ebp, %eax\n"
    "	mov	%eax, (%edi)\n"
    "	hlt\n"
    "guest_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char guest_calls[], guest_cpuids[], guest_outs[], guest_touches[], guest_end[];

static int vm, vcpu, monitor;
static struct kvm_run *shared;
static char *low;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int checked(int result, const char *what)
{
	if (result < 0)
		fail(what);
	return result;
}

static bool has_vmx(void)
{
	static char text[16384];
	FILE *file = fopen("/proc/cpuinfo", "r");

	if (!file)
		fail("/proc/cpuinfo");
	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	fclose(file);
	return strstr(text, " vmx ") || strstr(text, " vmx\n");
}

static void load_module(const char *path, const char *parameters)
{
	int file = checked(open(path, O_RDONLY | O_CLOEXEC), path);

	if (syscall(SYS_finit_module, file, parameters, 0) && errno != EEXIST)
		fail(path);
	close(file);
}

/* A slot of the guest's memory; bytes = 0 removes it, and with it all that the guest's page tables hold. */
static void set_slot(unsigned int slot, uint64_t gpa, void *memory, uint64_t bytes)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .guest_phys_addr = gpa, .userspace_addr = (uintptr_t)memory, .memory_size = bytes
	};

	checked(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
}

/* Fresh memory whose host pages are all present, each of this size. */
static char *get_memory(uint64_t bytes, uint64_t page_size)
{
	char *memory = mmap(NULL, bytes + page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		fail("mmap");
	memory += -(uintptr_t)memory & (page_size - 1);
	checked(madvise(memory, bytes, page_size == SIZE_4K ? MADV_NOHUGEPAGE : MADV_HUGEPAGE), "madvise");
	for (uint64_t at = 0; at < bytes; at += SIZE_4K)
		memory[at] = 1;
	return memory;
}

static void set_segment(struct kvm_segment *segment, unsigned int type)
{
	*segment = (struct kvm_segment){
		.limit = 0xffffffff, .selector = 8, .type = type, .present = 1, .db = 1, .s = 1, .g = 1
	};
}

static void make_guest(void)
{
	struct kvm_sregs sregs;
	int kvm = checked(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");

	vm = checked(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	low = get_memory(LOW_BYTES, SIZE_4K);
	memcpy(low + CODE, guest_calls, guest_end - guest_calls);
	set_slot(0, 0, low, LOW_BYTES);
	vcpu = checked(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	shared = mmap(NULL, checked(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE"),
		      PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (shared == MAP_FAILED)
		fail("mmap of the vCPU");
	checked(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	set_segment(&sregs.cs, 0xb);
	set_segment(&sregs.ds, 0x3);
	sregs.es = sregs.ss = sregs.fs = sregs.gs = sregs.ds;
	sregs.cr0 |= 1; /* PE */
	checked(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
}

/* Runs one of the routines; returns the ticks that it counted. */
static uint32_t run_guest(const char *routine, uint64_t address, uint64_t stride, uint64_t count)
{
	struct kvm_regs regs = { .rip = CODE + (routine - guest_calls),
				 .rflags = 2,
				 .rbx = address,
				 .rcx = count,
				 .rsi = stride,
				 .rdi = RESULT };
	uint32_t ticks;

	checked(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	do {
		checked(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
	} while (shared->exit_reason == KVM_EXIT_IO);
	if (shared->exit_reason != KVM_EXIT_HLT) {
		fprintf(stderr, "kvm_bench: the guest ended with exit reason %u\n", shared->exit_reason);
		exit(1);
	}
	memcpy(&ticks, low + RESULT, sizeof(ticks));
	return ticks;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* The median of the runs, which leaves out the host's timer, and the mean. */
static uint32_t report(const char *name, uint32_t *run, unsigned int runs, unsigned int count)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < runs; i++)
		sum += run[i];
	qsort(run, runs, sizeof(run[0]), compare);
	printf("bench %s %u\nbench %s.mean %llu\n", name, run[runs / 2] / count, name,
	       (unsigned long long)sum / runs / count);
	return run[runs / 2] / count;
}

/* Exits of the first CPU, and of its KVM VMs; false where no monitor offers VMX. */
static bool read_exits(struct hyperps_exits *host, struct hyperps_exits *guest)
{
	return monitor >= 0 && !monitor_read_exits(monitor, 0, host) &&
	       !monitor_read(monitor, HYPERPS_OBJECT_L2_EXITS, 0, 0, guest, sizeof(*guest));
}

static void report_exits(const char *name, const struct hyperps_exits *host, const struct hyperps_exits *guest)
{
	struct hyperps_exits host_now, guest_now;
	uint64_t of_host = 0, of_guest = 0;

	if (!read_exits(&host_now, &guest_now))
		return;
	for (int i = 0; i < HYPERPS_EXIT_REASONS; i++) {
		of_host += host_now.reason[i] - host->reason[i];
		of_guest += guest_now.reason[i] - guest->reason[i];
	}
	/* But for calls: reading the counters is one. */
	of_host -= host_now.vmcall - host->vmcall;
	printf("bench-exits %s.of_100 %llu\n#", name, (unsigned long long)((of_host + of_guest) * 100 / of_guest));
	for (int i = 0; i < HYPERPS_EXIT_REASONS; i++)
		if ((host_now.reason[i] - host->reason[i]) * 100 / of_guest)
			printf(" %s %llu", exit_reason_name(i),
			       (unsigned long long)((host_now.reason[i] - host->reason[i]) * 100 / of_guest));
	printf("\n");
}

static void bench_calls(const char *name, const char *routine)
{
	static uint32_t run[CALL_RUNS];
	struct hyperps_exits host, guest;
	bool counts;

	run_guest(routine, 0, 0, CALLS);
	counts = read_exits(&host, &guest);
	for (int i = 0; i < CALL_RUNS; i++)
		run[i] = run_guest(routine, 0, 0, CALLS);
	if (counts)
		report_exits(name, &host, &guest);
	report(name, run, CALL_RUNS, CALLS);
}

static uint64_t rdtsc(void)
{
	uint32_t low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

/* From nothing to the first exit of a guest whose 64 MiB the host has present; they reach the guest's view as it touches them. */
static void bench_start(void)
{
	uint64_t start = rdtsc();
	char *memory = get_memory(64UL << 20, SIZE_4K);

	make_guest();
	set_slot(1, MEMORY, memory, 64UL << 20);
	run_guest(guest_calls, 0, 0, 1);
	printf("bench kvm.start_64m %llu\n", (unsigned long long)(rdtsc() - start));
	set_slot(1, MEMORY, memory, 0);
	munmap(memory, 64UL << 20);
}

/*
 * Touches each page once, `touches` of them with each run of the guest; then again with fresh memory: the host's book-keeping
 * makes a page's very first touch the dearest.
 */
static void bench_touch(const char *name, uint64_t page_size, unsigned int pages, unsigned int touches,
			unsigned int rounds)
{
	uint64_t bytes = page_size * pages;
	unsigned int runs = pages / touches * rounds, n = 0;
	uint32_t *first = calloc(2 * runs, sizeof(first[0])), *again = first + runs, typical;

	if (!first)
		fail("calloc");
	while (rounds--) {
		char *memory = get_memory(bytes, page_size);

		set_slot(1, MEMORY, memory, bytes);
		for (uint64_t gpa = MEMORY; gpa < MEMORY + bytes; gpa += touches * page_size) {
			first[n] = run_guest(guest_touches, gpa, page_size, touches);
			again[n++] = run_guest(guest_touches, gpa + page_size / 2, page_size, touches);
		}
		set_slot(1, MEMORY, memory, 0);
		munmap(memory, bytes);
	}
	typical = report(name, first, runs, touches);
	/* Control: the first touch mapped all of a page of this size, and was a fault; the second one was none. */
	qsort(again, runs, sizeof(again[0]), compare);
	if (typical < 500 || again[runs - 1] / touches > 500) {
		fprintf(stderr, "kvm_bench: %s: the first touch of a page takes %u ticks, the second up to %u\n", name,
			typical, again[runs - 1] / touches);
		exit(1);
	}
	free(first);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!has_vmx()) {
		printf("bench-skipped kvm: this CPU shows no VT-x\n");
		return 0;
	}
	load_module("/test/modules/irqbypass.ko", "");
	load_module("/test/modules/kvm.ko", "");
	/* Bochs refuses posted-interrupt descriptors that are not page-aligned, as KVM's are. */
	load_module("/test/modules/kvm-intel.ko", "enable_apicv=0");
	monitor = monitor_open();
	make_guest();
	bench_start();
	bench_calls("kvm.hypercall", guest_calls);
	bench_calls("kvm.cpuid", guest_cpuids);
	bench_calls("kvm.out_user", guest_outs);
	bench_touch("kvm.first_touch_4k", SIZE_4K, 4096, 64, 1);
	bench_touch("kvm.first_touch_2m", SIZE_2M, 128, 16, 8);
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * A program's vector registers, with patterns in all of them, over each HYPERPS_VCPU_IOC_RUN of the guest `registers`,
 * which fills the same ones with its own and checks that these stay.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hyperps_ioctl.h"
#include "image.h"
#include "patterns.h"

#define MEMORY (16ULL << 20)
#define AREA 8192
#define HEADER 512
#define HOST_MARK 0x405706ULL
#define ROUNDS "60"

static uint8_t wanted[AREA] __attribute__((aligned(64))), before[AREA] __attribute__((aligned(64))),
	after[AREA] __attribute__((aligned(64)));
static uint64_t components;

static void component(int i, uint32_t *size, uint32_t *offset)
{
	uint32_t unused;

	__cpuid_count(13, i, *size, *offset, unused, unused);
}

static void fill(uint64_t round)
{
	uint32_t size, offset, mxcsr = 0x9fc0;

	memset(wanted, 0, AREA);
	for (int i = 0; i < 64; i++) {
		if (!(components >> i & 1))
			continue;
		component(i, &size, &offset);
		offset = i < 2 ? 160 : offset;
		size = i < 2 ? 256 : size;
		for (uint32_t at = 0; at + 8 <= size; at += 8) {
			uint64_t value = 0xa5c3ULL << 48 | HOST_MARK << 24 | (round & 0xff) << 12 | at / 8;

			memcpy(wanted + offset + at, &value, 8);
		}
		if (i == 9) { /* PKRU: key 0 is that of all pages */
			memset(wanted + offset, 0, size);
			wanted[offset] = 0x54;
		}
	}
	wanted[0] = 0x7f; /* x87: all masked, all registers in use */
	wanted[1] = 0x03;
	wanted[4] = 0xff;
	for (int i = 0; i < 8; i++)
		memset(wanted + 32 + 16 * i, 0x11 * (i + 1), 10);
	memcpy(wanted + 24, &mxcsr, 4);
	memcpy(wanted + HEADER, &components, 8);
}

/* RUN with the patterns in the registers; what they are just before and just after goes to the two areas. */
static long run(int vcpu)
{
	register long request asm("rsi") = HYPERPS_VCPU_IOC_RUN;
	register long argument asm("rdx") = 0;
	register uint32_t low asm("r8") = components, high asm("r9") = components >> 32;
	register long rdi asm("rdi") = vcpu;
	long result;

	asm volatile("mov %%r8d, %%eax\n\tmov %%r9d, %%edx\n\txrstor64 %[wanted]\n\txsave64 %[before]\n\t"
		     "mov %[number], %%eax\n\txor %%edx, %%edx\n\tsyscall\n\tmov %%rax, %%r10\n\t"
		     "mov %%r8d, %%eax\n\tmov %%r9d, %%edx\n\txsave64 %[after]\n\tmov %%r10, %%rax\n\t"
		     "fninit\n\tldmxcsr %[mxcsr]"
		     : "=a"(result), "+r"(argument), [before] "+m"(before), [after] "+m"(after)
		     : [wanted] "m"(wanted), [number] "i"(SYS_ioctl), [mxcsr] "m"((const uint32_t){ 0x1f80 }), "r"(rdi),
		       "r"(request), "r"(low), "r"(high)
		     : "rcx", "r10", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
		       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	asm volatile("vzeroupper");
	return result;
}

static bool has_mark(const uint8_t *area)
{
	for (int i = 0; i + 3 <= AREA; i++)
		if (area[i] == (PATTERN_MARK & 0xff) && area[i + 1] == (PATTERN_MARK >> 8 & 0xff) &&
		    area[i + 2] == PATTERN_MARK >> 16)
			return true;
	return false;
}

static struct hyperps_run *start(int device, int *vcpu, const char *file)
{
	struct hyperps_vm_declare range = { 0, MEMORY, 7 };
	struct image image;
	struct stat status;
	char error[200];
	int fd = open(file, O_RDONLY), vm = ioctl(device, HYPERPS_IOC_CREATE_VM, 0);
	struct hyperps_run *page;
	bool done;
	void *data;

	if (fd < 0 || fstat(fd, &status) || vm < 0)
		return NULL;
	data = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED || !image_load(&image, data, status.st_size, MEMORY, ROUNDS, error))
		return NULL;
	done = !ioctl(vm, HYPERPS_VM_IOC_DECLARE, &range);
	for (size_t i = 0; i < image.pages && done; i++) {
		struct hyperps_vm_populate request = { image.gpa[i], IMAGE_PAGE,
						       (uintptr_t)image.data + i * IMAGE_PAGE };

		done = ioctl(vm, HYPERPS_VM_IOC_POPULATE, &request) == (int)IMAGE_PAGE;
	}
	*vcpu = done ? ioctl(vm, HYPERPS_VM_IOC_CREATE_VCPU, &image.start) : -1;
	image_free(&image);
	if (*vcpu < 0 || ioctl(vm, HYPERPS_VM_IOC_SEAL, 0))
		return NULL;
	page = mmap(NULL, IMAGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, *vcpu, 0);
	if (page == MAP_FAILED)
		return NULL;
	page->flags = HYPERPS_RUN_LAZY;
	return page;
}

int main(void)
{
	unsigned long runs = 0, changed = 0, leaked = 0, kept = 0;
	uint32_t low, high, eax, ebx, ecx, edx;
	struct hyperps_run *page;
	int device = open(HYPERPS_DEVICE, O_RDWR), vcpu = -1;
	long error = 0;

	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE)) {
		puts("ok - no XSAVE here: skipped");
		return 0;
	}
	asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	components = ((uint64_t)high << 32 | low) & 0x2e7;
	page = start(device, &vcpu, "/guests/registers");
	if (!page) {
		printf("not ok - a VM for the guest: %s\n", strerror(errno));
		return 1;
	}
	do {
		fill(runs);
		memset(before, 0, AREA);
		memset(after, 0, AREA);
		error = run(vcpu);
		kept += !memcmp(before + 160, wanted + 160, 256) &&
			!memcmp(before + HEADER + 64, wanted + HEADER + 64, AREA - HEADER - 64);
		changed += memcmp(before, after, AREA) != 0;
		leaked += has_mark(after);
		runs++;
		page->answer = ~0ULL;
	} while (!error && page->exit != HYPERPS_EXIT_SHUTDOWN && page->exit != HYPERPS_EXIT_FAILED && runs < 1000000);
	printf("%s - positive control: patterns were in the registers (components %lx) in %lu of %lu runs\n",
	       kept == runs ? "ok" : "not ok", (unsigned long)components, kept, runs);
	printf("%s - all vector registers stayed in %lu runs; changed in %lu, the guest's in %lu\n",
	       !changed && !leaked && runs > 50 ? "ok" : "not ok", runs, changed, leaked);
	printf("%s - the guest found its own registers unchanged (%ld, exit %u, code %lu)\n",
	       !error && page->exit == HYPERPS_EXIT_SHUTDOWN && !page->code ? "ok" : "not ok", error, page->exit,
	       (unsigned long)page->code);
	return 0;
}

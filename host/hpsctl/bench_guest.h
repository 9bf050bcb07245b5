/* SPDX-License-Identifier: MIT */
/*
 * The same guest for hpsctl bench in a VM of /dev/hyperps and in one of /dev/kvm: flat 32-bit protected mode without paging. Each of its
 * routines reads the time-stamp counter around a loop, sends the difference to port BENCH_REPORT, and begins again.
 */
#ifndef BENCH_GUEST_H
#define BENCH_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#define BENCH_REPORT 0x22
#define BENCH_LOOP 100 /* operations in a loop; of bench_guest_touch BENCH_TOUCHES */
#define BENCH_TOUCHES 128 /* hyperps.ko fetches so many pages at a time */
#define BENCH_CODE 0x1000UL
#define BENCH_CODE_BYTES 0x1000UL
#define BENCH_MMIO 0x10000000UL /* no RAM */
#define BENCH_TOUCHED 0x40080000UL /* what bench_guest_touch writes to, from here on; no 2 MiB begin here */
#define BENCH_TOUCHED_BYTES (384UL << 12)

extern const char bench_guest_begin[], bench_guest_cpuid[], bench_guest_hypercall[], bench_guest_out[],
	bench_guest_mmio[], bench_guest_touch[], bench_guest_end[];

/* A VM with one vCPU. Descriptors below 1 are none. */
struct bench_vm {
	bool kvm;
	int fd, vcpu;
	void *run; /* the page that the vCPU shares with user space */
	uint64_t run_bytes;
	void *memory[3]; /* KVM: what backs its slots */
	uint64_t memory_bytes[3];
	const char *failed; /* what could not be done; errno has the reason */
};

/*
 * Makes a VM with RAM at [0, ram_bytes), all of it present, and a vCPU that begins at this routine. `touched`: also RAM at
 * BENCH_TOUCHED, of which the guest has nothing yet; of KVM's the host has all present. device is /dev/hyperps, or with kvm /dev/kvm.
 * False: vm->failed. bench_vm_end() in either case.
 */
bool bench_vm_make(struct bench_vm *vm, bool kvm, int device, uint64_t ram_bytes, bool touched, const char *routine);

/* Runs the guest until it reports. False: vm->failed. */
bool bench_vm_run(struct bench_vm *vm, uint32_t *ticks);

void bench_vm_end(struct bench_vm *vm);

#endif

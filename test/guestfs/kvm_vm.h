/* SPDX-License-Identifier: MIT */
/*
 * A VM of /dev/kvm's for kvm_probe.c. Its memory: LOW_BYTES from 0 on, with code, results and tables; what a test adds at MEMORY.
 * All else is a device's. What the guest executes is in kvm_guest.S.
 */
#ifndef KVM_VM_H
#define KVM_VM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "kvm_guest.h"

#define PAGE 4096UL
#define CPUID_LEAF 0x4000ffff /* the guest's own */
#define CPUID_VALUE 0x12345678
#define OUTS 64

enum mode { REAL, PROTECTED, PAE, LONG };

struct vm {
	int fd;
	char *low;
};

struct vcpu {
	struct vm *vm;
	int fd;
	struct kvm_run *run;
	uint32_t out[OUTS]; /* what it has sent to a port, and how much that was */
	unsigned int outs;
	uint32_t in; /* what it gets from a port */
	uint8_t device[PAGE]; /* what it finds where no memory is: the last 12 bits of the address count */
	unsigned int reads, writes;
};

/* A test that can't go on ends here, if result is negative. Returns result. */
int checked(int result, const char *what);

/* Memory of whole 2 MiB, not present yet, that Linux fills by pages of 4 KiB, or of 2 MiB. */
char *get_memory(uint64_t bytes, bool large);

/* bytes = 0 removes the slot. Slot 0 is low memory. */
void set_slot(struct vm *vm, unsigned int slot, uint64_t gpa, void *memory, uint64_t bytes, uint32_t flags);

void make_vm(struct vm *vm, bool irqchip);
void make_vcpu(struct vm *vm, struct vcpu *vcpu, unsigned int id);
void end_vcpu(struct vcpu *vcpu);
void end_vm(struct vm *vm);

/* Registers for a routine of the guest's: EDI has RESULT. */
void start(struct vcpu *vcpu, enum mode mode, const char *routine, uint64_t rbx, uint64_t rcx, uint64_t rsi);

/* Goes on in the guest. Returns the exit's reason, or a negative errno. */
int run(struct vcpu *vcpu);

/* Goes on; ports and devices are served. Returns what run() does on the first exit of another kind. */
int serve(struct vcpu *vcpu);

/* Word n of the guest's results. */
uint64_t result(const struct vm *vm, unsigned int n);

/* Sets an entry of real mode's interrupt table. */
void set_vector(struct vm *vm, unsigned int vector, const char *routine);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * A guest's virtual CPUs. Each has two pages of the pool: its VMCS, and a struct vcpu with all of its state that the
 * VMCS does not hold. Both are monitor memory: the host sees of a vCPU what an exit says, nothing else.
 */
#ifndef VCPU_H
#define VCPU_H

#include "cpu.h"
#include "decode.h"

/* MSRs that no VMCS field holds, and that a guest may write (policy.c) or that act on it: switched around each run. */
#define SWITCHED_MSRS 7

/* What root gives to the guest, and takes from it, when a run begins and ends. */
struct switched_state {
	u64 msr[SWITCHED_MSRS];
	u64 dr[4], dr6, cr2;
};

struct vcpu {
	struct registers regs; /* first: guest_run() */
	struct switched_state state;
	u64 xcr0, cr8;
	u64 tsc_offset, tsc_adjust; /* to monitor_time(); IA32_TSC_ADJUST */
	u64 slice_start; /* TSC at which the run began */
	const struct vm *vm; /* its number of vCPUs and its digest are constant once a vCPU runs */
	u64 handle; /* of its VM */
	u64 start[3]; /* as measured; by it a checker outside finds this page */
	hpa_t vmcs;
	u32 index;
	u32 last_cpu; /* CPU slot + 1 on which it ran last; 0: none */
	bool running; /* under mm_lock: one CPU at a time */
	bool ended; /* it can't go on */
	bool must_sync; /* an unshare is complete only when every CPU has flushed */
	bool must_flush; /* it wanted pages of the pool: some may be of use after a flush */
	enum { ANSWER_NONE, ANSWER_IN, ANSWER_MMIO } answer; /* that the last exit asks for */
	struct mmio_instruction access; /* of ANSWER_MMIO; of ANSWER_IN only the width */
	u64 exits[HYPERPS_EXIT_REASONS]; /* those that the host was told of, by basic reason */
	u8 fpu[GUEST_FPU_BYTES] __attribute__((aligned(64)));
};
_Static_assert(sizeof(struct vcpu) <= PAGE_SIZE, "struct vcpu outgrew its page");

/* Boot CPU, once: what guests may use of this CPU. */
void guest_init(void);

/* guest/run.c: likewise, for guest_init(). */
void run_init(void);

/*
 * Components of XCR0 that guests may use, 0 if the CPU has no XSAVE; and bytes of an XSAVE area with all of them, in the
 * standard format. Constant after guest_init().
 */
extern u64 guest_xcr0;
extern u32 guest_xsave_bytes;

/* How long a guest runs at most, in TSC ticks. Constant after run_init(). */
extern u64 guest_slice;

/* HYPERPS_CALL_VCPU_CREATE and _RUN: 0 and the results, or an error code. In VMX root, no lock held. */
s64 vcpu_create(const u64 argument[4], u64 *index);
s64 vcpu_run(const u64 argument[4], u64 words[8]);

/* HYPERPS_OBJECT_VM_EXITS; slot < HYPERPS_VMS. Takes mm_lock; a vCPU that runs may count meanwhile. */
void guest_describe_exits(u32 slot, struct hyperps_vm_exits *out);

/* Where an exit handler leaves the guest: back to it, or to the host with the words filled. */
enum next { RESUME_GUEST, RETURN_TO_HOST };

/* guest/exit.c: the exit that has just happened. */
enum next guest_exit_dispatch(struct vcpu *vcpu, struct cpu *cpu, u64 words[8]);

/* guest/hypercall.c. */
enum next guest_hypercall(struct vcpu *vcpu, u64 words[8]);

/* guest/ept_violation.c: EPT violations. */
enum next guest_ept_violation(struct vcpu *vcpu, u64 words[8]);

/* This vCPU can't go on: enum hyperps_failure. */
enum next vcpu_fail(struct vcpu *vcpu, u64 words[8], u64 failure);

/*
 * Enters the guest by VMLAUNCH, and again and again after each exit for which guest_exit_dispatch() says so. Returns 0;
 * 1: VM entry failed with VMfail. guest/run.asm.
 */
u64 guest_run(struct vcpu *vcpu, struct cpu *cpu, u64 words[8]);
void guest_exit(void);

#endif

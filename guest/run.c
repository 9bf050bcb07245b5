// SPDX-License-Identifier: MIT
/*
 * Running a vCPU: a call of the host's that ends at an exit which is the host's to handle. What the VMCS does not
 * switch is switched here, once for each call; exits that the monitor handles itself go straight back to the guest.
 */
#include "cpu_features.h"
#include "event.h"
#include "memory_service.h"
#include "monitor.h"
#include "stop.h"
#include "vcpu.h"
#include "vmcs.h"

#define SLICE_PER_SECOND                                                                                               \
	250 /* a run takes 4 ms at most: a VM entry in another hypervisor can take some tenths of one */
#define RUN_FLAGS HYPERPS_RUN_INTERRUPT_WINDOW
#define FIRST_EXTERNAL_VECTOR 32

/* Those that the CPU has. MISC_FEATURES_ENABLES is 0 for guests: the host's would make their CPUID fault. */
static u32 switched_msrs[SWITCHED_MSRS], msr_count;
u64 guest_slice;
static bool has_ibpb;
/* From version 2 on the architectural counters have one switch for all: they do not count what guests do. */
static bool has_counter_switch;

void run_init(void)
{
	static const u32 msrs[SWITCHED_MSRS] = {
		MSR_IA32_STAR,           MSR_IA32_LSTAR,   MSR_IA32_CSTAR,           MSR_IA32_FMASK,
		MSR_IA32_KERNEL_GS_BASE, MSR_IA32_TSC_AUX, MSR_MISC_FEATURES_ENABLES
	};
	u64 value;

	for (unsigned i = 0; i < SWITCHED_MSRS; i++)
		if (rdmsr_checked(msrs[i], &value))
			switched_msrs[msr_count++] = msrs[i];
	guest_slice = monitor.boot->tsc_hz / SLICE_PER_SECOND;
	has_ibpb = cpuid_or_zero(7).edx & BIT(CPUID_IBPB);
	has_counter_switch = (cpuid_or_zero(0xa).eax & 0xff) >= 2;
}

static void exchange(struct switched_state *out, const struct switched_state *in)
{
#pragma GCC unroll 8
	for (unsigned i = 0; i < msr_count; i++) {
		out->msr[i] = rdmsr(switched_msrs[i]);
		/* msr_count stays as it is. NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage) */
		wrmsr(switched_msrs[i], in->msr[i]);
	}
	out->dr[0] = READ_REGISTER(dr0);
	out->dr[1] = READ_REGISTER(dr1);
	out->dr[2] = READ_REGISTER(dr2);
	out->dr[3] = READ_REGISTER(dr3);
	out->dr6 = READ_REGISTER(dr6);
	out->cr2 = READ_REGISTER(cr2);
	WRITE_REGISTER(dr0, in->dr[0]);
	WRITE_REGISTER(dr1, in->dr[1]);
	WRITE_REGISTER(dr2, in->dr[2]);
	WRITE_REGISTER(dr3, in->dr[3]);
	WRITE_REGISTER(dr6, in->dr6);
	WRITE_REGISTER(cr2, in->cr2);
}

/*
 * All vector and x87 state that a guest can have, whatever the host's XCR0 leaves out; the host's other components
 * (AMX, say) stay where they are, since no guest can reach them. xcr0: what the CPU goes on with.
 */
static void exchange_fpu(u8 *out, const u8 *in, u64 xcr0)
{
	u64 mask = guest_xcr0;

	if (!mask) {
		fxsave(out);
		fxrstor(in);
		return;
	}
	CHECK(xsetbv_checked(0, xgetbv() | mask | xcr0));
	xsave(out, mask);
	xrstor(in, mask);
	CHECK(xsetbv_checked(0, xcr0));
}

/* What the host has outside of any VMCS while a guest runs, but for its vector state, which is in struct cpu. */
struct host_side {
	struct switched_state state;
	u64 xcr0, counters;
};

/*
 * Between host and guest, on both ways: nobody's branches are predicted by what the other has trained, and no buffer
 * holds the other's data (SDM, "VERW": with MD_CLEAR it overwrites them). On the way to the host exit_dispatch() flushes
 * L1.
 */
static void clear_buffers(void)
{
	static const u16 selector = SELECTOR_DATA;

	if (has_ibpb)
		wrmsr(MSR_IA32_PRED_CMD, PRED_CMD_IBPB);
	verw(&selector);
}

static void enter_side(struct cpu *cpu, struct vcpu *vcpu, struct host_side *host)
{
	cpu->vmcs_current = false;
	vmptrld(vcpu->vmcs);
	cpu->primary = monitor.boot->capabilities.guest_primary;
	cpu->vmcs_current = true;
	if (vcpu->last_cpu != cpu->slot + 1) {
		vmcs_write_root_state(cpu, (u64)guest_exit);
		/* What another run on this CPU left in the TLB, of this vCPU or of another that had its VPID. */
		if (monitor.boot->capabilities.guest_secondary & SECONDARY_VPID)
			invvpid_all();
		vcpu->last_cpu = cpu->slot + 1;
	}
	if (has_counter_switch) {
		host->counters = rdmsr(MSR_IA32_PERF_GLOBAL_CTRL);
		wrmsr(MSR_IA32_PERF_GLOBAL_CTRL, 0);
	}
	exchange(&host->state, &vcpu->state);
	host->xcr0 = guest_xcr0 ? xgetbv() : 0;
	exchange_fpu(cpu->host_fpu, vcpu->fpu, vcpu->xcr0);
	vmwrite(VMCS_TSC_OFFSET, vcpu->tsc_offset - cpu->tsc_written);
	clear_buffers();
	if (monitor.flush_l1)
		wrmsr(MSR_IA32_FLUSH_CMD, FLUSH_CMD_L1D);
}

static void leave_side(struct cpu *cpu, struct vcpu *vcpu, const struct host_side *host)
{
	vcpu->xcr0 = guest_xcr0 ? xgetbv() : 0;
	exchange_fpu(vcpu->fpu, cpu->host_fpu, host->xcr0);
	exchange(&vcpu->state, &host->state);
	if (has_counter_switch)
		/* So does has_counter_switch. NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage) */
		wrmsr(MSR_IA32_PERF_GLOBAL_CTRL, host->counters);
	/* From here on no CPU has the VMCS: the vCPU may go on anywhere, and its pages may be used anew. */
	cpu->vmcs_current = false;
	vmclear(vcpu->vmcs);
	vmcs_load_host(cpu);
	clear_buffers();
}

/* Nothing is queued, and no trap waits: an event injected before it would make it vanish. */
static bool has_room(void)
{
	return !(vmread(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VALID) && !vmread(VMCS_GUEST_PENDING_DEBUG);
}

/* Whether the guest takes an external interrupt at its next entry. */
static bool is_ready(void)
{
	return (vmread(VMCS_GUEST_RFLAGS) & RFLAGS_IF) &&
	       !(vmread(VMCS_GUEST_INTERRUPTIBILITY) & INTERRUPTIBILITY_SHADOWS) && has_room();
}

/* Queues the host's event, of which event_is_valid() holds; false if the guest can't take it now. */
static bool queue_event(u64 event)
{
	if (!event)
		return true;
	if (event == HYPERPS_EVENT_NMI) {
		if (!has_room() ||
		    (vmread(VMCS_GUEST_INTERRUPTIBILITY) & (INTERRUPTIBILITY_NMI | INTERRUPTIBILITY_MOV_SS)))
			return false;
		inject(EVENT_TYPE_NMI | VECTOR_NMI);
		return true;
	}
	if (!is_ready())
		return false;
	inject(EVENT_TYPE_EXTERNAL | (event & EVENT_VECTOR));
	return true;
}

static bool event_is_valid(u64 event)
{
	return !event || event == HYPERPS_EVENT_NMI ||
	       ((event & ~EVENT_VECTOR) == HYPERPS_EVENT_INTERRUPT && (event & EVENT_VECTOR) >= FIRST_EXTERNAL_VECTOR);
}

/* The last exit was an IN or an MMIO read: the guest gets the answer, cut to the access's width. */
static void take_answer(struct vcpu *vcpu, u64 answer)
{
	if (vcpu->answer == ANSWER_NONE)
		return;
	vcpu->regs.value[REGISTER_RSP] = vmread(VMCS_GUEST_RSP);
	mmio_read_result(&vcpu->access, answer, vcpu->regs.value);
	vmwrite(VMCS_GUEST_RSP, vcpu->regs.value[REGISTER_RSP]);
	vcpu->answer = ANSWER_NONE;
}

enum next vcpu_fail(struct vcpu *vcpu, u64 words[8], u64 failure)
{
	vcpu->ended = true;
	words[0] = HYPERPS_EXIT_FAILED;
	words[1] = failure;
	return RETURN_TO_HOST;
}

/* Until there is something for the host. */
static void run(struct cpu *cpu, struct vcpu *vcpu, u64 words[8])
{
	vmwrite(VMCS_PREEMPTION_TIMER, guest_slice >> monitor.boot->capabilities.timer_rate);
	vcpu->slice_start = rdtsc();
	/* An NMI after this look makes the guest exit as soon as it takes NMIs: latch_event(). */
	if (!cpu->latched && guest_run(vcpu, cpu, words))
		vcpu_fail(vcpu, words, HYPERPS_FAILURE_STATE);
}

static s64 run_here(struct vcpu *vcpu, const u64 argument[4], u64 words[8])
{
	struct cpu *cpu = this_cpu();
	struct host_side host;
	s64 result = HYPERPS_OK, error;
	u64 left = 0;

	/* What an earlier exit of this vCPU left to do, a piece of it. */
	if (vcpu->must_sync) {
		error = serve_memory_call(HYPERPS_CALL_VM_SYNC, (const u64[4]){ vcpu->handle }, &left);
		vcpu->must_sync = error || left;
		if (vcpu->must_sync) {
			words[0] = (error ? HYPERPS_EXIT_ROOM : HYPERPS_EXIT_INTERRUPTED) | HYPERPS_EXIT_NOT_ENTERED;
			return HYPERPS_OK;
		}
	}
	vcpu->must_flush = vcpu->must_flush && !memory_flush();
	/* After all that can take long: whoever stops this CPU without an NMI reckons with a slice at most. */
	stop_if_asked();
	enter_side(cpu, vcpu, &host);
	if (!queue_event(argument[3])) {
		result = HYPERPS_ERROR_AGAIN;
	} else {
		if (argument[1] & HYPERPS_RUN_INTERRUPT_WINDOW)
			cpu->primary |= (u32)PRIMARY_INTERRUPT_WINDOW_EXITING;
		vmwrite(VMCS_PRIMARY_CONTROLS, cpu->primary);
		take_answer(vcpu, argument[2]);
		run(cpu, vcpu, words);
		words[0] |= is_ready() ? HYPERPS_EXIT_READY : 0;
	}
	leave_side(cpu, vcpu, &host);
	return result;
}

s64 vcpu_run(const u64 argument[4], u64 words[8])
{
	u64 index = (u32)argument[1];
	struct mm *mm = memory_lock();
	s64 result = mm_enter(mm, argument[0]);
	struct vcpu *vcpu = NULL;

	if (!result) {
		const struct vm *vm = mm_find_vm(mm, argument[0]);

		if (index < vm->vcpus)
			vcpu = vm->vcpu[index].state;
		if (!vcpu || ((argument[1] ^ index) & ~RUN_FLAGS) || !event_is_valid(argument[3]))
			result = HYPERPS_ERROR_INVALID;
		else if (vcpu->running || vcpu->ended || vm->kvm.is_kvm)
			result = HYPERPS_ERROR_STATE;
		else
			vcpu->running = true;
		if (result)
			mm_leave(mm, argument[0]);
	}
	memory_unlock();
	if (result)
		return result;
	result = run_here(vcpu, argument, words);
	memory_lock();
	vcpu->running = false;
	mm_leave(mm, argument[0]);
	memory_unlock();
	return result;
}

// SPDX-License-Identifier: MIT
/*
 * Calls of the host (hyperps/abi.h). Registers in, registers out: the monitor maps and reads no memory of the host's.
 */
#include "emulate.h"
#include "gate_view.h"
#include "host_cpu.h"
#include "log.h"
#include "memory_service.h"
#include "iommu.h"
#include "monitor.h"
#include "nested.h"
#include "page_pool.h"
#include "vcpu.h"

/* Features that this version makes use of where the CPUs have them. */
#define FEATURES_USED                                                                                                  \
	(BIT(HYPERPS_FEATURE_EPT_1G) | BIT(HYPERPS_FEATURE_VPID) | BIT(HYPERPS_FEATURE_UNRESTRICTED_GUEST) |           \
	 BIT(HYPERPS_FEATURE_SMEP) | BIT(HYPERPS_FEATURE_PREEMPTION_TIMER) | BIT(HYPERPS_FEATURE_SMAP))
#define FEATURES_OF_GATE (BIT(HYPERPS_FEATURE_VMFUNC) | BIT(HYPERPS_FEATURE_EPT_EXECUTE_ONLY))

static u32 feature_state(u32 feature)
{
	if (feature == HYPERPS_FEATURE_VTD)
		return iommu_count()               ? HYPERPS_FEATURE_IN_USE
		       : monitor.boot->dma.unit[0] ? HYPERPS_FEATURE_FOUND
						   : HYPERPS_FEATURE_MISSING_CPU;
	if (!monitor.boot->capabilities.feature[feature])
		return HYPERPS_FEATURE_MISSING_CPU;
	FOR_EACH_CPU (cpu)
		if (cpu->state == HYPERPS_CPU_STATE_IN_VMX && !cpu->capabilities.feature[feature])
			return HYPERPS_FEATURE_MISSING_SOME_CPU;
	if (BIT(feature) & (FEATURES_USED | (gate_state == HYPERPS_GATE_OFFERED ? FEATURES_OF_GATE : 0)))
		return HYPERPS_FEATURE_IN_USE;
	return HYPERPS_FEATURE_FOUND;
}

static void fill_status(struct hyperps_status *status)
{
	const struct boot_info *boot = monitor.boot;

	_Static_assert(sizeof(VERSION) <= sizeof(status->version), "version too long");
	_Static_assert(HYPERPS_FEATURES <= ARRAY_SIZE(status->features), "features don't fit");
	*status = (struct hyperps_status){
		.size = sizeof(*status),
		.abi_version = HYPERPS_ABI_VERSION,
		.version = VERSION,
		.cpus_listed = boot->cpu_count,
		.cpu_slots = boot->cpu_slots,
		.memory_base = boot->region_base,
		.memory_size = boot->region_size,
		.memory_free = page_pool_available(&monitor.pool) * PAGE_SIZE,
		.physical_address_bits = monitor.boot->capabilities.physical_address_bits,
		.view_4k = monitor.host_view.leaves[1],
		.view_2m = monitor.host_view.leaves[2],
		.view_1g = monitor.host_view.leaves[3],
		.monitor_cr3 = boot->final_cr3,
		.host_view_eptp = monitor.host_eptp,
		.refused_memory = refusals[REFUSED_MEMORY],
		.refused_msr = refusals[REFUSED_MSR],
		.refused_instruction = refusals[REFUSED_INSTRUCTION],
		.refused_register = refusals[REFUSED_REGISTER],
		.refused_gate = refusals[REFUSED_GATE],
		.gate = gate_state,
		.log_lost = log_lines_lost,
		.tsc_hz = boot->tsc_hz,
		.kvm_pool_base = boot->kvm_pool_base,
		.kvm_pool_size = boot->kvm_pool_size,
	};
	FOR_EACH_CPU (cpu) {
		status->cpus_taken += cpu->state == HYPERPS_CPU_STATE_IN_VMX;
		status->gate_cpus += cpu->gate.on;
		status->kvm_tables_used += cpu->nested ? cpu->nested->shadow.used : 0;
		status->kvm_tables += cpu->nested ? cpu->nested->shadow.count : 0;
	}
	if (monitor.kvm)
		status->flags |= HYPERPS_FLAG_KVM;
	for (u32 i = 0; !monitor.kvm && i < sizeof(status->kvm) - 1 && monitor.kvm_reason[i]; i++)
		status->kvm[i] = monitor.kvm_reason[i];
	iommu_describe(status);
	if (monitor.other_cpus_taken)
		status->flags |= HYPERPS_FLAG_ALL_CPUS_TAKEN;
	for (u32 feature = 0; feature < HYPERPS_FEATURES; feature++)
		status->features[feature] = feature_state(feature);
}

static void fill_exits(struct hyperps_exits *exits, const struct cpu *cpu, const u64 *reason, u64 vmcall)
{
	*exits = (struct hyperps_exits){ .apic_id = cpu->apic_id, .state = cpu->state, .vmcall = vmcall };
	for (u32 i = 0; reason && i < HYPERPS_EXIT_REASONS; i++) {
		exits->reason[i] = reason[i];
		exits->total += reason[i];
	}
}

static void fill_frames(struct hyperps_frames *frames)
{
	*frames = (struct hyperps_frames){ .table_base = hpa_of(monitor.marks.mark).value,
					   .table_frames = monitor.marks.frames };
	for (u32 state = 0; state < HYPERPS_FRAME_STATES; state++)
		frames->count[state] = monitor.marks.count[state];
}

/* Not inline: its frame would cost every call. */
static __attribute__((noinline)) s64 read_object(u64 object_and_index, u64 offset, u64 words[8])
{
	/* All of them end in zeros up to the next whole piece. */
	union {
		struct hyperps_status status;
		struct hyperps_exits exits;
		struct hyperps_frames frames;
		struct hyperps_vm vm;
		struct hyperps_measurement measurement;
		struct hyperps_vm_exits vm_exits;
		u64 words[ALIGN_UP(sizeof(struct hyperps_vm_exits), HYPERPS_READ_BYTES) / sizeof(u64)];
	} object = { .words = { 0 } };
	u32 index = object_and_index >> 32;
	const struct cpu *cpu;
	u64 size;

	if (offset % HYPERPS_READ_BYTES)
		return HYPERPS_ERROR_INVALID;
	switch ((u32)object_and_index) {
	case HYPERPS_OBJECT_STATUS:
		size = sizeof(object.status);
		/* Once for a reader of all pieces. */
		if (!offset)
			iommu_count_faults();
		fill_status(&object.status);
		break;
	case HYPERPS_OBJECT_LOG:
		return index == 0 && log_read(offset, words) ? HYPERPS_OK : HYPERPS_ERROR_INVALID;
	case HYPERPS_OBJECT_EXITS:
	case HYPERPS_OBJECT_L2_EXITS:
		if (index >= monitor.boot->cpu_slots)
			return HYPERPS_ERROR_NO_CPU;
		size = sizeof(object.exits);
		cpu = cpu_of_slot(index);
		if ((u32)object_and_index == HYPERPS_OBJECT_EXITS)
			fill_exits(&object.exits, cpu, cpu->exits, cpu->exits_vmcall);
		else
			fill_exits(&object.exits, cpu, cpu->nested ? cpu->nested->exits : NULL, 0);
		break;
	case HYPERPS_OBJECT_FRAMES:
		size = sizeof(object.frames);
		fill_frames(&object.frames);
		break;
	case HYPERPS_OBJECT_VM:
		if (index >= HYPERPS_VMS)
			return HYPERPS_ERROR_INVALID;
		size = sizeof(object.vm);
		mm_describe(memory_lock(), index, &object.vm);
		memory_unlock();
		break;
	case HYPERPS_OBJECT_MEASUREMENT:
		if (index >= HYPERPS_VMS)
			return HYPERPS_ERROR_INVALID;
		size = sizeof(object.measurement);
		mm_describe_measurement(memory_lock(), index, &object.measurement);
		memory_unlock();
		break;
	case HYPERPS_OBJECT_VM_EXITS:
		if (index >= HYPERPS_VMS)
			return HYPERPS_ERROR_INVALID;
		size = sizeof(object.vm_exits);
		guest_describe_exits(index, &object.vm_exits);
		break;
	default:
		return HYPERPS_ERROR_INVALID;
	}
	if (offset >= size)
		return HYPERPS_ERROR_INVALID;
	__builtin_memcpy(words, &object.words[offset / sizeof(u64)], HYPERPS_READ_BYTES);
	return HYPERPS_OK;
}

static s64 serve(u64 call, const u64 argument[4], u64 words[8])
{
	s64 result;

	switch (call) {
	case HYPERPS_CALL_READ:
		return read_object(argument[0], argument[1], words);
	case HYPERPS_CALL_GATE_SET:
		memory_lock();
		result = gate_set(this_cpu(), argument[0], argument[1], &words[0]);
		memory_unlock();
		return result;
	case HYPERPS_CALL_TAKE_CPUS:
		return take_other_cpus();
	case HYPERPS_CALL_VCPU_CREATE:
		return vcpu_create(argument, &words[0]);
	case HYPERPS_CALL_VCPU_RUN:
		return vcpu_run(argument, words);
	case HYPERPS_CALL_VM_CREATE ... HYPERPS_CALL_POOL_DONATE:
		return serve_memory_call(call, argument, &words[0]);
	default:
		return HYPERPS_ERROR_NO_CALL;
	}
}

void serve_call(struct registers *regs)
{
	static const u8 result_registers[8] = { REGISTER_RBX, REGISTER_RDX, REGISTER_RSI, REGISTER_RDI,
						REGISTER_R8,  REGISTER_R9,  REGISTER_R10, REGISTER_R11 };
	u64 words[8] = { 0 };
	s64 result = HYPERPS_OK;

	if (regs->value[REGISTER_RAX] == HYPERPS_CALL_IDENTIFY) {
		words[0] = HYPERPS_SIGNATURE;
		words[1] = HYPERPS_ABI_VERSION;
	} else {
		result = serve(regs->value[REGISTER_RAX],
			       (const u64[]){ regs->value[REGISTER_RDI], regs->value[REGISTER_RSI],
					      regs->value[REGISTER_RDX], regs->value[REGISTER_R8] },
			       words);
	}
	regs->value[REGISTER_RAX] = (u64)result;
	if (result < 0)
		return;
#pragma GCC unroll 8
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		regs->value[result_registers[i]] = words[i];
}

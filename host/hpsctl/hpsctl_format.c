// SPDX-License-Identifier: MIT
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hpsctl_format.h"
#include "json.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define FRAME_BYTES 4096
#define VM_MEMORY_LEAST (2 << 20) /* what there may be below 1 MiB is no memory for VMs */

static const char *const exit_reasons[] = {
	[0] = "exception or NMI",
	[1] = "external interrupt",
	[2] = "triple fault",
	[3] = "INIT signal",
	[4] = "start-up IPI",
	[5] = "I/O SMI",
	[6] = "other SMI",
	[7] = "interrupt window",
	[8] = "NMI window",
	[9] = "task switch",
	[10] = "CPUID",
	[11] = "GETSEC",
	[12] = "HLT",
	[13] = "INVD",
	[14] = "INVLPG",
	[15] = "RDPMC",
	[16] = "RDTSC",
	[17] = "RSM",
	[18] = "VMCALL",
	[19] = "VMCLEAR",
	[20] = "VMLAUNCH",
	[21] = "VMPTRLD",
	[22] = "VMPTRST",
	[23] = "VMREAD",
	[24] = "VMRESUME",
	[25] = "VMWRITE",
	[26] = "VMXOFF",
	[27] = "VMXON",
	[28] = "control-register access",
	[29] = "MOV DR",
	[30] = "I/O instruction",
	[31] = "RDMSR",
	[32] = "WRMSR",
	[33] = "VM-entry failure, guest state",
	[34] = "VM-entry failure, MSR loading",
	[36] = "MWAIT",
	[37] = "monitor trap flag",
	[39] = "MONITOR",
	[40] = "PAUSE",
	[41] = "VM-entry failure, machine check",
	[43] = "TPR below threshold",
	[44] = "APIC access",
	[45] = "virtualized EOI",
	[46] = "access to GDTR or IDTR",
	[47] = "access to LDTR or TR",
	[48] = "EPT violation",
	[49] = "EPT misconfiguration",
	[50] = "INVEPT",
	[51] = "RDTSCP",
	[52] = "VMX-preemption timer expired",
	[53] = "INVVPID",
	[54] = "WBINVD",
	[55] = "XSETBV",
	[56] = "APIC write",
	[57] = "RDRAND",
	[58] = "INVPCID",
	[59] = "VMFUNC",
	[60] = "ENCLS",
	[61] = "RDSEED",
	[62] = "page-modification log full",
	[63] = "XSAVES",
	[64] = "XRSTORS",
	[65] = "PCONFIG",
	[66] = "SPP-related event",
	[67] = "UMWAIT",
	[68] = "TPAUSE",
	[69] = "LOADIWKEY",
	[70] = "ENCLV",
	[72] = "ENQCMD PASID translation failure",
	[73] = "ENQCMDS PASID translation failure",
	[74] = "bus lock",
	[75] = "instruction timeout",
	[76] = "SEAMCALL",
	[77] = "TDCALL",
	[78] = "RDMSRLIST",
	[79] = "WRMSRLIST",
};

static const struct {
	const char *key;
	const char *text;
} features[HYPERPS_FEATURES] = {
	[HYPERPS_FEATURE_EPT_1G] = { "ept_1g", "1 GiB pages in EPT" },
	[HYPERPS_FEATURE_EPT_EXECUTE_ONLY] = { "ept_execute_only", "execute-only pages in EPT" },
	[HYPERPS_FEATURE_VPID] = { "vpid", "VPID" },
	[HYPERPS_FEATURE_UNRESTRICTED_GUEST] = { "unrestricted_guest", "unrestricted guest" },
	[HYPERPS_FEATURE_VMFUNC] = { "vmfunc", "VMFUNC with EPTP switching" },
	[HYPERPS_FEATURE_MODE_BASED_EXECUTE] = { "mode_based_execute", "mode-based execute control" },
	[HYPERPS_FEATURE_PREEMPTION_TIMER] = { "preemption_timer", "VMX-preemption timer" },
	[HYPERPS_FEATURE_SMEP] = { "smep", "SMEP" },
	[HYPERPS_FEATURE_SMAP] = { "smap", "SMAP" },
	[HYPERPS_FEATURE_RDCL_NO] = { "rdcl_no", "no leak of L1 data (RDCL_NO)" },
	[HYPERPS_FEATURE_VTD] = { "vtd", "DMA remapping (VT-d)" },
};

const char *feature_key(unsigned int feature)
{
	return features[feature].key;
}

const char *feature_text(unsigned int feature)
{
	return features[feature].text;
}

static const struct {
	const char *key;
	const char *text;
} feature_states[] = {
	[HYPERPS_FEATURE_IN_USE] = { "in_use", "in use" },
	[HYPERPS_FEATURE_FOUND] = { "found", "found, not in use" },
	[HYPERPS_FEATURE_MISSING_CPU] = { "missing_cpu", "missing: the CPU lacks it" },
	[HYPERPS_FEATURE_MISSING_SOME_CPU] = { "missing_some_cpu", "missing: not every CPU has it" },
	[HYPERPS_FEATURE_NOT_BUILT] = { "not_built", "missing: this version of HyperPS lacks it" },
};

static const struct {
	const char *key;
	const char *text;
} gate_states[] = {
	[HYPERPS_GATE_OFFERED] = { "offered", "the gate is offered, but on no CPU in use" },
	[HYPERPS_GATE_CONF] = { "conf", "gate = vmcall in hyperps.conf" },
	[HYPERPS_GATE_CPU] = { "cpu", "a CPU lacks VMFUNC, execute-only pages, SMEP or SMAP" },
	[HYPERPS_GATE_L1] = { "l1", "a CPU leaks L1 data; gate = vmfunc in hyperps.conf insists" },
	[HYPERPS_GATE_MEMORY] = { "memory", "the monitor's memory lies where the gate's code is not safe" },
};

const char *exit_reason_name(unsigned int reason)
{
	return reason < ARRAY_SIZE(exit_reasons) ? exit_reasons[reason] : NULL;
}

static void print_reason(FILE *out, unsigned int reason, int width)
{
	char number[16];
	const char *name = exit_reason_name(reason);

	if (!name)
		snprintf(number, sizeof(number), "reason %u", reason);
	fprintf(out, "%-*s", width, name ? name : number);
}

/* The reason as a JSON key: lower case, with every run of other characters as one underscore. */
static const char *reason_key(unsigned int reason, char key[64])
{
	const char *name = exit_reason_name(reason);
	size_t used = 0;

	if (!name) {
		snprintf(key, 64, "reason_%u", reason);
		return key;
	}
	for (; *name && used < 62; name++) {
		if (!isalnum((unsigned char)*name))
			continue;
		if (used && !isalnum((unsigned char)name[-1]))
			key[used++] = '_';
		key[used++] = (char)tolower((unsigned char)*name);
	}
	key[used] = 0;
	return key;
}

static void print_size(FILE *out, uint64_t bytes)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes;
	size_t unit = 0;

	for (; value >= 1024 && unit + 1 < ARRAY_SIZE(units); unit++)
		value /= 1024;
	fprintf(out, "%.*f %s", value == (double)(uint64_t)value ? 0 : 1, value, units[unit]);
}

static int all_cpus_taken(const struct hyperps_status *status)
{
	return (status->flags & HYPERPS_FLAG_ALL_CPUS_TAKEN) != 0;
}

static int dma_protected(const struct hyperps_status *status)
{
	return (status->flags & HYPERPS_FLAG_DMA_PROTECTED) != 0;
}

/* Bytes that VMs have or can be given. */
static uint64_t vm_memory(const struct hyperps_frames *frames)
{
	return (frames->count[HYPERPS_FRAME_HOST] + frames->count[HYPERPS_FRAME_PRIVATE] +
		frames->count[HYPERPS_FRAME_SHARED] + frames->count[HYPERPS_FRAME_TO_VM] +
		frames->count[HYPERPS_FRAME_TO_HOST]) *
	       FRAME_BYTES;
}

static int has_kvm(const struct hyperps_status *status)
{
	return (status->flags & HYPERPS_FLAG_KVM) != 0;
}

static int vms_protected(const struct hyperps_status *status, const struct hyperps_frames *frames)
{
	return all_cpus_taken(status) && vm_memory(frames) >= VM_MEMORY_LEAST;
}

static void print_protection(FILE *out, const struct hyperps_status *status, const struct hyperps_frames *frames)
{
	fprintf(out, "\nProtection\n");
	if (all_cpus_taken(status))
		fprintf(out, "  yes  the monitor's own memory is hidden from the host's CPUs\n");
	else
		fprintf(out,
			"  NO   !!! NOT ALL CPUS ARE UNDER THE MONITOR: %" PRIu64 " of %" PRIu64 " are known to be.\n"
			"       Code on another CPU can read and change all memory, the monitor included. See hpsctl "
			"log.\n",
			status->cpus_taken, status->cpus_listed);
	fprintf(out, "  %s  %.*s\n", dma_protected(status) ? "yes" : "NO ", (int)sizeof(status->dma), status->dma);
	if (!dma_protected(status))
		fprintf(out, "       A device that is not held back reaches all memory, the monitor included.\n");
	if (all_cpus_taken(status) && !vms_protected(status, frames))
		fprintf(out, "  NO   !!! NO MEMORY CAN BE GIVEN TO A VM: the firmware's MTRRs made none write-back at "
			     "the boot.\n"
			     "       Correct the firmware setup, or update the firmware.\n");
	else
		fprintf(out, "  %s  memory given to a VM, and its guest's registers, are hidden from the host's CPUs\n",
			vms_protected(status, frames) ? "yes" : "NO ");
}

static void print_gate(FILE *out, const struct hyperps_status *status)
{
	fprintf(out, "Calls by        ");
	if (status->gate == HYPERPS_GATE_OFFERED && status->gate_cpus)
		fprintf(out, "the gate (VMFUNC) on %" PRIu64 " CPUs; VMCALL elsewhere\n", status->gate_cpus);
	else
		fprintf(out, "VMCALL: %s\n",
			status->gate < ARRAY_SIZE(gate_states) ? gate_states[status->gate].text : "unknown reason");
}

void format_status_text(FILE *out, const struct hyperps_status *status, const struct hyperps_frames *frames)
{
	fprintf(out, "HyperPS %.*s is running below this kernel (interface version %" PRIu64 ")\n\n",
		(int)sizeof(status->version), status->version, status->abi_version);
	fprintf(out,
		"CPUs            %" PRIu64 " of %" PRIu64 " listed by the firmware are in VMX (%" PRIu64 " slots)%s\n",
		status->cpus_taken, status->cpus_listed, status->cpu_slots,
		all_cpus_taken(status) ? "" : "  !!! NOT ALL");
	fprintf(out, "TSC             %" PRIu64 ".%03" PRIu64 " MHz\n", status->tsc_hz / 1000000,
		status->tsc_hz / 1000 % 1000);
	fprintf(out, "Monitor memory  0x%" PRIx64 "-0x%" PRIx64 ", ", status->memory_base,
		status->memory_base + status->memory_size - 1);
	print_size(out, status->memory_size);
	fprintf(out, ", of which free ");
	print_size(out, status->memory_free);
	fprintf(out, "\nMemory for VMs  ");
	print_size(out, vm_memory(frames));
	fprintf(out, ": write-back, and left to the host by the firmware");
	fprintf(out,
		"\nHost view       %" PRIu64 " address bits; pages: %" PRIu64 " of 4 KiB, %" PRIu64
		" of 2 MiB, %" PRIu64 " of 1 GiB\n",
		status->physical_address_bits, status->view_4k, status->view_2m, status->view_1g);
	fprintf(out,
		"Refused so far  memory accesses %" PRIu64 ", MSR accesses %" PRIu64 ", instructions %" PRIu64
		", register writes %" PRIu64 ", at the gate %" PRIu64 ", devices' requests %" PRIu64 "\n",
		status->refused_memory, status->refused_msr, status->refused_instruction, status->refused_register,
		status->refused_gate, status->refused_dma);
	print_gate(out, status);
	if (has_kvm(status))
		fprintf(out,
			"KVM in the host VMX is offered; page tables of its VMs %" PRIu64 " of %" PRIu64 " in use\n",
			status->kvm_tables_used, status->kvm_tables);
	else
		fprintf(out, "KVM in the host no: %.*s\n", (int)sizeof(status->kvm), status->kvm);
	fprintf(out, "Log             %" PRIu64 " messages lost\n", status->log_lost);

	fprintf(out, "\nFeatures\n");
	for (size_t i = 0; i < HYPERPS_FEATURES; i++) {
		uint32_t state = status->features[i];

		fprintf(out, "  %-30s%s\n", features[i].text,
			state < ARRAY_SIZE(feature_states) ? feature_states[state].text : "unknown state");
	}
	print_protection(out, status, frames);
}

void format_status_json(FILE *out, const struct hyperps_status *status, const struct hyperps_frames *frames)
{
	static const struct json_field fields[] = {
		JSON_FIELD(hyperps_status, abi_version),      JSON_FIELD(hyperps_status, cpus_listed),
		JSON_FIELD(hyperps_status, cpu_slots),        JSON_FIELD(hyperps_status, cpus_taken),
		JSON_FIELD(hyperps_status, memory_base),      JSON_FIELD(hyperps_status, memory_size),
		JSON_FIELD(hyperps_status, memory_free),      JSON_FIELD(hyperps_status, physical_address_bits),
		JSON_FIELD(hyperps_status, view_4k),          JSON_FIELD(hyperps_status, view_2m),
		JSON_FIELD(hyperps_status, view_1g),          JSON_FIELD(hyperps_status, monitor_cr3),
		JSON_FIELD(hyperps_status, host_view_eptp),   JSON_FIELD(hyperps_status, refused_memory),
		JSON_FIELD(hyperps_status, refused_msr),      JSON_FIELD(hyperps_status, refused_instruction),
		JSON_FIELD(hyperps_status, refused_register), JSON_FIELD(hyperps_status, refused_gate),
		JSON_FIELD(hyperps_status, gate_cpus),        JSON_FIELD(hyperps_status, log_lost),
		JSON_FIELD(hyperps_status, tsc_hz),           JSON_FIELD(hyperps_status, dma_units),
		JSON_FIELD(hyperps_status, refused_dma),      JSON_FIELD(hyperps_status, kvm_pool_base),
		JSON_FIELD(hyperps_status, kvm_pool_size),    JSON_FIELD(hyperps_status, kvm_tables_used),
		JSON_FIELD(hyperps_status, kvm_tables),
	};
	struct json json = { .out = out };

	json_begin_lines(&json, NULL, '{');
	json_text(&json, "version", status->version, sizeof(status->version));
	json_fields(&json, status, fields, ARRAY_SIZE(fields));
	json_number(&json, "memory_for_vms", vm_memory(frames));
	json_text_or_null(&json, "gate",
			  status->gate < ARRAY_SIZE(gate_states) ? gate_states[status->gate].key : "unknown");
	json_text(&json, "kvm", has_kvm(status) ? "on" : status->kvm, has_kvm(status) ? 2 : sizeof(status->kvm));
	json_bool(&json, "all_cpus_taken", all_cpus_taken(status));
	json_bool(&json, "monitor_memory_protected", all_cpus_taken(status));
	json_bool(&json, "vm_memory_protected", vms_protected(status, frames));
	json_bool(&json, "dma_protected", dma_protected(status));
	json_text(&json, "dma", status->dma, sizeof(status->dma));
	json_begin_lines(&json, "features", '{');
	for (size_t i = 0; i < HYPERPS_FEATURES; i++) {
		uint32_t state = status->features[i];

		json_text_or_null(&json, features[i].key,
				  state < ARRAY_SIZE(feature_states) ? feature_states[state].key : "unknown");
	}
	json_end(&json);
	json_end(&json);
}

static uint64_t reason_total(const struct exits_table *table, unsigned int reason)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < table->count; i++)
		sum += table->column[i].reason[reason];
	return sum;
}

static uint64_t column_total(const struct exits_column *column)
{
	uint64_t sum = 0;

	for (unsigned int reason = 0; reason < HYPERPS_EXIT_REASONS; reason++)
		sum += column->reason[reason];
	return sum;
}

/* Counters that are read while they grow may seem to go back. */
static uint64_t grown(uint64_t before, uint64_t after)
{
	return after > before ? after - before : 0;
}

bool exits_since(struct exits_table *difference, const struct exits_table *before, const struct exits_table *after)
{
	*difference = *after;
	difference->column = calloc(after->count + 1, sizeof(*after->column));
	for (size_t i = 0; difference->column && i < after->count; i++) {
		struct exits_column *column = &difference->column[i];

		*column = after->column[i];
		for (size_t k = 0; k < before->count; k++) {
			const struct exits_column *old = &before->column[k];

			if (old->number != column->number || old->id != column->id)
				continue;
			column->calls = grown(old->calls, column->calls);
			for (unsigned int reason = 0; reason < HYPERPS_EXIT_REASONS; reason++)
				column->reason[reason] = grown(old->reason[reason], column->reason[reason]);
		}
	}
	return difference->column;
}

#define NAME_WIDTH 34

/* A count, or how many of it a second. */
static void print_count(FILE *out, const struct exits_table *table, uint64_t count)
{
	if (table->seconds > 0)
		fprintf(out, "%12.1f", (double)count / table->seconds);
	else
		fprintf(out, "%12" PRIu64, count);
}

/* A line's last columns: the sum, and with rates what they are made of. */
static void print_sum(FILE *out, const struct exits_table *table, uint64_t sum)
{
	print_count(out, table, sum);
	if (table->seconds > 0)
		fprintf(out, "%12" PRIu64, sum);
	fputc('\n', out);
}

static void print_exits_head(FILE *out, const struct exits_table *table)
{
	fprintf(out, "%-*s", NAME_WIDTH,
		table->seconds > 0 ? "VM exits per second"
		: table->l2        ? "VM exits of the host's own VMs"
				   : "VM exits by reason");
	for (size_t i = 0; i < table->count; i++)
		fprintf(out, "    %3s %4u", table->vms ? "VM" : "CPU", table->column[i].number);
	fprintf(out, "%12s", "total");
	if (table->seconds > 0)
		fprintf(out, "  in %5.1f s", table->seconds);
	fputc('\n', out);
	if (table->vms)
		return;
	fprintf(out, "%-*s", NAME_WIDTH, "  APIC ID");
	for (size_t i = 0; i < table->count; i++)
		fprintf(out, "%12" PRIu64, table->column[i].id);
	fputc('\n', out);
}

void format_exits_text(FILE *out, const struct exits_table *table)
{
	uint64_t total = 0, calls = 0;

	print_exits_head(out, table);
	for (unsigned int reason = 0; reason < HYPERPS_EXIT_REASONS; reason++) {
		uint64_t sum = reason_total(table, reason);

		total += sum;
		if (!sum)
			continue;
		print_reason(out, reason, NAME_WIDTH);
		for (size_t i = 0; i < table->count; i++)
			print_count(out, table, table->column[i].reason[reason]);
		print_sum(out, table, sum);
	}
	fprintf(out, "%-*s", NAME_WIDTH, "all exits");
	for (size_t i = 0; i < table->count; i++)
		print_count(out, table, column_total(&table->column[i]));
	print_sum(out, table, total);
	if (table->vms || table->l2)
		return;
	fprintf(out, "%-*s", NAME_WIDTH, "  of these, calls to the monitor");
	for (size_t i = 0; i < table->count; i++) {
		print_count(out, table, table->column[i].calls);
		calls += table->column[i].calls;
	}
	print_sum(out, table, calls);
	for (size_t i = 0; i < table->count; i++)
		if (!table->column[i].in_vmx)
			fprintf(out, "!!! CPU %u (APIC ID %" PRIu64 ") is not in VMX\n", table->column[i].number,
				table->column[i].id);
}

static void put_column(struct json *json, const struct exits_table *table, const struct exits_column *column)
{
	char key[64];

	json_begin(json, NULL, '{');
	json_number(json, "slot", column->number);
	json_number(json, table->vms ? "handle" : "apic_id", column->id);
	if (!table->vms)
		json_bool(json, "in_vmx", column->in_vmx);
	json_number(json, "total", column_total(column));
	if (!table->vms && !table->l2)
		json_number(json, "vmcall", column->calls);
	json_begin(json, "reasons", '{');
	for (unsigned int reason = 0; reason < HYPERPS_EXIT_REASONS; reason++)
		if (column->reason[reason])
			json_number(json, reason_key(reason, key), column->reason[reason]);
	json_end(json);
	json_end(json);
}

void format_exits_json(FILE *out, const struct exits_table *table)
{
	struct json json = { .out = out };
	uint64_t total = 0, calls = 0;
	char key[64];

	json_begin_lines(&json, NULL, '{');
	json_begin_lines(&json, table->vms ? "vms" : "cpus", '[');
	for (size_t i = 0; i < table->count; i++) {
		put_column(&json, table, &table->column[i]);
		total += column_total(&table->column[i]);
		calls += table->column[i].calls;
	}
	json_end(&json);
	json_number(&json, "total", total);
	if (!table->vms && !table->l2)
		json_number(&json, "vmcall", calls);
	json_begin_lines(&json, "reasons", '{');
	for (unsigned int reason = 0; reason < HYPERPS_EXIT_REASONS; reason++)
		if (reason_total(table, reason))
			json_number(&json, reason_key(reason, key), reason_total(table, reason));
	json_end(&json);
	json_end(&json);
}

static const struct {
	const char *key;
	const char *text;
} frame_states[HYPERPS_FRAME_STATES] = {
	[HYPERPS_FRAME_DEVICE] = { "device", "the firmware's, or not write-back" },
	[HYPERPS_FRAME_HOST] = { "host", "the host's" },
	[HYPERPS_FRAME_MONITOR] = { "monitor", "the monitor's" },
	[HYPERPS_FRAME_PRIVATE] = { "private", "private to a VM" },
	[HYPERPS_FRAME_SHARED] = { "shared", "shared by a VM with the host" },
	[HYPERPS_FRAME_TO_VM] = { "to_vm", "on the way to a VM" },
	[HYPERPS_FRAME_TO_HOST] = { "to_host", "on the way back to the host" },
	[HYPERPS_FRAME_TO_MONITOR] = { "to_monitor", "on the way to or from the monitor" },
	[HYPERPS_FRAME_ORPHAN] = { "orphan", "left by a KVM VM that is gone" },
};

void format_frames_text(FILE *out, const struct hyperps_frames *frames)
{
	fprintf(out, "%-36s%12s\n", "4 KiB frames of RAM", "frames");
	for (size_t i = 0; i < HYPERPS_FRAME_STATES; i++)
		fprintf(out, "  %-34s%12" PRIu64 "\n", frame_states[i].text, frames->count[i]);
	fprintf(out, "%-36s%12" PRIu64 "\n", "all that have a page mark", frames->table_frames);
}

void format_frames_json(FILE *out, const struct hyperps_frames *frames)
{
	struct json json = { .out = out };

	json_begin_lines(&json, NULL, '{');
	json_number(&json, "table_base", frames->table_base);
	json_number(&json, "table_frames", frames->table_frames);
	for (size_t i = 0; i < HYPERPS_FRAME_STATES; i++)
		json_number(&json, frame_states[i].key, frames->count[i]);
	json_end(&json);
}

static const char *vm_state_name(uint64_t state)
{
	static const char *const names[] = {
		[HYPERPS_VM_FREE] = "free",   [HYPERPS_VM_OPEN] = "open", [HYPERPS_VM_SEALED] = "sealed",
		[HYPERPS_VM_DYING] = "dying", [HYPERPS_VM_DEAD] = "dead", [HYPERPS_VM_SEALING] = "sealing",
	};

	return state < ARRAY_SIZE(names) ? names[state] : "unknown";
}

void format_vms_text(FILE *out, const struct hyperps_vm *slots, size_t count)
{
	size_t vms = 0;

	for (size_t i = 0; i < count; i++) {
		const struct hyperps_vm *vm = &slots[i];

		if (vm->state == HYPERPS_VM_FREE)
			continue;
		if (!vms++)
			fprintf(out, "slot  state    ranges      frames     pending       4 KiB       2 MiB  size\n");
		fprintf(out, "%4zu  %-7s%8" PRIu64 "%12" PRIu64 "%12" PRIu64 "%12" PRIu64 "%12" PRIu64 "  ", i,
			vm_state_name(vm->state), vm->ranges, vm->frames, vm->pending, vm->view_4k, vm->view_2m);
		print_size(out, vm->frames * FRAME_BYTES);
		fputc('\n', out);
	}
	if (!vms)
		fprintf(out, "no VMs\n");
}

void format_vms_json(FILE *out, const struct hyperps_vm *slots, size_t count)
{
	static const struct json_field fields[] = {
		{ "pending", offsetof(struct hyperps_vm, pending) },
		{ "pages_4k", offsetof(struct hyperps_vm, view_4k) },
		{ "pages_2m", offsetof(struct hyperps_vm, view_2m) },
	};
	struct json json = { .out = out };

	json_begin_lines(&json, NULL, '{');
	json_begin_lines(&json, "vms", '[');
	for (size_t i = 0; i < count; i++) {
		const struct hyperps_vm *vm = &slots[i];

		if (vm->state == HYPERPS_VM_FREE)
			continue;
		json_begin(&json, NULL, '{');
		json_number(&json, "slot", i);
		json_text_or_null(&json, "state", vm_state_name(vm->state));
		json_number(&json, "ranges", vm->ranges);
		json_number(&json, "frames", vm->frames);
		json_number(&json, "bytes", vm->frames * FRAME_BYTES);
		json_fields(&json, vm, fields, ARRAY_SIZE(fields));
		json_end(&json);
	}
	json_end(&json);
	json_end(&json);
}

static const struct {
	const char *key;
	const char *text;
} failures[] = {
	[0] = { "unknown", "unknown reason" },
	[HYPERPS_FAILURE_TRIPLE_FAULT] = { "triple_fault", "triple fault" },
	[HYPERPS_FAILURE_STATE] = { "state", "the CPU refuses its state" },
	[HYPERPS_FAILURE_INSTRUCTION] = { "instruction", "MMIO by an instruction that the monitor does not know" },
};

const char *failure_name(uint64_t failure)
{
	return failures[failure < ARRAY_SIZE(failures) ? failure : 0].key;
}

const char *failure_text(uint64_t failure)
{
	return failures[failure < ARRAY_SIZE(failures) ? failure : 0].text;
}

void format_run_json(FILE *out, const struct run_result *result)
{
	static const char *const names[HYPERPS_EXITS] = {
		[HYPERPS_EXIT_INTERRUPTED] = "interrupted",
		[HYPERPS_EXIT_OUT] = "out",
		[HYPERPS_EXIT_IN] = "in",
		[HYPERPS_EXIT_MMIO_WRITE] = "mmio_write",
		[HYPERPS_EXIT_MMIO_READ] = "mmio_read",
		[HYPERPS_EXIT_HLT] = "hlt",
		[HYPERPS_EXIT_MEMORY] = "memory",
		[HYPERPS_EXIT_INTERRUPT_WINDOW] = "interrupt_window",
		[HYPERPS_EXIT_CONSOLE] = "console",
		[HYPERPS_EXIT_SHARED] = "shared",
		[HYPERPS_EXIT_UNSHARED] = "unshared",
		[HYPERPS_EXIT_RELEASED] = "released",
		[HYPERPS_EXIT_ROOM] = "room",
		[HYPERPS_EXIT_SHUTDOWN] = "shutdown",
		[HYPERPS_EXIT_FAILED] = "failed",
	};
	struct json json = { .out = out };

	json_begin(&json, NULL, '{');
	json_number(&json, "exit_code", (unsigned int)result->exit_code);
	json_text_or_null(&json, "end", result->end);
	json_text_or_null(&json, "failure", result->failure);
	json_text_or_null(&json, "message", result->message);
	json_text_or_null(&json, "measurement", result->measurement);
	json_begin(&json, "exits", '{');
	for (size_t i = 0; i < HYPERPS_EXITS; i++)
		if (result->exits[i])
			json_number(&json, names[i], result->exits[i]);
	json_end(&json);
	json_end(&json);
}

#define DEMO_LINE "%-39s %-14s %s\n"

void format_demo_header(FILE *out, const struct demo_result *result)
{
	fprintf(out, DEMO_LINE, "It tries to ...", "its own page", result->target);
}

static const char *next_line(const char *line)
{
	line += strcspn(line, "\n");
	return line + (*line == '\n');
}

/* Without "hyperps: cpuN: ", so that it fits into 80 columns. */
static void print_log_line(FILE *out, const char *line, size_t length)
{
	size_t skip = 0;

	for (size_t i = 0, colons = 0; i + 1 < length && colons < 2; i++)
		if (line[i] == ':' && line[i + 1] == ' ' && ++colons == 2)
			skip = i + 2;
	fputs("  log: ", out);
	for (size_t i = skip; i < length; i++)
		fputc(isprint((unsigned char)line[i]) ? line[i] : '?', out);
	fputc('\n', out);
}

void format_demo_attack(FILE *out, const struct demo_attack *attack)
{
	fprintf(out, DEMO_LINE, attack->text, attack->control ? "works" : "FAILS",
		attack->refused ? "refused" : "NOT REFUSED");
	if (*attack->note)
		fprintf(out, "  %s\n", attack->note);
	for (const char *line = attack->log; *line; line = next_line(line))
		print_log_line(out, line, strcspn(line, "\n"));
}

void format_demo_json(FILE *out, const struct demo_result *result)
{
	static const struct json_field fields[] = {
		{ "frames", offsetof(struct demo_result, frames) },
		{ "frames_not_zero_when_given", offsetof(struct demo_result, given_not_zero) },
		{ "frames_readable_before_end", offsetof(struct demo_result, readable_before) },
		{ "frames_readable_after_end", offsetof(struct demo_result, readable_after) },
		{ "frames_not_zero_after_end", offsetof(struct demo_result, not_zero_after) },
	};
	struct json json = { .out = out };

	json_begin_lines(&json, NULL, '{');
	json_bool(&json, "passed", !*result->message);
	json_text_or_null(&json, "message", result->message);
	json_text_or_null(&json, "target", result->target);
	json_text_or_null(&json, "measurement", result->measurement);
	json_text_or_null(&json, "fingerprint", result->fingerprint);
	json_text_or_null(&json, "hmac", result->mac);
	json_text_or_null(&json, "hmac_after", result->mac_after);
	json_begin_lines(&json, "attacks", '[');
	for (size_t i = 0; i < result->attacks; i++) {
		const struct demo_attack *attack = &result->attack[i];

		json_begin(&json, NULL, '{');
		json_text_or_null(&json, "attack", attack->key);
		json_bool(&json, "works_on_own_page", attack->control);
		json_bool(&json, "refused", attack->refused);
		json_number(&json, "refusals_counted", attack->counted);
		/* The note is the first line. */
		json_begin(&json, "lines", '[');
		json_text(&json, NULL, attack->note, sizeof(attack->note));
		for (const char *line = attack->log; *line; line = next_line(line))
			json_text(&json, NULL, line, strcspn(line, "\n"));
		json_end(&json);
		json_end(&json);
	}
	json_end(&json);
	json_fields(&json, result, fields, ARRAY_SIZE(fields));
	json_end(&json);
}

void format_log(FILE *out, const struct hyperps_log *log, const char *ring)
{
	uint64_t length = log->written < log->size ? log->written : log->size;
	int skip_line = log->written > log->size;
	char last = '\n';

	for (uint64_t i = log->written - length; i < log->written; i++) {
		char c = ring[i % log->size];

		if (skip_line) {
			skip_line = c != '\n';
			continue;
		}
		last = isprint((unsigned char)c) || c == '\n' || c == '\t' ? c : '?';
		fputc(last, out);
	}
	if (last != '\n')
		fputc('\n', out);
}

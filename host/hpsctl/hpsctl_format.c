// SPDX-License-Identifier: MIT
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "hpsctl_format.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define FRAME_BYTES 4096

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
static void print_reason_key(FILE *out, unsigned int reason)
{
	const char *name = exit_reason_name(reason);
	int gap = 0;

	if (!name) {
		fprintf(out, "\"reason_%u\"", reason);
		return;
	}
	fputc('"', out);
	for (; *name; name++) {
		if (!isalnum((unsigned char)*name)) {
			gap = 1;
			continue;
		}
		if (gap)
			fputc('_', out);
		gap = 0;
		fputc(tolower((unsigned char)*name), out);
	}
	fputc('"', out);
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

static void print_json_string(FILE *out, const char *text, size_t size)
{
	fputc('"', out);
	for (size_t i = 0; i < size && text[i]; i++) {
		if (text[i] == '"' || text[i] == '\\')
			fputc('\\', out);
		fputc(isprint((unsigned char)text[i]) ? text[i] : '?', out);
	}
	fputc('"', out);
}

static int all_cpus_taken(const struct hyperps_status *status)
{
	return (status->flags & HYPERPS_FLAG_ALL_CPUS_TAKEN) != 0;
}

static int dma_protected(const struct hyperps_status *status)
{
	return (status->flags & HYPERPS_FLAG_DMA_PROTECTED) != 0;
}

static void print_protection(FILE *out, const struct hyperps_status *status)
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
	if (dma_protected(status))
		fprintf(out, "  yes  devices reach only the memory that they may (VT-d)\n");
	else
		fprintf(out,
			"  NO   DMA is not protected: a host that programs a device can reach all memory, the monitor\n"
			"       included, until HyperPS drives VT-d\n");
	fprintf(out, "  %s  memory given to a VM, and its guest's registers, are hidden from the host's CPUs\n",
		all_cpus_taken(status) ? "yes" : "NO ");
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

void format_status_text(FILE *out, const struct hyperps_status *status)
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
	fprintf(out,
		"\nHost view       %" PRIu64 " address bits; pages: %" PRIu64 " of 4 KiB, %" PRIu64
		" of 2 MiB, %" PRIu64 " of 1 GiB\n",
		status->physical_address_bits, status->view_4k, status->view_2m, status->view_1g);
	fprintf(out,
		"Refused so far  memory accesses %" PRIu64 ", MSR accesses %" PRIu64 ", instructions %" PRIu64
		", register writes %" PRIu64 ", at the gate %" PRIu64 "\n",
		status->refused_memory, status->refused_msr, status->refused_instruction, status->refused_register,
		status->refused_gate);
	print_gate(out, status);
	fprintf(out, "Log             %" PRIu64 " messages lost\n", status->log_lost);

	fprintf(out, "\nFeatures\n");
	for (size_t i = 0; i < HYPERPS_FEATURES; i++) {
		uint32_t state = status->features[i];

		fprintf(out, "  %-30s%s\n", features[i].text,
			state < ARRAY_SIZE(feature_states) ? feature_states[state].text : "unknown state");
	}
	print_protection(out, status);
}

void format_status_json(FILE *out, const struct hyperps_status *status)
{
	const struct {
		const char *key;
		uint64_t value;
	} numbers[] = {
		{ "abi_version", status->abi_version },
		{ "cpus_listed", status->cpus_listed },
		{ "cpu_slots", status->cpu_slots },
		{ "cpus_taken", status->cpus_taken },
		{ "memory_base", status->memory_base },
		{ "memory_size", status->memory_size },
		{ "memory_free", status->memory_free },
		{ "physical_address_bits", status->physical_address_bits },
		{ "view_4k", status->view_4k },
		{ "view_2m", status->view_2m },
		{ "view_1g", status->view_1g },
		{ "monitor_cr3", status->monitor_cr3 },
		{ "host_view_eptp", status->host_view_eptp },
		{ "refused_memory", status->refused_memory },
		{ "refused_msr", status->refused_msr },
		{ "refused_instruction", status->refused_instruction },
		{ "refused_register", status->refused_register },
		{ "refused_gate", status->refused_gate },
		{ "gate_cpus", status->gate_cpus },
		{ "log_lost", status->log_lost },
		{ "tsc_hz", status->tsc_hz },
	};

	fprintf(out, "{\n  \"version\": ");
	print_json_string(out, status->version, sizeof(status->version));
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		fprintf(out, ",\n  \"%s\": %" PRIu64, numbers[i].key, numbers[i].value);
	fprintf(out, ",\n  \"gate\": \"%s\"",
		status->gate < ARRAY_SIZE(gate_states) ? gate_states[status->gate].key : "unknown");
	fprintf(out, ",\n  \"all_cpus_taken\": %s", all_cpus_taken(status) ? "true" : "false");
	fprintf(out, ",\n  \"monitor_memory_protected\": %s", all_cpus_taken(status) ? "true" : "false");
	fprintf(out, ",\n  \"dma_protected\": %s", dma_protected(status) ? "true" : "false");
	fprintf(out, ",\n  \"features\": {");
	for (size_t i = 0; i < HYPERPS_FEATURES; i++) {
		uint32_t state = status->features[i];

		fprintf(out, "%s\n    \"%s\": \"%s\"", i ? "," : "", features[i].key,
			state < ARRAY_SIZE(feature_states) ? feature_states[state].key : "unknown");
	}
	fprintf(out, "\n  }\n}\n");
}

static uint64_t reason_total(const struct hyperps_exits *cpus, size_t count, unsigned int reason)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += cpus[i].reason[reason];
	return sum;
}

void format_exits_text(FILE *out, const struct hyperps_exits *cpus, size_t count, size_t first_slot)
{
	const int name_width = 34;
	uint64_t total = 0, calls = 0;

	fprintf(out, "%-*s", name_width, "VM exits by reason");
	for (size_t i = 0; i < count; i++)
		fprintf(out, "    CPU %4zu", first_slot + i);
	fprintf(out, "%12s\n%-*s", "total", name_width, "  APIC ID");
	for (size_t i = 0; i < count; i++)
		fprintf(out, "%12" PRIu64, cpus[i].apic_id);
	fprintf(out, "\n");
	for (unsigned int reason = 0; reason < HYPERPS_EXIT_REASONS; reason++) {
		uint64_t sum = reason_total(cpus, count, reason);

		if (!sum)
			continue;
		print_reason(out, reason, name_width);
		for (size_t i = 0; i < count; i++)
			fprintf(out, "%12" PRIu64, cpus[i].reason[reason]);
		fprintf(out, "%12" PRIu64 "\n", sum);
	}
	fprintf(out, "%-*s", name_width, "all exits");
	for (size_t i = 0; i < count; i++) {
		fprintf(out, "%12" PRIu64, cpus[i].total);
		total += cpus[i].total;
	}
	fprintf(out, "%12" PRIu64 "\n%-*s", total, name_width, "  of these, calls to the monitor");
	for (size_t i = 0; i < count; i++) {
		fprintf(out, "%12" PRIu64, cpus[i].vmcall);
		calls += cpus[i].vmcall;
	}
	fprintf(out, "%12" PRIu64 "\n", calls);
	for (size_t i = 0; i < count; i++)
		if (cpus[i].state != HYPERPS_CPU_STATE_IN_VMX)
			fprintf(out, "!!! CPU %zu (APIC ID %" PRIu64 ") is not in VMX\n", first_slot + i,
				cpus[i].apic_id);
}

void format_exits_json(FILE *out, const struct hyperps_exits *cpus, size_t count, size_t first_slot)
{
	uint64_t total = 0, calls = 0;
	const char *separator;

	fprintf(out, "{\n  \"cpus\": [");
	for (size_t i = 0; i < count; i++) {
		fprintf(out,
			"%s\n    {\"slot\": %zu, \"apic_id\": %" PRIu64 ", \"in_vmx\": %s, \"total\": %" PRIu64
			", \"vmcall\": %" PRIu64 ", \"reasons\": {",
			i ? "," : "", first_slot + i, cpus[i].apic_id,
			cpus[i].state == HYPERPS_CPU_STATE_IN_VMX ? "true" : "false", cpus[i].total, cpus[i].vmcall);
		separator = "";
		for (unsigned int reason = 0; reason < HYPERPS_EXIT_REASONS; reason++) {
			if (!cpus[i].reason[reason])
				continue;
			fputs(separator, out);
			print_reason_key(out, reason);
			fprintf(out, ": %" PRIu64, cpus[i].reason[reason]);
			separator = ", ";
		}
		fprintf(out, "}}");
		total += cpus[i].total;
		calls += cpus[i].vmcall;
	}
	fprintf(out, "\n  ],\n  \"total\": %" PRIu64 ",\n  \"vmcall\": %" PRIu64 ",\n  \"reasons\": {", total, calls);
	separator = "\n    ";
	for (unsigned int reason = 0; reason < HYPERPS_EXIT_REASONS; reason++) {
		uint64_t sum = reason_total(cpus, count, reason);

		if (!sum)
			continue;
		fputs(separator, out);
		print_reason_key(out, reason);
		fprintf(out, ": %" PRIu64, sum);
		separator = ",\n    ";
	}
	fprintf(out, "\n  }\n}\n");
}

static const struct {
	const char *key;
	const char *text;
} frame_states[HYPERPS_FRAME_STATES] = {
	[HYPERPS_FRAME_DEVICE] = { "device", "kept by the firmware" },
	[HYPERPS_FRAME_HOST] = { "host", "the host's" },
	[HYPERPS_FRAME_MONITOR] = { "monitor", "the monitor's" },
	[HYPERPS_FRAME_PRIVATE] = { "private", "private to a VM" },
	[HYPERPS_FRAME_SHARED] = { "shared", "shared by a VM with the host" },
	[HYPERPS_FRAME_TO_VM] = { "to_vm", "on the way to a VM" },
	[HYPERPS_FRAME_TO_HOST] = { "to_host", "on the way back to the host" },
	[HYPERPS_FRAME_TO_MONITOR] = { "to_monitor", "on the way to or from the monitor" },
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
	fprintf(out, "{\n  \"table_base\": %" PRIu64 ",\n  \"table_frames\": %" PRIu64, frames->table_base,
		frames->table_frames);
	for (size_t i = 0; i < HYPERPS_FRAME_STATES; i++)
		fprintf(out, ",\n  \"%s\": %" PRIu64, frame_states[i].key, frames->count[i]);
	fprintf(out, "\n}\n");
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
	const char *separator = "";

	fprintf(out, "{\n  \"vms\": [");
	for (size_t i = 0; i < count; i++) {
		const struct hyperps_vm *vm = &slots[i];

		if (vm->state == HYPERPS_VM_FREE)
			continue;
		fprintf(out,
			"%s\n    {\"slot\": %zu, \"state\": \"%s\", \"ranges\": %" PRIu64 ", \"frames\": %" PRIu64
			", \"bytes\": %" PRIu64 ", \"pending\": %" PRIu64 ", \"pages_4k\": %" PRIu64
			", \"pages_2m\": %" PRIu64 "}",
			separator, i, vm_state_name(vm->state), vm->ranges, vm->frames, vm->frames * FRAME_BYTES,
			vm->pending, vm->view_4k, vm->view_2m);
		separator = ",";
	}
	fprintf(out, "\n  ]\n}\n");
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

static void print_json_string_or_null(FILE *out, const char *key, const char *text)
{
	fprintf(out, ", \"%s\": ", key);
	if (text && *text)
		print_json_string(out, text, strlen(text));
	else
		fputs("null", out);
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
	const char *separator = "";

	fprintf(out, "{\"exit_code\": %d", result->exit_code);
	print_json_string_or_null(out, "end", result->end);
	print_json_string_or_null(out, "failure", result->failure);
	print_json_string_or_null(out, "message", result->message);
	print_json_string_or_null(out, "measurement", result->measurement);
	fprintf(out, ", \"exits\": {");
	for (size_t i = 0; i < HYPERPS_EXITS; i++) {
		if (!result->exits[i])
			continue;
		fprintf(out, "%s\"%s\": %" PRIu64, separator, names[i], result->exits[i]);
		separator = ", ";
	}
	fprintf(out, "}}\n");
}

#define DEMO_LINE "%-39s %-14s %s\n"

void format_demo_header(FILE *out, const struct demo_result *result)
{
	fprintf(out, DEMO_LINE, "It tries to ...", "its own page", result->target);
}

/* Calls print(out, line, length) for each line. */
static void print_lines(FILE *out, const char *text, void (*print)(FILE *out, const char *line, size_t length))
{
	for (size_t length; *text; text += length + (text[length] == '\n')) {
		length = strcspn(text, "\n");
		print(out, text, length);
	}
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
	print_lines(out, attack->log, print_log_line);
}

static void print_log_string(FILE *out, const char *line, size_t length)
{
	fputs(", ", out);
	print_json_string(out, line, length);
}

void format_demo_json(FILE *out, const struct demo_result *result)
{
	const char *separator = "";

	fprintf(out, "{\n  \"passed\": %s", *result->message ? "false" : "true");
	print_json_string_or_null(out, "message", result->message);
	print_json_string_or_null(out, "target", result->target);
	print_json_string_or_null(out, "measurement", result->measurement);
	print_json_string_or_null(out, "fingerprint", result->fingerprint);
	print_json_string_or_null(out, "hmac", result->mac);
	print_json_string_or_null(out, "hmac_after", result->mac_after);
	fputs(",\n  \"attacks\": [", out);
	for (size_t i = 0; i < result->attacks; i++) {
		const struct demo_attack *attack = &result->attack[i];

		fprintf(out, "%s\n    {\"attack\": \"%s\", \"works_on_own_page\": %s, \"refused\": %s", separator,
			attack->key, attack->control ? "true" : "false", attack->refused ? "true" : "false");
		fprintf(out, ", \"refusals_counted\": %" PRIu64, attack->counted);
		/* The note is the first line. */
		fputs(", \"lines\": [", out);
		print_json_string(out, attack->note, sizeof(attack->note));
		print_lines(out, attack->log, print_log_string);
		fputs("]}", out);
		separator = ",";
	}
	fprintf(out,
		"\n  ],\n  \"frames\": %" PRIu64 ",\n  \"frames_not_zero_when_given\": %" PRIu64
		",\n  \"frames_readable_before_end\": %" PRIu64 ",\n  \"frames_readable_after_end\": %" PRIu64
		",\n  \"frames_not_zero_after_end\": %" PRIu64 "\n}\n",
		result->frames, result->given_not_zero, result->readable_before, result->readable_after,
		result->not_zero_after);
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

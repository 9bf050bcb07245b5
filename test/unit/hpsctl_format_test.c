// SPDX-License-Identifier: MIT
/* host/hpsctl/hpsctl_format.c: what is said about protection, log rings at every fill, and hostile bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "hpsctl_format.h"

static char *text;
static size_t length;

static FILE *open_text(void)
{
	return open_memstream(&text, &length);
}

static void assert_has(const char *part)
{
	if (!strstr(text, part))
		fail_msg("\"%s\" is not in: %s", part, text);
}

static struct hyperps_status sample(void)
{
	return (struct hyperps_status){ .size = sizeof(struct hyperps_status),
					.abi_version = 1,
					.version = "1.2\"\x01",
					.flags = HYPERPS_FLAG_ALL_CPUS_TAKEN,
					.cpus_listed = 4,
					.cpus_taken = 4,
					.dma = "DMA is not held back: no DMAR table",
					.memory_base = 0x40000000,
					.memory_size = 4 << 20 };
}

static const struct hyperps_frames frames = { .count = { [HYPERPS_FRAME_DEVICE] = 1 << 18,
							 [HYPERPS_FRAME_HOST] = 511,
							 [HYPERPS_FRAME_MONITOR] = 1024,
							 [HYPERPS_FRAME_PRIVATE] = 1 } };

static void protection_is_said_plainly(void **state)
{
	struct hyperps_status status = sample();
	FILE *out = open_text();

	(void)state;
	format_status_text(out, &status, &frames);
	fclose(out);
	assert_has("4 of 4");
	assert_has("0x40000000-0x403fffff, 4 MiB");
	assert_has("\n  NO   DMA is not held back: no DMAR table\n       A device that is not held back reaches all "
		   "memory");
	assert_null(strstr(text, "NOT ALL"));
	free(text);
	status.flags = 0;
	status.cpus_taken = 3;
	out = open_text();
	format_status_text(out, &status, &frames);
	fclose(out);
	assert_has("NOT ALL CPUS ARE UNDER THE MONITOR: 3 of 4");
	free(text);
}

static void dma_is_said(void **state)
{
	struct hyperps_status status = sample();
	FILE *out = open_text();

	(void)state;
	status.flags |= HYPERPS_FLAG_DMA_PROTECTED;
	status.dma_units = 3;
	status.refused_dma = 55;
	memset(status.dma, 'x', sizeof(status.dma)); /* no NUL */
	memcpy(status.dma, "DMA is held back", 16);
	format_status_text(out, &status, &frames);
	fclose(out);
	assert_has("\n  yes  DMA is held backxxx");
	assert_has(", devices' requests 55\n");
	assert_null(strstr(text, "reaches all"));
	free(text);
	out = open_text();
	format_status_json(out, &status, &frames);
	fclose(out);
	assert_has("\"dma_units\": 3,");
	assert_has("\"refused_dma\": 55,");
	assert_has("\"dma_protected\": true,");
	assert_has("xxx\",\n  \"features\"");
	assert_has("\"dma\": \"DMA is held back");
	free(text);
}

static const char *vm_memory_line(const struct hyperps_status *status, const struct hyperps_frames *counts, bool json)
{
	FILE *out = open_text();

	if (json)
		format_status_json(out, status, counts);
	else
		format_status_text(out, status, counts);
	fclose(out);
	return strstr(text, json ? "\"vm_memory_protected\": true" : "yes  memory given to a VM");
}

/* Where no memory can be given to a VM none is protected. */
static void memory_for_vms_is_said(void **state)
{
	struct hyperps_status status = sample();
	struct hyperps_frames less = frames;

	(void)state;
	assert_non_null(vm_memory_line(&status, &frames, false));
	assert_has("Memory for VMs  2 MiB");
	free(text);
	assert_non_null(vm_memory_line(&status, &frames, true));
	assert_has("\"memory_for_vms\": 2097152,");
	free(text);
	/* What VMs have counts, whatever becomes of it. */
	less.count[HYPERPS_FRAME_HOST] = 0;
	less.count[HYPERPS_FRAME_TO_VM] = less.count[HYPERPS_FRAME_TO_HOST] = less.count[HYPERPS_FRAME_SHARED] = 170;
	less.count[HYPERPS_FRAME_PRIVATE] = 2;
	assert_non_null(vm_memory_line(&status, &less, false));
	free(text);
	less.count[HYPERPS_FRAME_PRIVATE] = 1;
	assert_null(vm_memory_line(&status, &less, false));
	assert_has("NO   !!! NO MEMORY CAN BE GIVEN TO A VM");
	free(text);
	assert_null(vm_memory_line(&status, &less, true));
	assert_has("\"vm_memory_protected\": false");
	free(text);
	status.flags = 0;
	assert_null(vm_memory_line(&status, &frames, false));
	assert_has("NO   memory given to a VM");
	free(text);
	assert_null(vm_memory_line(&status, &frames, true));
	free(text);
}

static void json_is_well_formed(void **state)
{
	struct hyperps_status status = sample();
	FILE *out = open_text();
	int depth = 0, quoted = 0;

	(void)state;
	status.features[3] = 77; /* from a newer monitor */
	format_status_json(out, &status, &frames);
	fclose(out);
	assert_has("\"cpus_taken\": 4");
	assert_has("1.2\\\"?");
	for (size_t i = 0; i < length; i++) {
		if (text[i] == '"' && (i == 0 || text[i - 1] != '\\'))
			quoted = !quoted;
		if (!quoted)
			depth += (text[i] == '{') - (text[i] == '}');
		assert_true(text[i] == '\n' || (unsigned char)text[i] >= ' ');
	}
	assert_int_equal(depth, 0);
	assert_int_equal(quoted, 0);
	free(text);
}

static void gate_is_said(void **state)
{
	struct hyperps_status status = sample();
	FILE *out = open_text();

	(void)state;
	status.gate_cpus = 4;
	status.refused_gate = 77;
	format_status_text(out, &status, &frames);
	fclose(out);
	assert_has("the gate (VMFUNC) on 4 CPUs");
	assert_has("at the gate 77,");
	free(text);
	out = open_text();
	format_status_json(out, &status, &frames);
	fclose(out);
	assert_has("\"gate\": \"offered\"");
	assert_has("\"gate_cpus\": 4,");
	assert_has("\"refused_gate\": 77,");
	free(text);
	status.gate_cpus = 0;
	for (status.gate = 0; status.gate < 7; status.gate++) {
		out = open_text();
		format_status_text(out, &status, &frames);
		fclose(out);
		assert_has(status.gate > HYPERPS_GATE_MEMORY ? "VMCALL: unknown reason" : "Calls by        VMCALL: ");
		free(text);
	}
}

static void kvm_is_said(void **state)
{
	struct hyperps_status status = sample();
	FILE *out = open_text();

	(void)state;
	memset(status.kvm, 'x', sizeof(status.kvm)); /* no NUL */
	memcpy(status.kvm, "kvm = off", 9);
	format_status_text(out, &status, &frames);
	fclose(out);
	assert_has("\nKVM in the host no: kvm = offxxx");
	assert_has("xxx\nLog ");
	free(text);
	out = open_text();
	format_status_json(out, &status, &frames);
	fclose(out);
	assert_has("\"kvm\": \"kvm = offxxx");
	free(text);
	status.flags |= HYPERPS_FLAG_KVM;
	status.kvm_tables_used = 17;
	status.kvm_tables = 1000;
	status.kvm_pool_base = 3 << 20;
	status.kvm_pool_size = 2 << 20;
	out = open_text();
	format_status_text(out, &status, &frames);
	fclose(out);
	assert_has("\nKVM in the host VMX is offered; page tables of its VMs 17 of 1000 in use\n");
	free(text);
	out = open_text();
	format_status_json(out, &status, &frames);
	fclose(out);
	assert_has("\"kvm\": \"on\",");
	assert_has("\"kvm_pool_base\": 3145728,\n  \"kvm_pool_size\": 2097152,\n  \"kvm_tables_used\": 17,\n  "
		   "\"kvm_tables\": 1000,");
	free(text);
}

/* Exits of the host's own VMs: no call among them is one to the monitor. */
static void exits_of_l2(void **state)
{
	struct exits_column cpu = { .number = 0, .id = 4, .in_vmx = true };
	struct exits_table table = { .l2 = true, .count = 1, .column = &cpu };
	FILE *out = open_text();

	(void)state;
	cpu.reason[18] = 7;
	format_exits_text(out, &table);
	fclose(out);
	assert_string_equal(text, "VM exits of the host's own VMs        CPU    0       total\n"
				  "  APIC ID                                    4\n"
				  "VMCALL                                       7           7\n"
				  "all exits                                    7           7\n");
	free(text);
	out = open_text();
	format_exits_json(out, &table);
	fclose(out);
	assert_string_equal(text, "{\n  \"cpus\": [\n"
				  "    {\"slot\": 0, \"apic_id\": 4, \"in_vmx\": true, \"total\": 7, \"reasons\": "
				  "{\"vmcall\": 7}}\n  ],\n"
				  "  \"total\": 7,\n  \"reasons\": {\n    \"vmcall\": 7\n  }\n}\n");
	free(text);
}

static void exits_add_up(void **state)
{
	struct exits_column cpus[2] = { { .number = 0, .id = 4, .in_vmx = true, .calls = 2 },
					{ .number = 1, .id = 6 } };
	struct exits_table table = { .count = 2, .column = cpus };
	FILE *out = open_text();

	(void)state;
	cpus[0].reason[10] = 7;
	cpus[1].reason[10] = 3;
	cpus[1].reason[35] = 2;
	format_exits_text(out, &table);
	fclose(out);
	assert_string_equal(text, "VM exits by reason                    CPU    0    CPU    1       total\n"
				  "  APIC ID                                    4           6\n"
				  "CPUID                                        7           3          10\n"
				  "reason 35                                    0           2           2\n"
				  "all exits                                    7           5          12\n"
				  "  of these, calls to the monitor             2           0           2\n"
				  "!!! CPU 1 (APIC ID 6) is not in VMX\n");
	free(text);
	out = open_text();
	format_exits_json(out, &table);
	fclose(out);
	assert_string_equal(
		text, "{\n  \"cpus\": [\n"
		      "    {\"slot\": 0, \"apic_id\": 4, \"in_vmx\": true, \"total\": 7, \"vmcall\": 2, \"reasons\": "
		      "{\"cpuid\": 7}},\n"
		      "    {\"slot\": 1, \"apic_id\": 6, \"in_vmx\": false, \"total\": 5, \"vmcall\": 0, \"reasons\": "
		      "{\"cpuid\": 3, \"reason_35\": 2}}\n  ],\n"
		      "  \"total\": 12,\n  \"vmcall\": 2,\n  \"reasons\": {\n    \"cpuid\": 10,\n"
		      "    \"reason_35\": 2\n  }\n}\n");
	free(text);
}

/* Rates, VM by VM: one that is new in its slot counts from 0, and counters never go back. */
static void exits_of_an_interval(void **state)
{
	struct exits_column old[2] = { { .number = 3, .id = 1 }, { .number = 5, .id = 2 } };
	struct exits_column new[2] = { { .number = 3, .id = 1 }, { .number = 5, .id = 9 } };
	struct exits_table before = { .vms = true, .count = 2, .column = old }, difference;
	struct exits_table after = { .vms = true, .count = 2, .column = new };
	FILE *out = open_text();

	(void)state;
	old[0].reason[12] = 100;
	old[0].reason[18] = 5;
	old[1].reason[12] = 1000;
	new[0].reason[12] = 130;
	new[0].reason[18] = 4;
	new[1].reason[12] = 7;
	assert_true(exits_since(&difference, &before, &after));
	difference.seconds = 2;
	format_exits_text(out, &difference);
	fclose(out);
	assert_string_equal(text,
			    "VM exits per second                    VM    3     VM    5       total  in   2.0 s\n"
			    "HLT                                       15.0         3.5        18.5          37\n"
			    "all exits                                 15.0         3.5        18.5          37\n");
	free(text);
	free(difference.column);
	out = open_text();
	format_exits_json(out, &after);
	fclose(out);
	assert_has("{\n  \"vms\": [\n    {\"slot\": 3, \"handle\": 1, \"total\": 134, \"reasons\": {\"hlt\": 130, "
		   "\"vmcall\": 4}},\n");
	free(text);
}

static void frames_are_shown(void **state)
{
	struct hyperps_frames frames = { .table_frames = 12,
					 .count = { [HYPERPS_FRAME_HOST] = 9, [HYPERPS_FRAME_MONITOR] = 3 } };
	FILE *out = open_text();

	(void)state;
	format_frames_text(out, &frames);
	fclose(out);
	assert_has("the host's"
		   "                                   "
		   "9\n");
	free(text);
	out = open_text();
	format_frames_json(out, &frames);
	fclose(out);
	assert_has("\"table_frames\": 12,");
	assert_has("\"monitor\": 3,");
	free(text);
}

static void vms_are_listed(void **state)
{
	struct hyperps_vm slots[4] = { [1] = { .state = HYPERPS_VM_SEALED,
					       .handle = 7ULL << 32 | 1,
					       .frames = 16385,
					       .pending = 3,
					       .view_4k = 1,
					       .view_2m = 32,
					       .ranges = 2 },
				       [2] = { .state = HYPERPS_VM_SEALING, .ranges = 1 },
				       [3] = { .state = 77 } /* from a newer monitor */ };
	FILE *out = open_text();

	(void)state;
	format_vms_text(out, slots, 4);
	fclose(out);
	assert_has("   1  sealed        2       16385           3           1          32  64.0 MiB\n");
	assert_has("   2  sealing       1           0 ");
	assert_has("   3  unknown");
	assert_null(strstr(text, "\n   0  "));
	free(text);
	out = open_text();
	format_vms_json(out, slots, 4);
	fclose(out);
	assert_string_equal(text, "{\n  \"vms\": [\n"
				  "    {\"slot\": 1, \"state\": \"sealed\", \"ranges\": 2, \"frames\": 16385, "
				  "\"bytes\": 67112960, \"pending\": 3, \"pages_4k\": 1, \"pages_2m\": 32},\n"
				  "    {\"slot\": 2, \"state\": \"sealing\", \"ranges\": 1, \"frames\": 0, "
				  "\"bytes\": 0, \"pending\": 0, \"pages_4k\": 0, \"pages_2m\": 0},\n"
				  "    {\"slot\": 3, \"state\": \"unknown\", \"ranges\": 0, \"frames\": 0, "
				  "\"bytes\": 0, \"pending\": 0, \"pages_4k\": 0, \"pages_2m\": 0}\n  ]\n}\n");
	free(text);
	out = open_text();
	format_vms_text(out, slots, 1);
	fclose(out);
	assert_string_equal(text, "no VMs\n");
	free(text);
	out = open_text();
	format_vms_json(out, slots, 1);
	fclose(out);
	assert_string_equal(text, "{\n  \"vms\": [\n  ]\n}\n");
	free(text);
}

static void log_ring(void **state)
{
	struct hyperps_log log = { .size = 16 };
	char ring[16];
	FILE *out;

	(void)state;
	memcpy(ring, "one\ntwo\nxxxxxxxx", 16);
	log.written = 8;
	out = open_text();
	format_log(out, &log, ring);
	fclose(out);
	assert_string_equal(text, "one\ntwo\n");
	free(text);
	/* Wrapped: the oldest byte is at 4, in the middle of a line, which is left out. */
	memcpy(ring, "r\n\x1b[zcd\nsecond\nt", 16);
	log.written = 16 * 3 + 2;
	out = open_text();
	format_log(out, &log, ring);
	fclose(out);
	assert_null(strchr(text, '\x1b'));
	assert_has("second\n");
	assert_has("tr\n");
	free(text);
}

static void end_of_a_run(void **state)
{
	struct run_result result = { .exit_code = 127,
				     .end = "failed",
				     .failure = failure_name(HYPERPS_FAILURE_TRIPLE_FAULT),
				     .message = "a \"quoted\"\n\x01 word",
				     .measurement = "00ff",
				     .exits = { [HYPERPS_EXIT_OUT] = 7, [HYPERPS_EXIT_FAILED] = 1 } };
	FILE *out = open_text();

	(void)state;
	format_run_json(out, &result);
	fclose(out);
	assert_string_equal(text, "{\"exit_code\": 127, \"end\": \"failed\", \"failure\": \"triple_fault\", "
				  "\"message\": \"a \\\"quoted\\\"?? word\", \"measurement\": \"00ff\", "
				  "\"exits\": {\"out\": 7, \"failed\": 1}}\n");
	free(text);
	result = (struct run_result){ .end = "shutdown" };
	for (int i = 0; i < HYPERPS_EXITS; i++)
		result.exits[i] = 1;
	out = open_text();
	format_run_json(out, &result);
	fclose(out);
	assert_has("\"failure\": null, \"message\": null, \"measurement\": null, \"exits\": {\"interrupted\": 1, ");
	assert_null(strstr(text, "(null)"));
	free(text);
	for (uint64_t i = 0; i < 9; i++)
		assert_true(*failure_text(i) && *failure_name(i));
	assert_string_equal(failure_name(77), "unknown");
}

static void demo_says_what_was_not_refused(void **state)
{
	static struct demo_result result = {
		.target = "the key",
		.attacks = 2,
		.attack = { { .key = "read",
			      .text = "read it",
			      .control = true,
			      .refused = true,
			      .counted = 1,
			      .note = "a \"note\"",
			      .log = "hyperps: cpu0: warning: refused: read of 1\nhyperps: cpu10: \x1b\n" },
			    { .key = "write", .text = "overwrite it" } },
		.frames = 5,
	};
	FILE *out = open_text();

	(void)state;
	format_demo_header(out, &result);
	for (size_t i = 0; i < result.attacks; i++)
		format_demo_attack(out, &result.attack[i]);
	fclose(out);
	assert_string_equal(text, "It tries to ...                         its own page   the key\n"
				  "read it                                 works          refused\n"
				  "  a \"note\"\n"
				  "  log: warning: refused: read of 1\n"
				  "  log: ?\n"
				  "overwrite it                            FAILS          NOT REFUSED\n");
	free(text);
	out = open_text();
	format_demo_json(out, &result);
	fclose(out);
	assert_has("{\n  \"passed\": true,\n  \"message\": null,\n  \"target\": \"the key\",\n");
	assert_has("\"works_on_own_page\": true, \"refused\": true, \"refusals_counted\": 1, \"lines\": [\"a "
		   "\\\"note\\\"\", "
		   "\"hyperps: cpu0: warning: refused: read of 1\", \"hyperps: cpu10: ?\"]},\n");
	assert_has("\"works_on_own_page\": false, \"refused\": false, \"refusals_counted\": 0, \"lines\": [\"\"]}\n  "
		   "],\n");
	assert_has("\"frames\": 5,\n");
	free(text);
	strcpy(result.message, "why");
	out = open_text();
	format_demo_json(out, &result);
	fclose(out);
	assert_has("\"passed\": false,\n  \"message\": \"why\",\n");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(protection_is_said_plainly),
		cmocka_unit_test(dma_is_said),
		cmocka_unit_test(memory_for_vms_is_said),
		cmocka_unit_test(json_is_well_formed),
		cmocka_unit_test(gate_is_said),
		cmocka_unit_test(kvm_is_said),
		cmocka_unit_test(exits_of_l2),
		cmocka_unit_test(exits_add_up),
		cmocka_unit_test(exits_of_an_interval),
		cmocka_unit_test(frames_are_shown),
		cmocka_unit_test(vms_are_listed),
		cmocka_unit_test(end_of_a_run),
		cmocka_unit_test(demo_says_what_was_not_refused),
		cmocka_unit_test(log_ring),
	};

	return cmocka_run_group_tests_name("hpsctl_format", tests, NULL, NULL);
}

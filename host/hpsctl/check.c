// SPDX-License-Identifier: MIT
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "boot_info.h"
#include "check.h"
#include "choose_capabilities.h"
#include "cpu_features.h"
#include "hpsctl_format.h"
#include "json.h"
#include "pagetable.h"

#define SECURE_BOOT "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
#define CPUS "/sys/devices/system/cpu/"
#define CPUS_MAX (MONITOR_WINDOWS - 4) /* as the loader has it */
#define NOTHING "nothing to do"
#define VENDOR_INTEL 0x756e6547 /* EBX of CPUID leaf 0: "Genu" */

/* What the functions of instructions.h look at. */
static const struct machine *machine;
static unsigned int this_cpu;
static bool unreadable;

struct cpuid_result cpuid(u32 leaf, u32 subleaf)
{
	return machine->cpuid(this_cpu, leaf, subleaf);
}

u64 rdmsr(u32 msr)
{
	u64 value = 0;

	if (!machine->rdmsr(this_cpu, msr, &value))
		unreadable = true;
	return value;
}

void check_add(struct check *check, const char *key, enum answer answer, const char *to_do, const char *format, ...)
{
	struct finding *finding = &check->finding[check->count];
	va_list arguments;

	if (check->count == CHECK_FINDINGS)
		return;
	check->count++;
	finding->key = key;
	finding->answer = answer;
	va_start(arguments, format);
	vsnprintf(finding->found, sizeof(finding->found), format, arguments);
	va_end(arguments);
	snprintf(finding->to_do, sizeof(finding->to_do), "%s", to_do);
}

/* The loader's own words: what is missing, ". ", what to do. */
static void add_refusal(struct check *check, const char *key, const char *message)
{
	const char *end = strstr(message, ". ");

	check_add(check, key, ANSWER_NO, end ? end + 2 : "", "%.*s", (int)(end ? end - message : (long)strlen(message)),
		  message);
}

/* How many CPUs a list as "0-3,8" has; with next, calls that for each. -1: no such file. */
static long for_each_cpu(const char *path, void (*next)(unsigned int cpu, void *data), void *data)
{
	char text[4096], *at = text;
	long count = 0;

	if (machine->read(path, text, sizeof(text)) <= 0)
		return -1;
	while (*at >= '0' && *at <= '9') {
		unsigned long first = strtoul(at, &at, 10), last = *at == '-' ? strtoul(at + 1, &at, 10) : first;

		for (; first <= last && count < 1 << 16; first++, count++)
			if (next)
				next(first, data);
		at += *at == ',';
	}
	return count;
}

static void check_vtx(struct check *check, struct vmx_capabilities *capabilities, bool *done)
{
	const char *message;

	this_cpu = 0;
	unreadable = false;
	message = choose_capabilities(capabilities);
	*done = !message && !unreadable;
	if (unreadable)
		check_add(check, "vtx", ANSWER_UNKNOWN,
			  "run it as root, after modprobe msr; where the kernel is locked down, boot once without "
			  "Secure Boot",
			  "the CPU's MSRs can't be read");
	else if (message)
		add_refusal(check, "vtx", message);
	if (!(cpuid(1, 0).ecx & BIT(CPUID_VMX)) && cpuid(0, 0).ebx == VENDOR_INTEL)
		check_add(check, "running", ANSWER_NOTE, "if it may be there, load hyperps.ko, and ask again",
			  "HyperPS itself hides VT-x from the kernel above it");
	if (*done)
		check_add(check, "vtx", ANSWER_YES, NOTHING,
			  "VT-x, with EPT, unrestricted guest and all else that the monitor needs");
}

struct comparison {
	const struct vmx_capabilities *first;
	const char *difference;
	unsigned int cpu;
	bool unreadable;
};

static void compare(unsigned int cpu, void *data)
{
	struct comparison *comparison = data;
	const char *difference;

	this_cpu = cpu;
	unreadable = false;
	difference = vmx_compare_this_cpu(comparison->first);
	comparison->unreadable |= unreadable;
	if (!difference || comparison->difference || unreadable)
		return;
	comparison->difference = difference;
	comparison->cpu = cpu;
}

static void check_cpus(struct check *check, const struct vmx_capabilities *first)
{
	struct comparison comparison = { .first = first };
	long present = for_each_cpu(CPUS "present", NULL, NULL), online;

	if (present > CPUS_MAX)
		check_add(check, "cpus", ANSWER_NO, "switch some off in the firmware setup",
			  "%ld CPUs: the monitor can take %d", present, (int)CPUS_MAX);
	if (!first)
		return;
	online = for_each_cpu(CPUS "online", compare, &comparison);
	if (comparison.difference)
		check_add(check, "cpus_alike", ANSWER_NO,
			  "update the firmware; a CPU with cores of several kinds can't run HyperPS",
			  "CPU %u differs: %s", comparison.cpu, comparison.difference);
	else if (comparison.unreadable || online < 1)
		check_add(check, "cpus_alike", ANSWER_UNKNOWN, "run it as root, after modprobe msr",
			  "not all CPUs' MSRs can be read");
	else if (online < present)
		check_add(check, "cpus_alike", ANSWER_UNKNOWN, "take all CPUs online, and ask again",
			  "%ld of %ld CPUs are offline, and can't be looked at", present - online, present);
	else
		check_add(check, "cpus_alike", ANSWER_YES, NOTHING, "all %ld CPUs are alike", online);
}

/* What is lost without an optional feature; NULL: nothing worth a line. */
static const char *const without[HYPERPS_FEATURES] = {
	[HYPERPS_FEATURE_EPT_1G] = "the monitor needs more memory",
	[HYPERPS_FEATURE_VPID] = "VM exits cost more",
	[HYPERPS_FEATURE_EPT_EXECUTE_ONLY] = "calls to the monitor use VMCALL, which is slower than the gate",
	[HYPERPS_FEATURE_VMFUNC] = "calls to the monitor use VMCALL, which is slower than the gate",
	[HYPERPS_FEATURE_SMEP] = "calls to the monitor use VMCALL, which is slower than the gate",
	[HYPERPS_FEATURE_SMAP] = "calls to the monitor use VMCALL, which is slower than the gate",
	[HYPERPS_FEATURE_RDCL_NO] = "the CPU leaks what lies in its L1 cache, so calls use VMCALL unless gate = vmfunc",
};

static void check_features(struct check *check, const struct vmx_capabilities *capabilities)
{
	char to_do[200];

	for (unsigned int i = 0; i < HYPERPS_FEATURES; i++) {
		if (!without[i])
			continue;
		snprintf(to_do, sizeof(to_do), NOTHING ": %s", without[i]);
		check_add(check, feature_key(i), capabilities->feature[i] ? ANSWER_YES : ANSWER_NOTE,
			  capabilities->feature[i] ? NOTHING : to_do, "%s%s", feature_text(i),
			  capabilities->feature[i] ? "" : ": the CPU lacks it");
	}
}

static void check_execute_disable(struct check *check)
{
	this_cpu = 0;
	if (cpuid_or_zero(0x80000001).edx & BIT(CPUID_NX))
		check_add(check, "execute_disable", ANSWER_YES, NOTHING, "the execute-disable bit");
	else
		check_add(check, "execute_disable", ANSWER_NO, "switch it on (XD, NX) in the firmware setup",
			  "the CPU's execute-disable bit is off");
}

static void check_firmware(struct check *check)
{
	static char mounts[1 << 16];
	char text[64];

	if (machine->read("/sys/firmware/efi/fw_platform_size", text, sizeof(text)) <= 0) {
		check_add(check, "uefi", ANSWER_NO,
			  "switch legacy boot (CSM) off in the firmware setup; Linux must be started by UEFI, too",
			  "this Linux was not started by UEFI firmware");
		return;
	}
	if (strtoul(text, NULL, 10) == 64)
		check_add(check, "uefi", ANSWER_YES, NOTHING, "64-bit UEFI firmware");
	else
		check_add(check, "uefi", ANSWER_NO, "use another machine", "the UEFI firmware has 32 bits");
	if (machine->read("/proc/mounts", mounts, sizeof(mounts)) <= 0 || !strstr(mounts, " efivarfs "))
		check_add(check, "secure_boot", ANSWER_UNKNOWN,
			  "mount -t efivarfs efivarfs /sys/firmware/efi/efivars, and ask again",
			  "the firmware's variables can't be read");
	/* Four bytes of attributes, then the value. Firmware that does not know Secure Boot has no such variable. */
	else if (machine->read(SECURE_BOOT, text, sizeof(text)) >= 5 && text[4])
		check_add(check, "secure_boot", ANSWER_NO,
			  "switch it off in the firmware setup: hyperps.efi is not signed", "Secure Boot is on");
	else
		check_add(check, "secure_boot", ANSWER_YES, NOTHING, "Secure Boot is off");
}

/* The number behind a word in a file as /proc/meminfo, or 0. */
static u64 number_in(const char *path, const char *word)
{
	static char text[1 << 16];
	const char *at = machine->read(path, text, sizeof(text)) > 0 ? strstr(text, word) : NULL;

	return at ? strtoull(at + strlen(word), NULL, 10) : 0;
}

/* As docs say it: what the loader computes needs the firmware's memory map. */
static void check_memory(struct check *check, const struct vmx_capabilities *capabilities)
{
	u64 total = number_in("/proc/meminfo", "MemTotal:") >> 10, cpus, need;
	long present = for_each_cpu(CPUS "present", NULL, NULL);

	if (!total || !capabilities) {
		check_add(check, "memory", ANSWER_NOTE, NOTHING, "how much memory the monitor needs could not be seen");
		return;
	}
	cpus = present > 0 ? present : 1;
	/* MiB: the monitor's own, page marks of 8 bytes for each 4 KiB, and the host view. */
	need = 4 + cpus / 3 + (total >> 9) +
	       (pagetable_ept_pages(capabilities->physical_address_bits,
				    capabilities->feature[HYPERPS_FEATURE_EPT_1G]) >>
		8);
	if (need >= total)
		check_add(check, "memory", ANSWER_NO, "add memory",
			  "the monitor needs some %" PRIu64 " MiB of %" PRIu64, need, total);
	else
		check_add(check, "memory", ANSWER_YES, NOTHING,
			  "the monitor takes some %" PRIu64 " MiB of %" PRIu64 ", in one piece", need, total);
}

static void check_surroundings(struct check *check)
{
	struct cpuid_result leaf;
	char text[64];

	this_cpu = 0;
	if (cpuid(1, 0).ecx & BIT(CPUID_HYPERVISOR)) {
		leaf = cpuid(0x40000000, 0);
		memcpy(text, &leaf.ebx, 4);
		memcpy(text + 4, &leaf.ecx, 4);
		memcpy(text + 8, &leaf.edx, 4);
		for (int i = 0; i < 12; i++)
			text[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : ' ';
		text[12] = 0;
		check_add(check, "hypervisor", ANSWER_NOTE,
			  "switch nested virtualization on in it, if a line above says that VT-x is missing",
			  "this is a virtual machine of another hypervisor: %s", text);
	}
	if (machine->read("/dev/kvm", text, 0) >= 0)
		check_add(check, "kvm", ANSWER_NOTE, "stop KVM's virtual machines before you boot with HyperPS",
			  "KVM is there; under HyperPS it is not available");
	if (machine->read("/sys/firmware/acpi/tables/DMAR", text, 0) < 0)
		check_add(check, "dma", ANSWER_NOTE,
			  "switch VT-d on in the firmware setup; else trust no device, and nobody who can program one",
			  "there is no DMA remapping (VT-d), unless HyperPS runs, which hides it: devices reach all "
			  "memory");
	else
		check_add(check, "dma", ANSWER_YES, NOTHING,
			  "DMA remapping (VT-d): HyperPS holds devices back, unless dma = off; hpsctl status says how "
			  "far");
}

void check_machine(const struct machine *looked_at, struct check *check)
{
	struct vmx_capabilities capabilities;
	bool has_vtx;

	machine = looked_at;
	check_vtx(check, &capabilities, &has_vtx);
	check_execute_disable(check);
	check_cpus(check, has_vtx ? &capabilities : NULL);
	check_firmware(check);
	check_memory(check, has_vtx ? &capabilities : NULL);
	if (has_vtx)
		check_features(check, &capabilities);
	check_surroundings(check);
}

enum verdict check_verdict(const struct check *check)
{
	enum verdict verdict = VERDICT_FIT;

	for (size_t i = 0; i < check->count; i++) {
		if (check->finding[i].answer == ANSWER_NO)
			return VERDICT_UNFIT;
		if (check->finding[i].answer == ANSWER_UNKNOWN)
			verdict = VERDICT_UNKNOWN;
	}
	return verdict;
}

void check_print_text(FILE *out, const struct check *check)
{
	static const char *const words[ANSWERS] = { "yes ", "NO  ", "?   ", "note" };
	static const char *const verdicts[] = {
		[VERDICT_FIT] = "This machine can run HyperPS, as far as Linux can see.",
		[VERDICT_UNFIT] = "This machine can't run HyperPS until the lines with NO are mended.",
		[VERDICT_UNKNOWN] = "Not all could be looked at: see the lines with a question mark.",
	};

	for (size_t i = 0; i < check->count; i++) {
		const struct finding *finding = &check->finding[i];

		fprintf(out, "%s  %s\n", words[finding->answer], finding->found);
		if (strcmp(finding->to_do, NOTHING))
			fprintf(out, "        %s\n", finding->to_do);
	}
	fprintf(out, "\n%s\n", verdicts[check_verdict(check)]);
}

void check_print_json(FILE *out, const struct check *check)
{
	static const char *const words[ANSWERS] = { "yes", "no", "unknown", "note" };
	static const char *const verdicts[] = {
		[VERDICT_FIT] = "fit", [VERDICT_UNFIT] = "unfit", [VERDICT_UNKNOWN] = "unknown"
	};
	struct json json = { .out = out };

	json_begin_lines(&json, NULL, '{');
	json_text_or_null(&json, "verdict", verdicts[check_verdict(check)]);
	json_begin_lines(&json, "checks", '[');
	for (size_t i = 0; i < check->count; i++) {
		json_begin(&json, NULL, '{');
		json_text_or_null(&json, "check", check->finding[i].key);
		json_text_or_null(&json, "answer", words[check->finding[i].answer]);
		json_text_or_null(&json, "found", check->finding[i].found);
		json_text_or_null(&json, "to_do", check->finding[i].to_do);
		json_end(&json);
	}
	json_end(&json);
	json_end(&json);
}

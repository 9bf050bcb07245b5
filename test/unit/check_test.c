// SPDX-License-Identifier: MIT
/* host/hpsctl/check.c on a machine whose registers and files are the test's: what is refused, and what it says to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "check.h"
#include "choose_capabilities.h"
#include "vmx.h"

#define CPUS 4
#define FILES 10

static u64 msrs[CPUS][0x800];
static bool msr_lost[CPUS];
static struct cpuid_result leaf1, leaf7, leaf_d, leaf_extended;
static char *paths[FILES], *texts[FILES];
static size_t lengths[FILES];
static struct check check;
static char *output;

static struct cpuid_result fake_cpuid(unsigned int cpu, u32 leaf, u32 subleaf)
{
	(void)cpu;
	(void)subleaf;
	switch (leaf) {
	case 0:
		return (struct cpuid_result){ .eax = 0x16, .ebx = 0x756e6547 };
	case 1:
		return leaf1;
	case 7:
		return leaf7;
	case 0xd:
		return leaf_d;
	case 0x40000000:
		return (struct cpuid_result){ 0, 0x4b4d564b, 0x564b4d56, 0x4d };
	case 0x80000000:
		return (struct cpuid_result){ .eax = 0x80000008 };
	case 0x80000001:
		return leaf_extended;
	case 0x80000008:
		return (struct cpuid_result){ .eax = 39 };
	default:
		return (struct cpuid_result){ 0 };
	}
}

static bool fake_rdmsr(unsigned int cpu, u32 msr, u64 *value)
{
	assert_true(cpu < CPUS && msr < 0x800);
	*value = msrs[cpu][msr];
	return !msr_lost[cpu];
}

static long fake_read(const char *path, char *text, size_t size)
{
	for (size_t i = 0; i < FILES; i++)
		if (paths[i] && !strcmp(paths[i], path)) {
			size_t length = !size ? 0 : lengths[i] < size - 1 ? lengths[i] : size - 1;

			if (!size)
				return 0;
			memcpy(text, texts[i], length);
			text[length] = 0;
			return (long)length;
		}
	return -1;
}

static const struct machine machine = { fake_cpuid, fake_rdmsr, fake_read };

/* NULL: there is no such file. */
static void set_file(const char *path, const char *text, size_t length)
{
	size_t i = 0;

	while (i < FILES && paths[i] && strcmp(paths[i], path))
		i++;
	assert_true(i < FILES);
	paths[i] = text ? (char *)path : "";
	texts[i] = (char *)text;
	lengths[i] = length;
}

/* A machine that is fit. */
static int set_up(void **state)
{
	(void)state;
	memset(msrs, 0, sizeof(msrs));
	memset(msr_lost, 0, sizeof(msr_lost));
	memset(paths, 0, sizeof(paths));
	leaf1 = (struct cpuid_result){ .ecx = BIT(5) };
	leaf7 = (struct cpuid_result){ .ebx = BIT(7) | BIT(20), .edx = BIT(29) };
	leaf_d = (struct cpuid_result){ .eax = 7 };
	leaf_extended = (struct cpuid_result){ .edx = BIT(20) };
	for (int i = 0; i < CPUS; i++) {
		msrs[i][MSR_IA32_FEATURE_CONTROL] = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX;
		msrs[i][MSR_IA32_ARCH_CAPABILITIES] = 1;
		msrs[i][MSR_IA32_VMX_BASIC] = 0x00da040000000012;
		msrs[i][MSR_IA32_VMX_TRUE_PINBASED_CTLS] = msrs[i][MSR_IA32_VMX_TRUE_PROCBASED_CTLS] =
			msrs[i][MSR_IA32_VMX_PROCBASED_CTLS2] = msrs[i][MSR_IA32_VMX_TRUE_EXIT_CTLS] =
				msrs[i][MSR_IA32_VMX_TRUE_ENTRY_CTLS] = 0xffffffff00000000;
		msrs[i][MSR_IA32_VMX_VMFUNC] = 1;
		msrs[i][MSR_IA32_VMX_MISC] = 5 | VMX_MISC_WAIT_FOR_SIPI;
		msrs[i][MSR_IA32_VMX_EPT_VPID_CAP] = (EPT_CAP_USED & ~EPT_CAP_WALK_5) | EPT_CAP_EXECUTE_ONLY;
		msrs[i][MSR_IA32_VMX_CR4_FIXED1] = 0x3767ff;
	}
	set_file("/sys/devices/system/cpu/present", "0-3\n", 4);
	set_file("/sys/devices/system/cpu/online", "0,1-2,3\n", 8);
	set_file("/sys/firmware/efi/fw_platform_size", "64\n", 3);
	set_file("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", "\6\0\0\0\0", 5);
	set_file("/proc/mounts", "a /x efivarfs rw 0 0\n", 21);
	set_file("/proc/meminfo", "MemTotal:        8000000 kB\n", 28);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(output);
	output = NULL;
	return 0;
}

/* Looks at it; both forms of the result must have this. */
static void assert_says(enum verdict verdict, const char *text, const char *in_json)
{
	size_t length;
	FILE *out;

	check = (struct check){ .count = 0 };
	check_machine(&machine, &check);
	for (size_t i = 0; i < check.count; i++)
		assert_true(*check.finding[i].found && *check.finding[i].to_do);
	free(output);
	out = open_memstream(&output, &length);
	check_print_text(out, &check);
	check_print_json(out, &check);
	fclose(out);
	if (!strstr(output, text) || !strstr(output, in_json))
		fail_msg("\"%s\" or \"%s\" is not in: %s", text, in_json, output);
	assert_int_equal(check_verdict(&check), verdict);
	assert_non_null(strstr(output, verdict == VERDICT_FIT     ? "\"verdict\": \"fit\""
				       : verdict == VERDICT_UNFIT ? "\"verdict\": \"unfit\""
								  : "\"verdict\": \"unknown\""));
}

static void fit(void **state)
{
	(void)state;
	assert_says(VERDICT_FIT, "\nyes   all 4 CPUs are alike\n",
		    "{\"check\": \"vtx\", \"answer\": \"yes\", \"found\": \"VT-x, ");
	assert_null(strstr(output, "NO "));
	assert_non_null(strstr(output, "\nyes   the monitor takes some 20 MiB of 7812, in one piece\n"));
	assert_non_null(strstr(output, "\nnote  there is no DMA remapping (VT-d), unless"));
	/* What is optional. */
	for (int i = 0; i < CPUS; i++) {
		msrs[i][MSR_IA32_ARCH_CAPABILITIES] = 0;
		msrs[i][MSR_IA32_VMX_PROCBASED_CTLS2] &= ~(SECONDARY_VM_FUNCTIONS << 32);
	}
	leaf1.ecx |= BIT(31);
	set_file("/dev/kvm", "", 0);
	set_file("/sys/firmware/acpi/tables/DMAR", "", 0);
	assert_says(VERDICT_FIT,
		    "\nnote  no leak of L1 data (RDCL_NO): the CPU lacks it\n        nothing to do: the CPU leaks",
		    "{\"check\": \"vmfunc\", \"answer\": \"note\", ");
	assert_non_null(strstr(output, "another hypervisor: KVMKVMKVM"));
	assert_non_null(strstr(output, "KVM is there"));
	assert_non_null(strstr(output, "\nyes   DMA remapping (VT-d): HyperPS holds devices back, unless dma = off"));
}

static void unfit_cpus(void **state)
{
	(void)state;
	/* The loader's own words. */
	msrs[0][MSR_IA32_FEATURE_CONTROL] = FEATURE_CONTROL_LOCK;
	assert_says(VERDICT_UNFIT, "NO    VT-x is switched off and locked by the firmware\n        Switch on ",
		    "{\"check\": \"vtx\", \"answer\": \"no\", ");
	assert_null(strstr(output, "alike"));
	set_up(state);
	msrs[0][MSR_IA32_VMX_PROCBASED_CTLS2] &= ~(SECONDARY_UNRESTRICTED_GUEST << 32);
	assert_says(VERDICT_UNFIT, "NO    this CPU's VT-x lacks unrestricted guest\n        Use a CPU of 2010", "");
	set_up(state);
	leaf1.ecx = 0;
	msr_lost[0] = true;
	assert_says(VERDICT_UNFIT, "NO    this CPU has no VT-x", "HyperPS itself hides VT-x");
	set_up(state);
	msrs[3][MSR_IA32_VMX_CR0_FIXED0] = 1;
	assert_says(VERDICT_UNFIT, "NO    CPU 3 differs: its fixed bits", "\"cpus_alike\", \"answer\": \"no\"");
	set_up(state);
	leaf_extended.edx = 0;
	assert_says(VERDICT_UNFIT, "NO    the CPU's execute-disable bit is off", "");
	set_up(state);
	set_file("/sys/devices/system/cpu/present", "0-506\n", 6);
	assert_says(VERDICT_UNFIT, "NO    507 CPUs: the monitor can take 506", "");
	/* Without the number of CPUs, too. */
	set_file("/sys/devices/system/cpu/present", NULL, 0);
	assert_says(VERDICT_FIT, "", "");
}

static void unfit_firmware(void **state)
{
	(void)state;
	set_file("/sys/firmware/efi/fw_platform_size", "32\n", 3);
	assert_says(VERDICT_UNFIT, "NO    the UEFI firmware has 32 bits", "");
	set_file("/sys/firmware/efi/fw_platform_size", NULL, 0);
	assert_says(VERDICT_UNFIT, "NO    this Linux was not started by UEFI", "\"uefi\", \"answer\": \"no\"");
	assert_null(strstr(output, "Secure Boot is"));
	set_up(state);
	set_file("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", "\6\0\0\0\1", 5);
	assert_says(VERDICT_UNFIT, "NO    Secure Boot is on", "");
	set_file("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", NULL, 0);
	assert_says(VERDICT_FIT, "yes   Secure Boot is off", "");
	set_file("/proc/meminfo", "MemTotal:  4096 kB\n", 19);
	assert_says(VERDICT_UNFIT, "NO    the monitor needs some 5 MiB of 4\n        add memory", "");
	/* The view of 39 bits in pages of 2 MiB. */
	set_up(state);
	for (int i = 0; i < CPUS; i++)
		msrs[i][MSR_IA32_VMX_EPT_VPID_CAP] &= ~EPT_CAP_1G;
	assert_says(VERDICT_FIT, "some 22 MiB of 7812", "");
}

static void could_not_tell(void **state)
{
	(void)state;
	msr_lost[0] = true;
	assert_says(VERDICT_UNKNOWN, "?     the CPU's MSRs can't be read\n        run it as root, after modprobe msr",
		    "");
	set_up(state);
	msr_lost[2] = true;
	assert_says(VERDICT_UNKNOWN, "?     not all CPUs' MSRs can be read", "");
	set_up(state);
	set_file("/sys/devices/system/cpu/online", "0-1\n", 4);
	assert_says(VERDICT_UNKNOWN, "?     2 of 4 CPUs are offline", "\"answer\": \"unknown\"");
	set_up(state);
	set_file("/proc/mounts", "a /x tmpfs rw 0 0\n", 18);
	assert_says(VERDICT_UNKNOWN, "?     the firmware's variables can't be read\n        mount ", "");
	/* One no is enough. */
	leaf_extended.edx = 0;
	assert_says(VERDICT_UNFIT, "?     the firmware's", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(fit, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unfit_cpus, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unfit_firmware, set_up, tear_down),
		cmocka_unit_test_setup_teardown(could_not_tell, set_up, tear_down),
	};

	return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}

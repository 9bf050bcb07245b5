// SPDX-License-Identifier: MIT
/*
 * host_cpu/msr.c: values of single MSRs that are refused, and that what is allowed reaches the CPU as it is; VMX's MSRs with
 * `kvm` on and off.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "event.h"
#include "host_cpu.h"
#include "log.h"
#include "monitor.h"
#include "nested.h"
#include "vmcs_words.h"

#define TURBO_RATIO_LIMIT 0x1ad

struct monitor monitor = { .boot_services_ended = true };
static struct cpu_area area;
static u64 written;
static unsigned writes;

void *read_gs_0(void)
{
	return &area.cpu;
}

bool wrmsr_checked(u32 number, u64 value)
{
	(void)number;
	written = value;
	writes++;
	return true;
}

void log_line(enum log_level level, const char *format, ...)
{
	(void)level;
	(void)format;
}

void log_refusal(enum refusal kind, const char *format, ...)
{
	(void)kind;
	(void)format;
}

#define OFFERED(msr) (0x123456789abcdef0ULL * (msr))
#define LAST_OFFERED 0x490

bool nested_msr(u32 msr, u64 *value)
{
	assert_true(monitor.kvm);
	*value = OFFERED(msr);
	return msr >= MSR_IA32_VMX_BASIC && msr <= LAST_OFFERED;
}

/* Whether the host's RDMSR is done; else it is #GP, and its registers are what they were. */
static bool read_msr(u32 msr, u64 *value)
{
	struct registers regs = { { ~0ULL, msr, ~0ULL } };
	bool fault;

	memset(vmcs, 0, sizeof(vmcs));
	vmcs[VMCS_EXIT_INSTRUCTION_LENGTH.encoding] = 2;
	exit_rdmsr(&regs);
	fault = vmcs[VMCS_ENTRY_INTERRUPTION_INFO.encoding] & EVENT_VALID;
	assert_int_equal(vmcs[VMCS_GUEST_RIP.encoding], fault ? 0 : 2);
	if (fault) {
		assert_int_equal(vmcs[VMCS_ENTRY_INTERRUPTION_INFO.encoding] & EVENT_VECTOR, VECTOR_GP);
		assert_true(regs.value[REGISTER_RAX] == ~0ULL && regs.value[REGISTER_RDX] == ~0ULL);
	} else {
		assert_true(regs.value[REGISTER_RAX] >> 32 == 0 && regs.value[REGISTER_RDX] >> 32 == 0);
		*value = edx_eax(&regs);
	}
	return !fault;
}

/* Whether the host's WRMSR is done; else it is #GP. */
static bool write_msr(u32 msr, u64 value)
{
	struct registers regs = { { value & 0xffffffff, msr, value >> 32 } };

	memset(vmcs, 0, sizeof(vmcs));
	writes = 0;
	exit_wrmsr(&regs);
	assert_int_equal(writes, !(vmcs[VMCS_ENTRY_INTERRUPTION_INFO.encoding] & EVENT_VALID));
	return writes;
}

/* With MCIP set a machine check is a shutdown, which is no VM exit. A kernel writes 0 at the end of its handler. */
static void machine_check_status(void **state)
{
	(void)state;
	assert_true(write_msr(MSR_IA32_MCG_STATUS, 0));
	assert_int_equal(written, 0);
	for (unsigned bit = 0; bit < 64; bit++)
		assert_false(write_msr(MSR_IA32_MCG_STATUS, BIT(bit)));
}

static void turbo_limits(void **state)
{
	(void)state;
	assert_false(write_msr(TURBO_RATIO_LIMIT, 0x2d2d2d2d2d2d2d2d));
	assert_false(write_msr(TURBO_RATIO_LIMIT - 1, 0));
}

static void vmx_msrs(void **state)
{
	u64 value;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		monitor.kvm = i & 1;
		monitor.boot_services_ended = i & 2;
		for (u32 msr = 0x480; msr <= 0x493; msr++) {
			assert_int_equal(read_msr(msr, &value), monitor.kvm && msr <= LAST_OFFERED);
			if (monitor.kvm && msr <= LAST_OFFERED)
				assert_int_equal(value, OFFERED(msr));
			assert_false(write_msr(msr, 0) || write_msr(msr, OFFERED(msr)));
		}
		assert_true(read_msr(MSR_IA32_FEATURE_CONTROL, &value));
		assert_int_equal(value, monitor.kvm ? 5 : 1);
		assert_false(write_msr(MSR_IA32_FEATURE_CONTROL, value) || write_msr(MSR_IA32_FEATURE_CONTROL, 0));
	}
	monitor.kvm = false;
	monitor.boot_services_ended = true;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(machine_check_status), cmocka_unit_test(turbo_limits),
					    cmocka_unit_test(vmx_msrs) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* host_cpu/msr.c: values of single MSRs that are refused, and that what is allowed reaches the CPU as it is. */
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

#define TURBO_RATIO_LIMIT 0x1ad

struct monitor monitor = { .boot_services_ended = true };
static struct cpu_area area;
static u64 vmcs[0x7000], written;
static unsigned writes;

void *read_gs_0(void)
{
	return &area.cpu;
}

u64 vmread(vmcs_field_t field)
{
	return vmcs[field.encoding];
}

void vmwrite(vmcs_field_t field, u64 value)
{
	vmcs[field.encoding] = value;
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

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(machine_check_status), cmocka_unit_test(turbo_limits) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}

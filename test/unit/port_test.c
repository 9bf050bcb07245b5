// SPDX-License-Identifier: MIT
/*
 * host_cpu/port.c: what of the host's writes reaches the chipset, and what ends the machine's run, whatever port and width
 * the write begins with.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "emulate.h"
#include "event.h"
#include "host_cpu.h"
#include "monitor.h"
#include "page_pool.h"
#include "stop.h"

#define PM1 0x604

struct monitor monitor;
static struct boot_info boot = { .end_port = { { 0xcf9, 4, 4, false },
					       { 0x92, 1, 1, false },
					       { 0x64, 0xf1, 0xf0, false },
					       { PM1 + 1, 0x20, 0x20, true } } };
static u8 ports[0x10000]; /* the last byte that was written to each */
static unsigned writes, clears;
static u64 qualification;
static jmp_buf end;

hpa_t hpa_of(const void *object)
{
	(void)object;
	return HPA(0);
}

void *page_pool_take(struct page_pool *pool)
{
	(void)pool;
	return NULL;
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

void stop_other_cpus(void)
{
}

void panic_stop(void)
{
	abort();
}

void inject_exception(u32 vector)
{
	(void)vector;
}

void skip_instruction(void)
{
}

void clear_memory(const char *why)
{
	(void)why;
	/* Before anything has reached a port. */
	assert_int_equal(writes, 0);
	clears++;
}

void reset_machine(void)
{
	longjmp(end, 1);
}

void stop_this_cpu(void)
{
	longjmp(end, 1);
}

u64 vmread(vmcs_field_t field)
{
	(void)field;
	return qualification;
}

void port_out(u16 port, unsigned bytes, u32 value)
{
	writes++;
	for (unsigned i = 0; i < bytes; i++)
		ports[(u16)(port + i)] = (u8)(value >> 8 * i);
}

/* The host writes. Whether the memory was cleared. */
static bool write_host(u16 port, unsigned size, u32 value)
{
	struct registers regs = { { value } };

	memset(ports, 0, sizeof(ports));
	writes = clears = 0;
	qualification = (u64)port << 16 | (size - 1);
	if (!setjmp(end))
		exit_io(&regs);
	return clears;
}

/* Each access that has the byte at `target`, and ends there. */
#define FOR_EACH_ACCESS(target, port, size)                                                                            \
	for (unsigned size = 1; size <= 4; size *= 2)                                                                  \
		for (u16 port = (target)-size + 1; port <= (target); port++)

static void ends(void **state)
{
	(void)state;
	FOR_EACH_ACCESS(0xcf9, port, size)
	assert_int_equal(write_host(port, size, 0x06u << 8 * (0xcf9 - port)), port != 0xcf8 || size != 4);
	FOR_EACH_ACCESS(0x92, port, size)
	assert_true(write_host(port, size, 0x01u << 8 * (0x92 - port)));
	FOR_EACH_ACCESS(0x64, port, size)
	assert_true(write_host(port, size, 0xfeu << 8 * (0x64 - port)));
	FOR_EACH_ACCESS(PM1 + 1, port, size)
	assert_true(write_host(port, size, 0x34u << 8 * (PM1 + 1 - port)));
}

/* The keyboard controller's output port, with the reset line: the command to write it never gets there. */
static void keyboard_output_port(void **state)
{
	(void)state;
	FOR_EACH_ACCESS(0x64, port, size)
	{
		/* Control: another command does. */
		assert_false(write_host(port, size, 0xd0u << 8 * (0x64 - port)));
		assert_int_equal(ports[0x64], 0xd0);
		assert_false(write_host(port, size, 0xd1u << 8 * (0x64 - port)));
		assert_int_equal(ports[0x64], 0);
	}
	assert_false(write_host(0x60, 4, 0xd1d1d1d1));
	assert_int_equal(ports[0x60], 0xd1);
}

/* The A20 line stays on, by each of the three ways to switch it off. */
static void a20(void **state)
{
	(void)state;
	FOR_EACH_ACCESS(0x92, port, size)
	{
		assert_false(write_host(port, size, 0));
		assert_int_equal(ports[0x92], 2);
		assert_false(write_host(port, size, 0x0cu << 8 * (0x92 - port)));
		assert_int_equal(ports[0x92], 0x0e);
	}
	FOR_EACH_ACCESS(0x64, port, size)
	{
		assert_false(write_host(port, size, 0xddu << 8 * (0x64 - port)));
		assert_int_equal(ports[0x64], 0);
		assert_false(write_host(port, size, 0xdfu << 8 * (0x64 - port)));
		assert_int_equal(ports[0x64], 0xdf);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(ends), cmocka_unit_test(keyboard_output_port),
					    cmocka_unit_test(a20) };

	monitor.boot = &boot;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

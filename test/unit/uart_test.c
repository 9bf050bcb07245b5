// SPDX-License-Identifier: MIT
/* host/hpsctl/uart.c: what a driver of a 16550 does to find, set up and use the port. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "uart.h"

static void output(void **state)
{
	struct uart uart = { 0 };

	(void)state;
	/* 115200 baud, 8n1, FIFOs on, as everyone does it: none of this is output. */
	assert_false(uart_write(&uart, 1, 0));
	assert_false(uart_write(&uart, 3, 0x80));
	assert_false(uart_write(&uart, 0, 1));
	assert_false(uart_write(&uart, 1, 2));
	assert_int_equal(uart_read(&uart, 0), 1);
	assert_int_equal(uart_read(&uart, 1), 2);
	assert_false(uart_write(&uart, 3, 0x03));
	assert_false(uart_write(&uart, 2, 0xc7));
	assert_int_equal(uart_read(&uart, 2), 0xc1);
	assert_false(uart_write(&uart, 4, 0x0b));
	assert_int_equal(uart_read(&uart, 5) & 0x60, 0x60);
	assert_true(uart_write(&uart, 0, 'x'));
	assert_false(uart_write(&uart, 5, 0xff));
	assert_false(uart_write(&uart, 6, 0xff));
	assert_int_equal(uart_read(&uart, 5), 0x60);
	assert_false(uart_write(&uart, 7, 0x5a));
	assert_int_equal(uart_read(&uart, 7), 0x5a);
	assert_int_equal(uart_read(&uart, 3), 0x03);
	assert_int_equal(uart_read(&uart, 4), 0x0b);
}

static void input(void **state)
{
	struct uart uart = { 0 };

	(void)state;
	assert_true(uart_wants_input(&uart, 0));
	assert_true(uart_wants_input(&uart, 5));
	assert_false(uart_wants_input(&uart, 6));
	assert_int_equal(uart_read(&uart, 5) & 1, 0);
	assert_int_equal(uart_read(&uart, 0), 0);
	memcpy(uart.input, "ab", 2);
	uart.end = 2;
	assert_false(uart_wants_input(&uart, 5));
	assert_int_equal(uart_read(&uart, 5) & 1, 1);
	assert_int_equal(uart_read(&uart, 0), 'a');
	assert_int_equal(uart_read(&uart, 0), 'b');
	assert_int_equal(uart_read(&uart, 5) & 1, 0);
	uart_write(&uart, 3, 0x80);
	assert_false(uart_wants_input(&uart, 0));
}

/* Any registers, any values: nothing but the data register sends. */
static void anything(void **state)
{
	struct uart uart = { 0 };

	(void)state;
	for (unsigned int i = 0; i < 8 * 256; i++) {
		bool sends = uart_write(&uart, i % 8, i / 8);

		assert_int_equal(sends, i % 8 == 0 && !(uart.line_control & 0x80));
		for (unsigned int number = 0; number < 8; number++)
			uart_read(&uart, number);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(output),
		cmocka_unit_test(input),
		cmocka_unit_test(anything),
	};

	return cmocka_run_group_tests_name("uart", tests, NULL, NULL);
}

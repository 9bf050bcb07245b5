/* SPDX-License-Identifier: MIT */
/* A serial port for a guest: a 16550 without interrupts, whose output is always ready. Pure; no locks. */
#ifndef UART_H
#define UART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UART_PORT 0x3f8
#define UART_PORTS 8

struct uart {
	uint8_t interrupt_enable, fifo_control, line_control, modem_control, scratch, divisor[2];
	uint8_t input[64]; /* what the guest can receive: bytes [begin, end) */
	size_t begin, end;
};

/* A register, 0 to 7, is written. Returns whether that sends a byte, which is value. */
bool uart_write(struct uart *uart, unsigned int number, uint8_t value);

/* A register, 0 to 7, is read. */
uint8_t uart_read(struct uart *uart, unsigned int number);

/* Whether a read of that register depends on whether there is input; then uart->input should be filled if it is empty. */
bool uart_wants_input(const struct uart *uart, unsigned int number);

#endif

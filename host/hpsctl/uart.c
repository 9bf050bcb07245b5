// SPDX-License-Identifier: MIT
#include "uart.h"

enum { DATA, INTERRUPT_ENABLE, FIFO_CONTROL, LINE_CONTROL, MODEM_CONTROL, LINE_STATUS, MODEM_STATUS, SCRATCH };

#define DIVISOR_LATCH 0x80 /* line control: registers 0 and 1 are the divisor */
#define FIFO_ON 0x01
#define NO_INTERRUPT 0x01
#define FIFOS_ARE_ON 0xc0
#define DATA_READY 0x01
#define OUTPUT_EMPTY 0x60
#define CONNECTED 0xb0 /* modem status: clear to send, data set ready, carrier */

static bool is_divisor(const struct uart *uart, unsigned int number)
{
	return number <= INTERRUPT_ENABLE && (uart->line_control & DIVISOR_LATCH);
}

bool uart_write(struct uart *uart, unsigned int number, uint8_t value)
{
	if (is_divisor(uart, number)) {
		uart->divisor[number] = value;
		return false;
	}
	switch (number) {
	case DATA:
		return true;
	case INTERRUPT_ENABLE:
		uart->interrupt_enable = value & 0x0f;
		break;
	case FIFO_CONTROL:
		uart->fifo_control = value;
		break;
	case LINE_CONTROL:
		uart->line_control = value;
		break;
	case MODEM_CONTROL:
		uart->modem_control = value & 0x1f;
		break;
	case SCRATCH:
		uart->scratch = value;
		break;
	default:
		break;
	}
	return false;
}

uint8_t uart_read(struct uart *uart, unsigned int number)
{
	if (is_divisor(uart, number))
		return uart->divisor[number];
	switch (number) {
	case DATA:
		return uart->begin < uart->end ? uart->input[uart->begin++] : 0;
	case INTERRUPT_ENABLE:
		return uart->interrupt_enable;
	case FIFO_CONTROL:
		return NO_INTERRUPT | (uart->fifo_control & FIFO_ON ? FIFOS_ARE_ON : 0);
	case LINE_CONTROL:
		return uart->line_control;
	case MODEM_CONTROL:
		return uart->modem_control;
	case LINE_STATUS:
		return OUTPUT_EMPTY | (uart->begin < uart->end ? DATA_READY : 0);
	case MODEM_STATUS:
		return CONNECTED;
	case SCRATCH:
		return uart->scratch;
	default:
		return 0xff;
	}
}

bool uart_wants_input(const struct uart *uart, unsigned int number)
{
	return uart->begin == uart->end && (number == LINE_STATUS || (number == DATA && !is_divisor(uart, number)));
}

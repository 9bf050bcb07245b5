// SPDX-License-Identifier: MIT
/* The log: a ring in monitor memory that the host can read, and the serial port. */
#include <stdarg.h>
#include "monitor.h"
#include "spinlock.h"
#include "stop.h"

#define LINE_BYTES 240
#define REFUSAL_LINES_PER_SECOND 10

#define UART_LINE_STATUS 5
#define UART_LINE_STATUS_EMPTY 0x20

/*
 * log_lock guards the ring, the serial port and the refusals. The owner is kept, so that a panic under it can still
 * print.
 */
static struct spinlock log_lock;
static u32 log_owner; /* CPU slot + 1, 0: nobody */
static u8 *ring;
static u64 ring_written;
static u16 serial_port;
static u32 level_limit;
u64 refusals[REFUSALS], log_lines_lost;
static struct refusal_state {
	u64 start, lines; /* the current second: its first TSC value, lines in it */
} refusal_states[REFUSALS];

struct line {
	char text[LINE_BYTES];
	u32 length;
};

static void put_char(struct line *line, char c)
{
	if (line->length < LINE_BYTES - 1)
		line->text[line->length++] = c;
}

static void put_string(struct line *line, const char *s)
{
	while (*s)
		put_char(line, *s++);
}

static void put_number(struct line *line, u64 value, unsigned base, unsigned width)
{
	char digits[20];
	unsigned n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	for (; width > n; width--)
		put_char(line, '0');
	while (n)
		put_char(line, digits[--n]);
}

static void format_line(struct line *line, const char *format, va_list arguments)
{
	for (const char *p = format; *p; p++) {
		unsigned width = 0;
		bool is_long = false;

		if (*p != '%') {
			put_char(line, *p);
			continue;
		}
		for (p++; *p >= '0' && *p <= '9'; p++)
			width = width * 10 + (unsigned)(*p - '0');
		if (*p == 'l') {
			is_long = true;
			p++;
		}
		if (*p == 'u' || *p == 'x') {
			u64 value = is_long ? va_arg(arguments, u64) : va_arg(arguments, u32);

			put_number(line, value, *p == 'u' ? 10 : 16, width);
		} else if (*p == 's') {
			put_string(line, va_arg(arguments, const char *));
		} else {
			return; /* the compiler checks formats; nothing sensible to do at run time */
		}
	}
}

static void serial_char(char c)
{
	/*
	 * The host has the port, too, and may have made it slow or dead: once it is not ready in time it is given up.
	 */
	for (u32 i = 0; i < 100000; i++) {
		if (inb(serial_port + UART_LINE_STATUS) & UART_LINE_STATUS_EMPTY) {
			outb(serial_port, (u8)c);
			return;
		}
		pause();
	}
	serial_port = 0;
}

static void emit(const struct line *line, bool to_serial)
{
	for (u32 i = 0; i < line->length; i++)
		ring[ring_written++ % LOG_SIZE] = (u8)line->text[i];
	ring[ring_written++ % LOG_SIZE] = '\n';
	if (!serial_port || !to_serial)
		return;
	for (u32 i = 0; serial_port && i < line->length; i++)
		serial_char(line->text[i]);
	for (u32 i = 0; serial_port && i < 2; i++)
		serial_char("\r\n"[i]);
}

static bool lock_log(void)
{
	/* Whoever has stopped all others may have stopped the lock's owner, too. */
	if (log_owner == this_cpu()->slot + 1 || this_cpu_stops_others())
		return false;
	spin_lock(&log_lock);
	log_owner = this_cpu()->slot + 1;
	return true;
}

static void unlock_log(bool locked)
{
	if (!locked)
		return;
	log_owner = 0;
	spin_unlock(&log_lock);
}

/* Under log_lock. */
static void write_line(enum log_level level, bool to_serial, const char *format, va_list arguments)
{
	static const char *const names[] = { "error: ", "warning: ", "", "debug: " };
	struct line line;

	line.length = 0;
	put_string(&line, "hyperps: cpu");
	put_number(&line, this_cpu()->slot, 10, 0);
	put_string(&line, ": ");
	put_string(&line, names[level]);
	format_line(&line, format, arguments);
	emit(&line, to_serial);
	if (level == LOG_ERROR)
		screen_line(line.text, line.length);
}

void log_line(enum log_level level, const char *format, ...)
{
	va_list arguments;
	bool locked;

	if (level > level_limit)
		return;
	locked = lock_log();
	va_start(arguments, format);
	write_line(level, true, format, arguments);
	va_end(arguments);
	unlock_log(locked);
}

void log_refusal(enum refusal kind, const char *format, ...)
{
	struct refusal_state *state = &refusal_states[kind];
	va_list arguments;
	u64 now = monitor_time();
	bool locked = lock_log();

	refusals[kind]++;
	/* A CPU whose time is behind another's does not begin a second. */
	if (now > state->start && now - state->start > monitor.boot->tsc_hz) {
		state->start = now;
		state->lines = 0;
	}
	va_start(arguments, format);
	if (state->lines++ < REFUSAL_LINES_PER_SECOND)
		write_line(LOG_WARNING, level_limit >= LOG_DEBUG, format, arguments);
	else
		log_lines_lost++;
	va_end(arguments);
	unlock_log(locked);
}

void log_init(const struct boot_info *boot)
{
	ring = (u8 *)(MONITOR_VA + boot->log);
	level_limit = boot->log_level;
	serial_port = (u16)boot->serial_port;
}

void log_release(void)
{
	unlock_log(log_owner == this_cpu()->slot + 1);
}

bool log_read(u64 offset, u64 words[8])
{
	const struct hyperps_log header = { .size = LOG_SIZE, .written = ring_written };

	_Static_assert(sizeof(header) == HYPERPS_READ_BYTES, "the ring starts at the second piece");
	if (offset >= sizeof(header) + LOG_SIZE)
		return false;
	__builtin_memcpy(words, offset ? ring + (offset - sizeof(header)) : (const u8 *)&header, HYPERPS_READ_BYTES);
	return true;
}

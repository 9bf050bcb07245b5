/* SPDX-License-Identifier: MIT */
/* The log: a ring that the host can read, the serial port, and for errors the screen. */
#ifndef LOG_H
#define LOG_H

#include "boot_info.h"

/* What the host was refused. */
enum refusal {
	REFUSED_MEMORY,
	REFUSED_MSR,
	REFUSED_INSTRUCTION,
	REFUSED_REGISTER,
	REFUSED_GATE,
	REFUSED_DMA,
	REFUSALS
};

enum log_level { LOG_ERROR = 0, LOG_WARNING = 1, LOG_INFO = 2, LOG_DEBUG = 3 };

/*
 * One line to the log ring and, if configured, the serial port; an error also to the screen. Format: %s %u %x %lu %lx,
 * numbers with a width that is filled with zeros (%016lx). Lines above the configured level are dropped. Takes log_lock;
 * not for NMI handlers.
 */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Counts a refusal and logs it: the line goes to the ring, and to the serial port only at log level debug. The host can
 * cause these at will, so of each kind only a few lines a second are kept; the others are counted as lost.
 */
void log_refusal(enum refusal kind, const char *format, ...) __attribute__((format(printf, 2, 3)));

void log_init(const struct boot_info *boot);

/* Refusals by kind, and lines that were not kept. Written under log_lock. */
extern u64 refusals[REFUSALS], log_lines_lost;

/* Draws a line on the firmware's screen, if there is one. Needs log_lock, and this CPU's window closed or done with. */
void screen_line(const char *text, u32 length);

/* Gives log_lock up if this CPU holds it: for a CPU that stops for good. */
void log_release(void);

/*
 * 64 bytes of the log object (struct hyperps_log, then the ring) from `offset`; see hyperps/abi.h. False past its end.
 */
bool log_read(u64 offset, u64 words[8]);

#endif

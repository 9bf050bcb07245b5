/* SPDX-License-Identifier: MIT */
/* The end of the machine under this monitor: panic, stopping the CPUs, clearing memory, reset. */
#ifndef STOP_H
#define STOP_H

#include "log.h"

/*
 * The monitor's own bug, or a machine that breaks its contract: stops all CPUs for ever, in VMX root, with interrupts
 * off, prints the message and this CPU's state, and clears memory as clear_memory() does. Host code never runs again.
 * Before all CPUs are taken only this one stops.
 */
#define panic(...)                                                                                                     \
	do {                                                                                                           \
		stop_other_cpus();                                                                                     \
		log_line(LOG_ERROR, "panic: " __VA_ARGS__);                                                            \
		panic_stop();                                                                                          \
	} while (0)
void panic_stop(void) __attribute__((noreturn));

#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			panic("check failed: %s (%s:%u)", #condition, __FILE__, __LINE__);                             \
	} while (0)

/* Stops this CPU for ever. */
void stop_this_cpu(void) __attribute__((noreturn));

/*
 * Stops all other CPUs for ever: each by an NMI, or at its next exit (but for CPUID), wherever it is; waits 100 ms at most. Nothing
 * before all CPUs are taken. The caller must not return to the host; from now on it needs no lock. If two CPUs call this,
 * one of them stops.
 */
void stop_other_cpus(void);
bool this_cpu_stops_others(void);

/* Stops this CPU if another has called stop_other_cpus(). Wherever a CPU may go on for long. */
void stop_if_asked(void);

/*
 * Before the machine is reset or sleeps: stops all other CPUs, then overwrites each frame that is or was a guest's, the
 * pool, and the stacks, down to RAM. The host's view is gone then, too. why: for the log.
 */
void clear_memory(const char *why);

/* Resets the machine by the chipset, after clear_memory(). */
void reset_machine(void) __attribute__((noreturn));

/* The overwriting alone. No other CPU runs; takes no lock. base/clear.c. */
void memory_clear(void);

#endif

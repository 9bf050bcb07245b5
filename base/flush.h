/* SPDX-License-Identifier: MIT */
/* Flushing EPT translations on this CPU and on all (TLB shootdown). */
#ifndef FLUSH_H
#define FLUSH_H

#include "cpu.h"

/* Has this CPU flush all EPT translations. */
void flush_this_cpu(struct cpu *cpu);

/*
 * Has every CPU flush its EPT translations, this one included, and waits for it, a second at most. Returns whether all
 * have. Hold no lock: CPUs that wait for each other answer each other.
 */
bool flush_all_cpus(u64 epoch);

/* Whether the NMI that has just arrived was flush_all_cpus()'s; then this CPU has flushed. Also called by the NMI
 * handler. */
bool flush_take_kick(struct cpu *cpu);

/* This CPU is about to wait for a SIPI, and counts as flushed until flush_unpark(), which flushes. */
void flush_park(struct cpu *cpu);
void flush_unpark(struct cpu *cpu);

#endif

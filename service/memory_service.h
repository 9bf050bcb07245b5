/* SPDX-License-Identifier: MIT */
/* The memory manager as the monitor's CPUs share it: its lock, the flushes that it asks for, and the memory calls. */
#ifndef MEMORY_SERVICE_H
#define MEMORY_SERVICE_H

#include "manager.h"

/* Fills struct mm; boot CPU only, once. */
void memory_init(void);

/*
 * Serves one of the memory calls (HYPERPS_CALL_VM_CREATE to HYPERPS_CALL_POOL_DONATE): argument[0..3], the result in
 * *value. Takes mm_lock, and may flush all CPUs. Returns 0 or a HYPERPS_ERROR_* code.
 */
s64 serve_memory_call(u64 call, const u64 *argument, u64 *value);

/* The memory manager, under mm_lock. */
struct mm *memory_lock(void);
void memory_unlock(void);

/* Has every CPU flush for all that was removed so far. Takes mm_lock. False if one did not answer in time. */
bool memory_flush(void);

/* Reads from a page that the guest of a sealed VM has; nothing crosses the page. False if it has none. Takes mm_lock. */
bool memory_read_guest(u64 handle, u64 gpa, void *out, unsigned bytes);

/*
 * The only functions by which nested/ reaches host memory (docs/nested.md, "Reading host memory"). gpa: any number;
 * words that are aligned are read by one load each. False, and `out` is zeros: the frame is not HOST, the bytes are not
 * all in one page, or a load met a machine check. In VMX root. Reading takes mm_lock only if flushes keep coming, writing
 * always. words: numbers below 512 of those that are read of a page, whose address gpa is.
 */
bool memory_read_host(u64 gpa, void *out, unsigned bytes);
bool memory_read_host_words(u64 gpa, u64 *out, const u16 *words, unsigned count);
bool memory_write_host(u64 gpa, const void *in, unsigned bytes);

/*
 * Takes pages that are no RAM out of the host view; CPUs that have run the host have to flush. Takes mm_lock. False: the
 * pool is too small.
 */
bool memory_hide(hpa_t hpa, u64 pages);

/*
 * Whether the host view allows the access (EPT_READ, EPT_WRITE, EPT_EXECUTE) to gpa, any number. A CPU can miss that for a
 * while: it may still know a table that a large page has replaced. Takes mm_lock.
 */
bool memory_host_may(u64 gpa, u64 access);

/* What the gate gives back: RAX and RDX by the C calling convention. */
struct gate_result {
	s64 status;
	u64 value;
};

/*
 * Serves a call by the gate, in the monitor view: this_cpu() is not available, an exception is fatal, nothing may exit.
 * The arguments lie in the registers in which the host passes them. Takes mm_lock.
 */
struct gate_result gate_serve(u64 argument1, u64 argument2, u64 argument3, u64 unused, u64 argument4, u64 call);

#endif

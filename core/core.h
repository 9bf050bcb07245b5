/* SPDX-License-Identifier: MIT */
/* What all of VMX root shares: the boot information, address conversion, log and panic. */
#ifndef CORE_H
#define CORE_H

#include "types.h"
#include "boot_info.h"
#include "ept.h"
#include "page_mark.h"
#include "cpu.h"

/*
 * Lock order: mm_lock < log_lock, flush_lock < log_lock; mm_lock and flush_lock are never held together. log_lock is a
 * leaf: nothing is taken under it. The NMI and machine-check handlers take no lock.
 */
struct spinlock {
	volatile u32 taken;
};

struct mm;

void spin_lock(struct spinlock *lock);
void spin_unlock(struct spinlock *lock);

/* The monitor's state that is one for all CPUs. Written by the boot CPU before any other CPU runs, then constant. */
struct monitor {
	const struct boot_info *boot;
	struct page_pool pool; /* what is free in the monitor's memory */
	struct page_marks marks;
	struct ept host_view;
	u64 host_eptp;
	bool flush_l1; /* the CPUs leak L1 data and can flush it: done after each call */
	u8 *msr_bitmap; /* shared by all CPUs: the policy is one */
};

extern struct monitor monitor;

/* The CPU of a slot; slot < boot_info->cpu_slots. Its fields belong to that CPU; others only read the counters. */
static inline struct cpu *cpu_of_slot(u32 slot)
{
	return &((struct cpu_area *)(MONITOR_VA + monitor.boot->cpu_area))[slot].cpu;
}

/* The CPUs of all slots, also those in which there is none. */
#define FOR_EACH_CPU(cpu)                                                                                              \
	for (struct cpu *cpu = cpu_of_slot(0), *end_ = cpu_of_slot(monitor.boot->cpu_slots); cpu < end_;               \
	     cpu = &(cpu_area_of(cpu) + 1)->cpu)

/* What the host was refused. */
enum refusal { REFUSED_MEMORY, REFUSED_MSR, REFUSED_INSTRUCTION, REFUSED_REGISTER, REFUSED_GATE, REFUSALS };

/* Host-physical address of an object in the monitor's memory. */
hpa_t hpa_of(const void *object);

/*
 * Takes a 4 KiB page out of the monitor's own page tables, and out of this CPU's TLB: for a page that no other CPU
 * uses. False if a large page maps it.
 */
bool unmap_own_page(const void *page);

/* TSC ticks since some moment, whatever the host writes to the TSC. CPUs differ by a constant. */
u64 monitor_time(void);

/* Entries of the monitor's own page tables, as the loader builds them: accessed and dirty are set from the start. */
#define PTE_TABLE (BIT(0) | BIT(1) | BIT(5)) /* present, writable, accessed */
#define PTE_LARGE BIT(7)
#define PTE_RW (PTE_TABLE | BIT(6) | BIT(63)) /* of a page of data */

/*
 * The entry of the monitor's own page tables for a page of 2^last bytes at a linear address that no other CPU uses; it
 * may be 0. NULL if there is no table for it. make: tables that lack are made, if the pool has pages; that needs
 * mm_lock. Whoever changes what is mapped flushes it from this CPU's TLB.
 */
volatile u64 *own_page_entry(u64 linear, unsigned last, bool make);

/* Waits at least that many microseconds, by the TSC. */
void delay_us(u64 microseconds);

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

/* The overwriting alone; core/memory.c. No other CPU runs; takes no lock. */
void memory_clear(void);

/* Starts every other CPU and takes it into VMX; core/takeover.c. Returns a HYPERPS_* code. Boot CPU only, once. */
s64 take_other_cpus(void);

/* Whether that has been tried: from then on the host is not trusted any more. */
extern bool boot_services_ended;

/* Whether it succeeded: every CPU is in VMX. */
extern bool other_cpus_taken;

/* Holds a started CPU (not the boot CPU) back until all have arrived. */
void wait_for_permission_to_enter(void);

/* Sets up this CPU's window, through which it works on frames. */
void window_init(struct cpu *cpu);

/* Maps a frame in this CPU's window, with these flags in its entry; 0, 0: nothing. Nothing else may be in it. */
u8 *set_window(u64 frame, u64 flags);

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

/* Commands for the interrupt command register. */
#define APIC_NMI 0x400
#define APIC_INIT 0x500
#define APIC_STARTUP 0x600 /* OR the page number of the real-mode code */

/* Sends to every CPU but this one. The host's half-written command is kept. Nothing is sent if this CPU's APIC is off.
 */
void apic_send_to_others(u32 command);

/* Has this CPU flush all EPT translations. */
void flush_this_cpu(struct cpu *cpu);

/*
 * Has every CPU flush its EPT translations, this one included, and waits for it, 100 ms at most. Returns whether all
 * have. Hold no lock: CPUs that wait for each other answer each other.
 */
bool flush_all_cpus(u64 epoch);

/* Whether the NMI that has just arrived was flush_all_cpus()'s; then this CPU has flushed. Also called by the NMI
 * handler. */
bool flush_take_kick(struct cpu *cpu);

/* This CPU is about to wait for a SIPI, and counts as flushed until flush_unpark(), which flushes. */
void flush_park(struct cpu *cpu);
void flush_unpark(struct cpu *cpu);

/* Serves a call of the host's (hyperps/abi.h); regs hold its registers. Never fails otherwise than by an error code. */
void serve_call(struct guest_registers *regs);

#endif

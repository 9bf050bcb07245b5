/* SPDX-License-Identifier: MIT */
/* What a CPU has for the gate, as data: it is a part of each CPU's memory. service/gate_view.h and host_cpu/ work on it. */
#ifndef GATE_STATE_H
#define GATE_STATE_H

#include "types.h"

#define GATE_TABLES 32 /* pages for the tables of both views */
#define GATE_STACK_PAGES 2

/* Top of the gate's stack, right below the EPTP list. */
struct gate_frame {
	u8 host_idtr[16]; /* stored by the landing, loaded before it goes back */
	u8 empty_idtr[16]; /* limit 0, written once */
	u64 host_rsp;
	u64 null_selector;
} __attribute__((aligned(16)));

/* A CPU's pages for the gate, contiguous in its cpu_area. */
struct gate_area {
	u8 stack_guard[4096];
	u8 stack[GATE_STACK_PAGES * 4096 - sizeof(struct gate_frame)];
	struct gate_frame frame;
	u64 list[512]; /* EPTP list: 0 host view, 1 airlock, 2 monitor view, filled only while the CPU passes */
	u8 airlock[4096]; /* code */
	u8 landing[4096]; /* code */
	u64 table[GATE_TABLES][512];
};

struct gate {
	bool on; /* VM functions are on: an exit may come from the airlock or the monitor view */
	u64 linear; /* of the gate page */
	u64 la57; /* CR4.LA57, for which the gate's tables were built */
	u64 top; /* guest-physical address in the gate's CR3; 0 before the first GATE_SET */
	u64 *monitor_top; /* table of PML4 entries that it means in the monitor view */
	u64 *monitor_root; /* of the monitor view's EPT, chosen so that its address is safe code */
	u64 airlock_eptp, monitor_eptp;
	u32 tables_used;
};

#endif

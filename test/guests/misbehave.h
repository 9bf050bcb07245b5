/* SPDX-License-Identifier: MIT */
/* The parts of misbehave: each is a word of the command line, or word=NUMBER. */
#ifndef MISBEHAVE_H
#define MISBEHAVE_H

#include "guest.h"

#define DEBUG_EXIT_PORT 0xf4
#define NONE_UD_GP(vector) ((vector) == VECTOR_NONE || (vector) == VECTOR_UD || (vector) == VECTOR_GP)

extern u8 scratch[2][PAGE_SIZE];

/* misbehave_cpu.c */
void try_msrs(u64 rounds);
void try_control_registers(u64 unused);
void try_vmx(u64 unused);
void try_exits(u64 unused);
void try_debug(u64 unused);
void try_exceptions(u64 unused);
void try_demand(u64 unused);
void try_db_loop(u64 unused);

/* misbehave_io.c */
void try_ports(u64 step);
void try_mmio(u64 gpa);
void try_mmio_unknown(u64 gpa);

#endif

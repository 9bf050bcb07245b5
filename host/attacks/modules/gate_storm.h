/* SPDX-License-Identifier: GPL-2.0 */
#ifndef GATE_STORM_H
#define GATE_STORM_H

struct seq_file;

/* All CPUs in the gate at once; it must be on. The caller's CPU, which is 0, loses its own. */
void check_storms(struct seq_file *out);

#endif

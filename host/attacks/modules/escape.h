/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a hostile kernel has a CPU execute from the reset state on, below 1 MiB. It goes through real mode, protected mode
 * without and with PAE paging, to 64-bit mode, and in each tries VMFUNC, which must raise #UD. escape_stub.S knows the
 * offsets.
 */
#ifndef ESCAPE_H
#define ESCAPE_H

/* Pages of RAM where Linux keeps nothing. The first has the code and, from STUB_SEEN on, what came of it. */
#define STUB 0x50000
#define STUB_SEEN 0xc00
#define STUB_IDT_REAL (STUB + 0x1000)
#define STUB_IDT_PROTECTED (STUB + 0x1100)
#define STUB_IDT_LONG (STUB + 0x1200)
#define STUB_PAE (STUB + 0x1400) /* page-directory pointers for PAE paging */
#define STUB_PML4 (STUB + 0x2000)
#define STUB_PDPT (STUB + 0x3000)
#define STUB_PD (STUB + 0x4000)
#define STUB_PD_APIC (STUB + 0x5000) /* of the fourth GiB */
#define STUB_PAGES 6
#define STUB_MODES 4
/* HYPERPS_CALL_IDENTIFY and HYPERPS_SIGNATURE, whose header is C's */
#define STUB_IDENTIFY 0x48505300
#define STUB_SIGNATURE 0x5350726570794800

/* From STUB_SEEN on. Each is counted by the CPUs that come by. */
#define SEEN_RUNS (STUB_SEEN + 0)
#define SEEN_VMX (STUB_SEEN + 4) /* CPUID said that there is VMX */
#define SEEN_UD (STUB_SEEN + 8) /* VMFUNC raised #UD, by mode */
#define SEEN_DONE (STUB_SEEN + 24)
#define SEEN_ANSWERS (STUB_SEEN + 28) /* the monitor answered to VMCALL */
#define SEEN_COMMAND (STUB_SEEN + 32) /* COMMAND_*, and the last one that was done */
#define SEEN_OBEYED (STUB_SEEN + 36)

/* To one CPU in the stub: its APIC off by its spurious-interrupt register, on again, off by IA32_APIC_BASE; a reset by port 0xcf9. */
#define COMMAND_APIC_OFF 1
#define COMMAND_APIC_ON 2
#define COMMAND_APIC_GLOBALLY_OFF 3
#define COMMAND_RESET 4

#ifndef __ASSEMBLY__
#include <linux/types.h>

struct seen {
	u32 runs, vmx, ud[STUB_MODES], done, answers, command, obeyed;
};

/* The code, to be copied to STUB, and its handlers of #UD by mode: real, protected (for both kinds), long. */
extern const char escape_stub[], escape_stub_end[], escape_ud_real[], escape_ud_protected[], escape_ud_long[];
#endif
#endif

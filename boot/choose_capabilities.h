/* SPDX-License-Identifier: MIT */
#ifndef CHOOSE_CAPABILITIES_H
#define CHOOSE_CAPABILITIES_H

#include "capabilities.h"

/* VMX controls that the monitor is given, and has no word for itself; the others are in include/vmx.h. Pin-based: */
#define PIN_EXTERNAL_INTERRUPT_EXITING BIT(0)
#define PIN_NMI_EXITING BIT(3)
#define PIN_VIRTUAL_NMIS BIT(5)
/* Primary processor-based: */
#define PRIMARY_TSC_OFFSETTING BIT(3)
#define PRIMARY_HLT_EXITING BIT(7)
#define PRIMARY_MWAIT_EXITING BIT(10)
#define PRIMARY_RDPMC_EXITING BIT(11)
#define PRIMARY_CR8_LOAD_EXITING BIT(19)
#define PRIMARY_CR8_STORE_EXITING BIT(20)
#define PRIMARY_IO_EXITING BIT(24)
#define PRIMARY_USE_IO_BITMAPS BIT(25)
#define PRIMARY_MONITOR_EXITING BIT(29)
#define PRIMARY_USE_MSR_BITMAPS BIT(28)
#define PRIMARY_SECONDARY_CONTROLS BIT(31)
#define PRIMARY_CR3_STORE_EXITING BIT(16)
#define PRIMARY_INVLPG_EXITING BIT(9)
/* Secondary processor-based: */
#define SECONDARY_EPT BIT(1)
#define SECONDARY_RDTSCP BIT(3)
#define SECONDARY_WBINVD_EXITING BIT(6)
#define SECONDARY_INVPCID BIT(12)
#define SECONDARY_USER_WAIT_PAUSE BIT(26)
/* VM exit and entry: */
#define EXIT_SAVE_DEBUG BIT(2)
#define EXIT_HOST_64 BIT(9)
#define EXIT_SAVE_PAT BIT(18)
#define EXIT_LOAD_PAT BIT(19)
#define EXIT_SAVE_EFER BIT(20)
#define EXIT_LOAD_EFER BIT(21)
#define ENTRY_LOAD_DEBUG BIT(2)
#define ENTRY_LOAD_PAT BIT(14)
#define ENTRY_LOAD_EFER BIT(15)
/* IA32_VMX_BASIC: */
#define VMX_BASIC_TRUE_CONTROLS BIT(55)

/*
 * Fills *out for the CPU it runs on. Returns NULL if that CPU can run the monitor, else a sentence that says what is
 * missing and what to do. Runs outside VMX, at CPL 0; writes nothing but *out.
 */
const char *choose_capabilities(struct vmx_capabilities *out);

#endif

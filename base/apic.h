/* SPDX-License-Identifier: MIT */
/* Interrupts to the other CPUs. */
#ifndef APIC_H
#define APIC_H

#include "types.h"

/* Commands for the interrupt command register. */
#define APIC_NMI 0x400
#define APIC_INIT 0x500
#define APIC_STARTUP 0x600 /* OR the page number of the real-mode code */

/* Sends to every CPU but this one. The host's half-written command is kept. Nothing is sent if this CPU's APIC is off.
 */
void apic_send_to_others(u32 command);

#endif

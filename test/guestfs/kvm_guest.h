/* SPDX-License-Identifier: MIT */
/* What the guests of kvm_probe.c execute, and where it finds what. kvm_guest.S says which registers a routine takes. */
#ifndef KVM_GUEST_H
#define KVM_GUEST_H

/* Low memory. */
#define CODE 0x1000
#define RESULT 0x8000
#define FAULT 0x8f00 /* vector, error code, CR2, where to go on */
#define STACK 0x9ff0
#define IDT 0xa000
#define GDT 0xb000
#define GDT_POINTER 0xb100
#define TABLES 0x10000 /* PML4, PDPT, PD, PT; PAGE_ONE at its own address. 1 GiB is identity */
#define OTHER_TABLES 0x14000 /* the same, but for PAGE_ONE, where PAGE_TWO is */
#define PAE_TABLES 0x18000 /* PDPT, the other 20h behind */
#define TSS 0x19000 /* two, the other 100h behind; their selectors are 30h and 38h */
#define PAGE_ONE 0x80000
#define PAGE_TWO 0x81000
#define READ_ONLY 0x82000
#define RESERVED 0x83000 /* with a reserved bit in its entry */
#define LOW_BYTES 0xa0000

#define REAL_DEVICE 0xd0000
#define DEVICE 0x30000000
#define MEMORY 0x10000000
#define SPARSE 0x40000000

#define OUT_PORT 0x80
#define FAULTS 16 /* that guest_faults meets */

#ifndef __ASSEMBLER__
extern const char guest_begin[], guest_end[], guest_real[], guest_string[], guest_real_device[], guest_device[],
	guest_touch[], guest_sum[], guest_copy[], guest_wait[], guest_window[], guest_exceptions[], guest_msr[],
	guest_spin[], guest_modes[], guest_long[], guest_xcr0[], guest_faults[], guest_cr3[], guest_invlpg[],
	guest_count[], guest_reader[], guest_exits[], guest_steps[], guest_pit[], guest_ticking[], guest_triple[],
	guest_real_triple[], guest_apic[], guest_other_cpu[], guest_ipi[], guest_timer[], guest_pae[], guest_task[],
	other_task[], on_interrupt[], on_nmi[], on_divide[], on_opcode[], on_protection[], on_tick[], on_vector[];
#endif

#endif

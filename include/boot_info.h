/* SPDX-License-Identifier: MIT */
/*
 * What the loader (boot/) hands to the monitor. The loader fills it once, before the first jump into the
 * monitor; from then on it lies in monitor memory and the host cannot reach it.
 *
 * Address map of the monitor (the only linear addresses its page tables hold):
 *
 *   MONITOR_VA                   the image: text R+X, read-only data R, data and bss R+W, as struct image_header says
 *   MONITOR_VA + x               the rest of the monitor's memory region, R+W:
 *                                linear = MONITOR_VA + (hpa - region.base)
 *   MONITOR_DIRECT_VA + hpa      2 MiB that the host has donated to the pool, or of kvm_pool, R+W; the monitor adds these
 *                                itself
 *   MONITOR_APIC_VA              the local APIC's page, R+W, uncached (used only if the CPUs are in xAPIC mode)
 *   MONITOR_TRAMPOLINE_DATA_VA   the trampoline's data page (struct trampoline_data), R+W, until all CPUs are up
 *   MONITOR_WINDOW_VA            a page for each CPU slot, mapped R+W only while the CPU zeroes a frame, or draws on the
 *                                screen, through it
 *
 * All of it lies in PML4 slot 480, donated memory and kvm_pool in slots 472 to 479. The boot page tables also map the trampoline's
 * code page (R+X) and data page (R+W) below 1 MiB at their own physical addresses; each CPU leaves them for the final
 * ones before it does anything else.
 */
#ifndef BOOT_INFO_H
#define BOOT_INFO_H

#include "handover.h"
#include "mtrr.h"

#define MONITOR_VA 0xfffff00000000000ULL /* PML4 slot 480 */
#define MONITOR_DIRECT_VA 0xffffec0000000000ULL /* PML4 slots 472 to 479: 4 TiB */
#define MONITOR_APIC_VA 0xfffff07fffe00000ULL /* last 2 MiB of that slot */
#define MONITOR_TRAMPOLINE_DATA_VA (MONITOR_APIC_VA + PAGE_SIZE)
#define MONITOR_WINDOW_VA (MONITOR_APIC_VA + 2 * PAGE_SIZE)
#define MONITOR_WINDOWS 510

/* The gate is offered only if the region ends at or below this: its code holds an EPT pointer as a 31-bit immediate. */
#define GATE_MEMORY_LIMIT (1ULL << 31)

#define KVM_POOL_PER_CPU (1ULL << 20) /* bytes of kvm_pool, at least: docs/nested.md, "EPT02" */

#define IMAGE_MAGIC 0x3130534d53505948ULL /* "HYPSMS01" */

/*
 * First bytes of the flat monitor image, written by linker.ld. Offsets are from the start of the image, page-aligned.
 */
struct image_header {
	u64 magic;
	u64 text_end; /* [0, text_end): R+X, this header included */
	u64 rodata_end; /* [text_end, rodata_end): R */
	u64 file_size; /* bytes in the file; the rest up to image_size is bss, which the loader zeroes */
	u64 image_size; /* [rodata_end, image_size): R+W */
	u64 entry; /* offset of the entry point: EDI = CPU slot (0 is the boot CPU), RSI = linear address of boot_info;
		    * boot page tables loaded, interrupts off, no stack */
	u64 cpu_area_size; /* bytes of monitor memory that one CPU slot takes, page-aligned */
	u64 log_size; /* bytes of the log ring */
};

/* The trampoline's data page (boot/trampoline.h). The CPUs count with locked instructions; the monitor only reads. */
struct trampoline_data {
	u32 next_slot; /* slot of the next CPU that arrives; starts at 1, since the boot CPU has slot 0 */
	u32 excess; /* CPUs that found no slot left: they halt in the code page with interrupts off */
};

/* A segment register as the VMCS wants it. access_rights is in VMX format (bit 16: unusable). */
struct boot_segment {
	u64 base;
	u32 limit;
	u32 access_rights;
	u16 selector;
	u16 reserved[3];
};

enum { SEGMENT_ES, SEGMENT_CS, SEGMENT_SS, SEGMENT_DS, SEGMENT_FS, SEGMENT_GS, SEGMENT_LDTR, SEGMENT_TR, SEGMENTS };

/* The processor state in which the firmware called the loader, and in which the boot CPU resumes, de-privileged. */
struct boot_cpu_state {
	u64 rip; /* written by the loader's assembly stub, like rsp */
	u64 rsp;
	u64 rflags;
	u64 cr0, cr3, cr4;
	u64 efer;
	u64 gdt_base, idt_base;
	u32 gdt_limit, idt_limit;
	struct boot_segment segment[SEGMENTS];
};

/*
 * A byte by which the host ends the machine's run: written to port, with (byte & mask) == value, it resets the machine,
 * or starts its sleep. sleep: the upper half of a PM1 control register.
 */
struct boot_end_port {
	u16 port; /* 0: end of the list */
	u8 mask, value;
	bool sleep;
};

#define BOOT_END_PORTS 9

/* The firmware's screen, for errors: 32 bits a pixel, red and blue in any order. */
struct boot_screen {
	u64 base; /* hpa of the frame buffer, a multiple of 4 */
	u32 width, height; /* pixels; 0: there is none */
	u32 pitch; /* pixels from one line to the next */
	u32 reserved;
};

#define BOOT_IOMMUS 64
/* The DMA-remapping units (docs/dma.md), and what is true of the machine once they are on. */
struct boot_dma {
	u64 unit[BOOT_IOMMUS]; /* hpa of its registers; bits 11:0: their pages. 0: end of the list */
	u32 text_level; /* of the line for the log */
	bool required; /* dma = require: stop if a unit can't be switched on */
	bool held_back; /* no known device goes around the units */
	char text[120]; /* a line that says what is true of DMA, if all of unit[] are on, or if there is none */
};

struct boot_info {
	/* Monitor memory: one contiguous range, 2 MiB-aligned, EfiReservedMemoryType. The image lies at its start. */
	u64 region_base; /* hpa, bytes */
	u64 region_size;
	u64 cpu_area; /* offset in the region of CPU slot 0's area; slot n at + n * cpu_area_size */
	u64 log; /* offset in the region of the log ring */
	u64 free; /* offset of the first byte of the pool, page-aligned */

	/* Made by the loader, with the monitor's addresses of the pages; the monitor goes on with copies of the three. */
	struct page_marks marks;
	struct page_pool pool;
	struct ept host_view;
	struct mtrr_state mtrr; /* the boot CPU's */
	struct vmx_capabilities capabilities; /* of the boot CPU, with the controls to be used on every CPU */

	/* Page tables that the loader built. */
	u64 final_cr3; /* hpa of the PML4 that holds the address map above and nothing else */

	/*
	 * Pages below 1 MiB: 0 the trampoline's code, 1 its data, from 2 the boot page tables (2 is their PML4).
	 * Reserved, and hidden from the host.
	 */
	u64 low_base; /* hpa of the trampoline page; its SIPI vector is low_base >> 12 */
	u64 low_size;

	/*
	 * For the VMs that the host's own hypervisor runs (docs/nested.md): one contiguous range below PAGE_MARK_LIMIT,
	 * 2 MiB-aligned, reserved, and hidden from the host. Size 0: VMX is not offered, and why.
	 */
	u64 kvm_pool_base; /* hpa, bytes */
	u64 kvm_pool_size; /* at least KVM_POOL_PER_CPU for each CPU slot */
	char kvm_text[120];
	u32 kvm_level; /* of the line for the log that says so */

	/* The boot CPU included. */
	u32 cpu_count; /* CPUs that the firmware found: each must come */
	u32 cpus_listed; /* at least cpu_count; the rest is waited for, but need not exist */
	u32 cpu_slots; /* CPU areas reserved: at least cpu_count */

	u64 tsc_hz; /* measured by the loader */
	u64 serial_port; /* I/O port of a 16550 for the monitor's messages, 0 for none */
	u32 log_level; /* messages above this level are dropped: 0 error, 1 warning, 2 info, 3 debug */
	u32 gate; /* enum hyperps_gate: whether it is offered */
	u32 gate_level; /* of the line for the log that says so */
	char gate_text[120]; /* that line */
	u32 unfit_continue; /* go on when a CPU can't be taken (unfit = continue); else stop */
	struct boot_end_port end_port[BOOT_END_PORTS + 1]; /* the last one is 0 */
	struct boot_screen screen;
	struct boot_dma dma;
	struct boot_cpu_state boot_cpu;
};

_Static_assert(sizeof(struct boot_info) == 3800,
	       "the loader and the monitor must agree; the assembly's offsets are generated");

#endif

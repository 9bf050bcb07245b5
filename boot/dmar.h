/* SPDX-License-Identifier: MIT */
/*
 * Whether the DMA-remapping units can be switched on, and what can be said of the machine then (docs/dma.md). No EFI types: it
 * builds for the build machine too.
 */
#ifndef DMAR_H
#define DMAR_H

#include "acpi.h"
#include "conf.h"
#include "host_view.h"

#define DMAR_RESERVED_MAX 64

/* The registers of a unit that are looked at: their names are those of Intel's VT-d specification. */
struct dmar_registers {
	u32 version;
	u64 capability, extended_capability;
};

/* A PCI function, and of a bridge the buses behind it, else 0. */
struct dmar_function {
	u16 segment;
	u8 bus, device, function, secondary, subordinate;
};

/* What is asked. */
struct dmar_machine {
	u32 wanted; /* enum conf_dma */
	const struct acpi_table *dmar, *mcfg; /* all of `length` can be read; NULL: there is none */
	const struct boot_memory_range *ranges; /* the firmware's memory map */
	u32 range_count;
	struct boot_memory_range own[3]; /* the monitor's memory, as far as it is known by now */
	unsigned address_bits; /* physical-address width */
	unsigned ept_levels, largest_leaf; /* of the host view, as far as the CPU decides */
	/* Reads the registers at this hpa. False: they can't be reached. */
	bool (*read)(u64 base, struct dmar_registers *registers);
	u32 cpu; /* CPUID.1:EAX */
	u32 largest_apic_id;
	bool x2apic_locked;
	bool hypervisor; /* HyperPS runs in a virtual machine */
	bool cxl; /* there is a CEDT table */
	bool fixed; /* the DMAR table can't be renamed */
	const struct dmar_function *functions;
	u32 function_count;
	bool more_functions; /* there are others */
	u32 host_bridge; /* PCI IDs of 00:00.0, the device's in bits 31:16; 0: not known */
	u32 graphics; /* those of an Intel graphics device at 00:02.0; 0: there is none */
};

/* What is answered. */
struct dmar_choice {
	struct boot_dma dma;
	const char *
		reason; /* why DMA is not held back, or not all of it; "<what is wrong>. <what to do>", or only what is wrong; NULL: it is */
	bool has_fault; /* there is a DMAR table, and the units stay off because of what it, or the machine, is */
	unsigned largest_leaf; /* of the host view */
	bool write_back; /* as in struct ept */
	u32 reserved_count; /* RMRRs: memory that firmware has devices use; only where the units are to be switched on */
	struct boot_memory_range reserved[DMAR_RESERVED_MAX];
};

/* Nothing in the tables is trusted. choice->dma.text is filled in any case. */
void dmar_choose(const struct dmar_machine *machine, struct dmar_choice *choice);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * What the loader's parts share. A function that can fail returns an EFI status; on failure it has told unfit() why, in
 * one line for the user, and has given back what it took.
 */
#ifndef LOADER_H
#define LOADER_H

#include <efi.h>
#include <efilib.h>
#include "boot_info.h"
#include "capabilities.h"
#include "conf.h"
#include "dmar.h"
#include "host_view.h"

/* main.c */

extern EFI_HANDLE loader_image;
extern EFI_LOADED_IMAGE *loader; /* of loader_image; its DeviceHandle is the loader's own volume */

/* Keeps the one line that will be printed: "<what is wrong>. <what to do>", a Print() format. Returns status. */
EFI_STATUS unfit(EFI_STATUS status, const CHAR16 *format, ...);

/* What unfit() was told last. */
extern CHAR16 unfit_reason[400];

/* volume.c: files, searched on the loader's own volume first, then on all others */

struct volume_file {
	EFI_HANDLE volume;
	EFI_FILE *file; /* open for reading; NULL: none */
	UINT64 size; /* bytes */
	CHAR16 *path; /* from the volume's root, with backslashes; from the pool */
};

/* Opens an ASCII path. *found must be closed. `key` names the configuration line in the error message. */
EFI_STATUS volume_find(const char *key, const char *path, struct volume_file *found);

/* Opens a path (UTF-16, backslashes) on the loader's own volume only. Doesn't call unfit(). */
EFI_STATUS volume_open_own(CHAR16 *path, struct volume_file *found);

/* Reads the whole file to buffer, which has room for found->size bytes. Doesn't call unfit(). */
EFI_STATUS volume_read(struct volume_file *found, void *buffer);

void volume_close(struct volume_file *found);

/* chainload.c */

/* Finds and loads what the configuration names, without starting it. Nothing else can be missing afterwards. */
EFI_STATUS chainload_prepare(const struct conf *conf);

/* Starts it. Returns only if it does, with its status; everything is given back then. */
EFI_STATUS chainload_start(void);

/* Gives back what chainload_prepare() took. */
void chainload_discard(void);

/* processors.c */

/* Numbers of CPUs, the boot CPU included. */
struct processors {
	UINT32 existing; /* by the firmware's MP services, if it has these, else as listed */
	UINT32 listed; /* by these or in the ACPI tables, whichever are more: not fewer than existing */
};

struct processors processors_count(void);

/* Of the enabled CPUs in the ACPI tables; 0 if they list none. */
u32 processors_largest_apic_id(void);

/* Ticks of the time-stamp counter per second. */
UINT64 processors_tsc_hz(void);

/* memory.c: the monitor's memory, and the trampoline's pages below 1 MiB */

struct monitor_memory {
	EFI_PHYSICAL_ADDRESS region;
	UINT64 region_size;
	/* From this byte of it on this many pages should be at addresses that suit the gate. */
	UINT64 gate_offset, gate_roots;
	EFI_PHYSICAL_ADDRESS low;
	UINT64 low_size;
	EFI_PHYSICAL_ADDRESS kvm_pool; /* 0: there is none */
	UINT64 kvm_pool_size;
};

/* Takes region_size, low_size and kvm_pool_size bytes as reserved memory. It succeeds without kvm_pool, too. */
EFI_STATUS memory_take(struct monitor_memory *memory);

void memory_give_back(struct monitor_memory *memory);

/* Copies the firmware's memory map, neighbours of one type merged, to ranges[BOOT_MEMORY_RANGES]. */
EFI_STATUS memory_map_read(struct boot_memory_range *ranges, u32 *count);

/*
 * Whether the firmware's memory map has all of [address, address + bytes), any numbers, or it lies below 1 MiB: other addresses need
 * not be mapped (UEFI specification, "x64 Platforms").
 */
bool memory_is_mapped(UINT64 address, UINT64 bytes);

/*
 * What the firmware's page tables, which map an address to itself if at all, allow there: PTE_PRESENT, PTE_WRITE, and PTE_NX if
 * no code may run. 0: nothing is mapped.
 */
UINT64 memory_rights(UINT64 address);

/* Has the firmware clear the memory when it starts next, if it can do that. */
void memory_request_overwrite(void);

/* dma.c */

/* Fills in what the firmware's tables, the PCI devices and the CPU say; all but the memory and the host view. */
void dma_look(struct dmar_machine *machine);

/* Gives the DMAR table another name, so that the host's kernel does not look for the units. */
void dma_hide_table(void);

/* cpu_state.c */

/* Captures this CPU's system registers as the firmware set them, all but rip, rsp and rflags. */
void cpu_state_capture(struct boot_cpu_state *state);

/* Reads this CPU's MTRRs. */
void mtrr_capture(struct mtrr_state *mtrr);

/* monitor.c */

/* Finds the mark that a monitor left in the firmware's configuration tables. */
bool monitor_is_running(void);

/*
 * Checks the machine, places the monitor in memory and enters it. On success this CPU runs de-privileged from then on.
 */
EFI_STATUS monitor_start(const struct conf *conf);

/* enter.asm */

extern const char trampoline_start[], trampoline_end[];
extern const char exit_boot_hook[], exit_boot_hook_original[], exit_boot_hook_end[];
void enter_monitor(struct boot_info *info, u64 low_entry);

/* monitor_image.asm */

extern const char monitor_image_start[], monitor_image_end[];

#endif

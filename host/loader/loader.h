/* SPDX-License-Identifier: MIT */
/* What the parts of the loader share. */
#ifndef LOADER_H
#define LOADER_H

#include "instructions.h"
#include "layout.h"
#include "ranges.h"

/* Where shared memory is seen once the loader is protected: gpa 0 to 4 GiB. */
#define SHARED_WINDOW (4ULL << 30)

/* What the loader finds where it was started. */
struct machine {
	u64 rsdp;
	struct ranges free; /* once the firmware is gone */
};

/* What it tells itself across PROTECT, at HANDOVER_ADDRESS. */
struct handover {
	u64 payload, rsdp; /* gpas */
	struct ranges ram; /* the kernel's: what PROTECT is told, with what was the firmware's */
};

_Static_assert(sizeof(struct handover) <= PAGE_SIZE, "HANDOVER_ADDRESS is a page");

/* start.asm */
extern u8 image_start[], loader_start[], measured_end[], payload_start[];
extern u64 page_tables[6][512];
void run_on(void (*function)(void *), void *argument) __attribute__((noreturn));
void load_segments(void);
void descend(u64 list) __attribute__((noreturn));
void enter_kernel(u64 entry, void *boot_params) __attribute__((noreturn));

/* main.c: what start.asm calls */
void boot_start(struct boot_params *parameters) __attribute__((noreturn));
void refused(u64 unused, u64 error) __attribute__((noreturn));
void protected_start(void) __attribute__((noreturn));

/* console.c. Serial port COM1, and, while there are EFI's boot services, their console. */
void console_use_efi(void *system_table);
void print(const char *text);
void print_number(u64 number);
void print_hex(const u8 *bytes, u64 count);
/* Says why there is no way on, and halts. */
void give_up(const char *why) __attribute__((noreturn));

/* prepare.c: before PROTECT. */

/* Whether this VM can be protected and the image is whole: NULL, or what is wrong and what to do. Prints nothing. */
const char *machine_unfit(void);
const struct payload *image_payload(void);
/* Adds what the firmware calls an entry of its map; returns false if there are too many. First all RAM, then what is none. */
bool machine_add(struct machine *machine, u64 start, u64 end, u32 type);
/* Goes on once the firmware is gone. */
void prepare(struct machine *machine) __attribute__((noreturn));

/* qemu.c: how much RAM QEMU says that there is, whatever the firmware keeps for itself. False: nothing is said. */
bool qemu_ram(struct ram *ram);

/* pci.c: whether a device's memory lies at or above an address; of bus 0, and behind its bridges. */
bool pci_is_above(u64 limit);

/* lib.c: maps 4 GiB to themselves and, at SHARED_WINDOW, once more with shared_bit; loads CR3. */
void map_memory(u64 shared_bit);

void *memcpy(void *to, const void *from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

#endif

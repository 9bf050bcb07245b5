/* SPDX-License-Identifier: MIT */
/* Linux's boot protocol for x86: the header of a kernel's file, and the page that the kernel is started with. */
#ifndef BOOT_PARAMS_H
#define BOOT_PARAMS_H

#include "types.h"

#define SETUP_HEADER_OFFSET 0x1f1
#define SETUP_SECTOR 512
#define SETUP_MAGIC 0x53726448 /* "HdrS" */
#define SETUP_VERSION_XLOADFLAGS 0x20c
#define XLF_KERNEL_64 BIT(0)
#define ENTRY_64_OFFSET 0x200 /* of the 64-bit entry, from the protected-mode part on */
#define LOADER_TYPE_OTHER 0xff
#define EFI_LOADER_SIGNATURE 0x34364c45 /* "EL64" */

struct setup_header {
	u8 setup_sects;
	u16 root_flags;
	u32 syssize;
	u16 ram_size, vid_mode, root_dev, boot_flag;
	u8 jump, bytes_after_jump;
	u32 magic;
	u16 version;
	u32 realmode_swtch;
	u16 start_sys_seg, kernel_version;
	u8 type_of_loader, loadflags;
	u16 setup_move_size;
	u32 code32_start, ramdisk_image, ramdisk_size, bootsect_kludge;
	u16 heap_end_ptr;
	u8 ext_loader_ver, ext_loader_type;
	u32 cmd_line_ptr, initrd_addr_max, kernel_alignment;
	u8 relocatable_kernel, min_alignment;
	u16 xloadflags;
	u32 cmdline_size, hardware_subarch;
	u64 hardware_subarch_data;
	u32 payload_offset, payload_length;
	u64 setup_data, pref_address;
	u32 init_size, handover_offset, kernel_info_offset;
} __attribute__((packed));

#define E820_RAM 1
#define E820_RESERVED 2
#define E820_ACPI 3
#define E820_NVS 4

struct e820_entry {
	u64 address, bytes;
	u32 type;
} __attribute__((packed));

#define E820_ENTRIES 128

struct boot_params {
	u8 unused1[0x70];
	u64 acpi_rsdp_addr;
	u8 unused2[0x1c0 - 0x78];
	u32 efi_signature, efi_system_table, efi_memory[4], efi_system_table_high, efi_memory_high;
	u8 unused3[0x1e8 - 0x1e0];
	u8 e820_entries;
	u8 unused4[SETUP_HEADER_OFFSET - 0x1e9];
	struct setup_header header;
	u8 unused5[0x2d0 - SETUP_HEADER_OFFSET - sizeof(struct setup_header)];
	struct e820_entry e820[E820_ENTRIES];
	u8 unused6[PAGE_SIZE - 0x2d0 - E820_ENTRIES * sizeof(struct e820_entry)];
} __attribute__((packed));

_Static_assert(sizeof(struct boot_params) == PAGE_SIZE && sizeof(struct setup_header) == 0x26c - SETUP_HEADER_OFFSET,
	       "the boot protocol's offsets");

#endif

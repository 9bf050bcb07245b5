/* SPDX-License-Identifier: MIT */
/* The image as an EFI program. */
#ifndef EFI_START_H
#define EFI_START_H

#include <efi.h>

#include "loader.h"

/* The entry of the program. Returns if this VM can't be protected. */
EFI_STATUS EFIAPI efi_start(EFI_HANDLE image, EFI_SYSTEM_TABLE *system_table);

/* The address of the RSDP that a system table names, or 0. */
u64 efi_rsdp(const void *system_table);

#endif

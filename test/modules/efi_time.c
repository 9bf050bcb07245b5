// SPDX-License-Identifier: GPL-2.0
/* The firmware's runtime service GetTime answers; stock x86 kernels have no other user of it. */
#include <linux/efi.h>

#include "tap.h"

static int show_efi_time(struct seq_file *out, void *unused)
{
	efi_time_t time = { 0 };
	efi_status_t status;

	if (!efi_rt_services_supported(EFI_RT_SUPPORTED_GET_TIME)) {
		tap_check(out, true, "EFI GetTime # SKIP the firmware has no such service");
		return 0;
	}
	status = efi.get_time(&time, NULL);
	tap_check(out, status == EFI_SUCCESS && time.month >= 1 && time.month <= 12 && time.day >= 1 && time.day <= 31,
		  "EFI GetTime answers (status %#lx, %04d-%02d-%02d %02d:%02d:%02d)", status, time.year, time.month,
		  time.day, time.hour, time.minute, time.second);
	return 0;
}

TAP_MODULE("efi_time", show_efi_time, "Calls the firmware's GetTime");

/* SPDX-License-Identifier: MIT */
/* hpsctl install and uninstall: the loader on the EFI system partition (ESP), and the firmware's boot entry for it. */
#ifndef INSTALL_H
#define INSTALL_H

#include <stdbool.h>

#define INSTALL_LOADER "\\EFI\\HYPERPS\\hyperps.efi"
#define INSTALL_CONF "\\EFI\\HYPERPS\\hyperps.conf"

struct install {
	const char *esp; /* where it is mounted; NULL: look for it */
	const char *loader; /* the file to copy */
	const char *chainload; /* what the loader is to start, as on the ESP; NULL: what starts the system now */
	bool dry_run;
	/* Where the machine's state is found; tests have their own. */
	const char *efi, *mountinfo, *block, *efibootmgr;
};

/* Each says what it does on stdout; errors, and what to do about them, on stderr. False: it failed. */
bool install(const struct install *install);
bool uninstall(const struct install *install);

#endif

// SPDX-License-Identifier: MIT
#include "loader.h"

CHAR16 unfit_reason[400];

EFI_STATUS unfit(EFI_STATUS status, const CHAR16 *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	UnicodeVSPrint(unfit_reason, sizeof(unfit_reason), format, arguments);
	va_end(arguments);
	return status;
}

// SPDX-License-Identifier: MIT
#include "loader.h"

#define KEY_WAIT 100000000 /* 10 s, in 100 ns */

EFI_HANDLE loader_image;
EFI_LOADED_IMAGE *loader;

/* Leaves the user 10 s to read, or until a key is pressed: the firmware's boot menu may clear the screen. */
static void wait_for_key(void)
{
	EFI_EVENT events[2];
	UINTN index, count = 1;

	if (EFI_ERROR(BS->CreateEvent(EVT_TIMER, 0, NULL, NULL, &events[0])))
		return;
	if (ST->ConIn && ST->ConIn->WaitForKey)
		events[count++] = ST->ConIn->WaitForKey;
	BS->SetTimer(events[0], TimerRelative, KEY_WAIT);
	BS->WaitForEvent(count, events, &index);
	BS->CloseEvent(events[0]);
}

static EFI_STATUS stop(EFI_STATUS status)
{
	Print(L"HyperPS: stopped: %s.\r\n", unfit_reason);
	wait_for_key();
	return status;
}

/* Reads the configuration file. Its strings stay valid: the text is freed by nobody. */
static EFI_STATUS read_conf(struct conf *conf)
{
	static CHAR16 path[] = L"\\EFI\\HYPERPS\\hyperps.conf";
	struct conf_error error;
	struct volume_file file;
	EFI_STATUS status = volume_open_own(path, &file);
	char *text;
	bool valid;

	if (EFI_ERROR(status))
		return unfit(status,
			     L"can't open %s on the loader's own volume (%r). Create it; hyperps.conf(5) says how",
			     path, status);
	if (file.size > CONF_FILE_MAX) {
		volume_close(&file);
		return unfit(EFI_BAD_BUFFER_SIZE, L"hyperps.conf: the file is too big. Keep it under 64 KiB");
	}
	text = AllocatePool(file.size + 1);
	status = text ? volume_read(&file, text) : EFI_OUT_OF_RESOURCES;
	if (EFI_ERROR(status)) {
		if (text)
			FreePool(text);
		volume_close(&file);
		return unfit(status, L"can't read %s (%r). Check the volume", path, status);
	}
	valid = conf_parse(text, file.size, conf, &error);
	volume_close(&file);
	if (valid)
		return EFI_SUCCESS;
	if (error.line)
		return unfit(EFI_INVALID_PARAMETER, L"hyperps.conf line %d: %a", error.line, error.text);
	return unfit(EFI_INVALID_PARAMETER, L"hyperps.conf: %a", error.text);
}

EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system_table);

EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system_table)
{
	static struct conf conf;
	EFI_STATUS fit, status;

	InitializeLib(image, system_table);
	Print(L"HyperPS loader %a\r\n", VERSION);
	loader_image = image;
	if (EFI_ERROR(BS->HandleProtocol(image, &LoadedImageProtocol, (void **)&loader)))
		return EFI_UNSUPPORTED;

	if (monitor_is_running()) {
		Print(L"HyperPS is already running; this loader does nothing more. Start the operating system, or "
		      L"reset.\r\n");
		return EFI_ALREADY_STARTED;
	}

	/* 1. What to do. An error in the file counts as an unfit machine. */
	fit = read_conf(&conf);
	if (EFI_ERROR(fit) && !(conf.unfit_continue && conf.chainload))
		return stop(fit);

	/* 2. Load what comes after the monitor: without it there is no point in going on. */
	if (EFI_ERROR(fit))
		Print(L"HyperPS: continuing UNPROTECTED: %s.\r\n", unfit_reason);
	status = chainload_prepare(&conf);
	if (EFI_ERROR(status))
		return stop(status);

	/* 3. Start the monitor, unless the file is wrong or says no. */
	if (conf.monitor_off) {
		Print(L"HyperPS: continuing UNPROTECTED: hyperps.conf says monitor = off.\r\n");
	} else if (!EFI_ERROR(fit)) {
		fit = monitor_start(&conf);
		if (EFI_ERROR(fit) && !conf.unfit_continue) {
			chainload_discard();
			return stop(fit);
		}
		if (EFI_ERROR(fit))
			Print(L"HyperPS: continuing UNPROTECTED: %s.\r\n", unfit_reason);
	}

	/* 4. Go. */
	status = chainload_start();
	Print(L"HyperPS: the chainloaded program returned: %r\r\n", status);
	return status;
}

// SPDX-License-Identifier: MIT
#include "loader.h"

/* LoadFile2, "Load File 2 Protocol" in the UEFI specification; the library's headers lack it. */
struct load_file2 {
	EFI_STATUS(EFIAPI *load_file)
	(struct load_file2 *this, EFI_DEVICE_PATH *path, BOOLEAN boot_policy, UINTN *size, void *buffer);
};

static EFI_GUID load_file2_guid = { 0x4006c0c1, 0xfcb3, 0x403e, { 0x99, 0x6d, 0x4a, 0x6c, 0x87, 0x24, 0xe0, 0x6d } };

/* The vendor media path under which a Linux kernel looks for its initrd. */
static struct {
	VENDOR_DEVICE_PATH vendor;
	EFI_DEVICE_PATH end;
} __attribute__((packed))
initrd_path = { { { MEDIA_DEVICE_PATH, MEDIA_VENDOR_DP, { sizeof(VENDOR_DEVICE_PATH), 0 } },
		  { 0x5568e427, 0x68fc, 0x4f3d, { 0xac, 0x74, 0xca, 0x55, 0x52, 0x31, 0xcc, 0x68 } } },
		{ END_DEVICE_PATH_TYPE, END_ENTIRE_DEVICE_PATH_SUBTYPE, { sizeof(EFI_DEVICE_PATH), 0 } } };

static struct volume_file initrd;
static EFI_HANDLE initrd_handle;
static EFI_HANDLE program; /* loaded, not started */
static CHAR16 *load_options;

static EFI_STATUS EFIAPI load_initrd(struct load_file2 *this __attribute__((unused)),
				     EFI_DEVICE_PATH *path __attribute__((unused)), BOOLEAN boot_policy, UINTN *size,
				     void *buffer)
{
	if (boot_policy)
		return EFI_UNSUPPORTED;
	if (!size)
		return EFI_INVALID_PARAMETER;
	if (!buffer || *size < initrd.size) {
		*size = initrd.size;
		return EFI_BUFFER_TOO_SMALL;
	}
	*size = initrd.size;
	return volume_read(&initrd, buffer);
}

static struct load_file2 initrd_loader = { load_initrd };

/* Whether the loaded image has this loader's own code, wherever its file lies. */
static bool is_this_loader(const EFI_LOADED_IMAGE *other)
{
	extern const char _text[], _etext[];
	UINTN size = _etext - _text;
	const char *text = (const char *)other->ImageBase + (_text - (const char *)loader->ImageBase);

	return other->ImageSize == loader->ImageSize && CompareMem(text, _text, size) == 0;
}

static EFI_STATUS load_program(const char *path)
{
	struct volume_file file;
	EFI_STATUS status = volume_find("chainload", path, &file);
	EFI_LOADED_IMAGE *loaded;
	EFI_DEVICE_PATH *device_path;

	if (EFI_ERROR(status))
		return status;
	/* By device path, not from memory: GRUB looks beside its own file for the rest of it. */
	device_path = FileDevicePath(file.volume, file.path);
	status =
		device_path ? BS->LoadImage(FALSE, loader_image, device_path, NULL, 0, &program) : EFI_OUT_OF_RESOURCES;
	if (device_path)
		FreePool(device_path);
	if (status == EFI_SECURITY_VIOLATION || status == EFI_ACCESS_DENIED)
		unfit(status, L"Secure Boot refuses %s (%r). Sign it, or switch Secure Boot off", file.path, status);
	else if (status == EFI_NOT_FOUND || status == EFI_OUT_OF_RESOURCES) /* the file is there: no buffer for it */
		unfit(status, L"not enough free memory to load %s (%r). Add memory", file.path, status);
	else if (EFI_ERROR(status))
		unfit(status,
		      L"%s is no EFI program or kernel for this machine (%r). Correct the line chainload in "
		      L"hyperps.conf",
		      file.path, status);
	if (!EFI_ERROR(status)) {
		status = BS->HandleProtocol(program, &LoadedImageProtocol, (void **)&loaded);
		if (EFI_ERROR(status)) {
			unfit(status, L"the firmware did not load %s properly (%r). Try again", file.path, status);
		} else if (is_this_loader(loaded)) {
			status = unfit(
				EFI_INVALID_PARAMETER,
				L"%s is this loader itself. Name the program to start after it in the line chainload",
				file.path);
		}
	}
	volume_close(&file);
	return status;
}

static EFI_STATUS set_options(const char *options)
{
	UINTN size = (strlena((const CHAR8 *)options) + 1) * sizeof(CHAR16);
	EFI_LOADED_IMAGE *loaded;
	EFI_STATUS status = BS->HandleProtocol(program, &LoadedImageProtocol, (void **)&loaded);

	load_options = AllocatePool(size);
	if (EFI_ERROR(status) || !load_options)
		return unfit(EFI_OUT_OF_RESOURCES, L"no memory for the options. Add memory");
	for (UINTN i = 0; i < size / sizeof(CHAR16); i++)
		load_options[i] = (u8)options[i];
	loaded->LoadOptions = load_options;
	loaded->LoadOptionsSize = size;
	return EFI_SUCCESS;
}

static EFI_STATUS offer_initrd(const char *path)
{
	EFI_STATUS status = volume_find("initrd", path, &initrd);

	if (EFI_ERROR(status))
		return status;
	if (initrd.size == 0)
		return unfit(EFI_END_OF_FILE, L"%s is empty. Correct the line initrd in hyperps.conf", initrd.path);
	status = BS->InstallMultipleProtocolInterfaces(&initrd_handle, &DevicePathProtocol, &initrd_path,
						       &load_file2_guid, &initrd_loader, NULL);
	if (EFI_ERROR(status)) {
		initrd_handle = NULL;
		unfit(status,
		      L"can't offer the initrd to the kernel (%r). Start this loader from the firmware's boot menu",
		      status);
	}
	return status;
}

EFI_STATUS chainload_prepare(const struct conf *conf)
{
	EFI_STATUS status = load_program(conf->chainload);

	if (!EFI_ERROR(status) && conf->options)
		status = set_options(conf->options);
	if (!EFI_ERROR(status) && conf->initrd)
		status = offer_initrd(conf->initrd);
	if (EFI_ERROR(status))
		chainload_discard();
	return status;
}

EFI_STATUS chainload_start(void)
{
	EFI_STATUS status = BS->StartImage(program, NULL, NULL);

	program = NULL; /* unloaded by its return */
	chainload_discard();
	return status;
}

void chainload_discard(void)
{
	if (initrd_handle)
		BS->UninstallMultipleProtocolInterfaces(initrd_handle, &DevicePathProtocol, &initrd_path,
							&load_file2_guid, &initrd_loader, NULL);
	initrd_handle = NULL;
	volume_close(&initrd);
	if (program)
		BS->UnloadImage(program);
	program = NULL;
	if (load_options)
		FreePool(load_options);
	load_options = NULL;
}

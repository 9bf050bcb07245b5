// SPDX-License-Identifier: MIT
#include "loader.h"

#define READ_CHUNK (16ULL << 20) /* bytes; some firmware fails on much larger reads */

static EFI_STATUS open_on(EFI_HANDLE volume, CHAR16 *path, struct volume_file *found)
{
	EFI_FILE_IO_INTERFACE *file_system;
	EFI_FILE *root;
	EFI_STATUS status;

	*found = (struct volume_file){ .volume = volume };
	if (!volume)
		return EFI_NOT_FOUND;
	status = BS->HandleProtocol(volume, &FileSystemProtocol, (void **)&file_system);
	if (EFI_ERROR(status))
		return status;
	status = file_system->OpenVolume(file_system, &root);
	if (EFI_ERROR(status))
		return status;
	status = root->Open(root, &found->file, path, EFI_FILE_MODE_READ, 0);
	root->Close(root);
	if (EFI_ERROR(status)) {
		found->file = NULL;
		return status;
	}
	/* The position ~0 is the end of the file; a directory refuses it. */
	status = found->file->SetPosition(found->file, ~0ULL);
	if (!EFI_ERROR(status))
		status = found->file->GetPosition(found->file, &found->size);
	if (!EFI_ERROR(status))
		status = found->file->SetPosition(found->file, 0);
	if (EFI_ERROR(status)) {
		found->file->Close(found->file);
		found->file = NULL;
	}
	return status;
}

EFI_STATUS volume_open_own(CHAR16 *path, struct volume_file *found)
{
	return open_on(loader->DeviceHandle, path, found);
}

static EFI_STATUS open_anywhere(CHAR16 *path, struct volume_file *found)
{
	EFI_STATUS status = volume_open_own(path, found);
	EFI_HANDLE *volumes;
	UINTN count;

	if (!EFI_ERROR(status) ||
	    EFI_ERROR(BS->LocateHandleBuffer(ByProtocol, &FileSystemProtocol, NULL, &count, &volumes)))
		return status;
	for (UINTN i = 0; i < count && EFI_ERROR(status); i++)
		status = open_on(volumes[i], path, found);
	FreePool(volumes);
	return status;
}

/* A firmware in a hurry has connected drivers only to the disk that it booted from. */
static void connect_all_drivers(void)
{
	EFI_HANDLE *handles;
	UINTN count;

	if (EFI_ERROR(BS->LocateHandleBuffer(AllHandles, NULL, NULL, &count, &handles)))
		return;
	for (UINTN i = 0; i < count; i++)
		BS->ConnectController(handles[i], NULL, NULL, TRUE);
	FreePool(handles);
}

EFI_STATUS volume_find(const char *key, const char *path, struct volume_file *found)
{
	UINTN length = strlena((const CHAR8 *)path);
	CHAR16 *wide = AllocatePool((length + 2) * sizeof(CHAR16)), *end = wide;
	EFI_STATUS status;

	if (!wide)
		return unfit(EFI_OUT_OF_RESOURCES, L"no memory for a path. Add memory");
	if (*path != '\\' && *path != '/')
		*end++ = '\\';
	for (; *path; path++)
		*end++ = *path == '/' ? '\\' : *path;
	*end = 0;

	status = open_anywhere(wide, found);
	if (EFI_ERROR(status)) {
		connect_all_drivers();
		status = open_anywhere(wide, found);
	}
	if (EFI_ERROR(status)) {
		unfit(status, L"there is no file %s on any volume (%r). Correct the line %a in hyperps.conf", wide,
		      status, key);
		FreePool(wide);
		return status;
	}
	found->path = wide;
	return EFI_SUCCESS;
}

EFI_STATUS volume_read(struct volume_file *found, void *buffer)
{
	UINT64 done = 0;
	EFI_STATUS status = found->file->SetPosition(found->file, 0);

	while (!EFI_ERROR(status) && done < found->size) {
		UINTN size = found->size - done < READ_CHUNK ? found->size - done : READ_CHUNK;

		status = found->file->Read(found->file, &size, (UINT8 *)buffer + done);
		if (!EFI_ERROR(status) && size == 0)
			status = EFI_END_OF_FILE;
		done += size;
	}
	return status;
}

void volume_close(struct volume_file *found)
{
	if (found->file)
		found->file->Close(found->file);
	if (found->path)
		FreePool(found->path);
	*found = (struct volume_file){ 0 };
}

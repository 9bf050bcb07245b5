// SPDX-License-Identifier: MIT
/* Variables are read here; efibootmgr writes them: it knows the firmware's oddities. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "boot_entry.h"
#include "install.h"

#define GLOBAL_VARIABLE "8be4df61-93ca-11d2-aa0d-00e098032b8c"
#define VARIABLE_MAX 4096
#define ORDER_MAX 256
#define ARGUMENTS_MAX 16
#define SPARE_BYTES (64 << 10) /* for folders and hyperps.conf */
#define TEXT_MAX (4 << 10)

extern char **environ;

struct esp {
	char directory[PATH_MAX];
	char disk[NAME_MAX]; /* its device's name below /dev */
	struct boot_partition partition;
};

struct order {
	unsigned count;
	uint16_t number[ORDER_MAX];
};

static const char *const esp_directories[] = { "/efi", "/boot/efi", "/boot" };
/* Where a system's boot loader lies if no boot entry tells. */
static const char *const known_loaders[] = { "\\EFI\\debian\\shimx64.efi", "\\EFI\\debian\\grubx64.efi",
					     "\\EFI\\systemd\\systemd-bootx64.efi", "\\EFI\\BOOT\\BOOTX64.EFI" };

static bool __attribute__((format(printf, 1, 2))) say_error(const char *format, ...)
{
	va_list arguments;

	fputs("hpsctl: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	return false;
}

static const char *advice(int error)
{
	return error == EACCES || error == EPERM ? ": run hpsctl as root" : "";
}

/* --- the EFI system partition */

static bool read_sys_number(const char *directory, const char *name, unsigned long long *value)
{
	char path[PATH_MAX];
	FILE *file;
	bool good;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "re");
	if (!file)
		return false;
	good = fscanf(file, "%llu", value) == 1;
	fclose(file);
	return good;
}

/* Finds the device of the vfat file system that is mounted at a directory. */
static bool find_mount(const struct install *install, const char *directory, unsigned *major, unsigned *minor)
{
	char line[4 * PATH_MAX], at[PATH_MAX], type[64];
	FILE *file = fopen(install->mountinfo, "re");
	bool found = false;

	while (file && fgets(line, sizeof(line), file)) {
		const char *rest = strstr(line, " - ");
		unsigned this_major, this_minor;

		if (!rest || sscanf(line, "%*d %*d %u:%u %*s %4095s", &this_major, &this_minor, at) != 3 ||
		    sscanf(rest, " - %63s", type) != 1 || strcmp(at, directory) || strcmp(type, "vfat"))
			continue;
		*major = this_major;
		*minor = this_minor;
		found = true;
	}
	if (file)
		fclose(file);
	return found;
}

static bool find_partition(const struct install *install, unsigned major, unsigned minor, struct esp *esp)
{
	unsigned long long number, start, size, block = 512;
	char device[PATH_MAX], link[PATH_MAX], *slash;

	snprintf(link, sizeof(link), "%s/%u:%u", install->block, major, minor);
	if (!realpath(link, device) || !read_sys_number(device, "partition", &number) ||
	    !read_sys_number(device, "start", &start) || !read_sys_number(device, "size", &size))
		return say_error("%s is on no partition of a disk (software RAID?): the firmware can't start from it. "
				 "Make the boot entry by hand, with efibootmgr",
				 esp->directory);
	slash = strrchr(device, '/');
	*slash = 0;
	read_sys_number(device, "queue/logical_block_size", &block);
	esp->partition = (struct boot_partition){ number, start * 512 / block, size * 512 / block };
	snprintf(esp->disk, sizeof(esp->disk), "%s", strrchr(device, '/') + 1);
	for (char *s = esp->disk; *s; s++)
		if (*s == '!') /* sysfs's way to write a slash */
			*s = '/';
	return true;
}

static bool find_esp(const struct install *install, struct esp *esp)
{
	unsigned major, minor;

	if (install->esp) {
		if (!realpath(install->esp, esp->directory))
			return say_error("%s: %s%s", install->esp, strerror(errno), advice(errno));
		if (!find_mount(install, esp->directory, &major, &minor))
			return say_error("no EFI system partition (vfat) is mounted at %s: mount it there",
					 esp->directory);
		return find_partition(install, major, minor, esp);
	}
	for (size_t i = 0; i < sizeof(esp_directories) / sizeof(esp_directories[0]); i++) {
		/* What is mounted on demand is there once it is looked at. */
		if (access(esp_directories[i], R_OK))
			continue;
		strcpy(esp->directory, esp_directories[i]);
		if (find_mount(install, esp->directory, &major, &minor))
			return find_partition(install, major, minor, esp);
	}
	return say_error(
		"no EFI system partition (vfat) is mounted at /efi, /boot/efi or /boot: mount it, or say where with "
		"--esp DIR");
}

/* The path here of a file that is named as on the ESP. */
static void esp_path(const struct esp *esp, const char *name, char path[PATH_MAX])
{
	if (snprintf(path, PATH_MAX, "%s%s%s", esp->directory, *name == '\\' ? "" : "/", name) >= PATH_MAX)
		*path = 0; /* too long for any file */
	for (char *s = path + strnlen(path, strlen(esp->directory)); *s; s++)
		if (*s == '\\')
			*s = '/';
}

static bool on_esp(const struct esp *esp, const char *name)
{
	char path[PATH_MAX];
	struct stat status;

	esp_path(esp, name, path);
	return !stat(path, &status) && S_ISREG(status.st_mode);
}

/* --- the firmware's variables */

/* Returns the size of the value, without the attributes, or -1. */
static ssize_t read_variable(const struct install *install, const char *name, uint8_t value[VARIABLE_MAX])
{
	uint8_t data[4 + VARIABLE_MAX];
	char path[PATH_MAX];
	ssize_t size = -1;
	int fd;

	snprintf(path, sizeof(path), "%s/efivars/%s-" GLOBAL_VARIABLE, install->efi, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		size = read(fd, data, sizeof(data));
		close(fd);
	}
	if (size < 4)
		return -1;
	memcpy(value, data + 4, size - 4);
	return size - 4;
}

static void read_order(const struct install *install, struct order *order)
{
	uint8_t value[VARIABLE_MAX];
	ssize_t size = read_variable(install, "BootOrder", value);

	order->count = 0;
	for (ssize_t i = 0; i + 1 < size && order->count < ORDER_MAX; i += 2)
		order->number[order->count++] = value[i] | value[i + 1] << 8;
}

static int find_in_order(const struct order *order, uint16_t number)
{
	for (unsigned i = 0; i < order->count; i++)
		if (order->number[i] == number)
			return i;
	return -1;
}

static void format_order(const struct order *order, char text[5 * ORDER_MAX + 1])
{
	*text = 0;
	for (unsigned i = 0; i < order->count; i++)
		text += sprintf(text, "%s%04X", i ? "," : "", order->number[i]);
}

/* Whether an entry can be read, and starts a program on this ESP. */
static bool read_entry(const struct install *install, const struct esp *esp, uint16_t number, struct boot_entry *entry)
{
	uint8_t value[VARIABLE_MAX];
	char name[16];
	ssize_t size;

	snprintf(name, sizeof(name), "Boot%04X", number);
	size = read_variable(install, name, value);
	return size >= 0 && boot_entry_parse(value, size, entry) && entry->has_partition && entry->path[0] &&
	       entry->partition.number == esp->partition.number && entry->partition.start == esp->partition.start &&
	       entry->partition.size == esp->partition.size;
}

static bool is_own(const struct boot_entry *entry)
{
	return !strcasecmp(entry->path, INSTALL_LOADER);
}

/* The number of the first own entry from `first` on, whether it is in the order or not; -1: there is none. */
static int find_own(const struct install *install, const struct esp *esp, unsigned first, struct boot_entry *entry)
{
	char path[PATH_MAX];
	const struct dirent *file;
	unsigned number;
	int found = -1;
	DIR *variables;

	snprintf(path, sizeof(path), "%s/efivars", install->efi);
	variables = opendir(path);
	while (variables && (file = readdir(variables)))
		if (sscanf(file->d_name, "Boot%4X-" GLOBAL_VARIABLE, &number) == 1 && number >= first &&
		    (found < 0 || number < (unsigned)found) && read_entry(install, esp, number, entry) && is_own(entry))
			found = number;
	if (variables)
		closedir(variables);
	if (found >= 0)
		read_entry(install, esp, found, entry);
	return found;
}

static bool check_firmware(const struct install *install, bool needs_unsigned)
{
	uint8_t value[VARIABLE_MAX];
	struct order order;

	if (access(install->efi, F_OK))
		return say_error(
			"this system was not started by UEFI firmware: switch the firmware to UEFI, and legacy boot "
			"(CSM) off; the system must be installed for that");
	read_order(install, &order);
	if (!order.count && read_variable(install, "BootCurrent", value) < 0)
		return say_error("the firmware's variables can't be read: mount -t efivarfs efivarfs "
				 "/sys/firmware/efi/efivars");
	if (needs_unsigned && read_variable(install, "SecureBoot", value) == 1 && value[0])
		return say_error(
			"Secure Boot is on, and would refuse the loader, which is not signed: switch Secure Boot off "
			"in the firmware's set-up");
	return true;
}

/* --- what is done */

/* Runs efibootmgr with these arguments, or says what would be run. */
static bool run_efibootmgr(const struct install *install, char *const arguments[])
{
	posix_spawn_file_actions_t actions;
	int error, status;
	pid_t child;

	printf("run efibootmgr");
	for (unsigned i = 1; arguments[i]; i++)
		printf(strchr(arguments[i], '\\') ? " '%s'" : " %s", arguments[i]);
	printf("\n");
	fflush(stdout);
	if (install->dry_run)
		return true;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	error = posix_spawnp(&child, install->efibootmgr, &actions, NULL, arguments, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (error == ENOENT)
		return say_error("there is no efibootmgr: install the package efibootmgr");
	if (error || waitpid(child, &status, 0) != child)
		return say_error("efibootmgr could not be run: %s", strerror(error ? error : errno));
	return status == 0 || say_error("efibootmgr failed; its message is above");
}

/* Whether the order is now `head`, if not -1, and then what it was before without `gone`. */
static bool check_order(const struct install *install, const struct order *before, int head, int gone)
{
	struct order wanted = { 0 }, now;
	char text[5 * ORDER_MAX + 1];

	if (install->dry_run)
		return true;
	if (head >= 0)
		wanted.number[wanted.count++] = head;
	for (unsigned i = 0; i < before->count && wanted.count < ORDER_MAX; i++)
		if (before->number[i] != gone)
			wanted.number[wanted.count++] = before->number[i];
	read_order(install, &now);
	if (now.count == wanted.count && !memcmp(now.number, wanted.number, now.count * sizeof(now.number[0])))
		return true;
	format_order(before, text);
	return say_error(
		"the firmware did not keep the boot order as it was told. To have the old one back: efibootmgr "
		"--bootorder %s",
		text);
}

static bool same_content(const char *a, const char *b)
{
	FILE *first = fopen(a, "re"), *second = fopen(b, "re");
	bool same = first && second;

	while (same) {
		char block[2][4096];
		size_t size = fread(block[0], 1, sizeof(block[0]), first);

		same = fread(block[1], 1, sizeof(block[1]), second) == size && !memcmp(block[0], block[1], size);
		if (size < sizeof(block[0]))
			break;
	}
	if (first)
		fclose(first);
	if (second)
		fclose(second);
	return same;
}

/* Writes a file as a whole or not at all: `text`, or what is in the file `from`. */
static bool write_file(const char *path, const char *from, const char *text)
{
	char scratch[PATH_MAX + 8], block[65536];
	FILE *source = from ? fopen(from, "re") : NULL, *file;
	size_t size;
	bool good;

	snprintf(scratch, sizeof(scratch), "%s.new", path);
	file = fopen(scratch, "we");
	good = file && (text ? fputs(text, file) >= 0 : !!source);
	while (good && source && (size = fread(block, 1, sizeof(block), source)) > 0)
		good = fwrite(block, 1, size, file) == size;
	good = good && !(source && ferror(source)) && !fflush(file) && !fsync(fileno(file));
	if (source)
		fclose(source);
	if (file && fclose(file))
		good = false;
	if (good && !rename(scratch, path))
		return true;
	say_error("cannot write %s: %s%s", path, strerror(errno), advice(errno));
	unlink(scratch);
	return false;
}

static bool make_folder(const struct esp *esp, const char *name)
{
	char path[PATH_MAX];

	esp_path(esp, name, path);
	if (!mkdir(path, 0755) || errno == EEXIST)
		return true;
	return say_error("cannot make %s: %s%s", path, strerror(errno), advice(errno));
}

static bool copy_loader(const struct install *install, const struct esp *esp)
{
	struct statvfs room;
	struct stat loader;
	char path[PATH_MAX];
	uint64_t available;

	esp_path(esp, INSTALL_LOADER, path);
	if (stat(install->loader, &loader))
		return say_error("%s: %s: install the package hyperps, or name the loader with --loader FILE",
				 install->loader, strerror(errno));
	if (same_content(install->loader, path)) {
		printf("%s is up to date\n", path);
		return true;
	}
	if (statvfs(esp->directory, &room))
		return say_error("%s: %s%s", esp->directory, strerror(errno), advice(errno));
	available = (uint64_t)room.f_bavail * room.f_frsize;
	if (available < (uint64_t)loader.st_size + SPARE_BYTES)
		return say_error(
			"the EFI system partition at %s is full: %llu KiB are needed, %llu KiB are free. Remove what "
			"is no longer used there",
			esp->directory, ((unsigned long long)loader.st_size + SPARE_BYTES) >> 10,
			(unsigned long long)available >> 10);
	printf("copy %s to %s\n", install->loader, path);
	return install->dry_run || (make_folder(esp, "\\EFI") && make_folder(esp, "\\EFI\\HYPERPS") &&
				    write_file(path, install->loader, NULL));
}

/* What starts the system now: the entry by which it was started, else the first one in the order that may be it. */
static bool choose_chainload(const struct install *install, const struct esp *esp, struct boot_entry *entry)
{
	uint8_t value[VARIABLE_MAX];
	struct order order;
	unsigned count;

	read_order(install, &order);
	count = order.count;
	if (read_variable(install, "BootCurrent", value) == 2 && count < ORDER_MAX) {
		memmove(order.number + 1, order.number, count * sizeof(order.number[0]));
		order.number[0] = value[0] | value[1] << 8;
		order.count = ++count;
	}
	for (unsigned i = 0; i < count; i++)
		if (read_entry(install, esp, order.number[i], entry) && !is_own(entry) && on_esp(esp, entry->path))
			return true;
	*entry = (struct boot_entry){ 0 };
	for (size_t i = 0; i < sizeof(known_loaders) / sizeof(known_loaders[0]); i++)
		if (on_esp(esp, known_loaders[i])) {
			strcpy(entry->path, known_loaders[i]);
			return true;
		}
	return say_error("no boot entry starts a boot loader on %s: name the system's own with --chainload PATH",
			 esp->directory);
}

/* Makes the text of hyperps.conf; empty: it stays as it is. */
static bool make_conf(const struct install *install, const struct esp *esp, char text[TEXT_MAX])
{
	struct boot_entry entry = { 0 };

	*text = 0;
	if (install->chainload) {
		if (!on_esp(esp, install->chainload))
			return say_error("there is no file %s on %s: correct --chainload", install->chainload,
					 esp->directory);
		if (!strcasecmp(install->chainload, INSTALL_LOADER))
			return say_error("%s is HyperPS's loader itself: correct --chainload", install->chainload);
		snprintf(entry.path, sizeof(entry.path), "%s", install->chainload);
	} else if (on_esp(esp, INSTALL_CONF)) {
		return true;
	} else if (!choose_chainload(install, esp, &entry)) {
		return false;
	}
	snprintf(text, TEXT_MAX,
		 "# Made by hpsctl install; hyperps.conf(5) describes all keys.\nchainload = %s\n%s%s%s", entry.path,
		 entry.options[0] ? "options = " : "", entry.options, entry.options[0] ? "\n" : "");
	return true;
}

static bool write_conf(const struct install *install, const struct esp *esp, const char *text)
{
	char path[PATH_MAX];

	esp_path(esp, INSTALL_CONF, path);
	if (!*text) {
		printf("%s stays as it is\n", path);
		return true;
	}
	printf("write %s:\n", path);
	for (const char *line = text; *line; line = strchr(line, '\n') + 1)
		printf("    %.*s\n", (int)strcspn(line, "\n"), line);
	return install->dry_run || write_file(path, NULL, text);
}

static bool add_entry(const struct install *install, const struct esp *esp)
{
	char disk[NAME_MAX + 8], part[16], number[8], list[5 * ORDER_MAX + 16], old[5 * ORDER_MAX + 1];
	char *create[ARGUMENTS_MAX] = { "efibootmgr", "--create", "--disk",   disk,           "--part", part,
					"--label",    "HyperPS",  "--loader", INSTALL_LOADER, NULL };
	char *reorder[ARGUMENTS_MAX] = { "efibootmgr", "--bootorder", list, NULL };
	char *activate[ARGUMENTS_MAX] = { "efibootmgr", "--bootnum", number, "--active", NULL };
	struct boot_entry entry;
	struct order order;
	int own = find_own(install, esp, 0, &entry);

	read_order(install, &order);
	snprintf(number, sizeof(number), "%04X", own & UINT16_MAX);
	if (own < 0) {
		snprintf(disk, sizeof(disk), "/dev/%s", esp->disk);
		snprintf(part, sizeof(part), "%u", esp->partition.number);
		if (!run_efibootmgr(install, create))
			return false;
		if (install->dry_run)
			return true;
		own = find_own(install, esp, 0, &entry);
		if (own < 0)
			return say_error("the firmware did not keep the boot entry. Make one for " INSTALL_LOADER
					 " in its set-up");
		return check_order(install, &order, own, -1);
	}
	if (!entry.active && !run_efibootmgr(install, activate))
		return false;
	if (find_in_order(&order, own) < 0) {
		format_order(&order, old);
		snprintf(list, sizeof(list), "%s%s%s", number, order.count ? "," : "", old);
		return run_efibootmgr(install, reorder) && check_order(install, &order, own, -1);
	}
	printf("the boot entry, Boot%s, is there\n", number);
	return true;
}

/* What comes of it. The user may have put the entry behind others: there it stays. */
static void say_end(const struct install *install, const struct esp *esp)
{
	struct boot_entry entry;
	struct order order;

	read_order(install, &order);
	if (order.count && order.number[0] == find_own(install, esp, 0, &entry))
		printf("HyperPS starts with the next boot. hpsctl uninstall undoes this; the firmware's boot menu "
		       "still has "
		       "the old entry.\n");
	else
		printf("HyperPS is not the first one in the boot order: efibootmgr --bootorder changes that, or choose "
		       "it in "
		       "the firmware's boot menu.\n");
}

static void say_dry_run(const struct install *install)
{
	if (install->dry_run)
		printf("Nothing is changed. Without --dry-run this would be done:\n");
}

bool install(const struct install *install)
{
	char conf[TEXT_MAX];
	struct esp esp;

	if (!check_firmware(install, true) || !find_esp(install, &esp) || !make_conf(install, &esp, conf))
		return false;
	say_dry_run(install);
	/* The entry last: it never names what is not there. */
	if (!copy_loader(install, &esp) || !write_conf(install, &esp, conf) || !add_entry(install, &esp))
		return false;
	if (!install->dry_run)
		say_end(install, &esp);
	return true;
}

static bool remove_file(const struct install *install, const struct esp *esp, const char *name)
{
	char path[PATH_MAX];

	esp_path(esp, name, path);
	if (!on_esp(esp, name))
		return true;
	printf("remove %s\n", path);
	if (install->dry_run || !unlink(path))
		return true;
	return say_error("cannot remove %s: %s%s", path, strerror(errno), advice(errno));
}

bool uninstall(const struct install *install)
{
	char number[16], path[PATH_MAX];
	char *delete[ARGUMENTS_MAX] = { "efibootmgr", "--bootnum", number, "--delete-bootnum", NULL };
	struct boot_entry entry;
	struct esp esp;

	if (!check_firmware(install, false) || !find_esp(install, &esp))
		return false;
	say_dry_run(install);
	for (int own = -1; (own = find_own(install, &esp, own + 1, &entry)) >= 0;) {
		struct order order;

		read_order(install, &order);
		snprintf(number, sizeof(number), "%04X", own);
		if (!run_efibootmgr(install, delete) || !check_order(install, &order, -1, own))
			return false;
	}
	if (!remove_file(install, &esp, INSTALL_LOADER) || !remove_file(install, &esp, INSTALL_CONF))
		return false;
	esp_path(&esp, "\\EFI\\HYPERPS", path);
	if (!install->dry_run)
		rmdir(path); /* unless something else lies there */
	return true;
}

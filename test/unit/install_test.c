// SPDX-License-Identifier: MIT
/*
 * hpsctl install and uninstall, on an EFI system partition and EFI variables that are folders. This program is also the
 * efibootmgr that they run.
 */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "boot_entry.h"
#include "install.h"

#define GUID "8be4df61-93ca-11d2-aa0d-00e098032b8c"
#define SHIM "\\EFI\\debian\\shimx64.efi"
#define CONF_HEAD "# Made by hpsctl install; hyperps.conf(5) describes all keys.\n"

static char root[] = "/tmp/install-test-XXXXXX";
static char printed[8192], complained[8192];

/* --- files */

static char *path_of(const char *name)
{
	static char paths[4][4096];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", root, name);
	return path;
}

static void put_bytes(const char *name, const void *bytes, size_t size)
{
	FILE *file;

	for (char *path = path_of(name), *slash = path + strlen(root); (slash = strchr(slash + 1, '/'));) {
		*slash = 0;
		mkdir(path, 0700);
		*slash = '/';
	}
	file = fopen(path_of(name), "w");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	fclose(file);
}

static void put(const char *name, const char *text)
{
	put_bytes(name, text, strlen(text));
}

/* What a file holds; NULL: there is none. */
static const char *get(const char *name)
{
	static char text[8192];
	FILE *file = fopen(path_of(name), "r");

	if (!file)
		return NULL;
	text[fread(text, 1, sizeof(text) - 1, file)] = 0;
	fclose(file);
	return text;
}

static bool there(const char *name)
{
	return !access(path_of(name), F_OK);
}

/* --- variables */

static void put_order(const char *order)
{
	uint8_t bytes[256] = { 7 };
	size_t size = 4;

	for (; *order; order += order[4] ? 5 : 4) {
		unsigned number;

		sscanf(order, "%4X", &number);
		bytes[size++] = number;
		bytes[size++] = number >> 8;
	}
	put_bytes("efi/efivars/BootOrder-" GUID, bytes, size);
}

static const char *get_order(void)
{
	static char text[256];
	char *to = text;
	uint8_t bytes[256];
	FILE *file = fopen(path_of("efi/efivars/BootOrder-" GUID), "r");
	size_t size = file ? fread(bytes, 1, sizeof(bytes), file) : 0;

	*to = 0;
	for (size_t i = 4; i < size; i += 2)
		to += sprintf(to, "%s%04X", i == 4 ? "" : ",", bytes[i] | bytes[i + 1] << 8);
	if (file)
		fclose(file);
	return text;
}

static size_t widen(uint8_t *to, const char *text)
{
	size_t size = 0;

	do {
		to[size++] = *text;
		to[size++] = 0;
	} while (*text++);
	return size;
}

/* An EFI_LOAD_OPTION as the UEFI specification has it; returns its size. */
static size_t make_entry(uint8_t *entry, bool active, uint32_t partition, const char *name, const char *path,
			 const char *options)
{
	size_t size = 0, length_at, node;

	memset(entry, 0, 2048);
	entry[0] = active;
	size = 4;
	length_at = size;
	size += 2;
	size += widen(entry + size, name);
	node = size;
	memcpy(entry + size, (uint8_t[]){ 4, 1, 42, 0, partition, 0, 0, 0, 0, 8 }, 10); /* from block 2048 on */
	entry[size + 17] = 16; /* 4096 blocks */
	entry[size + 40] = entry[size + 41] = 2;
	size += 42;
	entry[size] = entry[size + 1] = 4;
	entry[size + 2] = 4 + 2 * (strlen(path) + 1);
	size += 4;
	size += widen(entry + size, path);
	memcpy(entry + size, (uint8_t[]){ 0x7f, 0xff, 4, 0 }, 4);
	size += 4;
	entry[length_at] = size - node;
	if (options)
		size += widen(entry + size, options);
	return size;
}

static void put_entry(unsigned number, bool active, uint32_t partition, const char *name, const char *path,
		      const char *options)
{
	uint8_t value[2052] = { 7 };
	char variable[64];

	sprintf(variable, "efi/efivars/Boot%04X-" GUID, number);
	put_bytes(variable, value, 4 + make_entry(value + 4, active, partition, name, path, options));
}

static void put_number(const char *variable, unsigned value, size_t bytes)
{
	char name[128];

	snprintf(name, sizeof(name), "efi/efivars/%s-" GUID, variable);
	put_bytes(name, (uint8_t[]){ 6, 0, 0, 0, value, value >> 8 }, 4 + bytes);
}

/* --- efibootmgr, as far as hpsctl uses it */

static int fake_efibootmgr(int argc, char **argv)
{
	const char *mode = getenv("FAKE_MODE"), *loader = NULL, *disk = NULL, *part = NULL;
	unsigned number = 0;
	bool create = false;
	char order[256], name[64];

	strcpy(root, getenv("FAKE_ROOT"));
	if (mode && !strcmp(mode, "fails"))
		return 5;
	strcpy(order, get_order());
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--create"))
			create = true;
		else if (!strcmp(argv[i], "--disk"))
			disk = argv[++i];
		else if (!strcmp(argv[i], "--part"))
			part = argv[++i];
		else if (!strcmp(argv[i], "--loader"))
			loader = argv[++i];
		else if (!strcmp(argv[i], "--label"))
			i++;
		else if (!strcmp(argv[i], "--bootorder"))
			put_order(argv[++i]);
		else if (!strcmp(argv[i], "--bootnum"))
			sscanf(argv[++i], "%4X", &number);
		else if (!strcmp(argv[i], "--active"))
			put_entry(number, true, 1, "HyperPS", INSTALL_LOADER, NULL);
		else if (!strcmp(argv[i], "--delete-bootnum")) {
			char kept[256], *to = kept;

			for (const char *from = order; *from; from += from[4] ? 5 : 4) {
				unsigned other;

				sscanf(from, "%4X", &other);
				if (other != number)
					to += sprintf(to, "%s%04X", to == kept ? "" : ",", other);
			}
			*to = 0;
			put_order(kept);
			sprintf(name, "efi/efivars/Boot%04X-" GUID, number);
			unlink(path_of(name));
		} else
			return 2;
	}
	if (!create)
		return 0;
	if (!disk || strcmp(disk, "/dev/nvme0n1") || !part || strcmp(part, "1") || !loader)
		return 3;
	for (;; number++) {
		sprintf(name, "efi/efivars/Boot%04X-" GUID, number);
		if (!there(name))
			break;
	}
	put_entry(number, true, 1, "HyperPS", loader, NULL);
	if (mode && !strcmp(mode, "forgets"))
		*order = 0;
	memmove(order + 5, order, strlen(order) + 1);
	sprintf(name, "%04X%c", number, order[5] ? ',' : 0);
	memcpy(order, name, 5);
	put_order(order);
	return 0;
}

/* --- a machine: two entries, the second one of another partition; started by the first */

static int set_up(void **state)
{
	char text[4200];

	(void)state;
	strcpy(root + strlen(root) - 6, "XXXXXX");
	assert_non_null(mkdtemp(root));
	setenv("FAKE_ROOT", root, 1);
	unsetenv("FAKE_MODE");
	put("loader", "MZ the loader");
	put("esp/EFI/debian/shimx64.efi", "MZ");
	snprintf(text, sizeof(text),
		 "1 0 8:2 / / rw - ext4 /dev/sda2 rw\n7 1 259:1 / %s rw,x shared:3 - vfat /dev/x rw\n", path_of("esp"));
	put("mountinfo", text);
	put("sys/nvme0n1/nvme0n1p1/partition", "1\n");
	put("sys/nvme0n1/nvme0n1p1/start", "2048\n");
	put("sys/nvme0n1/nvme0n1p1/size", "4096\n");
	put("sys/nvme0n1/queue/logical_block_size", "512\n");
	mkdir(path_of("block"), 0700);
	assert_int_equal(symlink("../sys/nvme0n1/nvme0n1p1", path_of("block/259:1")), 0);
	put_entry(1, true, 1, "debian", SHIM, NULL);
	put_entry(2, true, 2, "other", "\\EFI\\other\\other.efi", NULL);
	put_order("0001,0002");
	put_number("BootCurrent", 1, 2);
	put_number("SecureBoot", 0, 1);
	return 0;
}

static int tear_down(void **state)
{
	char command[4200];

	(void)state;
	snprintf(command, sizeof(command), "rm -r %s", root);
	return system(command);
}

/* Calls install() or uninstall(); what it printed is in printed and complained. */
static bool call(bool (*what)(const struct install *), const char *chainload, bool dry_run)
{
	static char paths[6][4200];
	struct install request = { .chainload = chainload, .dry_run = dry_run };
	const char **to[] = { &request.esp, &request.loader, &request.efi, &request.mountinfo, &request.block };
	const char *names[] = { "esp", "loader", "efi", "mountinfo", "block" };
	int out = dup(STDOUT_FILENO), error = dup(STDERR_FILENO);
	bool good;

	for (int i = 0; i < 5; i++) {
		strcpy(paths[i], path_of(names[i]));
		*to[i] = paths[i];
	}
	request.efibootmgr = "/proc/self/exe";
	fflush(stdout);
	assert_non_null(freopen(path_of("out"), "w", stdout));
	assert_non_null(freopen(path_of("error"), "w", stderr));
	good = what(&request);
	fflush(stdout);
	fflush(stderr);
	dup2(out, STDOUT_FILENO);
	dup2(error, STDERR_FILENO);
	close(out);
	close(error);
	strcpy(printed, get("out"));
	strcpy(complained, get("error"));
	assert_int_equal(good, !*complained);
	return good;
}

static bool installs(void)
{
	return call(install, NULL, false);
}

/* All files below a folder, with their content, into text. */
static void snapshot(const char *name, char *text)
{
	char command[16384];
	FILE *pipe;

	snprintf(command, sizeof(command), "cd %s && find . -type f | sort | xargs sha256sum; find . -type d | sort",
		 path_of(name));
	pipe = popen(command, "r");
	text[fread(text, 1, 8191, pipe)] = 0;
	pclose(pipe);
}

static void fails_with(bool (*what)(const struct install *), const char *message)
{
	static char before[2][8192], after[8192];

	snapshot("esp", before[0]);
	snapshot("efi", before[1]);
	assert_false(call(what, NULL, false));
	if (!strstr(complained, message))
		fail_msg("'%s' is not in: %s", message, complained);
	snapshot("esp", after);
	assert_string_equal(before[0], after);
	snapshot("efi", after);
	assert_string_equal(before[1], after);
}

/* --- tests */

static void test_entry(void **state)
{
	uint8_t data[2048];
	struct boot_entry entry;
	size_t size = make_entry(data, true, 3,
				 "a\xe4"
				 "b",
				 "\\EFI\\x.efi", "quiet ro");

	(void)state;
	assert_true(boot_entry_parse(data, size, &entry));
	assert_true(entry.active && entry.has_partition);
	assert_int_equal(entry.partition.number, 3);
	assert_int_equal(entry.partition.start, 2048);
	assert_int_equal(entry.partition.size, 4096);
	assert_string_equal(entry.description, "a?b");
	assert_string_equal(entry.path, "\\EFI\\x.efi");
	assert_string_equal(entry.options, "quiet ro");
	/* Cut off anywhere: nothing is read behind the end, which the sanitizer sees. */
	for (size_t i = 0; i < size; i++) {
		uint8_t *cut = malloc(i ? i : 1);

		memcpy(cut, data, i);
		boot_entry_parse(cut, i, &entry);
		free(cut);
	}
	for (int i = 0; i < 200000; i++) {
		uint8_t *mangled = malloc(size);

		memcpy(mangled, data, size);
		for (int n = rand() % 4; n >= 0; n--)
			mangled[(size_t)rand() % size] = rand();
		boot_entry_parse(mangled, size, &entry);
		free(mangled);
	}
}

static void test_install_and_uninstall(void **state)
{
	static char esp[8192], efi[8192], now[8192];

	(void)state;
	snapshot("esp", esp);
	snapshot("efi", efi);
	assert_true(installs());
	assert_string_equal(get("esp/EFI/HYPERPS/hyperps.efi"), "MZ the loader");
	assert_string_equal(get("esp/EFI/HYPERPS/hyperps.conf"), CONF_HEAD "chainload = " SHIM "\n");
	assert_string_equal(get_order(), "0000,0001,0002");
	assert_true(call(uninstall, NULL, false));
	snapshot("esp", now);
	assert_string_equal(now, esp);
	snapshot("efi", now);
	assert_string_equal(now, efi);
	/* And once more: nothing is left to do. */
	assert_true(call(uninstall, NULL, false));
	assert_string_equal(printed, "");
}

static void test_dry_run(void **state)
{
	static char before[8192], now[8192];

	(void)state;
	snapshot("", before);
	assert_true(call(install, NULL, true));
	assert_non_null(strstr(printed, "run efibootmgr --create --disk /dev/nvme0n1 --part 1 --label HyperPS --loader "
					"'\\EFI\\HYPERPS\\hyperps.efi'\n"));
	assert_non_null(strstr(printed, "    chainload = " SHIM "\n"));
	unlink(path_of("out"));
	unlink(path_of("error"));
	snapshot("", now);
	assert_string_equal(before, now);
	assert_true(installs());
	unlink(path_of("out"));
	unlink(path_of("error"));
	snapshot("", before);
	assert_true(call(uninstall, NULL, true));
	assert_non_null(strstr(printed, "run efibootmgr --bootnum 0000 --delete-bootnum\n"));
	unlink(path_of("out"));
	unlink(path_of("error"));
	snapshot("", now);
	assert_string_equal(before, now);
}

static void test_again(void **state)
{
	static char efi[8192], now[8192];

	(void)state;
	assert_true(installs());
	snapshot("efi", efi);
	put("esp/EFI/HYPERPS/hyperps.conf", "chainload = \\mine\n");
	put("loader", "MZ a newer loader");
	/* As it is when the system has been started by HyperPS. */
	put_number("BootCurrent", 0, 2);
	assert_true(installs());
	assert_string_equal(get("esp/EFI/HYPERPS/hyperps.efi"), "MZ a newer loader");
	assert_string_equal(get("esp/EFI/HYPERPS/hyperps.conf"), "chainload = \\mine\n");
	assert_null(strstr(printed, "run "));
	put_number("BootCurrent", 1, 2);
	snapshot("efi", now);
	assert_string_equal(now, efi);
	assert_true(installs());
	assert_non_null(strstr(printed, "is up to date"));
	/* hyperps.conf is lost: not the loader itself is chosen, although it started the system. */
	put_number("BootCurrent", 0, 2);
	unlink(path_of("esp/EFI/HYPERPS/hyperps.conf"));
	assert_true(installs());
	assert_string_equal(get("esp/EFI/HYPERPS/hyperps.conf"), CONF_HEAD "chainload = " SHIM "\n");
}

static void test_entry_that_is_there(void **state)
{
	(void)state;
	/* Out of the order, and not active. */
	put_entry(9, false, 1, "HyperPS", "\\efi\\hyperps\\HYPERPS.EFI", NULL);
	assert_true(installs());
	assert_string_equal(get_order(), "0009,0001,0002");
	assert_null(strstr(printed, "--create"));
	assert_non_null(strstr(printed, "run efibootmgr --bootnum 0009 --active"));
	/* The user has put it behind: it stays there. */
	put_order("0001,0009,0002");
	assert_true(installs());
	assert_string_equal(get_order(), "0001,0009,0002");
	assert_non_null(strstr(printed, "not the first one"));
	assert_true(call(uninstall, NULL, false));
	assert_string_equal(get_order(), "0001,0002");
	/* One of another partition is not ours. */
	put_entry(9, true, 2, "HyperPS", INSTALL_LOADER, NULL);
	put_order("0009,0001");
	assert_true(call(uninstall, NULL, false));
	assert_string_equal(get_order(), "0009,0001");
}

static void test_choice(void **state)
{
	(void)state;
	/* Started by an entry of another partition: the first one of the order that fits. */
	put_number("BootCurrent", 2, 2);
	put_entry(3, true, 1, "gone", "\\EFI\\gone.efi", NULL);
	put_entry(4, true, 1, "kernel", "\\vmlinuz", "root=/dev/sda2 initrd=\\initrd.img");
	put("esp/vmlinuz", "MZ");
	put_order("0002,0003,0004,0001");
	assert_true(installs());
	assert_string_equal(get("esp/EFI/HYPERPS/hyperps.conf"),
			    CONF_HEAD "chainload = \\vmlinuz\noptions = root=/dev/sda2 initrd=\\initrd.img\n");
	/* No entry fits: what usually lies there. */
	assert_true(call(uninstall, NULL, false));
	put_order("0002,0003");
	put_number("BootCurrent", 2, 2);
	put("esp/EFI/systemd/systemd-bootx64.efi", "MZ");
	unlink(path_of("esp/EFI/debian/shimx64.efi"));
	assert_true(installs());
	assert_string_equal(get("esp/EFI/HYPERPS/hyperps.conf"),
			    CONF_HEAD "chainload = \\EFI\\systemd\\systemd-bootx64.efi\n");
	/* As the user says, also if there is a hyperps.conf. */
	assert_true(call(install, "\\vmlinuz", false));
	assert_string_equal(get("esp/EFI/HYPERPS/hyperps.conf"), CONF_HEAD "chainload = \\vmlinuz\n");
	assert_false(call(install, "\\nothing", false));
	assert_false(call(install, INSTALL_LOADER, false));
}

static void test_what_fails(void **state)
{
	(void)state;
	put_number("SecureBoot", 1, 1);
	fails_with(install, "Secure Boot is on");
	put_number("SecureBoot", 0, 1);
	rename(path_of("loader"), path_of("loader.away"));
	fails_with(install, "install the package hyperps");
	rename(path_of("loader.away"), path_of("loader"));
	rename(path_of("block/259:1"), path_of("block/259:2"));
	fails_with(install, "on no partition");
	fails_with(uninstall, "on no partition");
	rename(path_of("block/259:2"), path_of("block/259:1"));
	rename(path_of("mountinfo"), path_of("mountinfo.away"));
	fails_with(install, "no EFI system partition (vfat) is mounted at ");
	rename(path_of("mountinfo.away"), path_of("mountinfo"));
	rename(path_of("efi/efivars"), path_of("efi/away"));
	fails_with(install, "mount -t efivarfs");
	rename(path_of("efi/away"), path_of("efi/efivars"));
	rename(path_of("efi"), path_of("away"));
	assert_false(installs());
	assert_non_null(strstr(complained, "not started by UEFI"));
	rename(path_of("away"), path_of("efi"));
	unlink(path_of("esp/EFI/debian/shimx64.efi"));
	assert_false(installs());
	assert_non_null(strstr(complained, "--chainload PATH"));
	put("esp/EFI/debian/shimx64.efi", "MZ");
	assert_true(installs());
}

static void test_full(void **state)
{
	(void)state;
	/* No disk has so much room. */
	assert_int_equal(truncate(path_of("loader"), 1LL << 43), 0);
	assert_false(installs());
	assert_non_null(strstr(complained, "is full: 8589934656 KiB are needed"));
	assert_false(there("esp/EFI/HYPERPS/hyperps.efi"));
	assert_string_equal(get_order(), "0001,0002");
}

static void test_efibootmgr_fails(void **state)
{
	(void)state;
	setenv("FAKE_MODE", "fails", 1);
	assert_false(installs());
	assert_non_null(strstr(complained, "efibootmgr failed"));
	assert_string_equal(get_order(), "0001,0002");
	/* A firmware that loses the order: the old one is told. */
	setenv("FAKE_MODE", "forgets", 1);
	assert_false(installs());
	assert_non_null(strstr(complained, "efibootmgr --bootorder 0001,0002"));
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entry),
		cmocka_unit_test_setup_teardown(test_install_and_uninstall, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_dry_run, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_entry_that_is_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_choice, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_fails, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_full, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_efibootmgr_fails, set_up, tear_down),
	};

	if (!strcmp(argv[0], "efibootmgr"))
		return fake_efibootmgr(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

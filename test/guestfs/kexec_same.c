// SPDX-License-Identifier: MIT
/*
 * kexec_same [KERNEL INITRD]: start the given kernel (default: /test/vmlinuz with /test/kexec-initrd.img) by kexec. Its
 * command line is the running kernel's, but it runs the test after_kexec and is told the monitor's address and the
 * number of CPUs. Returns only on an error.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "monitor_device.h"

#define COMMAND_LINE_BYTES 2048

static int fail(const char *what)
{
	printf("not ok - kexec: %s: %s\n# failed 1 of 1\n", what, strerror(errno));
	return 1;
}

/* Write the words of /proc/cmdline but our own to line. Returns the characters written, or -1. */
static int copy_command_line(char line[COMMAND_LINE_BYTES])
{
	char own[COMMAND_LINE_BYTES];
	FILE *file = fopen("/proc/cmdline", "r");
	int length = 0;

	if (!file || !fgets(own, sizeof(own), file))
		return -1;
	fclose(file);
	for (char *word = strtok(own, " \n"); word; word = strtok(NULL, " \n"))
		if (strncmp(word, "hyperps.", 8) && strncmp(word, "initrd=", 7))
			length += snprintf(line + length, COMMAND_LINE_BYTES - length, "%s ", word);
	return length;
}

int main(int argc, char **argv)
{
	const char *kernel_path = argc > 2 ? argv[1] : "/test/vmlinuz";
	const char *initrd_path = argc > 2 ? argv[2] : "/test/kexec-initrd.img";
	int device = monitor_open(), kernel = open(kernel_path, O_RDONLY), initrd = open(initrd_path, O_RDONLY), length;
	struct hyperps_status status = { 0 };
	char line[COMMAND_LINE_BYTES + 256];

	if (kernel < 0)
		return fail(kernel_path);
	if (initrd < 0)
		return fail(initrd_path);
	if (device < 0 || monitor_read_status(device, &status))
		printf("# the monitor is not there: the second kernel's checks will fail\n");
	length = copy_command_line(line);
	if (length < 0)
		return fail("/proc/cmdline");
	snprintf(line + length, sizeof(line) - length,
		 "hyperps.run=after_kexec hyperps.memory_base=%" PRIu64 " hyperps.cpus=%ld",
		 (uint64_t)status.memory_base, sysconf(_SC_NPROCESSORS_ONLN));
	if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(line) + 1, line, 0UL))
		return fail("kexec_file_load");
	printf("ok - kexec: the kernel is loaded\n# starting it: %s\n", line);
	/* A VM that is in the middle of its work: its memory must be the second kernel's. */
	if (system("hpsctl run --memory 64M /guests/burner -- 48 1000000 >/tmp/burner 2>&1 & "
		   "for i in $(seq 300); do grep -q 'round 1 of' /tmp/burner && exit 0; sleep 0.1; done; exit 1"))
		return fail("no guest runs");
	printf("ok - kexec: a guest runs\n");
	fflush(stdout);
	sync();
	sleep(1);
	reboot(RB_KEXEC);
	return fail("reboot");
}

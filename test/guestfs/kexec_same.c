// SPDX-License-Identifier: MIT
/*
 * kexec_same [KERNEL INITRD [WORDS] | --crash COMMAND]: start the given kernel (default: /test/vmlinuz with /test/kexec-initrd.img) by kexec. Its
 * command line is the running kernel's, but it runs the test after_kexec and is told the monitor's address and the
 * number of CPUs. With --crash it is the crash kernel, which runs after_crash on one CPU, when the command has been run and this
 * kernel has panicked; needs crashkernel= on the command line, and private_page.ko, whose two frames it is told. With WORDS on the
 * command line instead of all this there need be no monitor. Returns only on an error.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../modules/private_page.h"
#include "monitor_device.h"

#define COMMAND_LINE_BYTES 2048
#define KEXEC_FILE_ON_CRASH 2UL

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
		if (strncmp(word, "hyperps.", 8) && strncmp(word, "kvm.", 4) && strncmp(word, "crashkernel=", 12) &&
		    strncmp(word, "initrd=", 7))
			length += snprintf(line + length, COMMAND_LINE_BYTES - length, "%s ", word);
	return length;
}

/* Has the kernel panic. The page that is still the host's gets a text by which the crash kernel will know it. */
static int crash(int device)
{
	char *own = mmap(NULL, sizeof(PRIVATE_PAGE_TEXT), PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
	int trigger = open("/proc/sysrq-trigger", O_WRONLY);

	if (own == MAP_FAILED || trigger < 0)
		return fail("crash");
	strcpy(own, PRIVATE_PAGE_TEXT);
	if (write(trigger, "c", 1) != 1)
		return fail("/proc/sysrq-trigger");
	return 1;
}

int main(int argc, char **argv)
{
	bool crashes = argc > 2 && !strcmp(argv[1], "--crash"), plain = argc > 3;
	const char *kernel_path = argc > 2 && !crashes ? argv[1] : "/test/vmlinuz";
	const char *initrd_path = argc > 2 && !crashes ? argv[2] : "/test/kexec-initrd.img";
	int device = monitor_open(), kernel = open(kernel_path, O_RDONLY), initrd = open(initrd_path, O_RDONLY), length;
	int pages = crashes ? open(PRIVATE_PAGE_FILE, O_RDWR) : -1;
	struct hyperps_status status = { 0 };
	char line[COMMAND_LINE_BYTES + 256];

	if (kernel < 0)
		return fail(kernel_path);
	if (initrd < 0)
		return fail(initrd_path);
	if (!plain && (device < 0 || monitor_read_status(device, &status)))
		printf("# the monitor is not there: the second kernel's checks will fail\n");
	length = copy_command_line(line);
	if (length < 0)
		return fail("/proc/cmdline");
	if (plain)
		snprintf(line + length, sizeof(line) - length, "%s", argv[3]);
	else if (crashes)
		snprintf(line + length, sizeof(line) - length,
			 "hyperps.run=after_crash nr_cpus=1 hyperps.frame=%d hyperps.frame_own=%d",
			 ioctl(pages, PRIVATE_PAGE_FRAME, 0), ioctl(pages, PRIVATE_PAGE_FRAME_OWN, 0));
	else
		snprintf(line + length, sizeof(line) - length,
			 "rdinit=/test/kexec_early hyperps.run=after_kexec hyperps.memory_base=%" PRIu64
			 " hyperps.cpus=%ld hyperps.gate_cpus=%" PRIu64,
			 (uint64_t)status.memory_base, sysconf(_SC_NPROCESSORS_ONLN), (uint64_t)status.gate_cpus);
	if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(line) + 1, line, crashes ? KEXEC_FILE_ON_CRASH : 0UL))
		return fail("kexec_file_load");
	printf("ok - kexec: the kernel is loaded\n# starting it: %s\n", line);
	/* A VM that is in the middle of its work: its memory must be the second kernel's. */
	if (!plain &&
	    system("hpsctl run --memory 64M /guests/burner -- 48 1000000 >/tmp/burner 2>&1 & "
		   "for i in $(seq 300); do grep -q 'round 1 of' /tmp/burner && exit 0; sleep 0.1; done; exit 1"))
		return fail("no guest runs");
	if (!plain)
		printf("ok - kexec: a guest runs\n");
	fflush(stdout);
	if (crashes && system(argv[2]))
		return fail(argv[2]);
	sync();
	sleep(1);
	if (crashes)
		return crash(pages);
	reboot(RB_KEXEC);
	return fail("reboot");
}

// SPDX-License-Identifier: MIT
/*
 * VMs through /dev/hyperps: what the requests of host/module/hyperps_ioctl.h promise, and that all memory comes back however a
 * VM's owner ends. Without a guest the content can't be looked at: call_probe.ko sums it up as it is handed over. The
 * same module makes calls to the monitor fail.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hyperps_ioctl.h"
#include "monitor_device.h"
#include "tap.h"

#define MIB (1ULL << 20)
#define PAGE 4096ULL
#define RWX 7
#define KERNEL_IMAGE 0xffffffff80000000
#define MODULE "/hyperps.ko"
#define PROBE "/test/modules/call_probe.ko"
#define CGROUPS "/tmp/cgroups"

static int device;

static long declare(int vm, uint64_t gpa, uint64_t size, uint64_t permissions)
{
	struct hyperps_vm_declare range = { gpa, size, permissions };

	return value(ioctl(vm, HYPERPS_VM_IOC_DECLARE, &range));
}

static long populate(int vm, uint64_t gpa, uint64_t size, const void *source)
{
	struct hyperps_vm_populate request = { gpa, size, (uintptr_t)source };

	return value(ioctl(vm, HYPERPS_VM_IOC_POPULATE, &request));
}

/* A VM that may have RAM anywhere below 1 TiB; for use where creating one is not the point. */
static int new_vm(void)
{
	int vm = ioctl(device, HYPERPS_IOC_CREATE_VM, 0);
	long error = vm < 0 ? -errno : declare(vm, 0, 1ULL << 40, RWX);

	if (error)
		check(false, "a new VM (%ld)", error);
	return vm;
}

static struct hyperps_vm info(int vm)
{
	struct hyperps_vm out = { 0 };

	if (ioctl(vm, HYPERPS_VM_IOC_INFO, &out))
		check(false, "INFO: %s", strerror(errno));
	return out;
}

/* The number of the frame at gpa. */
static long frame(int vm, uint64_t gpa)
{
	struct hyperps_vm_frame request = { .gpa = gpa };
	long error = value(ioctl(vm, HYPERPS_VM_IOC_FRAME, &request));

	return error ? error : (long)request.frame;
}

/* MiB, from /proc/meminfo. */
static long memory_free(void)
{
	char line[128];
	long kib = -1;
	FILE *file = fopen("/proc/meminfo", "r");

	while (file && kib < 0 && fgets(line, sizeof(line), file))
		sscanf(line, "MemFree: %ld kB", &kib);
	if (file)
		fclose(file);
	return kib >> 10;
}

static bool output_has(const char *command, const char *part)
{
	static char text[16384];
	FILE *pipe = popen(command, "r");
	size_t length = pipe ? fread(text, 1, sizeof(text) - 1, pipe) : 0;

	text[length] = 0;
	return pipe && !pclose(pipe) && strstr(text, part);
}

static long insert_module(const char *path)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	long result = value(syscall(SYS_finit_module, file, "", 0));

	close(file);
	return result;
}

static long remove_module(const char *name)
{
	return value(syscall(SYS_delete_module, name, O_NONBLOCK));
}

/* Runs a function in a process of its own, which says "not ok" itself. Returns the process. */
static pid_t start(void (*run)(int vm, int out), int vm, int out)
{
	pid_t child = fork();

	if (!child) {
		checks = failed = 0;
		run(vm, out);
		_exit(failed);
	}
	return child;
}

static int wait_for(pid_t child)
{
	int status = -1;

	waitpid(child, &status, 0);
	return status;
}

static void check_life(void)
{
	struct hyperps_frames before = frames(device), now;
	struct hyperps_status status_before, status;
	struct hyperps_vm vm_info;
	long memory = memory_free();
	int vm = ioctl(device, HYPERPS_IOC_CREATE_VM, 0);

	monitor_read_status(device, &status_before);
	check(vm >= 0 && fcntl(vm, F_GETFD) == FD_CLOEXEC, "CREATE_VM gives a descriptor that is close-on-exec");
	check(output_has("hpsctl vm list --json", "\"state\": \"open\", \"ranges\": 0, \"frames\": 0,"),
	      "hpsctl vm list shows the empty VM");
	expect(declare(vm, 0, 1024 * MIB, RWX), 0, "DECLARE of 1 GiB");
	expect(populate(vm, 0, 64 * MIB, NULL), 64 * MIB, "POPULATE of 64 MiB");
	vm_info = info(vm);
	check(vm_info.state == HYPERPS_VM_OPEN && vm_info.frames == 16384 && !vm_info.pending && vm_info.ranges == 1 &&
		      vm_info.view_2m == 32 && !vm_info.view_4k,
	      "INFO: open, 64 MiB in %llu pages of 2 MiB, none pending", (unsigned long long)vm_info.view_2m);
	check(output_has("hpsctl vm list --json",
			 "\"ranges\": 1, \"frames\": 16384, \"bytes\": 67108864, \"pending\": 0"),
	      "hpsctl vm list --json shows the 64 MiB");
	check(output_has("hpsctl vm list", "64 MiB"), "hpsctl vm list shows the 64 MiB");
	check(output_has("hpsctl frames --json", "\"private\": 16384"), "hpsctl frames --json shows the 64 MiB");
	now = frames(device);
	check(now.count[HYPERPS_FRAME_PRIVATE] == before.count[HYPERPS_FRAME_PRIVATE] + 16384 &&
		      now.count[HYPERPS_FRAME_HOST] == before.count[HYPERPS_FRAME_HOST] - 16384,
	      "16384 frames went from the host to the VM");
	check(memory_free() < memory - 48, "Linux has them no more (%ld of %ld MiB free)", memory_free(), memory);
	/* 2 MiB - 4 KiB up to 6 MiB + 4 KiB: single pages at both ends. */
	expect(populate(vm, 258 * MIB - PAGE, 4 * MIB + 2 * PAGE, NULL), 4 * MIB + 2 * PAGE, "POPULATE across 2 MiB");
	vm_info = info(vm);
	check(vm_info.view_2m == 34 && vm_info.view_4k == 2, "that took 2 large and 2 small pages (%llu, %llu)",
	      (unsigned long long)vm_info.view_2m - 32, (unsigned long long)vm_info.view_4k);
	expect(close(vm), 0, "close");
	expect_frames(device, &before, "after it");
	monitor_read_status(device, &status);
	check(status.view_2m == status_before.view_2m && status.view_4k == status_before.view_4k &&
		      status.view_1g == status_before.view_1g,
	      "the host view has its large pages back");
	/* Linux keeps some in its lists for each CPU, which don't count as free. */
	check(memory_free() > memory - 40, "Linux has its memory back (%ld of %ld MiB free)", memory_free(), memory);
	check(output_has("hpsctl vm list --json", "\"vms\": [\n  ]"), "hpsctl vm list --json shows no VM");
}

/* As call_probe.ko does it: depends on each word and its place. */
static uint64_t sum_of(const uint64_t *words, uint64_t gpa, size_t size)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < size / 8; i++)
		sum += words[i] * (2 * (gpa / 8 + i) + 1);
	return sum;
}

static uint64_t probe_value(const char *name)
{
	char path[80];
	unsigned long long number = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/module/call_probe/parameters/%s", name);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%llu", &number) != 1)
		check(false, "reading %s", path);
	if (file)
		fclose(file);
	return number;
}

/* The next `count` calls of that number give the error. */
static void fail_calls(uint64_t number, int error, unsigned int count)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
	write_file("/sys/module/call_probe/parameters/number", text);
	snprintf(text, sizeof(text), "%d", error);
	write_file("/sys/module/call_probe/parameters/error", text);
	snprintf(text, sizeof(text), "%u", count);
	check(write_file("/sys/module/call_probe/parameters/count", text), "%u calls %llx are to give %d", count,
	      (unsigned long long)number, error);
}

static void check_content(void)
{
	const uint64_t gpa = 6 * MIB - 3 * PAGE, size = 4 * MIB + 5 * PAGE;
	uint64_t *source = malloc(size), before;
	int vm = new_vm();

	for (size_t i = 0; i < size / 8; i++)
		source[i] = i * 0x9e3779b97f4a7c15ULL;
	before = probe_value("sum");
	expect(populate(vm, gpa, size, source), size, "POPULATE with a source");
	check(probe_value("sum") - before == sum_of(source, gpa, size), "each word of it reached its place in the VM");
	before = probe_value("sum");
	expect(populate(vm, 64 * MIB - PAGE, 4 * MIB, NULL), 4 * MIB, "POPULATE without a source");
	check(probe_value("sum") == before, "that memory was zero");
	close(vm);
	free(source);
}

static void pause_ms(long ms)
{
	usleep(ms * 1000);
}

static void check_failing_monitor(void)
{
	struct hyperps_frames before = frames(device);
	long memory = memory_free();
	int vm = new_vm(), waited = 0;

	fail_calls(HYPERPS_CALL_VM_MAP, -EAGAIN, 1);
	expect(populate(vm, 0, 4 * MIB, NULL), 4 * MIB, "POPULATE when a VM_MAP wants a sync first");
	fail_calls(HYPERPS_CALL_VM_MAP, -ENOMEM, 2);
	expect(populate(vm, 4 * MIB, 4 * MIB, NULL), -ENOMEM, "POPULATE when the monitor's pool stays dry");
	expect(info(vm).frames, 1024, "the VM's frames after it");
	before.count[HYPERPS_FRAME_HOST] -= 2 * MIB / PAGE;
	memory -= 2;
	fail_calls(HYPERPS_CALL_VM_SYNC, -EAGAIN, 1000);
	expect(populate(vm, 4 * MIB, 4 * MIB, NULL), -EAGAIN, "POPULATE when no CPU flushes");
	expect(value(ioctl(vm, HYPERPS_VM_IOC_SEAL, 0)), -EAGAIN, "SEAL when no CPU flushes");
	expect(info(vm).pending, 1024, "frames pending");
	fail_calls(HYPERPS_CALL_VM_SYNC, 0, 0);
	expect(value(ioctl(vm, HYPERPS_VM_IOC_SEAL, 0)), 0, "SEAL afterwards");
	expect(info(vm).pending, 0, "frames pending");
	/* A call of which nobody knows whether it was done: here it was not. */
	fail_calls(HYPERPS_CALL_VM_MAP, -ENODEV, 1);
	expect(populate(vm, 8 * MIB, 4 * MIB, NULL), -ENODEV, "POPULATE when the monitor's answer makes no sense");
	expect(populate(vm, 64 * MIB, 128 * MIB, NULL), 128 * MIB, "POPULATE of 128 MiB");

	fail_calls(HYPERPS_CALL_VM_RECLAIM, -EAGAIN, 1000000);
	expect(close(vm), 0, "close when VM_RECLAIM fails");
	check(frames(device).count[HYPERPS_FRAME_TO_HOST] == before.count[HYPERPS_FRAME_TO_HOST] + 136 * MIB / PAGE &&
		      output_has("hpsctl vm list --json", "\"state\": \"dead\""),
	      "the memory is kept, with the VM");
	check(memory_free() < memory - 64, "Linux has not got it (%ld of %ld MiB free)", memory_free(), memory);
	check(output_has("dmesg | grep 'hyperps: '", "did not give a VM's memory back"), "the kernel's log says so");
	close(device);
	check(remove_module("hyperps") < 0, "the module can't be removed meanwhile");
	device = monitor_open();
	fail_calls(HYPERPS_CALL_VM_RECLAIM, 0, 0);
	while (frames(device).count[HYPERPS_FRAME_TO_HOST] != before.count[HYPERPS_FRAME_TO_HOST] && waited++ < 100)
		pause_ms(100);
	expect_frames(device, &before, "when VM_RECLAIM works again");
	/* The frames come first, then Linux. */
	pause_ms(200);
	check(memory_free() > memory - 40, "Linux has it back (%ld of %ld MiB free)", memory_free(), memory);
}

static bool is_refused(const char *what, long result, int error)
{
	if (result != -error)
		printf("# %s gives %ld, not %s\n", what, result, strerrorname_np(error));
	return result == -error;
}

#define REFUSED(call, error) (refused = is_refused(#call, call, error) && refused)

static void check_arguments(void)
{
	struct hyperps_frames before = frames(device);
	const uint64_t limit = HYPERPS_VM_GPA_LIMIT;
	char *half = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct hyperps_read read_request = { .object = HYPERPS_OBJECT_STATUS };
	int vm = ioctl(device, HYPERPS_IOC_CREATE_VM, 0), vms[HYPERPS_VMS];
	bool refused = true;
	int count = 0;

	expect(declare(vm, MIB, 64 * MIB, 5), 0, "positive control: DECLARE");
	REFUSED(value(ioctl(device, HYPERPS_IOC_CREATE_VM, 1)), EINVAL);
	REFUSED(declare(vm, 1024 * MIB + 1, MIB, RWX), EINVAL);
	REFUSED(declare(vm, 1024 * MIB, 0, RWX), EINVAL);
	REFUSED(declare(vm, 1024 * MIB, 1, RWX), EINVAL);
	REFUSED(declare(vm, limit, PAGE, RWX), EINVAL);
	REFUSED(declare(vm, limit - PAGE, 2 * PAGE, RWX), EINVAL);
	REFUSED(declare(vm, 1024 * MIB, -PAGE, RWX), EINVAL);
	REFUSED(declare(vm, 1024 * MIB, MIB, 0), EINVAL);
	REFUSED(declare(vm, 1024 * MIB, MIB, 2), EINVAL);
	REFUSED(declare(vm, 1024 * MIB, MIB, 8 | RWX), EINVAL);
	REFUSED(declare(vm, 1024 * MIB, MIB, PAGE | RWX), EINVAL);
	REFUSED(declare(vm, 1024 * MIB, MIB, 1ULL << 63 | RWX), EINVAL);
	REFUSED(declare(vm, 64 * MIB, MIB, RWX) - declare(vm, 65 * MIB - PAGE, 2 * PAGE, RWX) - EACCES, EACCES);
	REFUSED(value(ioctl(vm, HYPERPS_VM_IOC_DECLARE, NULL)), EFAULT);
	check(refused, "wrong CREATE_VM and DECLARE are refused");
	expect(declare(vm, limit - PAGE, PAGE, RWX), 0, "positive control: DECLARE of the last page");

	refused = true;
	expect(populate(vm, MIB, 2 * MIB, half), 2 * MIB, "positive control: POPULATE");
	REFUSED(populate(vm, 8 * MIB + 1, MIB, NULL), EINVAL);
	REFUSED(populate(vm, 8 * MIB, 0, NULL), EINVAL);
	REFUSED(populate(vm, 8 * MIB, PAGE - 1, NULL), EINVAL);
	REFUSED(populate(vm, limit, PAGE, NULL), EINVAL);
	REFUSED(populate(vm, limit - PAGE, 2 * PAGE, NULL), EINVAL);
	REFUSED(populate(vm, 8 * MIB, -8 * MIB, NULL), EINVAL);
	REFUSED(populate(vm, 0, PAGE, NULL), EPERM);
	REFUSED(populate(vm, 65 * MIB, PAGE, NULL), EPERM);
	REFUSED(populate(vm, MIB, PAGE, NULL), EACCES);
	REFUSED(populate(vm, 2 * MIB, 2 * MIB, NULL), EACCES);
	munmap(half + 2 * MIB, 2 * MIB);
	REFUSED(populate(vm, 8 * MIB, PAGE, half + 2 * MIB), EFAULT);
	REFUSED(populate(vm, 8 * MIB, 2 * MIB, half + MIB), EFAULT);
	REFUSED(populate(vm, 8 * MIB, PAGE, (void *)-PAGE), EFAULT);
	REFUSED(populate(vm, 8 * MIB, PAGE, (void *)0xffff888000000000), EFAULT);
	REFUSED(value(ioctl(vm, HYPERPS_VM_IOC_POPULATE, NULL)), EFAULT);
	check(refused, "wrong POPULATE are refused");
	expect(populate(vm, 62 * MIB, 4 * MIB, NULL), 2 * MIB, "POPULATE that begins in a range and leaves it");
	expect(populate(vm, 8 * MIB, 4 * MIB, half), 2 * MIB, "POPULATE whose source ends early");
	expect(info(vm).frames, 6 * MIB / PAGE, "the VM's frames");

	expect(frame(vm, 8 * MIB + PAGE) - frame(vm, 8 * MIB), 1,
	       "FRAME in a piece of 2 MiB: the next page's is the next");
	check(frame(vm, MIB) > 0 && frame(vm, MIB) != frame(vm, MIB + PAGE), "FRAME of single pages");

	refused = true;
	REFUSED(frame(vm, 5 * MIB), ENODATA);
	REFUSED(frame(vm, MIB + 8), EINVAL);
	REFUSED(frame(vm, limit), EINVAL);
	REFUSED(value(ioctl(vm, HYPERPS_VM_IOC_FRAME, NULL)), EFAULT);
	REFUSED(value(ioctl(vm, HYPERPS_VM_IOC_INFO, NULL)), EFAULT);
	REFUSED(value(ioctl(vm, HYPERPS_IOC_READ, &read_request)), ENOTTY);
	REFUSED(value(ioctl(vm, HYPERPS_IOC_CREATE_VM, 0)), ENOTTY);
	REFUSED(value(ioctl(device, HYPERPS_VM_IOC_SEAL, 0)), ENOTTY);
	REFUSED(value(ioctl(vm, _IO('H', 0x7f), 0)), ENOTTY);
	REFUSED(value(read(vm, half, 1)), EINVAL);
	REFUSED(value(write(vm, half, 1)), EINVAL);
	REFUSED(value((long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, vm, 0)), ENODEV);
	REFUSED(value(ioctl(vm, HYPERPS_VM_IOC_SEAL, 1)), EINVAL);
	expect(value(ioctl(vm, HYPERPS_VM_IOC_SEAL, 0)), 0, "SEAL");
	check(info(vm).state == HYPERPS_VM_SEALED && output_has("hpsctl vm list", "sealed"), "the VM is sealed");
	REFUSED(value(ioctl(vm, HYPERPS_VM_IOC_SEAL, 0)), EBUSY);
	REFUSED(declare(vm, 1024 * MIB, MIB, RWX), EBUSY);
	REFUSED(populate(vm, 32 * MIB, MIB, half), EBUSY);
	check(refused, "other requests, and requests to a sealed VM, are refused");
	expect(populate(vm, 32 * MIB, 4 * MIB, NULL), 4 * MIB, "POPULATE of a sealed VM with zeros");
	close(vm);

	while (count < HYPERPS_VMS && (vms[count] = ioctl(device, HYPERPS_IOC_CREATE_VM, 0)) >= 0)
		count++;
	expect(count, HYPERPS_VMS, "VMs at once");
	expect(value(ioctl(device, HYPERPS_IOC_CREATE_VM, 0)), -ENOMEM, "one more VM");
	refused = true;
	for (uint64_t i = 0; i < HYPERPS_VM_RANGES; i++)
		refused = declare(vms[0], i * MIB, MIB, 1) == 0 && refused;
	REFUSED(declare(vms[0], HYPERPS_VM_RANGES * MIB, MIB, 1), EINVAL);
	check(refused, "a VM takes %d ranges and no more", HYPERPS_VM_RANGES);
	while (count)
		close(vms[--count]);
	munmap(half, 2 * MIB);
	expect_frames(device, &before, "after wrong requests");
}

static void do_nothing(int vm, int out)
{
	(void)vm;
	(void)out;
}

/* Fills the VM, says so, and waits to be killed. */
static void fill_and_wait(int vm, int out)
{
	vm = vm < 0 ? new_vm() : vm;
	if (populate(vm, 0, 32 * MIB, NULL) != 32 * MIB || write(out, "x", 1) != 1)
		check(false, "filling a VM in a child");
	pause();
}

static void fill_for_ever(int vm, int out)
{
	vm = new_vm();
	if (write(out, "x", 1) != 1)
		_exit(1);
	for (uint64_t gpa = 0; populate(vm, gpa, 512 * MIB, NULL) == 512 * MIB && !close(vm);)
		vm = new_vm();
}

/* Starts the function in a child, waits until it has written a byte, then for some time, and kills it. */
static int start_and_kill(void (*run)(int vm, int out), int vm, long ms)
{
	int ends[2];
	char byte;
	pid_t child;

	if (pipe(ends))
		return -1;
	child = start(run, vm, ends[1]);
	if (read(ends[0], &byte, 1) != 1)
		check(false, "the child starts");
	pause_ms(ms);
	if (run == fill_and_wait)
		check(frames(device).count[HYPERPS_FRAME_PRIVATE] >= 32 * MIB / PAGE, "a child has filled a VM");
	kill(child, SIGKILL);
	close(ends[0]);
	close(ends[1]);
	return wait_for(child);
}

static void check_owners(void)
{
	struct hyperps_frames before = frames(device);
	int vm = new_vm();
	bool killed = true;

	expect(wait_for(start(do_nothing, vm, -1)), 0, "a child that shares the VM and exits");
	expect(populate(vm, 64 * MIB, 2 * MIB, NULL), 2 * MIB, "POPULATE by the parent afterwards");
	expect(start_and_kill(fill_and_wait, vm, 0), SIGKILL, "a child that fills the parent's VM and is killed");
	expect(info(vm).frames, 34 * MIB / PAGE, "frames of the parent's VM");
	close(vm);
	expect_frames(device, &before, "after close");
	expect(start_and_kill(fill_and_wait, -1, 0), SIGKILL, "a child with a VM of its own that is killed");
	expect_frames(device, &before, "after kill -9");
	for (int i = 0; i < 5; i++)
		killed = start_and_kill(fill_for_ever, -1, 10 + 37 * i) == SIGKILL && killed;
	check(killed, "5 children that are killed in the middle of POPULATE");
	expect_frames(device, &before, "after it");
}

static void check_module(void)
{
	int vm = new_vm();

	close(device);
	expect(populate(vm, 0, 2 * MIB, NULL), 2 * MIB, "POPULATE after closing " HYPERPS_DEVICE);
	/* Linux's word for a module in use; rmmod says the same. */
	expect(remove_module("hyperps"), -EWOULDBLOCK, "removing the module while a VM exists");
	close(vm);
	expect(remove_module("hyperps"), 0, "removing the module afterwards");
	expect(insert_module(MODULE), 0, "loading it again");
	device = monitor_open();
	check(device >= 0, "the device is there again");
}

static void on_alarm(int signal)
{
	(void)signal;
}

static void check_signal(void)
{
	struct hyperps_frames before = frames(device);
	struct sigaction action = { .sa_handler = on_alarm };
	struct itimerval timer = { .it_value = { .tv_usec = 20000 } };
	const long size = 384 * MIB;
	int vm = new_vm();
	long done;

	expect(populate(vm, 0, size, NULL), size, "positive control: POPULATE of 384 MiB without a signal");
	close(vm);
	vm = new_vm();
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	done = populate(vm, 0, size, NULL);
	check(done > 0 && done < size && !(done % (long)PAGE), "a signal ends POPULATE early, after %ld bytes", done);
	expect(info(vm).frames, done / PAGE, "frames of the VM");
	expect(populate(vm, done, 4 * MIB, NULL), 4 * MIB, "POPULATE goes on from there");
	close(vm);
	expect_frames(device, &before, "after it");
}

static void *populate_thread(void *vm)
{
	return (void *)populate(*(int *)vm, 0, 16 * MIB, NULL);
}

static void check_threads(void)
{
	struct hyperps_frames before = frames(device);
	long mine = 0, others = 0;
	int right = 0;

	for (int i = 0; i < 10; i++) {
		int vm = new_vm();
		pthread_t thread;
		void *result;

		pthread_create(&thread, NULL, populate_thread, &vm);
		mine = (long)populate_thread(&vm);
		pthread_join(thread, &result);
		others = (long)result;
		right += mine + others == (long)(16 * MIB) - EACCES && (mine == -EACCES || others == -EACCES) &&
			 info(vm).frames == 16 * MIB / PAGE;
		close(vm);
	}
	check(right == 10, "of two threads that populate the same 16 MiB one wins, the other gets EACCES (%ld, %ld)",
	      mine, others);
	expect_frames(device, &before, "after it");
}

/* Populates until it fails; the error must be ENOMEM, and what is not the VM's must be free. */
static void fill_up(int vm, int out)
{
	uint64_t gpa = 0;
	long done;
	struct hyperps_vm vm_info;

	(void)out;
	write_file("/proc/self/oom_score_adj", "1000");
	vm = new_vm();
	while ((done = populate(vm, gpa, 64 * MIB, NULL)) > 0)
		gpa += done;
	vm_info = info(vm);
	if (done != -ENOMEM || vm_info.frames != gpa / PAGE || vm_info.pending || gpa < 16 * MIB ||
	    declare(vm, 1ULL << 41, MIB, 1) || close(vm))
		check(false, "filling up: error %ld, %llu bytes, %llu frames, %llu pending, %ld MiB free", done,
		      (unsigned long long)gpa, (unsigned long long)vm_info.frames, (unsigned long long)vm_info.pending,
		      memory_free());
	printf("# filled a VM with %llu MiB\n", (unsigned long long)(gpa / MIB));
}

static void fill_up_in_cgroup(int vm, int out)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", getpid());
	if (!write_file(CGROUPS "/small/cgroup.procs", text))
		check(false, "entering the cgroup");
	fill_up(vm, out);
	if (failed)
		return;
	/* Half of it would have to be there once more if the memory were not charged. */
	vm = new_vm();
	if (populate(vm, 0, 48 * MIB, NULL) >= (long)(33 * MIB))
		check(false, "the limit of 32 MiB holds");
}

static void check_out_of_memory(void)
{
	struct hyperps_frames before = frames(device);
	long memory = memory_free();

	mkdir(CGROUPS, 0755);
	check(!mount("none", CGROUPS, "cgroup2", 0, NULL) && write_file(CGROUPS "/cgroup.subtree_control", "+memory") &&
		      !mkdir(CGROUPS "/small", 0755) && write_file(CGROUPS "/small/memory.max", "33554432"),
	      "a memory cgroup of 32 MiB");
	expect(wait_for(start(fill_up_in_cgroup, -1, -1)), 0, "a child that fills its memory cgroup with a VM");
	expect_frames(device, &before, "after it");
	expect(wait_for(start(fill_up, -1, -1)), 0, "a child that fills all of Linux's memory with a VM");
	expect_frames(device, &before, "after it");
	check(memory_free() > memory - 40, "Linux has its memory back (%ld of %ld MiB free)", memory_free(), memory);
}

static void check_cycles(void)
{
	struct hyperps_frames before = frames(device);
	long memory = memory_free();
	uint64_t first = 0;
	int fresh = 0;

	for (int i = 0; i < 100; i++) {
		int vm = new_vm();
		struct hyperps_vm vm_info;

		if (populate(vm, 0, 2 * MIB + PAGE, NULL) != (long)(2 * MIB + PAGE))
			check(false, "POPULATE in cycle %d", i);
		vm_info = info(vm);
		fresh += vm_info.frames == 513 && vm_info.handle != first;
		first = first ? first : vm_info.handle;
		close(vm);
	}
	expect(fresh, 100, "cycles of create, populate, close, each with a handle of its own");
	expect_frames(device, &before, "after them");
	check(memory_free() > memory - 40, "Linux has its memory back (%ld of %ld MiB free)", memory_free(), memory);
}

/*
 * Linux's own way to read all of memory leaves a VM's out: as far as it goes by the frames. What it once freed of the
 * kernel's image it reads by that address, too, whosever that is now.
 */
static void check_kcore(void)
{
	static char buffer[1 << 20];
	struct hyperps_status before, after;
	Elf64_Ehdr header = { 0 };
	uint64_t bytes = 0;
	int vm = new_vm(), core = open("/proc/kcore", O_RDONLY | O_CLOEXEC);

	populate(vm, 0, 64 * MIB + 5 * PAGE, NULL);
	monitor_read_status(device, &before);
	if (core < 0 || read(core, &header, sizeof(header)) != sizeof(header))
		check(false, "reading /proc/kcore");
	for (int i = 0; i < header.e_phnum; i++) {
		Elf64_Phdr part;

		if (pread(core, &part, sizeof(part), header.e_phoff + i * sizeof(part)) != sizeof(part) ||
		    part.p_type != PT_LOAD || part.p_vaddr >= KERNEL_IMAGE || part.p_paddr >> 46)
			continue;
		for (uint64_t at = 0; at < part.p_filesz;) {
			ssize_t got = pread(core, buffer, sizeof(buffer), part.p_offset + at);

			if (got <= 0) {
				printf("# /proc/kcore at %llx: %s\n", (unsigned long long)(part.p_vaddr + at),
				       strerror(errno));
				break;
			}
			at += got;
			bytes += got;
		}
	}
	monitor_read_status(device, &after);
	check(bytes > 512 * MIB && after.refused_memory == before.refused_memory,
	      "reading all of RAM through /proc/kcore (%llu MiB) touches no frame of a VM",
	      (unsigned long long)(bytes / MIB));
	close(core);
	close(vm);
}

/* Each page in a 2 MiB range of its own takes a page of tables in two views. */
static void check_pool(void)
{
	struct hyperps_frames before = frames(device), after;
	uint64_t monitor = before.count[HYPERPS_FRAME_MONITOR] + before.count[HYPERPS_FRAME_TO_MONITOR];
	const uint64_t pages = 3000;
	int vm = new_vm();
	uint64_t i;

	for (i = 0; i < pages && populate(vm, i * 2 * MIB, PAGE, NULL) == PAGE;)
		i++;
	expect(i, pages, "POPULATE of single pages, more than the monitor's pool has tables for");
	after = frames(device);
	monitor = after.count[HYPERPS_FRAME_MONITOR] + after.count[HYPERPS_FRAME_TO_MONITOR] - monitor;
	check(monitor >= 2 * MIB / PAGE && monitor % (2 * MIB / PAGE) == 0,
	      "hyperps.ko gave the monitor memory for them (%llu frames)", (unsigned long long)monitor);
	check(output_has("dmesg | grep 'hyperps: '", "gave the monitor 2 MiB"), "the kernel's log says so");
	close(vm);
	before.count[HYPERPS_FRAME_HOST] -= monitor;
	expect_frames(device, &before, "but for these");
}

int main(void)
{
	static void (*const parts[])(void) = { check_life,   check_arguments, check_owners,
					       check_module, check_threads,   check_cycles,
					       check_signal, check_kcore,     check_out_of_memory };

	device = monitor_open();
	check(device >= 0, "opening " HYPERPS_DEVICE);
	if (device >= 0) {
		for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
			parts[i]();
		expect(insert_module(PROBE), 0, "loading call_probe.ko");
		check_content();
		check_failing_monitor();
		check_pool();
		expect(remove_module("call_probe"), 0, "removing call_probe.ko");
	}
	return summary();
}

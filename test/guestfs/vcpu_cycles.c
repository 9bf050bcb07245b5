// SPDX-License-Identifier: MIT
/* A thousand VMs, one after the other: made, run, ended. No frame is lost, and the monitor's pool does not shrink. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hyperps_ioctl.h"
#include "monitor_device.h"
#include "tap.h"

#define PAGE 4096ULL
#define RAM (64 * PAGE)
#define ENTRY 0x7c00ULL
#define CYCLES 1000
#define FIRST 100 /* cycles after which the pool has what it keeps */
#define SLACK (16 * PAGE) /* of the pool: pages that wait for a flush */

/* mov al, [0x9000]; mov [0x9000], sp; out 0x10, al; hlt: RUN brings the page at 0x9000 */
static const unsigned char code[] = { 0xa0, 0x00, 0x90, 0x89, 0x26, 0x00, 0x90, 0xe6, 0x10, 0xf4 };

static int device;

static bool cycle(unsigned int number)
{
	static unsigned char page[PAGE];
	struct hyperps_vm_declare range = { 0, RAM, 7 };
	struct hyperps_vm_populate content = { ENTRY & ~(PAGE - 1), PAGE, (uintptr_t)page };
	struct hyperps_vm_create_vcpu start = { HYPERPS_VCPU_REAL, 0, ENTRY, 0 };
	int vm = ioctl(device, HYPERPS_IOC_CREATE_VM, 0), vcpu = -1;
	struct hyperps_run *run = MAP_FAILED;
	bool done = vm >= 0 && !ioctl(vm, HYPERPS_VM_IOC_DECLARE, &range);

	memcpy(page + ENTRY % PAGE, code, sizeof(code));
	done = done && ioctl(vm, HYPERPS_VM_IOC_POPULATE, &content) == (int)PAGE;
	vcpu = done ? ioctl(vm, HYPERPS_VM_IOC_CREATE_VCPU, &start) : -1;
	done = vcpu >= 0 && !ioctl(vm, HYPERPS_VM_IOC_SEAL, 0);
	if (done)
		run = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	done = run != MAP_FAILED;
	if (done) {
		run->flags = HYPERPS_RUN_LAZY;
		done = !ioctl(vcpu, HYPERPS_VCPU_IOC_RUN, 0) && run->exit == HYPERPS_EXIT_OUT && !run->io.data;
		munmap(run, PAGE);
	}
	if (!done)
		printf("# cycle %u: %s\n", number, strerror(errno));
	/* By turns the VM and the vCPU go first. */
	close(number % 2 ? vm : vcpu);
	close(number % 2 ? vcpu : vm);
	return done;
}

static bool read_state(struct hyperps_frames *frames, struct hyperps_status *status)
{
	return !monitor_read(device, HYPERPS_OBJECT_FRAMES, 0, 0, frames, sizeof(*frames)) &&
	       !monitor_read(device, HYPERPS_OBJECT_STATUS, 0, 0, status, sizeof(*status));
}

int main(void)
{
	struct hyperps_frames before, ignored;
	struct hyperps_status first, last;
	unsigned int done = 0;
	uint64_t lowest = ~0ULL;
	bool good;

	device = open(HYPERPS_DEVICE, O_RDWR);
	for (unsigned int i = 0; i < FIRST; i++)
		done += cycle(i);
	good = read_state(&before, &first);
	for (unsigned int i = FIRST; i < CYCLES && good; i++) {
		done += cycle(i);
		if (i % FIRST == FIRST - 1) {
			good = read_state(&ignored, &last);
			lowest = last.memory_free < lowest ? last.memory_free : lowest;
		}
	}
	check(done == CYCLES, "%u of %d VMs were made, ran and ended", done, CYCLES);
	expect_frames(device, &before, "after them");
	check(good && last.memory_free + SLACK >= first.memory_free,
	      "the monitor's pool does not shrink (%llu bytes after %d, then %llu, at least %llu)",
	      (unsigned long long)first.memory_free, FIRST, (unsigned long long)last.memory_free,
	      (unsigned long long)lowest);
	return summary();
}

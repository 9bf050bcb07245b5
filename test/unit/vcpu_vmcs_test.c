// SPDX-License-Identifier: MIT
/*
 * A VMCS is used anew only after VMCLEAR: root's own code creates, runs and ends vCPUs on several CPUs, with each way in
 * which a call can end, on a model of what the CPUs keep of a VMCS (SDM, "Software Use of Virtual-Machine Control Structures"):
 * it is active on a CPU from VMPTRLD to VMCLEAR, and that CPU may write to its page at any time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "event.h"
#include "memory_service.h"
#include "monitor.h"
#include "stop.h"
#include "vcpu.h"
#include "vmcs.h"

#define CPUS 3
#define PAGES 64 /* of the pool */
#define STEPS 200000

struct monitor monitor;
u64 idt[32][2];
static struct boot_info boot;
static struct cpu_area areas[CPUS];
static u8 pages[PAGES][PAGE_SIZE] __attribute__((aligned(4096)));
static bool taken[PAGES], taken_at_start[PAGES];
static unsigned on; /* the CPU that executes */
static struct {
	u64 current; /* 0: none */
	bool active[PAGES + CPUS];
} model[CPUS];
static bool launched[PAGES + CPUS], clean[PAGES + CPUS]; /* VMCLEAR came after the last use as another page */
static u64 seed = 88172645463325252ULL, vm_handle[HYPERPS_VMS];
static bool vm_sealed[HYPERPS_VMS];
static struct vm vms[HYPERPS_VMS];
static unsigned runs, creations, ends;
static bool forgets; /* positive control: the VMCLEAR at the end of a run is left out */
static const char *broken;

static void complain(const char *what)
{
	if (!broken)
		broken = what;
}

static u64 chance(u64 n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 16) % n;
}

void *read_gs_0(void)
{
	return &areas[on].cpu;
}

/* Addresses: page i of the pool is frame 1 + i, the host's VMCS of CPU i is frame 1 + PAGES + i. */
static unsigned frame_of(const void *page)
{
	for (unsigned i = 0; i < CPUS; i++)
		if (page == areas[i].vmcs)
			return PAGES + i;
	return (unsigned)(((const u8 *)page - pages[0]) / PAGE_SIZE);
}

hpa_t hpa_of(const void *page)
{
	return HPA((1ULL + frame_of(page)) << PAGE_SHIFT);
}

void *page_pool_take(struct page_pool *pool)
{
	unsigned i = chance(PAGES);

	(void)pool;
	while (taken[i])
		i = (i + 1) % PAGES;
	taken[i] = true;
	clean[i] = false;
	return memset(pages[i], 0, PAGE_SIZE);
}

static void put_page(const void *page)
{
	unsigned frame = frame_of(page);

	for (unsigned i = 0; i < CPUS; i++)
		if (model[i].active[frame])
			complain("a page is given back that is a VMCS which is active on a CPU");
	taken[frame] = false;
}

void vmclear(hpa_t vmcs)
{
	unsigned frame = (vmcs.value >> PAGE_SHIFT) - 1;

	if (forgets && launched[frame] && frame < PAGES)
		return;
	for (unsigned i = 0; i < CPUS; i++)
		if (i != on && model[i].active[frame])
			complain("VMCLEAR of a VMCS that is active on another CPU");
	model[on].active[frame] = false;
	launched[frame] = false;
	clean[frame] = true;
	if (model[on].current == vmcs.value)
		model[on].current = 0;
}

void vmptrld(hpa_t vmcs)
{
	unsigned frame = (vmcs.value >> PAGE_SHIFT) - 1;

	for (unsigned i = 0; i < CPUS; i++)
		if (i != on && model[i].active[frame])
			complain("VMPTRLD of a VMCS that is active on another CPU");
	if (!clean[frame])
		complain("VMPTRLD of a page on which there was no VMCLEAR");
	if (this_cpu()->vmcs_current)
		complain("VMPTRLD while an NMI would write to the VMCS before");
	model[on].active[frame] = true;
	model[on].current = vmcs.value;
}

u64 vmread(vmcs_field_t field)
{
	(void)field;
	if (!model[on].current)
		complain("VMREAD without a VMCS");
	return chance(2) ? 0 : chance(~0ULL);
}

void vmwrite(vmcs_field_t field, u64 value)
{
	(void)field;
	(void)value;
	if (!model[on].current)
		complain("VMWRITE without a VMCS");
}

u64 guest_run(struct vcpu *vcpu, struct cpu *cpu, u64 words[8])
{
	unsigned frame = (vcpu->vmcs.value >> PAGE_SHIFT) - 1;

	if (model[on].current != vcpu->vmcs.value)
		complain("a guest runs on another VMCS");
	if (vcpu->last_cpu != cpu->slot + 1)
		complain("a vCPU on another CPU keeps that one's root state");
	launched[frame] = true;
	vcpu->must_sync = !chance(8);
	vcpu->must_flush = !chance(8);
	words[0] = chance(HYPERPS_EXITS);
	runs++;
	return !chance(50);
}

struct mm *memory_lock(void)
{
	static struct mm mm;

	return &mm;
}

void memory_unlock(void)
{
}

bool memory_flush(void)
{
	return chance(2);
}

s64 serve_memory_call(u64 call, const u64 *argument, u64 *value)
{
	(void)call;
	(void)argument;
	*value = chance(2);
	return chance(2) ? HYPERPS_OK : HYPERPS_ERROR_MEMORY;
}

struct vm *mm_find_vm(const struct mm *mm, u64 handle)
{
	(void)mm;
	return &vms[handle % HYPERPS_VMS];
}

s64 mm_add_vcpu(struct mm *mm, u64 handle, const u64 start[3], struct vm_vcpu **vcpu)
{
	struct vm *vm = mm_find_vm(mm, handle);
	unsigned free_pages = 0;

	for (unsigned i = 0; i < PAGES; i++)
		free_pages += !taken[i];
	if (vm_sealed[handle % HYPERPS_VMS] || vm->vcpus == HYPERPS_VCPUS || free_pages < 2)
		return HYPERPS_ERROR_MEMORY;
	*vcpu = &vm->vcpu[vm->vcpus];
	(*vcpu)->vmcs = page_pool_take(NULL);
	(*vcpu)->state = page_pool_take(NULL);
	memcpy((*vcpu)->start, start, sizeof((*vcpu)->start));
	return vm->vcpus++;
}

static void end_vm(struct vm *vm)
{
	for (u32 i = 0; i < vm->vcpus; i++) {
		put_page(vm->vcpu[i].vmcs);
		put_page(vm->vcpu[i].state);
	}
	vm->vcpus = 0;
}

u64 ept_pointer(const struct ept *ept)
{
	(void)ept;
	return 0;
}

s64 mm_enter(struct mm *mm, u64 handle)
{
	(void)mm;
	return vm_sealed[handle % HYPERPS_VMS] && vm_handle[handle % HYPERPS_VMS] == handle ? HYPERPS_OK
											    : HYPERPS_ERROR_STATE;
}

void mm_leave(struct mm *mm, u64 handle)
{
	(void)mm;
	(void)handle;
}

void inject(u64 information)
{
	(void)information;
}

u64 monitor_time(void)
{
	return 0;
}

void stop_if_asked(void)
{
}

void panic_stop(void)
{
	fail_msg("panic: %s", broken);
	abort();
}

/* Random calls on random CPUs. Returns what is wrong, or NULL. */
static const char *churn(unsigned steps)
{
	memset(model, 0, sizeof(model));
	memset(vms, 0, sizeof(vms));
	memcpy(taken, taken_at_start, sizeof(taken));
	memset(launched, 0, sizeof(launched));
	memset(vm_sealed, 0, sizeof(vm_sealed));
	broken = NULL;
	runs = creations = ends = 0;
	for (on = 0; on < CPUS; on++) {
		areas[on].cpu = (struct cpu){ .slot = on };
		clean[PAGES + on] = true;
		vmcs_load_host(this_cpu());
	}
	for (unsigned i = 0; i < HYPERPS_VMS; i++)
		vm_handle[i] = i;
	for (unsigned step = 0; step < steps && !broken; step++) {
		u64 slot = chance(4), handle = vm_handle[slot], words[8] = { 0 }, index;

		on = chance(CPUS);
		switch (chance(16)) {
		case 0 ... 2:
			creations +=
				!vcpu_create((const u64[4]){ handle, HYPERPS_VCPU_PROTECTED, PAGE_SIZE, 0 }, &index);
			break;
		case 3:
			vm_sealed[slot] = true;
			break;
		case 4:
			ends += vms[slot].vcpus != 0;
			end_vm(&vms[slot]);
			vm_sealed[slot] = false;
			vm_handle[slot] += HYPERPS_VMS;
			break;
		default:
			vcpu_run((const u64[4]){ handle, chance(HYPERPS_VCPUS), 0, chance(2) ? 0 : HYPERPS_EVENT_NMI },
				 words);
		}
		if (model[on].current != hpa_of(areas[on].vmcs).value || !this_cpu()->vmcs_current)
			complain("the host's VMCS is not current at the end of a call");
	}
	return broken;
}

static void test_churn(void **state)
{
	const char *wrong = churn(STEPS);

	(void)state;
	if (wrong)
		fail_msg("%s", wrong);
	print_message("%u vCPUs, %u runs, %u VMs ended\n", creations, runs, ends);
	assert_true(creations > STEPS / 100 && runs > STEPS / 100 && ends > STEPS / 100);
}

/* Positive control: without the VMCLEAR at the end of a run. */
static void test_forgets(void **state)
{
	(void)state;
	forgets = true;
	assert_non_null(churn(STEPS));
	forgets = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_churn), cmocka_unit_test(test_forgets) };

	monitor.boot = &boot;
	guest_init();
	memcpy(taken_at_start, taken, sizeof(taken));
	return cmocka_run_group_tests(tests, NULL, NULL);
}

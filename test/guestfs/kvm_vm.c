// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm_vm.h"
#include "tap.h"

#define LARGE_PAGE (2UL << 20)
#define CPUID_ENTRIES 200
#define GDT_ENTRIES 8
#define PRESENT 1
#define WRITABLE 2
#define LARGE 0x80

int checked(int result, const char *what)
{
	if (result >= 0)
		return result;
	check(false, "setup: %s: %s", what, strerror(errno));
	exit(summary());
}

char *get_memory(uint64_t bytes, bool large)
{
	char *memory = mmap(NULL, bytes + LARGE_PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	checked(memory == MAP_FAILED ? -1 : 0, "mmap");
	memory += -(uintptr_t)memory & (LARGE_PAGE - 1);
	checked(madvise(memory, bytes, large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE), "madvise");
	return memory;
}

void set_slot(struct vm *vm, unsigned int slot, uint64_t gpa, void *memory, uint64_t bytes, uint32_t flags)
{
	struct kvm_userspace_memory_region region = { .slot = slot,
						      .flags = flags,
						      .guest_phys_addr = gpa,
						      .userspace_addr = (uintptr_t)memory,
						      .memory_size = bytes };

	checked(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
}

static void put64(struct vm *vm, uint64_t gpa, uint64_t word)
{
	memcpy(vm->low + gpa, &word, sizeof(word));
}

/* 1 GiB is identity: its first 2 MiB by 4 KiB pages, the rest by 2 MiB pages. */
static void make_tables(struct vm *vm, uint64_t tables, uint64_t page_one)
{
	put64(vm, tables, (tables + PAGE) | WRITABLE | PRESENT);
	put64(vm, tables + PAGE, (tables + 2 * PAGE) | WRITABLE | PRESENT);
	put64(vm, tables + 2 * PAGE, (tables + 3 * PAGE) | WRITABLE | PRESENT);
	for (uint64_t i = 1; i < 512; i++)
		put64(vm, tables + 2 * PAGE + 8 * i, i * LARGE_PAGE | LARGE | WRITABLE | PRESENT);
	for (uint64_t i = 0; i < 512; i++) {
		uint64_t at = i * PAGE == PAGE_ONE ? page_one : i * PAGE;

		if (at == RESERVED)
			at |= 1UL << 51;
		put64(vm, tables + 3 * PAGE + 8 * i, at | (at == READ_ONLY ? 0 : WRITABLE) | PRESENT);
	}
}

/* PDPTs for PAE paging, which share all below with the others. */
static void make_pae_tables(struct vm *vm)
{
	put64(vm, PAE_TABLES, (TABLES + 2 * PAGE) | PRESENT);
	put64(vm, PAE_TABLES + 0x20, (OTHER_TABLES + 2 * PAGE) | PRESENT);
}

static void make_descriptors(struct vm *vm)
{
	static const uint64_t gdt[GDT_ENTRIES] = { 0,
						   0x00cf9b000000ffff,
						   0x00cf93000000ffff,
						   0x00af9b000000ffff,
						   0x00009b000000ffff,
						   0x000093000000ffff,
						   0x0000890000000067 | (uint64_t)TSS << 16,
						   0x0000890000000067 | (TSS + 0x100UL) << 16 };
	/* The other task's: EIP and EFLAGS, ESP, EDI, ES to GS. */
	uint32_t task[] = { CODE + (uint32_t)(other_task - guest_begin),
			    2,
			    [6] = STACK - 0x100,
			    [9] = RESULT,
			    [10] = 0x10,
			    8,
			    0x10,
			    0x10,
			    0x10,
			    0x10 };

	memcpy(vm->low + TSS + 0x100 + 0x20, task, sizeof(task));
	memcpy(vm->low + GDT, gdt, sizeof(gdt));
	put64(vm, GDT_POINTER, (uint64_t)GDT << 16 | (sizeof(gdt) - 1));
	for (unsigned int vector = 0; vector < 32; vector++) {
		uint64_t handler = CODE + (on_vector - guest_begin) + 16 * vector;

		put64(vm, IDT + 16 * vector, (handler & 0xffff) | 0x18 << 16 | 0x8e00UL << 32 | handler >> 16 << 48);
	}
}

void make_vm(struct vm *vm, bool irqchip)
{
	int kvm = checked(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	uint32_t marks[] = { 1, 2 };

	vm->fd = checked(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	close(kvm);
	checked(ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
	if (irqchip) {
		struct kvm_pit_config pit = { 0 };

		checked(ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
		checked(ioctl(vm->fd, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
	}
	vm->low = get_memory(LARGE_PAGE, false);
	memcpy(vm->low + CODE, guest_begin, guest_end - guest_begin);
	make_descriptors(vm);
	make_tables(vm, TABLES, PAGE_ONE);
	make_tables(vm, OTHER_TABLES, PAGE_TWO);
	make_pae_tables(vm);
	memcpy(vm->low + PAGE_ONE, &marks[0], sizeof(marks[0]));
	memcpy(vm->low + PAGE_TWO, &marks[1], sizeof(marks[1]));
	set_slot(vm, 0, 0, vm->low, LOW_BYTES, 0);
}

static void set_cpuid(struct vcpu *vcpu)
{
	int kvm = checked(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + (CPUID_ENTRIES + 1) * sizeof(cpuid->entries[0]));

	checked(cpuid ? 0 : -1, "calloc");
	cpuid->nent = CPUID_ENTRIES;
	checked(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
	for (unsigned int i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == 1)
			cpuid->entries[i].ecx |=
				1U << 24; /* the APIC's timer has a TSC deadline, where the kernel has the APIC */
	cpuid->entries[cpuid->nent++] = (struct kvm_cpuid_entry2){ .function = CPUID_LEAF, .ebx = CPUID_VALUE };
	checked(ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
	free(cpuid);
	close(kvm);
}

void make_vcpu(struct vm *vm, struct vcpu *vcpu, unsigned int id)
{
	*vcpu = (struct vcpu){ .vm = vm, .fd = checked(ioctl(vm->fd, KVM_CREATE_VCPU, id), "KVM_CREATE_VCPU") };
	vcpu->run = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	checked(vcpu->run == MAP_FAILED ? -1 : 0, "mmap of a vCPU");
	set_cpuid(vcpu);
}

void end_vcpu(struct vcpu *vcpu)
{
	munmap(vcpu->run, 3 * PAGE);
	close(vcpu->fd);
}

void end_vm(struct vm *vm)
{
	close(vm->fd);
	munmap(vm->low, LARGE_PAGE);
}

static void set_segment(struct kvm_segment *segment, unsigned int selector, unsigned int type, bool is_long)
{
	*segment = (struct kvm_segment){ .limit = 0xffffffff,
					 .selector = selector,
					 .type = type,
					 .present = 1,
					 .db = !is_long,
					 .l = is_long,
					 .s = 1,
					 .g = 1 };
}

static void set_real(struct kvm_sregs *sregs)
{
	struct kvm_segment *segments[] = { &sregs->ds, &sregs->es, &sregs->fs, &sregs->gs, &sregs->ss };

	sregs->cs = (struct kvm_segment){ .limit = 0xffff, .type = 0xb, .present = 1, .s = 1 };
	for (unsigned int i = 0; i < sizeof(segments) / sizeof(segments[0]); i++)
		*segments[i] = (struct kvm_segment){ .limit = 0xffff, .type = 3, .present = 1, .s = 1 };
	sregs->idt.base = 0;
	sregs->idt.limit = 0x3ff;
	sregs->cr0 = 0x60000010;
	sregs->cr4 = sregs->efer = 0;
}

static void set_flat(struct kvm_sregs *sregs, bool is_long)
{
	set_segment(&sregs->cs, is_long ? 0x18 : 8, 0xb, is_long);
	set_segment(&sregs->ds, 0x10, 3, false);
	sregs->es = sregs->ss = sregs->fs = sregs->gs = sregs->ds;
	sregs->gdt.base = GDT;
	sregs->gdt.limit = GDT_ENTRIES * 8 - 1;
	sregs->idt.base = IDT;
	sregs->idt.limit = 32 * 16 - 1;
	sregs->cr3 = TABLES;
	sregs->cr0 = is_long ? 0x80010033 : 0x33; /* PG, WP, NE, ET, MP, PE */
	sregs->cr4 = is_long ? 0x40620 : 0x600; /* OSXSAVE, PAE, OSFXSR, OSXMMEXCPT */
	sregs->efer = is_long ? 0xd01 : 0; /* NXE, LMA, LME, SCE */
}

void start(struct vcpu *vcpu, enum mode mode, const char *routine, uint64_t rbx, uint64_t rcx, uint64_t rsi)
{
	struct kvm_regs regs = { .rip = CODE + (routine - guest_begin),
				 .rflags = 2,
				 .rbx = rbx,
				 .rcx = rcx,
				 .rsi = rsi,
				 .rdi = RESULT,
				 .rsp = STACK };
	struct kvm_sregs sregs;

	checked(ioctl(vcpu->fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	if (mode == REAL)
		set_real(&sregs);
	else
		set_flat(&sregs, mode == LONG);
	if (mode == PAE) {
		sregs.cr3 = PAE_TABLES;
		sregs.cr0 |= 0x80010000;
		sregs.cr4 |= 0x20;
	}
	checked(ioctl(vcpu->fd, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	checked(ioctl(vcpu->fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	vcpu->outs = vcpu->reads = vcpu->writes = 0;
}

int run(struct vcpu *vcpu)
{
	if (ioctl(vcpu->fd, KVM_RUN, 0))
		return -errno;
	return (int)vcpu->run->exit_reason;
}

static void serve_port(struct vcpu *vcpu)
{
	struct kvm_run *shared = vcpu->run;
	char *data = (char *)shared + shared->io.data_offset;

	for (uint32_t i = 0; i < shared->io.count; i++, data += shared->io.size) {
		if (shared->io.direction == KVM_EXIT_IO_IN) {
			memcpy(data, &vcpu->in, shared->io.size);
			vcpu->in++;
		} else if (vcpu->outs < OUTS) {
			vcpu->out[vcpu->outs] = 0;
			memcpy(&vcpu->out[vcpu->outs++], data, shared->io.size);
		}
	}
}

static void serve_device(struct vcpu *vcpu)
{
	struct kvm_run *shared = vcpu->run;
	uint8_t *at = vcpu->device + shared->mmio.phys_addr % PAGE;

	if (shared->mmio.phys_addr % PAGE + shared->mmio.len > PAGE)
		return;
	if (shared->mmio.is_write)
		memcpy(at, shared->mmio.data, shared->mmio.len);
	else
		memcpy(shared->mmio.data, at, shared->mmio.len);
	*(shared->mmio.is_write ? &vcpu->writes : &vcpu->reads) += 1;
}

int serve(struct vcpu *vcpu)
{
	for (;;) {
		int reason = run(vcpu);

		if (reason == KVM_EXIT_IO)
			serve_port(vcpu);
		else if (reason == KVM_EXIT_MMIO)
			serve_device(vcpu);
		else
			return reason;
	}
}

uint64_t result(const struct vm *vm, unsigned int n)
{
	uint64_t word;

	memcpy(&word, vm->low + RESULT + 8 * n, sizeof(word));
	return word;
}

void set_vector(struct vm *vm, unsigned int vector, const char *routine)
{
	uint32_t entry = CODE + (uint32_t)(routine - guest_begin);

	memcpy(vm->low + 4 * vector, &entry, sizeof(entry));
}

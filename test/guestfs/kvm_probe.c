// SPDX-License-Identifier: MIT
/*
 * kvm_probe [--quick] [--list] [TEST]...: what a stock KVM's VMs do, through /dev/kvm. Each test runs in a process of its own. What
 * is printed is the same wherever KVM works: natively, and under a hypervisor.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kvm_vm.h"
#include "tap.h"

#define TIME_LIMIT 20 /* seconds of the machine's, for a test */
#define CHANGED_MS 2000 /* for a guest to go on */
#define MEMORY_BYTES (8UL << 20)
#define ENTRY_FAILED 0x80000021 /* invalid guest state */

static struct vm vm;
static struct vcpu vcpu;

static void pause_us(unsigned int us)
{
	struct timespec time = { 0, 1000L * us };

	nanosleep(&time, NULL);
}

static void make_guest(void)
{
	make_vm(&vm, false);
	make_vcpu(&vm, &vcpu, 0);
}

static bool sent(const struct vcpu *from, unsigned int count, const uint32_t *values)
{
	bool same = from->outs == count && !memcmp(from->out, values, count * sizeof(values[0]));

	for (unsigned int i = 0; !same && i < from->outs; i++)
		printf("# port: %#x\n", from->out[i]);
	return same;
}

#define SENT(from, ...) sent(from, sizeof((uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t), (uint32_t[]){ __VA_ARGS__ })

/* A check that the guest ends at HLT, with ports and devices served. */
static bool halts(struct vcpu *one, const char *what)
{
	int reason = serve(one);

	if (reason != KVM_EXIT_HLT)
		printf("# exit reason %d\n", reason);
	return check(reason == KVM_EXIT_HLT, "%s: the guest ends by HLT", what);
}

static void test_device_file(void)
{
	int extensions[] = { KVM_CAP_USER_MEMORY, KVM_CAP_READONLY_MEM, KVM_CAP_SYNC_MMU, KVM_CAP_SET_GUEST_DEBUG };

	make_guest();
	for (unsigned int i = 0; i < sizeof(extensions) / sizeof(extensions[0]); i++)
		check(ioctl(vm.fd, KVM_CHECK_EXTENSION, extensions[i]) > 0, "capability %d", extensions[i]);
}

static void test_real(void)
{
	make_guest();
	start(&vcpu, REAL, guest_real, 0, 0, 0);
	check(run(&vcpu) == KVM_EXIT_IO && vcpu.run->io.direction == KVM_EXIT_IO_OUT && vcpu.run->io.size == 4 &&
		      vcpu.run->io.port == OUT_PORT,
	      "OUT exits");
	vcpu.in = 41;
	start(&vcpu, REAL, guest_real, 0, 0, 0);
	halts(&vcpu, "CPUID, OUT, IN");
	check(SENT(&vcpu, CPUID_VALUE, 42), "CPUID, OUT and IN have the right values");
	halts(&vcpu, "after HLT");
	check(SENT(&vcpu, CPUID_VALUE, 42, 7), "the guest goes on after HLT");
	for (unsigned int i = 0; i < 16; i++)
		vm.low[RESULT + i] = (char)(100 + i);
	start(&vcpu, REAL, guest_string, 0, 0, 0);
	vcpu.in = 200;
	halts(&vcpu, "REP OUTSB, REP INSB");
	check(vcpu.outs == 16 && vcpu.out[0] == 100 && vcpu.out[15] == 115, "REP OUTSB sends 16 bytes");
	check((uint8_t)vm.low[RESULT + 0x100] == 200 && (uint8_t)vm.low[RESULT + 0x10f] == 215,
	      "REP INSB gets 16 bytes");
	start(&vcpu, REAL, guest_exceptions, 0, 0, 0);
	set_vector(&vm, 0, on_divide);
	set_vector(&vm, 6, on_opcode);
	set_vector(&vm, 13, on_protection);
	set_vector(&vm, 32, on_interrupt);
	halts(&vcpu, "exceptions");
	check(SENT(&vcpu, 0, 6, 0x20, 13), "#DE, #UD, INT, #GP of an unknown MSR arrive");
}

static void test_modes(void)
{
	bool passed = true;

	make_guest();
	for (unsigned int i = 0; i < 20 && passed; i++) {
		start(&vcpu, REAL, guest_modes, 0, 0, 0);
		passed = serve(&vcpu) == KVM_EXIT_HLT && SENT(&vcpu, 1, 2, 3, 4);
	}
	check(passed, "real, protected, long mode and back, 20 times");
}

static void test_mmio(void)
{
	uint32_t word;

	make_guest();
	start(&vcpu, REAL, guest_real_device, 0, 0, 0);
	halts(&vcpu, "devices in real mode");
	check(SENT(&vcpu, 0x3344) && vcpu.device[0x20] == 7, "MOV and ADD reach a device in real mode");
	check(vcpu.reads == 2 && vcpu.writes == 3, "%u reads and %u writes of it (2, 3)", vcpu.reads, vcpu.writes);
	start(&vcpu, PROTECTED, guest_device, DEVICE, 0, 0);
	halts(&vcpu, "devices in protected mode");
	memcpy(&word, vm.low + RESULT, sizeof(word));
	check(word == 0x55667788, "MOV reads what it wrote");
	memcpy(&word, vm.low + RESULT + 8, sizeof(word));
	check(word == 0x55667788, "REP MOVSB reads a device");
	memcpy(&word, vcpu.device + 0x40, sizeof(word));
	check(word == 0x55667788, "REP MOVSW writes a device");
	check(vcpu.device[4] == 1, "XCHG writes a device");
}

/* Each page is written by the guest, and seen here; what is written here is seen by the guest. */
static void touch(bool large, const char *what)
{
	char *memory = get_memory(MEMORY_BYTES, large);
	uint32_t pages = MEMORY_BYTES / PAGE, right = 0, word, sum = 0;

	set_slot(&vm, 1, MEMORY, memory, MEMORY_BYTES, 0);
	start(&vcpu, PROTECTED, guest_touch, MEMORY + 8, pages, PAGE);
	halts(&vcpu, what);
	for (uint32_t i = 0; i < pages; i++) {
		memcpy(&word, memory + i * PAGE + 8, sizeof(word));
		right += word == MEMORY + i * PAGE + 8;
		word = i * i;
		sum += word;
		memcpy(memory + i * PAGE + 8, &word, sizeof(word));
	}
	check(right == pages, "%s: %u pages have what the guest wrote (%u)", what, right, pages);
	start(&vcpu, PROTECTED, guest_sum, MEMORY + 8, pages, PAGE);
	halts(&vcpu, what);
	check((uint32_t)result(&vm, 0) == sum, "%s: the guest reads what was written here", what);
	checked(madvise(memory + (1UL << 20), PAGE, MADV_DONTNEED), "madvise");
	memcpy(&word, memory + (1UL << 20) + PAGE + 8, sizeof(word));
	start(&vcpu, PROTECTED, guest_sum, MEMORY + (1UL << 20) + 8, 2, PAGE);
	halts(&vcpu, what);
	check((uint32_t)result(&vm, 0) == word, "%s: a page that was given back is empty, its neighbour is not", what);
	set_slot(&vm, 1, MEMORY, memory, 0, 0);
	munmap(memory, MEMORY_BYTES);
}

static void test_touch(void)
{
	make_guest();
	touch(false, "4 KiB pages");
	touch(true, "2 MiB pages");
	touch(false, "4 KiB pages again");
}

/* Each touched page has a page table of its own in the EPT. */
static void test_sparse(void)
{
	uint64_t bytes = 1UL << 30, step = 2UL << 20;
	uint32_t sum = 0, seen = 0;
	char *memory = get_memory(bytes, false);

	make_guest();
	set_slot(&vm, 1, SPARSE, memory, bytes, 0);
	for (unsigned int round = 0; round < 3; round++) {
		start(&vcpu, PROTECTED, guest_touch, SPARSE + round * PAGE, bytes / step, step);
		halts(&vcpu, "a page in each 2 MiB of 1 GiB");
	}
	for (uint64_t at = 0; at < bytes; at += step) {
		uint32_t word;

		memcpy(&word, memory + at + 2 * PAGE, sizeof(word));
		seen += word == SPARSE + at + 2 * PAGE;
		sum += (uint32_t)(SPARSE + at);
	}
	check(seen == bytes / step, "each has what the guest wrote");
	start(&vcpu, PROTECTED, guest_sum, SPARSE, bytes / step, step);
	halts(&vcpu, "all are read");
	check((uint32_t)result(&vm, 0) == sum, "they have the right sum");
}

static int inject(unsigned int vector)
{
	struct kvm_interrupt interrupt = { vector };

	return ioctl(vcpu.fd, KVM_INTERRUPT, &interrupt);
}

static void test_interrupt(void)
{
	make_guest();
	set_vector(&vm, 32, on_interrupt);
	set_vector(&vm, 2, on_nmi);
	start(&vcpu, REAL, guest_wait, 0, 0, 0);
	halts(&vcpu, "HLT with IF");
	check(!inject(32), "an interrupt is queued");
	halts(&vcpu, "interrupt");
	check(SENT(&vcpu, 0x20), "it arrives");
	check(!ioctl(vcpu.fd, KVM_NMI, 0), "an NMI is queued");
	check(run(&vcpu) == KVM_EXIT_IO && *((uint8_t *)vcpu.run + vcpu.run->io.data_offset) == 0xa0, "it arrives");
	check(!ioctl(vcpu.fd, KVM_NMI, 0), "another one is queued in its handler");
	vcpu.outs = 0;
	halts(&vcpu, "two NMIs");
	check(SENT(&vcpu, 0xa1, 0xa0, 0xa1), "it arrives after IRET");
	start(&vcpu, REAL, guest_window, 0, 0, 0);
	check(run(&vcpu) == KVM_EXIT_IO && !vcpu.run->if_flag && !vcpu.run->ready_for_interrupt_injection,
	      "with IF = 0 no interrupt can be injected");
	vcpu.run->request_interrupt_window = 1;
	check(run(&vcpu) == KVM_EXIT_IRQ_WINDOW_OPEN && vcpu.run->ready_for_interrupt_injection,
	      "the window opens at STI");
	vcpu.run->request_interrupt_window = 0;
	check(!inject(32), "an interrupt is queued");
	halts(&vcpu, "interrupt window");
	check(SENT(&vcpu, 0x20, 2), "it arrives before what follows");
}

static void raise_line(unsigned int line, int level)
{
	struct kvm_irq_level irq = { .irq = line, .level = (uint32_t)level };

	checked(ioctl(vm.fd, KVM_IRQ_LINE, &irq), "KVM_IRQ_LINE");
}

static void *run_to_port(void *argument)
{
	struct vcpu *one = argument;

	while (run(one) != KVM_EXIT_IO)
		;
	return NULL;
}

static void test_irqchip(void)
{
	static const char *const names[] = { "by HLT", "in a loop" };

	make_vm(&vm, true);
	make_vcpu(&vm, &vcpu, 0);
	set_vector(&vm, 0x20, on_tick);
	set_vector(&vm, 0x25, on_tick);
	for (unsigned int spin = 0; spin < 2; spin++) {
		pthread_t thread;
		unsigned int raised = 0;

		memset(vm.low + RESULT, 0, 8);
		start(&vcpu, REAL, guest_pit, 0, 5, spin);
		check(run(&vcpu) == KVM_EXIT_IO, "the guest gets 5 ticks of the PIT, waiting %s", names[spin]);
		start(&vcpu, REAL, guest_ticking, 0, 1000, spin);
		checked(pthread_create(&thread, NULL, run_to_port, &vcpu), "pthread_create");
		while ((uint16_t)result(&vm, 0) < 1000 && raised < 5000) {
			raise_line(5, 1);
			raise_line(5, 0);
			raised++;
			pause_us(50);
		}
		pthread_join(thread, NULL);
		check(raised > 10, "interrupts of a device's arrive, waiting %s", names[spin]);
	}
}

static void test_apic(void)
{
	static struct vcpu other;
	pthread_t thread;
	uint32_t page = (CODE + (uint32_t)(guest_other_cpu - guest_begin)) >> 12;

	make_vm(&vm, true);
	make_vcpu(&vm, &vcpu, 0);
	make_vcpu(&vm, &other, 1);
	set_vector(&vm, 0x30, guest_ipi);
	checked(pthread_create(&thread, NULL, run_to_port, &other), "pthread_create");
	start(&vcpu, REAL, guest_apic, 0x4600 | page, 50, 0);
	check(run(&vcpu) == KVM_EXIT_IO, "a guest starts its second CPU, and sends it 50 interrupts");
	check((uint32_t)result(&vm, 1) == 51, "each of them arrives");
}

static void test_timer(void)
{
	make_vm(&vm, true);
	make_vcpu(&vm, &vcpu, 0);
	set_vector(&vm, 0x30, guest_ipi);
	start(&vcpu, REAL, guest_timer, 200000, 20, 0);
	check(run(&vcpu) == KVM_EXIT_IO && (uint32_t)result(&vm, 1) == 20, "20 deadlines of the APIC's timer");
}

static void test_msr(void)
{
	struct kvm_regs regs;
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entries[2];
	} msrs = { .header = { .nmsrs = 2 }, .entries = { { .index = 0x174 }, { .index = 0x277 } } };

	make_guest();
	set_vector(&vm, 13, on_protection);
	start(&vcpu, REAL, guest_msr, 0, 0, 0);
	halts(&vcpu, "RDMSR, WRMSR");
	check(SENT(&vcpu, 0x1234, 0x406, 0x70106, 13, 13, 1), "values are kept, wrong values are #GP, the TSC counts");
	check(ioctl(vcpu.fd, KVM_GET_MSRS, &msrs) == 2 && msrs.entries[0].data == 0x1234 &&
		      msrs.entries[1].data == 0x0007010600000406,
	      "KVM_GET_MSRS has these values");
	msrs.header.nmsrs = 1;
	msrs.entries[0] = (struct kvm_msr_entry){ .index = 0x10, .data = 1UL << 50 };
	checked(ioctl(vcpu.fd, KVM_SET_MSRS, &msrs), "KVM_SET_MSRS");
	start(&vcpu, REAL, guest_msr, 0, 0, 0);
	halts(&vcpu, "with another TSC");
	checked(ioctl(vcpu.fd, KVM_GET_REGS, &regs), "KVM_GET_REGS");
	check((uint32_t)regs.rsi == 1U << 18, "the guest's TSC goes on from what was set");
}

static void nothing(int number)
{
	(void)number;
}

static void handle(int number)
{
	struct sigaction action = { .sa_handler = nothing }; /* without SA_RESTART */

	checked(sigaction(number, &action, NULL), "sigaction");
}

static void test_spin(void)
{
	struct itimerval soon = { .it_value = { 0, 5000 } };
	bool passed = true;

	make_guest();
	handle(SIGALRM);
	start(&vcpu, PROTECTED, guest_spin, 0, 0, 0);
	for (unsigned int i = 0; i < 10; i++) {
		uint64_t before = result(&vm, 0);

		checked(setitimer(ITIMER_REAL, &soon, NULL), "setitimer");
		passed = passed && run(&vcpu) == -EINTR && result(&vm, 0) != before;
	}
	check(passed, "a signal stops an endless loop, 10 times");
	vcpu.run->immediate_exit = 1;
	check(run(&vcpu) == -EINTR, "immediate_exit");
}

static void test_long(void)
{
	static const uint64_t wanted[] = { 0x80, 8, 0, TABLES, 0x1234, 5, 0x77, 0, 2, 1, IDT, GDT };
	static const char *const names[] = { "CR4.PGE", "CR0.TS", "CLTS",    "CR3",    "DR0",  "CR8",
					     "RDTSCP",  "VMCALL", "FS base", "SWAPGS", "SIDT", "SGDT" };
	struct kvm_sregs sregs;

	make_guest();
	start(&vcpu, LONG, guest_long, 0, 0, 0);
	halts(&vcpu, "long mode");
	for (unsigned int i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		check(result(&vm, i) == wanted[i], "%s is %#lx (%#lx)", names[i], result(&vm, i), wanted[i]);
	checked(ioctl(vcpu.fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	check((sregs.cr4 & 0x80) && sregs.cr3 == TABLES && sregs.cs.l && sregs.efer == 0xd01,
	      "KVM_GET_SREGS has the same");
	start(&vcpu, LONG, guest_xcr0, 0, 0, 0);
	halts(&vcpu, "XSETBV");
	check(result(&vm, 0) == 3 && result(&vm, 1) == 7, "XGETBV has what XSETBV wrote");
	check(result(&vm, 2) + 1 == 0 && result(&vm, 5) + 1 == 0, "a YMM register outlives an exit");
	start(&vcpu, LONG, guest_cr3, 0, 2000, 0);
	halts(&vcpu, "MOV to CR3");
	check(result(&vm, 0) == 0, "each set of tables shows its own page, 2000 times");
	start(&vcpu, LONG, guest_invlpg, 0, 2000, 0);
	halts(&vcpu, "INVLPG");
	check(result(&vm, 0) == 0, "INVLPG shows the other page, 2000 times");
}

static void test_legacy(void)
{
	make_guest();
	start(&vcpu, PAE, guest_pae, 0, 2000, 0);
	halts(&vcpu, "PAE paging");
	check(result(&vm, 0) == 0, "each set of PAE tables shows its own page, 2000 times");
	for (unsigned int i = 0; i < 2; i++) {
		start(&vcpu, PROTECTED, guest_task, 0, 0, 0);
		vm.low[GDT + 0x30 + 5] = vm.low[GDT + 0x38 + 5] = (char)0x89;
		halts(&vcpu, "task switch");
		check(SENT(&vcpu, 2, 3), "to another task and back");
	}
}

static void test_faults(void)
{
	static const struct {
		uint64_t vector, code;
		const char *what;
	} wanted[FAULTS] = { { 14, 0, "a read of a page that is not there" },
			     { 14, 2, "a write to it" },
			     { 14, 3, "a write to a page that is read-only" },
			     { 14, 9, "a reserved bit in an entry" },
			     { 6, 0, "UD2" },
			     { 0, 0, "a division by 0" },
			     { 13, 0, "RDMSR of an unknown MSR" },
			     { 13, 0, "a wrong CR4" },
			     { 13, 0, "a wrong XCR0" },
			     { 13, 0, "a wrong CR0" },
			     { 13, 0, "an address that is not canonical" },
			     { 3, 0, "INT3" },
			     { 6, 0, "VMREAD outside VMX operation" },
			     { 13, 0x100, "a wrong TR" },
			     { 14, 0x10, "a jump to a page that is not there" },
			     { 13, 0, "an FS base that is not canonical" } };

	make_guest();
	start(&vcpu, LONG, guest_faults, 0, 0, 0);
	halts(&vcpu, "faults");
	for (unsigned int i = 0; i < FAULTS; i++) {
		uint64_t vector = result(&vm, 2 * i), code = result(&vm, 2 * i + 1);

		check(vector == wanted[i].vector && code == wanted[i].code, "%s: vector %lu, error code %#lx",
		      wanted[i].what, vector, code);
	}
}

/* All registers, and those of the other VM's, which run in turn. */
static void test_registers(void)
{
	struct kvm_regs before, after;
	struct kvm_debugregs debug = { .db = { 0x1000, 0x2000, 0x3000, 0x4000 }, .dr6 = 0xffff0ff0, .dr7 = 0x400 },
			     debug_after;
	bool same;

	make_guest();
	for (unsigned int i = 0; i < 48; i++)
		vm.low[RESULT + 0x400 + i] = (char)(3 * i + 1);
	start(&vcpu, LONG, guest_exits, 0, 0, 0);
	checked(ioctl(vcpu.fd, KVM_GET_REGS, &before), "KVM_GET_REGS");
	before.rax = 0x1111111111111111;
	before.rbx = before.rax * 2;
	before.rcx = before.rax * 3;
	before.rdx = before.rax * 4;
	before.rsi = before.rax * 5;
	before.rbp = before.rax * 6;
	before.r8 = before.rax * 7;
	before.r9 = before.rax * 8;
	before.r10 = before.rax * 9;
	before.r11 = before.rax * 10;
	before.r12 = before.rax * 11;
	before.r13 = before.rax * 12;
	before.r14 = before.rax * 13;
	before.r15 = before.rax * 14;
	checked(ioctl(vcpu.fd, KVM_SET_REGS, &before), "KVM_SET_REGS");
	checked(ioctl(vcpu.fd, KVM_SET_DEBUGREGS, &debug), "KVM_SET_DEBUGREGS");
	halts(&vcpu, "OUT, CPUID");
	checked(ioctl(vcpu.fd, KVM_GET_REGS, &after), "KVM_GET_REGS");
	checked(ioctl(vcpu.fd, KVM_GET_DEBUGREGS, &debug_after), "KVM_GET_DEBUGREGS");
	after.rip = before.rip;
	same = !memcmp(&before, &after, sizeof(before));
	check(same, "general registers outlive exits");
	check(!memcmp(debug.db, debug_after.db, sizeof(debug.db)), "debug registers do");
	check(!memcmp(vm.low + RESULT + 0x400, vm.low + RESULT + 0x500, 48), "XMM registers do");
}

static void test_debug(void)
{
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };
	uint64_t rip = CODE + (uint64_t)(guest_steps - guest_begin);
	bool passed = true;

	make_guest();
	start(&vcpu, PROTECTED, guest_steps, 0, 0, 0);
	checked(ioctl(vcpu.fd, KVM_SET_GUEST_DEBUG, &debug), "KVM_SET_GUEST_DEBUG");
	for (unsigned int i = 1; i <= 2; i++)
		passed = passed && run(&vcpu) == KVM_EXIT_DEBUG && vcpu.run->debug.arch.pc == rip + i &&
			 vcpu.run->debug.arch.exception == 1;
	check(passed, "single steps");
	debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
	debug.arch.debugreg[0] = rip + 3;
	debug.arch.debugreg[7] = 0x401;
	checked(ioctl(vcpu.fd, KVM_SET_GUEST_DEBUG, &debug), "KVM_SET_GUEST_DEBUG");
	check(run(&vcpu) == KVM_EXIT_DEBUG && vcpu.run->debug.arch.pc == rip + 3, "a breakpoint of the CPU's");
	debug.control = 0;
	checked(ioctl(vcpu.fd, KVM_SET_GUEST_DEBUG, &debug), "KVM_SET_GUEST_DEBUG");
	halts(&vcpu, "without breakpoints");
	vm.low[rip + 1] = (char)0xcc;
	debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
	checked(ioctl(vcpu.fd, KVM_SET_GUEST_DEBUG, &debug), "KVM_SET_GUEST_DEBUG");
	start(&vcpu, PROTECTED, guest_steps, 0, 0, 0);
	check(run(&vcpu) == KVM_EXIT_DEBUG && vcpu.run->debug.arch.pc == rip + 1 && vcpu.run->debug.arch.exception == 3,
	      "INT3 as a breakpoint");
}

/* A triple fault, and state with which no VM entry succeeds. Then the same vCPU works again. */
static void test_bad_state(void)
{
	static const char *const names[] = { "CS of a wrong type", "no TR", "SS of another privilege level",
					     "no LDT descriptor" };
	struct kvm_sregs good, bad;

	make_guest();
	start(&vcpu, LONG, guest_triple, 0, 0, 0);
	check(serve(&vcpu) == KVM_EXIT_SHUTDOWN, "a triple fault in long mode");
	start(&vcpu, REAL, guest_real_triple, 0, 0, 0);
	checked(ioctl(vcpu.fd, KVM_GET_SREGS, &good), "KVM_GET_SREGS");
	good.idt.limit = 0;
	checked(ioctl(vcpu.fd, KVM_SET_SREGS, &good), "KVM_SET_SREGS");
	check(serve(&vcpu) == KVM_EXIT_SHUTDOWN, "a triple fault in real mode");
	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		int reason;

		start(&vcpu, PROTECTED, guest_steps, 0, 0, 0);
		checked(ioctl(vcpu.fd, KVM_GET_SREGS, &good), "KVM_GET_SREGS");
		bad = good;
		if (i == 0)
			bad.cs.type = 1;
		else if (i == 1)
			bad.tr.unusable = 1;
		else if (i == 2)
			bad.ss.dpl = 3;
		else
			bad.ldt.type = 3;
		checked(ioctl(vcpu.fd, KVM_SET_SREGS, &bad), "KVM_SET_SREGS");
		reason = serve(&vcpu);
		check(reason == KVM_EXIT_FAIL_ENTRY &&
			      vcpu.run->fail_entry.hardware_entry_failure_reason == ENTRY_FAILED,
		      "%s: the VM entry fails (exit reason %d, %#llx)", names[i], reason,
		      vcpu.run->fail_entry.hardware_entry_failure_reason);
		checked(ioctl(vcpu.fd, KVM_SET_SREGS, &good), "KVM_SET_SREGS");
		halts(&vcpu, "right state again");
	}
}

/* VMs in turn, with other memory at the same address. */
static void test_many(void)
{
	static struct vm vms[10];
	static struct vcpu vcpus[10];
	bool passed = true;

	for (uint32_t i = 0; i < 10; i++) {
		char *memory = get_memory(PAGE, false);
		uint32_t mark = 1000 + i;

		make_vm(&vms[i], false);
		make_vcpu(&vms[i], &vcpus[i], 0);
		memcpy(memory, &mark, sizeof(mark));
		set_slot(&vms[i], 1, MEMORY, memory, PAGE, 0);
	}
	for (unsigned int round = 0; round < 20; round++)
		for (uint32_t i = 0; i < 10; i++) {
			start(&vcpus[i], PROTECTED, guest_sum, MEMORY, 1, 0);
			passed = passed && serve(&vcpus[i]) == KVM_EXIT_HLT && (uint32_t)result(&vms[i], 0) == 1000 + i;
		}
	check(passed, "10 VMs in turn, each with its own memory");
	for (unsigned int i = 0; i < 10; i++) {
		end_vcpu(&vcpus[i]);
		end_vm(&vms[i]);
	}
	make_guest();
	start(&vcpu, REAL, guest_real, 0, 0, 0);
	halts(&vcpu, "a new VM after they have ended");
}

/* A vCPU in a thread of its own, until it is told to stop. */
struct runner {
	struct vcpu vcpu;
	pthread_t thread;
	volatile bool stop;
	int reason;
	int cpu; /* -1: any */
};

static void stick_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	checked(sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
}

static void *run_thread(void *argument)
{
	struct runner *runner = argument;

	if (runner->cpu >= 0)
		stick_to(runner->cpu);
	do {
		runner->reason = serve(&runner->vcpu);
	} while (!runner->stop && runner->reason == -EINTR);
	return NULL;
}

static void start_runner(struct runner *runner)
{
	handle(SIGUSR1);
	checked(pthread_create(&runner->thread, NULL, run_thread, runner), "pthread_create");
}

static void stop_runner(struct runner *runner)
{
	runner->stop = true;
	runner->vcpu.run->immediate_exit = 1;
	pthread_kill(runner->thread, SIGUSR1);
	pthread_join(runner->thread, NULL);
}

static int last_cpu(void)
{
	return (int)sysconf(_SC_NPROCESSORS_ONLN) - 1;
}

static uint32_t peek(const char *at)
{
	return *(const volatile uint32_t *)at;
}

/* Whether the guest's count goes on by so many. */
static bool counts_on(const char *at, uint32_t by)
{
	uint32_t from = peek(at);

	for (unsigned int ms = 0; ms < CHANGED_MS; ms++) {
		if (peek(at) - from >= by)
			return true;
		pause_us(1000);
	}
	return false;
}

static void test_smp(void)
{
	static struct runner runners[2];

	make_vm(&vm, false);
	for (unsigned int i = 0; i < 2; i++) {
		make_vcpu(&vm, &runners[i].vcpu, i);
		runners[i].cpu = i ? last_cpu() : 0;
		start(&runners[i].vcpu, PROTECTED, guest_count, RESULT, 300000, 0);
	}
	for (unsigned int i = 0; i < 2; i++)
		start_runner(&runners[i]);
	for (unsigned int i = 0; i < 2; i++)
		pthread_join(runners[i].thread, NULL);
	check(runners[0].reason == KVM_EXIT_HLT && runners[1].reason == KVM_EXIT_HLT, "2 vCPUs end by HLT");
	check((uint32_t)result(&vm, 0) == 600000, "they have counted to 600000 together");
}

static void test_move(void)
{
	static struct runner runner = { .cpu = -1 };
	bool passed = true;

	make_vm(&vm, false);
	make_vcpu(&vm, &runner.vcpu, 0);
	start(&runner.vcpu, PROTECTED, guest_spin, 0, 0, 0);
	start_runner(&runner);
	for (int i = 0; i < 40 && passed; i++) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(i % 2 ? last_cpu() : 0, &set);
		checked(pthread_setaffinity_np(runner.thread, sizeof(set), &set), "pthread_setaffinity_np");
		passed = counts_on(vm.low + RESULT, 1);
	}
	check(passed, "a vCPU goes on after each of 40 moves");
	stop_runner(&runner);
	check(runner.reason == -EINTR, "and can be stopped");
}

/* A guest that reads and writes without end, while what it uses changes. */
static struct runner reader = { .cpu = -1 };
static char *reader_memory;

static void start_reader(uint32_t mark)
{
	make_vm(&vm, false);
	make_vcpu(&vm, &reader.vcpu, 0);
	reader.cpu = last_cpu();
	reader_memory = get_memory(2UL << 20, false);
	memcpy(reader_memory, &mark, sizeof(mark));
	set_slot(&vm, 1, MEMORY, reader_memory, 2UL << 20, 0);
	start(&reader.vcpu, PROTECTED, guest_reader, MEMORY, 0, 0);
	start_runner(&reader);
	check(counts_on(vm.low + RESULT + 4, 10) && peek(vm.low + RESULT) == mark,
	      "a guest reads and writes without end");
}

/* Whether the guest reads this, and nothing else, from now on. */
static bool reads(uint32_t mark)
{
	return counts_on(vm.low + RESULT + 4, 2) && peek(vm.low + RESULT) == mark;
}

static void test_slots(void)
{
	char *memory[2];
	bool absent = true, fresh = true, untouched = true;

	start_reader(77);
	for (uint32_t i = 0; i < 2; i++) {
		uint32_t mark = 500 + i;

		memory[i] = get_memory(2UL << 20, false);
		memcpy(memory[i], &mark, sizeof(mark));
	}
	for (uint32_t i = 0; i < 50; i++) {
		uint32_t before, nothing_there = 0xd0d0d0d0;

		memcpy(reader.vcpu.device, &nothing_there, sizeof(nothing_there));
		set_slot(&vm, 1, MEMORY, NULL, 0, 0);
		before = peek(memory[(i + 1) % 2] + 4);
		absent = absent && reads(nothing_there);
		untouched = untouched && peek(memory[(i + 1) % 2] + 4) == before;
		set_slot(&vm, 1, MEMORY, memory[i % 2], 2UL << 20, 0);
		fresh = fresh && reads(500 + i % 2) && counts_on(memory[i % 2] + 4, 1);
	}
	check(absent, "memory that was removed is gone for a guest that runs, 50 times");
	check(untouched, "and is not written any more");
	check(fresh, "the guest uses what was added in its place");
	stop_runner(&reader);
}

/* Linux takes pages away from a guest that runs. */
static void test_notifier(void)
{
	bool empty = true, still = true, fresh = true;
	char *other;
	uint32_t mark = 99;

	start_reader(77);
	for (uint32_t i = 0; i < 30; i++) {
		checked(madvise(reader_memory, PAGE, MADV_DONTNEED), "madvise");
		empty = empty && reads(0) && counts_on(reader_memory + 4, 1);
	}
	check(empty, "a page that was given back is empty for a guest that runs, 30 times");
	for (uint32_t i = 0; i < 10; i++) {
		int status;
		pid_t child = checked(fork(), "fork");

		if (!child) {
			uint32_t first = peek(reader_memory + 4);

			pause_us(3000);
			_exit(peek(reader_memory + 4) != first);
		}
		checked(waitpid(child, &status, 0), "waitpid");
		still = still && !status;
		fresh = fresh && counts_on(reader_memory + 4, 1);
	}
	check(still, "after fork() the child's copy stays as it was, 10 times");
	check(fresh, "and the guest goes on with its own");
	other = get_memory(2UL << 20, false);
	memcpy(other, &mark, sizeof(mark));
	checked(mremap(other, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, reader_memory) == MAP_FAILED ? -1 : 0,
		"mremap");
	check(reads(99) && counts_on(reader_memory + 4, 1), "the guest uses a page that took another's place");
	checked(mprotect(reader_memory, PAGE, PROT_READ), "mprotect");
	pause_us(3000);
	check(reader.reason == 0 || reader.reason == -EFAULT, "a page becomes read-only");
	mark = peek(reader_memory + 4);
	pause_us(3000);
	check(peek(reader_memory + 4) == mark, "and is not written any more");
	stop_runner(&reader);
}

static bool dirty(unsigned int slot, uint64_t *bitmap)
{
	struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = bitmap };

	return !ioctl(vm.fd, KVM_GET_DIRTY_LOG, &log);
}

/*
 * Where the CPU logs the pages (PML), KVM of 6.12 leaves for user space after HLT without a look at that log, which it has
 * after other exits.
 */
static bool dirty_after_out(uint64_t *bitmap)
{
	start(&vcpu, REAL, guest_real, 0, 0, 0);
	return run(&vcpu) == KVM_EXIT_IO && dirty(1, bitmap);
}

static void test_dirty(void)
{
	char *memory = get_memory(MEMORY_BYTES, false);
	uint64_t bitmap[MEMORY_BYTES / PAGE / 64];
	bool passed = true;

	make_guest();
	set_slot(&vm, 1, MEMORY, memory, MEMORY_BYTES, 0);
	start(&vcpu, PROTECTED, guest_touch, MEMORY, MEMORY_BYTES / PAGE, PAGE);
	halts(&vcpu, "all pages are touched");
	set_slot(&vm, 1, MEMORY, memory, MEMORY_BYTES, KVM_MEM_LOG_DIRTY_PAGES);
	check(dirty_after_out(bitmap), "KVM_GET_DIRTY_LOG");
	for (unsigned int round = 0; round < 3; round++) {
		start(&vcpu, PROTECTED, guest_touch, MEMORY + round * PAGE, MEMORY_BYTES / PAGE / 4, 4 * PAGE);
		passed = passed && serve(&vcpu) == KVM_EXIT_HLT && dirty_after_out(bitmap);
		printf("# round %u: %#lx %#lx ... %#lx\n", round, bitmap[0], bitmap[1],
		       bitmap[MEMORY_BYTES / PAGE / 64 - 1]);
		for (unsigned int i = 0; i < MEMORY_BYTES / PAGE / 64; i++)
			passed = passed && bitmap[i] == 0x1111111111111111UL << round;
	}
	check(passed, "the dirty log has each page that was written, and no other, 3 times");
	start(&vcpu, PROTECTED, guest_sum, MEMORY, MEMORY_BYTES / PAGE, PAGE);
	halts(&vcpu, "all pages are read");
	passed = dirty_after_out(bitmap);
	for (unsigned int i = 0; i < MEMORY_BYTES / PAGE / 64; i++)
		passed = passed && !bitmap[i];
	check(passed, "reading makes no page dirty");
	set_slot(&vm, 1, MEMORY, memory, 0, 0);
	start(&vcpu, PROTECTED, guest_copy, MEMORY, 64, RESULT + 0x100);
	set_slot(&vm, 1, MEMORY, memory, MEMORY_BYTES, KVM_MEM_READONLY);
	memset(memory, 0x5a, 64);
	halts(&vcpu, "read-only memory is read");
	check(!memcmp(vm.low + RESULT + 0x100, memory, 64) && !vcpu.reads, "it has the right content");
	start(&vcpu, PROTECTED, guest_touch, MEMORY + 4 * PAGE, 3, 16);
	halts(&vcpu, "read-only memory is written");
	check(vcpu.writes == 3 && peek(memory + 4 * PAGE) == MEMORY + 4 * PAGE, "each write goes to the device");
}

static void test_dirty_running(void)
{
	uint64_t bitmap[512 / 64];
	bool passed = true;

	start_reader(77);
	set_slot(&vm, 1, MEMORY, reader_memory, 2UL << 20, KVM_MEM_LOG_DIRTY_PAGES);
	for (unsigned int i = 0; i < 30 && passed; i++) {
		unsigned int tries = 0;

		/* Where the CPU logs the pages, KVM gets to know of a write after the guest's next exit only. */
		passed = counts_on(reader_memory + 4, 1);
		do {
			passed = passed && dirty(1, bitmap) && !(bitmap[0] & ~1UL);
			pause_us(500);
		} while (passed && !bitmap[0] && ++tries < 200);
		passed = passed && bitmap[0];
	}
	check(passed, "the dirty log has the page of a guest that runs, 30 times");
	stop_runner(&reader);
}

static void test_kill(void)
{
	bool passed = true;

	for (unsigned int i = 0; i < 5; i++) {
		int status, ready[2];
		pid_t child;
		char byte;
		checked(pipe(ready), "pipe");
		child = checked(fork(), "fork");

		if (!child) {
			start_reader(i);
			checked((int)write(ready[1], "", 1), "write");
			for (;;)
				pause();
		}
		close(ready[1]);
		passed = passed && read(ready[0], &byte, 1) == 1;
		close(ready[0]);
		kill(child, SIGKILL);
		passed = passed && waitpid(child, &status, 0) == child && WIFSIGNALED(status);
	}
	check(passed, "a process is killed while its VM runs, 5 times");
	make_guest();
	start(&vcpu, REAL, guest_real, 0, 0, 0);
	halts(&vcpu, "a new VM");
}

/* Runs until it is killed. */
static void test_endless(void)
{
	start_reader(1);
	for (;;)
		pause();
}

static const struct test {
	const char *name;
	void (*run)(void);
	bool quick, asked_for;
} tests[] = {
	{ "device_file", test_device_file, true, false },
	{ "real", test_real, true, false },
	{ "modes", test_modes, true, false },
	{ "mmio", test_mmio, true, false },
	{ "touch", test_touch, true, false },
	{ "sparse", test_sparse, false, false },
	{ "interrupt", test_interrupt, true, false },
	{ "irqchip", test_irqchip, false, false },
	{ "apic", test_apic, false, false },
	{ "timer", test_timer, true, false },
	{ "msr", test_msr, true, false },
	{ "spin", test_spin, true, false },
	{ "long", test_long, true, false },
	{ "legacy", test_legacy, true, false },
	{ "faults", test_faults, true, false },
	{ "registers", test_registers, true, false },
	{ "debug", test_debug, false, false },
	{ "bad_state", test_bad_state, true, false },
	{ "many", test_many, true, false },
	{ "smp", test_smp, true, false },
	{ "move", test_move, true, false },
	{ "slots", test_slots, true, false },
	{ "notifier", test_notifier, false, false },
	{ "dirty", test_dirty, false, false },
	{ "dirty_running", test_dirty_running, false, false },
	{ "kill", test_kill, true, false },
	{ "endless", test_endless, false, true },
};

#define TESTS (sizeof(tests) / sizeof(tests[0]))

/* In a process of its own, which has so much time. */
static void run_test(const struct test *test)
{
	struct timespec limit = { TIME_LIMIT, 0 }, before, after;
	sigset_t child_ends;
	int status = -1;
	pid_t child;

	sigemptyset(&child_ends);
	sigaddset(&child_ends, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child_ends, NULL);
	printf("# %s\n", test->name);
	fflush(stdout);
	clock_gettime(CLOCK_MONOTONIC, &before);
	child = checked(fork(), "fork");
	if (!child) {
		sigprocmask(SIG_UNBLOCK, &child_ends, NULL);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		checks = failed = 0;
		test->run();
		exit(failed || !checks);
	}
	if (!test->asked_for && sigtimedwait(&child_ends, NULL, &limit) < 0)
		kill(child, SIGKILL);
	waitpid(child, &status, 0);
	clock_gettime(CLOCK_MONOTONIC, &after);
	check(!status, "%s: all checks passed", test->name);
	printf("# %s took %ld ms\n", test->name,
	       (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000);
}

int main(int count, char **arguments)
{
	bool quick = false, list = false;
	int first = 1;

	for (; first < count && !strncmp(arguments[first], "--", 2); first++) {
		quick |= !strcmp(arguments[first], "--quick");
		list |= !strcmp(arguments[first], "--list");
	}
	for (const struct test *test = tests; test < tests + TESTS; test++) {
		bool named = false;

		for (int i = first; i < count; i++)
			named |= !strcmp(arguments[i], test->name);
		if (!named && (first < count || test->asked_for || (quick && !test->quick)))
			continue;
		if (list)
			printf("%s\n", test->name);
		else
			run_test(test);
	}
	return list ? 0 : summary();
}

// SPDX-License-Identifier: MIT
/* Descriptor tables and exceptions of VMX root. */
#include "flush.h"
#include "monitor.h"
#include "stop.h"

struct descriptor_pointer {
	u16 limit;
	u64 base;
} __attribute__((packed));

/* What the assembly leaves on the stack, lowest address first. */
struct exception_frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	u64 vector, error_code, rip, cs, rflags, rsp, ss;
};

/* Entries that FAULTING_INSTRUCTION (instructions.h) writes: the instruction that may fault, where to go on then, by what. */
struct exception_fixup {
	u64 fault, fixup, vector;
};

extern const struct exception_fixup exception_fixups[], exception_fixups_end[];
extern const u64 exception_entries[32];

void load_descriptor_tables(const struct descriptor_pointer *gdt, const struct descriptor_pointer *idt,
			    struct cpu *cpu);
void exception_handler(struct exception_frame *frame);
void latch_event(u64 vector);
void latch_machine_check(u64 *rip);

u64 idt[32][2];

#define GDT_CODE_64 0x00209b0000000000ULL /* present, DPL 0, execute/read, accessed, L */
#define GDT_DATA_64 0x0000930000000000ULL /* present, DPL 0, read/write, accessed */
#define GDT_TSS_64 0x0000890000000000ULL /* present, DPL 0, available */
#define IDT_INTERRUPT_GATE 0x8e0000000000ULL /* present, DPL 0 */

void cpu_load_tables(struct cpu *cpu)
{
	struct cpu_area *area = cpu_area_of(cpu);
	u64 base = (u64)&cpu->tss;
	const struct descriptor_pointer gdt = { sizeof(cpu->gdt) - 1, (u64)cpu->gdt };
	const struct descriptor_pointer idt_pointer = { sizeof(idt) - 1, (u64)idt };

	cpu->tss = (struct tss){ .io_map = sizeof(struct tss) };
	cpu->tss.ist[IST_NMI - 1] = (u64)(area->nmi_stack + PAGE_SIZE);
	cpu->tss.ist[IST_DF - 1] = (u64)(area->double_fault_stack + PAGE_SIZE);
	cpu->gdt[0] = 0;
	cpu->gdt[SELECTOR_CODE / 8] = GDT_CODE_64;
	cpu->gdt[SELECTOR_DATA / 8] = GDT_DATA_64;
	cpu->gdt[SELECTOR_TSS / 8] = (sizeof(struct tss) - 1) | (base & 0xffffff) << 16 | GDT_TSS_64 | base >> 24 << 56;
	cpu->gdt[SELECTOR_TSS / 8 + 1] = base >> 32;
	/* One table for all: written before any other CPU is there to take an exception through it. */
	for (unsigned i = 0; cpu->slot == 0 && i < ARRAY_SIZE(idt); i++) {
		u64 entry = exception_entries[i];
		u64 stack = i == VECTOR_NMI ? IST_NMI : i == VECTOR_DF || i == VECTOR_MC ? IST_DF : 0;

		idt[i][0] = (entry & 0xffff) | SELECTOR_CODE << 16 | stack << 32 | IDT_INTERRUPT_GATE |
			    (entry & 0xffff0000) << 32;
		idt[i][1] = entry >> 32;
	}
	cpu->self = cpu;
	load_descriptor_tables(&gdt, &idt_pointer, cpu);
}

static bool fix_up(u64 vector, u64 *rip)
{
	for (const struct exception_fixup *f = exception_fixups; f < exception_fixups_end; f++) {
		if (f->fault == *rip && f->vector == vector) {
			*rip = f->fixup;
			return true;
		}
	}
	return false;
}

void exception_handler(struct exception_frame *frame)
{
	if (fix_up(frame->vector, &frame->rip))
		return;
	panic("exception %lu, error code %lx, at %016lx, rsp %016lx", frame->vector, frame->error_code, frame->rip,
	      frame->rsp);
}

void latch_event(u64 vector)
{
	struct cpu *cpu = this_cpu();

	if (vector == VECTOR_NMI && flush_take_kick(cpu))
		return;
	__atomic_fetch_or(&cpu->latched, vector == VECTOR_NMI ? LATCHED_NMI : LATCHED_MACHINE_CHECK, __ATOMIC_SEQ_CST);
	/*
	 * The interrupted code may be past its look at `latched`: this makes the host exit again as soon as it takes an
	 * NMI; an L2, which may never take one, after the event that is injected into it.
	 */
	if (cpu->vmcs_current && cpu->timer_wakes)
		vmwrite(VMCS_PREEMPTION_TIMER, 0);
	else if (cpu->vmcs_current)
		vmwrite(VMCS_PRIMARY_CONTROLS, cpu->primary | PRIMARY_NMI_WINDOW_EXITING);
}

void latch_machine_check(u64 *rip)
{
	latch_event(VECTOR_MC);
	/* A load of poisoned memory would meet it again, and a second machine check shuts the CPU down. */
	(void)fix_up(VECTOR_MC, rip);
}

/* SPDX-License-Identifier: GPL-2.0 */
/* A hypervisor in a page or two: VMX directly, without KVM. nested_rig.c has what it is made of, nested_*.c the attacks. */
#ifndef NESTED_VMX_H
#define NESTED_VMX_H

/* Where code and data of the VM lie, guest-physical: pages 0 (its interrupt table) to 15 are its own, those from WINDOW on the attack's. */
#define L2_CODE 0x1000
#define L2_STACK 0x3000
#define L2_DATA 0x4000
#define L2_LOW_PAGES 16
#define L2_WINDOW 0x10000
#define L2_LARGE 0x200000 /* 2 MiB at the attack's disposal */

#ifndef __ASSEMBLER__
#include <linux/types.h>
#include <asm/vmx.h>

#include "calls.h"
#include "compat.h"

/* Results of a VMX instruction. */
#define VMX_OK 0
#define VMX_FAIL_INVALID 1
#define VMX_FAULT(vector) (0x100 | (vector))
#define VMX_FAIL(error) (0x200 | (error))

#define UD VMX_FAULT(X86_TRAP_UD)
#define GP VMX_FAULT(X86_TRAP_GP)

/* `eax` as nested_enter() and VMX_DO() have it: a vector, or bit 16, CF in 0, ZF in 8. */
int vmx_result(u32 eax);

/* Runs one VMX instruction; operands are inputs, as for asm(). "a" is taken. */
#define VMX_DO(instruction, ...)                                                                                       \
	({                                                                                                             \
		u32 eax = 0;                                                                                           \
		asm volatile("1: " instruction "\n"                                                                    \
			     "setc %%al\n"                                                                             \
			     "setz %%ah\n"                                                                             \
			     "movzwl %%ax, %%eax\n"                                                                    \
			     "orl $0x10000, %%eax\n"                                                                   \
			     "2:\n" _ASM_EXTABLE_FAULT(1b, 2b)                                                         \
			     : "+a"(eax)                                                                               \
			     : __VA_ARGS__                                                                             \
			     : "memory", "cc");                                                                        \
		vmx_result(eax);                                                                                       \
	})

int do_vmxon(u64 address);
int do_vmclear(u64 address);
int do_vmptrld(u64 address);
int do_vmptrst(u64 *address);
int do_vmread(u64 field, u64 *value);
int do_vmwrite(u64 field, u64 value);
int do_invept(u64 type, u64 eptp, u64 rest);
int do_invvpid(u64 type, u64 vpid, u64 address);

u64 get(u64 field);
void set(u64 field, u64 value);

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, REGISTERS = 16 };

/* One CPU's. Between vmx_on() and vmx_off() interrupts are off, and nothing but the attack runs there. */
struct vmx {
	u64 registers[REGISTERS]; /* L2's, but RSP */
	u8 *vmxon, *vmcs, *bitmap, *lists, *spare;
	u64 *pml4, *pdpt, *pd, *pt; /* EPT12 */
	u8 *low; /* L2_LOW_PAGES of L2's memory */
	u64 entries, interrupts; /* how many it has seen */
	bool launched, one_interrupt; /* the latter: vmx_run() returns at the first one */
	u32 reason; /* of the last exit */
	int result; /* of the last VMLAUNCH or VMRESUME */
};

/* What differs with the monitor below. The first call is outside VMX operation. */
bool monitor_runs(void);
/* Whether CPUID says that there is VMX; whether the CPU can run a VM that begins in real mode. */
bool vmx_is_offered(void);
bool vmx_runs_real_mode(void);

struct vmx *vmx_create(void);
void vmx_free(struct vmx *v);

/* VMX operation with v's VMCS current and clear, and host state that comes back here; and its end. */
bool vmx_on(struct vmx *v);
void vmx_off(struct vmx *v);
/* Host state as it is now; vmx_on() has done it. */
void vmx_host_state(void);
/* All other fields: a VM that begins in real mode at `code`, with `registers` as they are. After vmx_on(). */
void vmx_setup(struct vmx *v);
void vmx_go_to(const char *code);
u64 vmx_eptp(const struct vmx *v);

/*
 * Enters until there is an exit other than for an interrupt or an NMI, which Linux gets. The reason, or ~0 if the entry was
 * refused; then v->result says how.
 */
u32 vmx_run(struct vmx *v);
/* Sets RIP to `code`, and runs. */
u32 vmx_call(struct vmx *v, const char *code);

/* A leaf of EPT12, of 4 KiB and write-back. */
#define LEAF(address, rights) ((address) | 6 << 3 | (rights))
#define LEAF_LARGE BIT(7)

/* nested_run.S. CPU instructions that a VM runs, at gpa L2_CODE. */
u32 nested_enter(u64 registers[REGISTERS], bool launch);
void nested_interrupt(unsigned long vector);
extern const char l2_code[], l2_code_end[], l2_cpuid[], l2_hlt[], l2_out[], l2_vmcall[], l2_vmfunc[], l2_rdmsr[],
	l2_wrmsr[], l2_xsetbv[], l2_read[], l2_write[], l2_invert[], l2_spin[], l2_loop[], l2_ud[], l2_cr0[],
	l2_mwait[], l2_wbinvd[], l2_handler[];
#define PORT_DONE 0x40
#define PORT_EVENT 0x44

/* Bit 16 up of the qualification of an I/O exit. */
#define IO_PORT(qualification) ((qualification) >> 16 & 0xffff)

/* Attacks. */
extern unsigned long refuse[];
extern unsigned int refuse_count, count;
void attack_instructions(struct seq_file *out);
void attack_l2(struct seq_file *out);
void attack_frames(struct seq_file *out);
void attack_abort(struct seq_file *out);
void attack_host_state(struct seq_file *out);
void attack_siege(struct seq_file *out);
void attack_flips(struct seq_file *out);
void attack_random(struct seq_file *out);

#endif
#endif

/* SPDX-License-Identifier: MIT */
/*
 * Nested VMX: the VMX that the host's own hypervisor uses, and the VMs that it runs; docs/nested.md. L1 is the host in VMX
 * operation, L2 a VM of its. VMCS12 is the page that L1 takes for a VMCS, VMCS02 the VMCS on which L2 runs.
 */
#ifndef NESTED_H
#define NESTED_H

#include "monitor.h"
#include "shadow.h"

/* A VMCS12: a page of 8-byte words. Word 0 is revision and abort indicator, 30 the launch state, 31 the VPID. */
#define VMCS12_WORDS 512
#define VMCS12_REVISION 0x48505331U
#define VMCS12_LISTS_MOST 8 /* entries of an MSR list */
#define VMCS12_LAUNCH_STATE 30
#define VMCS12_VPID 31

#define NO_ADDRESS (~0ULL) /* no current VMCS12, no violation */

/* The VPID on which every L2 runs, behind those of the host and of the guests. */
#define NESTED_VPID 0xffff

/* VMCS02's preemption timer while nothing waits for L1: L2 exits at once with 0 (latch_event()). */
#define NESTED_TIMER_OFF 0xffffffffU

enum nested_state {
	NESTED_OFF, /* outside VMX operation */
	NESTED_ROOT, /* L1 runs, on VMCS01 */
	NESTED_L2, /* L2 runs, on VMCS02, or has just made the CPU exit */
	NESTED_ABORTED, /* VMX abort: the machine ends */
};

/* Of one CPU, and its alone; in monitor memory. cpu->nested, NULL where VMX is not offered. */
struct nested {
	enum nested_state state;
	u64 vmxon_region,
		current; /* hpa of L1's pages; current: of the VMCS12 that VMPTRLD named last, or NO_ADDRESS */
	/* Pages of kvm_pool, since their content is L1's choice: the copy of the current VMCS12, and what is being read. */
	u64 *page, *second;
	u64 *msr_bitmap; /* VMCS02's */
	u8 *vmcs02;
	u32 *shadow_vmcs; /* and its address; in kvm_pool, too. shadow_vmcs.c */
	hpa_t shadow_vmcs_hpa;
	bool launched; /* VMCS02, since its first exit that was no failed entry */
	bool ready; /* VMCS02 has all that never changes */
	bool dirty; /* VMCS02 lacks what VMCS12 has of fields that are not hot (NESTED_SHADOW_WRITE) */
	bool cold_in_02; /* it has, since an exit, what VMCS12 lacks of such guest state: nested_fetch() */
	u64 primary; /* L1's primary controls when VMCS02 was written */
	bool has_ibpb; /* the CPU has IBRS and IBPB */
	bool has_shadowing; /* the CPU has VMCS shadowing */
	u16 last_vpid; /* L1's, of the last entry on this CPU */
	unsigned root, root_in_02; /* of shadow: the EPT02 on which L2 runs; that which VMCS02 has */
	u64 last_violation; /* gpa of an EPT violation that was shown to L1, or NO_ADDRESS */
	struct shadow shadow;
	u64 exits[HYPERPS_EXIT_REASONS]; /* of L2 */
	u64 refused_fills, lost_writebacks;
};

/* Fields. What becomes of one: docs/nested.md, "Fields". */
enum nested_kind {
	NESTED_COPY, /* L1's value as it is: the CPU checks */
	NESTED_MASK, /* a check lets it pass only by a table of allowed bits */
	NESTED_OWN, /* the monitor uses it, VMCS02 has its own */
	NESTED_HOST, /* L1's host state: checked, then VMCS01's guest state at an exit */
	NESTED_INFO, /* read-only for L1: what an exit says */
	NESTED_KEEP, /* stored, without effect */
};

#define NESTED_SAVED                                                                                                   \
	BIT(0) /* guest state: goes from VMCS02 to VMCS12 at an exit, and from there to VMCS02 at an entry */
#define NESTED_SHADOW_READ BIT(1) /* L1 reads it without an exit where the CPU has VMCS shadowing */
#define NESTED_SHADOW_WRITE BIT(2) /* and writes it */

struct nested_field {
	u16 first, last; /* each even encoding from first to last */
	u8 kind, flags;
};

extern const struct nested_field nested_fields[];
extern const unsigned nested_field_count;

/* The field of an encoding without bit 0 (any number), or NULL. */
const struct nested_field *nested_field(u64 encoding);

/* SDM, "Structure of VMCS Component Encoding". Width 0: 16 bits, 1: 64, 2: 32, 3: natural. */
#define FIELD_WIDTH(encoding) ((encoding) >> 13 & 3)
#define FIELD_TYPE(encoding) ((encoding) >> 10 & 3)
#define FIELD_INDEX(encoding) ((encoding) >> 1 & 0x1ff)

/* "Guest Segment Attributes": what else is in an access-rights field reads as 0. */
#define ACCESS_RIGHTS_BITS 0x1f0ff

static inline unsigned nested_word(u32 encoding)
{
	if (!encoding)
		return VMCS12_VPID;
	return FIELD_WIDTH(encoding) << 7 | FIELD_TYPE(encoding) << 5 | (FIELD_INDEX(encoding) & 31);
}

static inline u64 nested_cut(u32 encoding, u64 value)
{
	if (encoding >= VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_ES).encoding &&
	    encoding <= VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_TR).encoding)
		return value & ACCESS_RIGHTS_BITS;
	if (FIELD_WIDTH(encoding) == 0)
		return (u16)value;
	return FIELD_WIDTH(encoding) == 2 ? (u32)value : value;
}

/* A field of a VMCS12, cut to its width; the field must be in the table. Inline: most fields are constants. */
static inline u64 vmcs12_get(const u64 *page, vmcs_field_t field)
{
	return nested_cut(field.encoding, page[nested_word(field.encoding)]);
}

static inline u64 nested_get(const struct nested *n, vmcs_field_t field)
{
	return vmcs12_get(n->page, field);
}

static inline void nested_set(struct nested *n, vmcs_field_t field, u64 value)
{
	n->page[nested_word(field.encoding)] = nested_cut(field.encoding, value);
}

/*
 * Fields of VMCS02 that L1 has after each exit, without the time to look through the table: of the exit, but what it is told by
 * nested_show(); guest state that is written at each entry; other guest state.
 */
#define NESTED_INFORMATION                                                                                             \
	VMCS_GUEST_PHYSICAL_ADDRESS, VMCS_EXIT_INTERRUPTION_ERROR_CODE, VMCS_IDT_VECTORING_INFO,                       \
		VMCS_IDT_VECTORING_ERROR_CODE, VMCS_EXIT_INSTRUCTION_LENGTH, VMCS_GUEST_LINEAR_ADDRESS
#define NESTED_HOT VMCS_GUEST_INTERRUPTIBILITY, VMCS_GUEST_RSP, VMCS_GUEST_RIP, VMCS_GUEST_RFLAGS
#define NESTED_HOT_READ                                                                                                \
	VMCS_GUEST_CR3, VMCS_GUEST_BASE(SEGMENT_CS), VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS),                             \
		VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_SS)

/* In front of a loop over a constant table: each VMREAD and VMWRITE with constants costs half as much. */
#define UNROLL _Pragma("GCC unroll 32")

/*
 * What is offered: once, by the boot CPU. NULL, or why VMX can't be offered: what this CPU lacks. Then the value of a VMX
 * capability MSR (0x480 to 0x493), false: #GP. capability.c.
 */
const char *nested_capability_init(void);
bool nested_msr(u32 msr, u64 *value);

/* Whether L1 has on this CPU what it was told on the boot CPU. NULL, or what differs. */
const char *nested_compare_this_cpu(void);

/*
 * Decides whether VMX is offered (monitor.kvm), and says so in the log. If it is: maps kvm_pool, and gives each CPU slot its
 * share of it, its struct nested and pages. Boot CPU, once, after memory_init(). Takes mm_lock. start.c.
 */
void nested_init(void);

/* A VMX instruction of the host's (exit reasons 19 to 27, 50, 53), where VMX is offered: done, or a fault is queued. */
void nested_instruction(struct registers *regs, u32 reason);

/* VMfailValid if there is a current VMCS12, else VMfailInvalid: RFLAGS, the error field; RIP moves on. instruction.c. */
void nested_fail(struct nested *n, u32 error);

/*
 * Memory operand of the VMX instruction that has just exited, `bytes` of it (at most 16), by the host's own page tables.
 * False: a fault is queued. operand.c.
 */
bool operand_read(const struct registers *regs, void *out, unsigned bytes);
bool operand_write(const struct registers *regs, u64 value);

/*
 * The checks before a VM entry (SDM, "Checks on VMX Controls", "Checks on the Host-State Area"): 0, or the VM-instruction error.
 * Whatever check_host() lets pass, a VM entry of VMCS01 accepts. Fields that are as they were when they passed are not looked
 * at again: those that are not hot, unless n->dirty. check.c.
 */
u32 check_controls(const struct nested *n);
u32 check_host(const struct nested *n);
/* Guest state, as N1 wants it (the CPU checks the rest): false with the exit qualification of reason 33. */
bool check_guest(const struct nested *n, u64 *qualification);

/* The words of VMCS02's MSR bitmap in which something may pass, of L1's; all others are ones for ever. msr.c. */
void nested_merge_msrs(struct nested *n);
/* MSR lists of VMCS12: `count` entries at gpa. 0, or the number of the entry, from 1, that can't be loaded or stored. */
u32 nested_load_msrs(u64 gpa, u64 count);
u32 nested_store_msrs(u64 gpa, u64 count);

/*
 * VMLAUNCH or VMRESUME, whose checks of VMX state and launch state have passed. Either VMCS02 is current and the state is
 * NESTED_L2, or VMCS01 is, and L1 sees why: a VMfail, or an exit (then the state can be NESTED_ABORTED). An INIT that waits
 * (LATCHED_INIT) comes first: nothing was done. enter.c.
 */
void nested_enter(struct nested *n);

/* VMXON: caches are flushed, VMCS02 is there. VMXOFF: nothing is current any more. */
void nested_begin(struct cpu *cpu);
void nested_end(struct nested *n);

/* INIT, in any state: VMCS01 is current, the CPU is outside VMX operation, nothing is written back. Short. */
void nested_reset(struct cpu *cpu);

enum nested_next {
	NESTED_RESUME, /* VMCS02 is current: back to L2 */
	NESTED_SHOWN, /* VMCS01 is current, L1 goes on where its host state says, or the state is NESTED_ABORTED */
	NESTED_EVENT, /* VMCS01 is current, but L1 has seen no exit: INIT; the host's handlers go on */
};

/* An exit while the state is NESTED_L2. exit.c. */
enum nested_next nested_exit(struct cpu *cpu, struct registers *regs);

/* VM entry of VMCS02 was a VMfail: L1 sees it, VMCS01 is current. False: it was not VMCS02's, or no error of L1's. */
bool nested_entry_failed(struct cpu *cpu);

/*
 * Shows L1 an exit: VMCS12 gets guest state and exit information, VMCS01 becomes current with L1's host state. The
 * exit information that is not an argument is VMCS02's of this exit. Bit 31 of reason: an entry that failed, of which
 * VMCS12 gets reason and qualification alone.
 */
enum nested_next nested_show(struct nested *n, u32 reason, u64 qualification);

/*
 * VMCS02's guest state to VMCS12, as an exit saves it; VMCS02 is current. What is not hot stays in VMCS02, until it is fetched:
 * before L1 sees it, or writes a field that is not hot, or VMCS12 leaves the CPU; VMCS01 is current. enter.c.
 */
void nested_save(struct nested *n);
void nested_fetch(struct nested *n);

/*
 * VMCS shadowing: the fields with NESTED_SHADOW_READ and NESTED_SHADOW_WRITE L1 reads and writes in a VMCS of the monitor's,
 * without an exit. Of a CPU that lacks it, nothing is done. shadow_vmcs.c.
 *
 * nested_shadow_init(): the bitmaps, once. nested_shadow_on(): the current VMCS12 has come or is other than L1's accesses made
 * it. nested_shadow_off(): it has what L1 wrote, each access is an exit. nested_shadow_read(): it has what L1 wrote. Before and
 * after, VMCS01 is current. nested_shadow_write(): L1 finds what an exit of L2 has changed; vmcs_load_host() has to follow.
 */
void nested_shadow_init(void);
void nested_shadow_on(struct cpu *cpu, struct nested *n);
void nested_shadow_off(struct cpu *cpu, struct nested *n);
void nested_shadow_read(struct cpu *cpu, struct nested *n);
void nested_shadow_write(struct cpu *cpu, const struct nested *n);

/* Before L2 goes on: what waits for L1 makes it exit again. VMCS02 is current. enter.c. */
void nested_wake(const struct cpu *cpu);

/* L1's VPID of L2, 0: VPIDs are off. INVVPID, unless L2's entries of the TLB are those of this VPID. enter.c. */
u16 nested_l1_vpid(const struct nested *n);
void nested_flush_vpid(struct nested *n, u16 vpid);

/* An EPT violation of L2: NESTED_RESUME when it is filled; else what to show: a reason and a qualification. ept12.c. */
enum nested_next nested_ept_violation(struct nested *n, u32 *reason, u64 *qualification);

/* Before an entry: fills last_violation, if EPT12 has it by now. */
void nested_fill_last_violation(struct nested *n);

/* This CPU's EPT02: all are empty, or that of an EPT12, and INVEPT is done. The CPU is in root, in no EPT02. */
void nested_drop_all(struct nested *n);
void nested_drop(struct nested *n, u64 eptp12);
/* INVEPT, where a drop asks for it before this CPU enters, or hands out a table again. */
void nested_flush(struct nested *n);

#endif

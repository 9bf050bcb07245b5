/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The monitor's public interface to the de-privileged host. Shared by the monitor, the Linux module and the tools.
 *
 * A call is VMCALL from ring 0 in 64-bit mode (from anywhere else it raises #UD, as on a CPU without VT-x):
 *   in:  RAX = call number, RDI, RSI, RDX, R8 = arguments, as far as the call has them
 *   out: RAX = 0 or a negative error code; on success RBX, RDX, RSI, RDI, R8, R9, R10, R11 = eight result words
 * All other registers are kept. On an error the result registers are kept, too. No memory is passed. RAX is never
 * positive.
 */
#ifndef HYPERPS_ABI_H
#define HYPERPS_ABI_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdint.h>
#endif
#include "gate.h"

#define HYPERPS_ABI_VERSION 2

/* Error codes, in RAX. The numbers are those of Linux's errno, so that the module can pass them on. */
#define HYPERPS_OK 0
#define HYPERPS_ERROR_PERMISSION (-1) /* not now, not from here, or not RAM that the VM declares */
#define HYPERPS_ERROR_NO_VM (-2) /* the handle names no VM */
#define HYPERPS_ERROR_NO_CPU (-6) /* no such CPU */
#define HYPERPS_ERROR_AGAIN (-11) /* not yet: every CPU must flush first */
#define HYPERPS_ERROR_MEMORY (-12) /* the monitor's pool is too small for this: donate frames to it */
#define HYPERPS_ERROR_OWNER (-13) /* a frame is not in the state that the request needs, or the gpa is taken */
#define HYPERPS_ERROR_STATE (-16) /* the VM is not in a state for this */
#define HYPERPS_ERROR_INVALID (-22) /* bad argument */
#define HYPERPS_ERROR_NO_CALL (-38) /* no such call */
#define HYPERPS_ERROR_USE_VMCALL (-95) /* the gate does not serve this call */

/*
 * HYPERPS_CALL_IDENTIFY: is the monitor there? Results: word 0 = HYPERPS_SIGNATURE, word 1 = HYPERPS_ABI_VERSION.
 * Without the monitor VMCALL raises #UD, or another hypervisor answers without the signature.
 */
#define HYPERPS_CALL_IDENTIFY 0x48505300
#define HYPERPS_SIGNATURE 0x5350726570794800ULL /* "\0HyperPS" */

/*
 * HYPERPS_CALL_READ: RDI = object (bits 31:0) and its index (bits 63:32), RSI = byte offset, a multiple of 64. Results:
 * the object's 64 bytes from there, zeros past its end. HYPERPS_ERROR_INVALID: no such object, or offset >= its size.
 * A reader gets one piece at a time; counters may move between the pieces.
 */
#define HYPERPS_CALL_READ 0x48505301
#define HYPERPS_READ_BYTES 64

#define HYPERPS_OBJECT_STATUS 1 /* struct hyperps_status */
#define HYPERPS_OBJECT_LOG 2 /* struct hyperps_log, then its ring of hyperps_log.size bytes */
#define HYPERPS_OBJECT_EXITS 3 /* index = CPU slot: struct hyperps_exits */
#define HYPERPS_OBJECT_FRAMES 4 /* struct hyperps_frames */
#define HYPERPS_OBJECT_VM 5 /* index = 0 to HYPERPS_VMS - 1: struct hyperps_vm */
#define HYPERPS_OBJECT_MEASUREMENT 6 /* likewise: struct hyperps_measurement */
#define HYPERPS_OBJECT_VM_EXITS 7 /* likewise: struct hyperps_vm_exits */
#define HYPERPS_OBJECT_L2_EXITS                                                                                        \
	8 /* index = CPU slot: struct hyperps_exits, of the VMs that the host's own hypervisor runs there */

/*
 * HYPERPS_CALL_TAKE_CPUS: for the loader only, once, right after the firmware's boot services have ended: the monitor
 * starts every other CPU and takes it into VMX. HYPERPS_ERROR_PERMISSION on any later call.
 */
#define HYPERPS_CALL_TAKE_CPUS 0x48505302

/*
 * Memory calls. A VM is named by the handle that VM_CREATE gave; a handle of a VM that is gone stays invalid for ever.
 * All are refused with HYPERPS_ERROR_PERMISSION until every CPU is in VMX. Result word 0 as said; the errors are those
 * above.
 *
 *   VM_CREATE                   the handle of a new VM
 *   VM_DECLARE  handle, gpa | permissions, count
 *                               says that the `count` pages from gpa on are RAM of the VM, with these permissions:
 *                               1 read (always), 2 write, 4 execute; or, permissions = 8, that accesses to them are the
 *                               host's to answer (MMIO). At most 8 ranges, below 2^46, that don't overlap
 *                               (HYPERPS_ERROR_OWNER), and only before VM_SEAL. Result: the number of ranges
 *   VM_MAP      handle, gpa, first frame number, count
 *                               gives `count` (at most 2^18) consecutive frames of the host's to the VM, at gpa; all of
 *                               it in one declared range, else HYPERPS_ERROR_PERMISSION. The host loses them at once.
 *                               Result: how many it gave, from the first on, at least 1: call again for the others. Up
 *                               to 512 it gives all or none. An error is about the first of them
 *   VM_SYNC     handle          makes the frames given so far usable by the VM, when every CPU has flushed.
 *                               Result: how many are left: call again until 0
 *   VM_SEAL     handle          measures the VM (see below), after which frames given are zeroed, the ranges are final,
 *                               and it can run. Nothing may wait for VM_SYNC. Result: 1: call again, 0: done. From the
 *                               first call on nothing else can be done with the VM but this and VM_DESTROY
 *   VM_DESTROY  handle          ends the VM. Result: 1: call again, 0: done. HYPERPS_ERROR_STATE while a vCPU runs
 *   VM_RECLAIM  handle          zeroes a destroyed VM's frames and gives them back.
 *                               Result: 1: call again, 0: done, and the handle is gone.
 *                               Of another VM the same for what its guest has released; the handle stays
 *   POOL_DONATE first frame number
 *                               gives the 512 frames of an aligned 2 MiB, below 4 TiB and all of them the host's, to the
 *                               monitor's pool, for ever. Of use to VMs after the next VM_SYNC or VM_RECLAIM that
 *                               flushes, and to a vCPU after HYPERPS_EXIT_ROOM. Result: 512. Memory that is donated
 *                               must not be used by a kernel that kexec starts
 *   FRAME_QUERY handle, frame   state (HYPERPS_FRAME_*) of a frame that is the host's, a device's, or that VM's; of
 *                               another VM's or the monitor's HYPERPS_ERROR_OWNER. The handle need not be one
 *
 * An error leaves all as it was. HYPERPS_ERROR_AGAIN: a CPU did not flush in time, or 32 runs of frames wait for
 * VM_SYNC.
 */
#define HYPERPS_CALL_VM_CREATE 0x48505310
#define HYPERPS_CALL_VM_MAP 0x48505311
#define HYPERPS_CALL_VM_SYNC 0x48505312
#define HYPERPS_CALL_VM_SEAL 0x48505313
#define HYPERPS_CALL_VM_DESTROY 0x48505314
#define HYPERPS_CALL_VM_RECLAIM 0x48505315
#define HYPERPS_CALL_FRAME_QUERY 0x48505316
#define HYPERPS_CALL_VM_DECLARE 0x48505317
#define HYPERPS_CALL_POOL_DONATE 0x48505318
#define HYPERPS_MAP_FRAMES (1 << 18)
#define HYPERPS_VM_RANGES 8
#define HYPERPS_RANGE_MMIO 8 /* permissions of a range that is no RAM */

/*
 * vCPU calls, by VMCALL only.
 *
 *   VCPU_CREATE handle, mode | argument, entry, cr3
 *                               a vCPU of a VM that is not sealed yet, which starts at `entry` with all registers 0 but
 *                               those below. argument: a multiple of 4096, below 2^46. Result: its index, from 0 on
 *       HYPERPS_VCPU_REAL       16-bit real mode: CS = entry >> 4 & 0xf000, IP = entry & 0xffff; entry below 1 MiB;
 *                               EDI = argument, ESI = index
 *       HYPERPS_VCPU_PROTECTED  32-bit, flat segments, no paging: EAX = 0x2badb002 and EBX = argument, as multiboot has
 *                               it; ESI = index
 *       HYPERPS_VCPU_LONG       64-bit, with the page tables at cr3: RDI = argument, RSI = index
 *   VCPU_RUN    handle, index | flags, answer, event
 *                               runs a vCPU of a sealed VM on this CPU until there is something for the host to do.
 *                               answer: the value that the guest's IN or MMIO read gets, if that was the last exit; of
 *                               it only so many bytes count. event: 0, or HYPERPS_EVENT_*: HYPERPS_ERROR_AGAIN if the
 *                               guest can't take it now. Result: enum hyperps_exit and flags in word 0, the others by
 *                               reason. HYPERPS_ERROR_STATE: it runs on another CPU, or has ended (SHUTDOWN, FAILED)
 */
#define HYPERPS_CALL_VCPU_CREATE 0x48505320
#define HYPERPS_CALL_VCPU_RUN 0x48505321
#define HYPERPS_VCPUS 16 /* of a VM */

enum hyperps_vcpu_mode { HYPERPS_VCPU_REAL = 0, HYPERPS_VCPU_PROTECTED, HYPERPS_VCPU_LONG, HYPERPS_VCPU_MODES };

#define HYPERPS_RUN_INTERRUPT_WINDOW (1ULL << 32) /* flag: exit when the guest can take an external interrupt */

#define HYPERPS_EVENT_INTERRUPT 0x80000000ULL /* | vector, 32 to 255 */
#define HYPERPS_EVENT_NMI 0x80000202ULL

/*
 * Why VCPU_RUN came back: word 0, bits 31:0; in bit 32 whether the guest could take an external interrupt now; in bit 33
 * that it has not run at all, and has not taken the event: an earlier exit left too much to sync.
 */
enum hyperps_exit {
	HYPERPS_EXIT_INTERRUPTED = 0, /* the CPU has something else to do: call again */
	HYPERPS_EXIT_OUT, /* words: port, bytes (1, 2, 4), value */
	HYPERPS_EXIT_IN, /* words: port, bytes */
	HYPERPS_EXIT_MMIO_WRITE, /* words: gpa, bytes (1, 2, 4, 8), value */
	HYPERPS_EXIT_MMIO_READ, /* words: gpa, bytes */
	HYPERPS_EXIT_HLT, /* the guest waits for an interrupt */
	HYPERPS_EXIT_MEMORY, /* no memory there, or not yet synced. Words: gpa of the page, access: 1 read, 2 write, 4 fetch */
	HYPERPS_EXIT_INTERRUPT_WINDOW, /* as asked for */
	HYPERPS_EXIT_CONSOLE, /* words: bytes (1 to 40), then these, 8 a word */
	HYPERPS_EXIT_SHARED, /* the guest shares these pages with the host. Words: gpa, pages */
	HYPERPS_EXIT_UNSHARED, /* it does so no longer: VM_SYNC gives it new ones, zeroed. Words: gpa, pages */
	HYPERPS_EXIT_RELEASED, /* it needs these no longer: VM_RECLAIM. Words: gpa, pages */
	HYPERPS_EXIT_ROOM, /* for what the guest wants VM_SYNC, VM_RECLAIM or POOL_DONATE is needed first */
	HYPERPS_EXIT_SHUTDOWN, /* the guest has ended; this vCPU runs no more. Word: its exit code */
	HYPERPS_EXIT_FAILED, /* this vCPU can't go on. Word: enum hyperps_failure */
	HYPERPS_EXITS /* how many there are */
};

#define HYPERPS_EXIT_READY (1ULL << 32)
#define HYPERPS_EXIT_NOT_ENTERED (1ULL << 33)

enum hyperps_failure {
	HYPERPS_FAILURE_TRIPLE_FAULT = 1,
	HYPERPS_FAILURE_STATE, /* the CPU refuses the vCPU's state */
	HYPERPS_FAILURE_INSTRUCTION, /* an MMIO access by an instruction that the monitor does not know */
};

/*
 * The measurement of a VM: SHA-256 of all that it begins with. First, for each page that it has, in ascending order:
 * its gpa, then its 4096 bytes. Then for each range, in the order of VM_DECLARE: gpa, bytes, permissions. Then for each
 * vCPU, from index 0 on: VCPU_CREATE's `mode | argument`, entry, cr3. Last the number of ranges and that of vCPUs. All
 * numbers are 8 bytes, little-endian. Without pages, ranges and vCPUs that is 16 zero bytes.
 */
struct hyperps_measurement {
	uint64_t handle; /* 0 and all else 0 before VM_SEAL is done, and without a VM; a first handle is 0, too */
	uint64_t sealed; /* whether there is one */
	uint8_t sha256[32];
	uint64_t vcpus;
	uint64_t reserved;
};

/*
 * The gate: calls without a VM exit, by VMFUNC from ring 0, on a CPU where GATE_SET has switched it on.
 *
 * GATE_SET (VMCALL only): RDI = linear address G of a page of the host's code, RSI = guest-physical address C of a page
 * below 4 GiB that holds a copy of the host's top-level page table; RDI = 0 switches the gate off. For the calling CPU
 * only; an INIT, a write that changes CR0.PG, WP or PE, CR4.PAE, SMEP, SMAP or LA57, or EFER.NXE, and one that sets
 * DEBUGCTL.LBR or BTF, switches it off, too. Result word 0: the value for CR3. Errors: _PERMISSION the monitor does not
 * offer the gate, or paging is not set up as it needs (the log says why); _INVALID G or C is none; _AGAIN C does not make safe code: try another page.
 *
 * A call: interrupts off; CR3 as GATE_SET said; R9 = call number, RDI, RSI, RDX, R8 = arguments, RBP = stack pointer;
 * EAX = 0, ECX = 1, VMFUNC, which ends at G + HYPERPS_GATE_ENTRY. The three instructions that lie before it,
 * "xor eax, eax; lea ecx, [rax + 1]; vmfunc", begin at G + HYPERPS_GATE_RETRY: an NMI may send the CPU back there. The
 * CPU comes back at G + HYPERPS_GATE_RETURN: RSP = what RBP was, RBP = 0 or an error code, RBX = result word 0; R12 to
 * R15 are kept; RAX, RCX, RDX, RSI, RDI, R8 to R11 are 0, the arithmetic flags and DR7 lost; interrupts are off, CR3 is
 * unchanged. HYPERPS_ERROR_USE_VMCALL: the gate does not serve this call. It serves IDENTIFY and the memory calls that
 * need no flush and no content: all but VM_SYNC, VM_SEAL, VM_RECLAIM and POOL_DONATE. A VMFUNC at another place raises #UD.
 */
#define HYPERPS_CALL_GATE_SET 0x48505303

/* Whether the gate serves a memory call. IDENTIFY it serves, too. */
static inline int hyperps_gate_serves(uint64_t call)
{
	return call == HYPERPS_CALL_VM_CREATE || call == HYPERPS_CALL_VM_DECLARE || call == HYPERPS_CALL_VM_MAP ||
	       call == HYPERPS_CALL_VM_DESTROY || call == HYPERPS_CALL_FRAME_QUERY;
}

/* Why the gate is not in use, in hyperps_status.gate. */
enum hyperps_gate {
	HYPERPS_GATE_OFFERED = 0, /* it is, on the CPUs that hyperps_status.gate_cpus counts */
	HYPERPS_GATE_CONF, /* gate = vmcall in hyperps.conf */
	HYPERPS_GATE_CPU, /* a CPU lacks VMFUNC, execute-only pages in EPT, SMEP or SMAP */
	HYPERPS_GATE_L1, /* a CPU leaks L1 data (no RDCL_NO), and gate = auto */
	HYPERPS_GATE_MEMORY, /* the monitor's memory lies where the gate's code would not be safe */
};

/* Reasons why a feature is not in use, in hyperps_status.features[]. */
enum hyperps_feature_state {
	HYPERPS_FEATURE_IN_USE = 0,
	HYPERPS_FEATURE_FOUND = 1, /* the CPU has it; nothing uses it */
	HYPERPS_FEATURE_MISSING_CPU = 2, /* the CPU lacks it */
	HYPERPS_FEATURE_MISSING_SOME_CPU = 3, /* another CPU than the first one lacks it */
	HYPERPS_FEATURE_NOT_BUILT = 4, /* this version of the monitor lacks it */
};

enum hyperps_feature {
	HYPERPS_FEATURE_EPT_1G = 0, /* 1 GiB pages in EPT */
	HYPERPS_FEATURE_EPT_EXECUTE_ONLY, /* execute-only pages in EPT */
	HYPERPS_FEATURE_VPID,
	HYPERPS_FEATURE_UNRESTRICTED_GUEST,
	HYPERPS_FEATURE_VMFUNC, /* VM functions with EPTP switching */
	HYPERPS_FEATURE_MODE_BASED_EXECUTE, /* mode-based execute control for EPT */
	HYPERPS_FEATURE_PREEMPTION_TIMER,
	HYPERPS_FEATURE_SMEP,
	HYPERPS_FEATURE_SMAP,
	HYPERPS_FEATURE_RDCL_NO, /* the CPU does not leak L1 data (Meltdown, L1TF) */
	HYPERPS_FEATURE_VTD, /* DMA remapping */
	HYPERPS_FEATURES /* how many there are */
};

#define HYPERPS_CPU_STATE_NOT_STARTED 0 /* listed by the firmware, not yet taken into VMX */
#define HYPERPS_CPU_STATE_IN_VMX 1

#define HYPERPS_FLAG_ALL_CPUS_TAKEN (1ULL << 0) /* every CPU that the firmware knows of runs de-privileged */
#define HYPERPS_FLAG_DMA_PROTECTED                                                                                     \
	(1ULL << 1) /* devices reach what the host's CPUs reach; dma has the limits of that */
#define HYPERPS_FLAG_KVM (1ULL << 2) /* the host has VMX, for a hypervisor of its own */

struct hyperps_status {
	uint64_t size; /* sizeof(struct hyperps_status) */
	uint64_t abi_version;
	char version[32]; /* of the monitor, NUL-terminated */
	uint64_t flags; /* HYPERPS_FLAG_* */
	uint64_t cpus_listed; /* by the firmware, without those that it did not find itself */
	uint64_t cpu_slots; /* CPU slots in the monitor; slots are used from 0 on */
	uint64_t cpus_taken; /* in VMX non-root */
	uint64_t memory_base; /* monitor memory: host-physical byte address and bytes; the host can't reach it */
	uint64_t memory_size;
	uint64_t memory_free; /* bytes of it, and of what the host donated, in no use */
	uint64_t physical_address_bits; /* width of the host view */
	uint64_t view_4k, view_2m, view_1g; /* pages by size in the host view */
	uint64_t monitor_cr3; /* host-physical addresses, so that a checker outside can walk them */
	uint64_t host_view_eptp;
	uint64_t refused_memory; /* accesses of the host to protected memory */
	uint64_t refused_msr; /* MSR accesses refused */
	uint64_t refused_instruction; /* VMX instructions and other instructions refused */
	uint64_t refused_register; /* control-register and XCR0 writes refused */
	uint64_t log_lost; /* messages dropped from the ring */
	uint64_t tsc_hz;
	uint64_t gate; /* enum hyperps_gate */
	uint64_t gate_cpus; /* CPUs on which the gate is on */
	uint64_t refused_gate; /* ways through the gate that are none */
	uint32_t features[16]; /* enum hyperps_feature_state by enum hyperps_feature */
	char dma[128]; /* a line that says what is true of DMA, NUL-terminated */
	uint64_t dma_units; /* DMA-remapping units that are on */
	uint64_t refused_dma; /* requests of devices that they refused, at least */
	char kvm[128]; /* why the host has no VMX, NUL-terminated; empty: it has */
	uint64_t kvm_pool_base; /* memory for its VMs' page tables: like memory_base; a size of 0: there is none */
	uint64_t kvm_pool_size;
	uint64_t kvm_tables_used; /* 4 KiB tables in it, of all CPUs: each CPU has the same share */
	uint64_t kvm_tables;
	uint64_t reserved[2];
};

/* The log ring: bytes [written - min(written, size), written) modulo size are text, lines end in '\n'. */
struct hyperps_log {
	uint64_t size; /* bytes of the ring, a power of two */
	uint64_t written; /* bytes ever written */
	uint64_t reserved[6];
};

/* State of a 4 KiB frame of RAM: who owns it, and whether a change of owner is under way. */
enum hyperps_frame_state {
	HYPERPS_FRAME_DEVICE =
		0, /* not write-back RAM, or kept by the firmware: mapped to the host, never given away */
	HYPERPS_FRAME_HOST,
	HYPERPS_FRAME_MONITOR,
	HYPERPS_FRAME_PRIVATE, /* of a VM */
	HYPERPS_FRAME_SHARED, /* of a VM, which shares it with the host */
	HYPERPS_FRAME_TO_VM, /* quarantine: stale translations may still exist */
	HYPERPS_FRAME_TO_HOST,
	HYPERPS_FRAME_TO_MONITOR,
	HYPERPS_FRAME_ORPHAN, /* of a KVM VM that is gone; neither zeroed nor in any view until it is needed */
	HYPERPS_FRAME_STATES /* how many there are */
};

struct hyperps_frames {
	uint64_t table_base; /* host-physical address of the page-mark table; a mark's low 4 bits are the state */
	uint64_t table_frames; /* marks in it, by frame number from 0 */
	uint64_t count[HYPERPS_FRAME_STATES]; /* frames in the table by state */
	uint64_t reserved[5];
};

#define HYPERPS_VMS 64

enum hyperps_vm_state {
	HYPERPS_VM_FREE = 0, /* no VM here: all else is 0 */
	HYPERPS_VM_OPEN,
	HYPERPS_VM_SEALED,
	HYPERPS_VM_DYING, /* VM_DESTROY has begun */
	HYPERPS_VM_DEAD, /* VM_DESTROY is done; VM_RECLAIM gives the frames back */
	HYPERPS_VM_SEALING, /* VM_SEAL has begun */
};

struct hyperps_vm {
	uint64_t state; /* enum hyperps_vm_state */
	uint64_t handle;
	uint64_t frames; /* that the VM has, in any state */
	uint64_t pending; /* of these, waiting for VM_SYNC */
	uint64_t view_eptp; /* of its guest view: host-physical address, for a checker outside */
	uint64_t view_4k, view_2m; /* entries by size in the guest view, those not yet synced included */
	uint64_t ranges; /* that are declared, RAM and MMIO */
};

#define HYPERPS_EXIT_REASONS 80

struct hyperps_exits {
	uint64_t apic_id; /* initial APIC ID of the CPU in this slot */
	uint64_t state; /* HYPERPS_CPU_STATE_* */
	uint64_t total;
	uint64_t vmcall; /* of these, calls to the monitor; 0 of L2_EXITS */
	uint64_t reserved[4];
	uint64_t reason[HYPERPS_EXIT_REASONS]; /* VM exits by basic exit reason */
};

/*
 * How often VCPU_RUN came back from a vCPU of a VM, by the exit that ended it. What the monitor handles by itself counts
 * nowhere: it is the guest's business. A run that ended after such an exit, since its time was up, counts as preemption timer.
 */
struct hyperps_vm_exits {
	uint64_t handle; /* 0 and all else 0 without a VM; a first handle is 0, too */
	uint64_t total;
	uint64_t reserved[6];
	uint64_t reason[HYPERPS_EXIT_REASONS]; /* basic exit reason */
};

#endif

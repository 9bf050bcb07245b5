// SPDX-License-Identifier: GPL-2.0
/*
 * A hostile kernel programs a device, QEMU's `edu`, to read and write what the host's CPUs can't: by DMA, past their page tables.
 * Where that works at all, this reads what is not its own, and writes to nothing but frames of its own VM.
 */
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/pci.h>

#include "calls.h"
#include "counted_nmi.h"
#include "tap.h"

#define EDU_VENDOR 0x1234
#define EDU_DEVICE 0x11e8
/* Its registers, and where its buffer lies for it. Some 100 ms after a command it does it. */
#define EDU_SOURCE 0x80
#define EDU_DESTINATION 0x88
#define EDU_COUNT 0x90
#define EDU_COMMAND 0x98
#define EDU_RUN 1
#define EDU_TO_MEMORY 2
#define EDU_BUFFER 0x40000

#define UNIT_REGISTERS 0xfed90000ULL /* of QEMU's DMA-remapping unit, if it has one */
#define INTERRUPT_ADDRESS 0xfee00000ULL /* | APIC ID << 12 */
#define INTERRUPT_NMI 0x400 /* the data */
#define BYTES 1024 /* of a transfer to or from memory */
#define ROUNDS 4
#define MARK 0x4d41524b4d41524bULL /* what the buffer holds before */
#define OLD 0x1d1d01d1d01d01d1ULL
#define NEW 0x2e2e02e2e02e02e2ULL
#define POISON 0x9015019015019015ULL
#define SECRET 0x5ec2e75eU /* what the guest writes */

#define CODE 0x1000
#define DATA 0x2000
#define GUEST_FRAMES 4

/* 32-bit code without paging, at CODE: fills the page at DATA, and says again and again what that begins with. */
asm(".pushsection .rodata\n"
    ".code32\n"
    "dma_guest:\n"
    "	mov	$0x2000, %edi\n"
    "	mov	$0x5ec2e75e, %eax\n"
    "	mov	$1024, %ecx\n"
    "	rep stosl\n"
    "1:	mov	0x2000, %eax\n"
    "	out	%eax, $0x42\n"
    "	jmp	1b\n"
    "dma_guest_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char dma_guest[], dma_guest_end[];

static void __iomem *registers;
static unsigned int bytes = BYTES; /* of a transfer */
static u64 *sent, *seen; /* what goes to the device, and what comes from it */
static u64 vm;
static bool vm_runs;
static struct page *ram; /* of the VM's guest */
static bool returned = true; /* all of it is the host's */

static u64 status_word(size_t offset)
{
	return read_word(HYPERPS_OBJECT_STATUS, offset);
}

#define status(member) status_word(offsetof(struct hyperps_status, member))

/* What the guest says next, or 0. */
static u32 guest_says(void)
{
	u64 words[HYPERPS_RESULTS];
	unsigned int tries;

	for (tries = 0; tries < 100000 && !run_vcpu(vm, 0, 0, 0, words); tries++) {
		if ((u32)words[0] == HYPERPS_EXIT_OUT)
			return words[3];
		cond_resched();
	}
	return 0;
}

static void begin_transfer(u64 source, u64 destination, u64 command)
{
	writeq(source, registers + EDU_SOURCE);
	writeq(destination, registers + EDU_DESTINATION);
	writeq(bytes, registers + EDU_COUNT);
	writeq(command | EDU_RUN, registers + EDU_COMMAND);
}

/* The guest runs meanwhile, if there is one. */
static void end_transfer(void)
{
	unsigned long end = jiffies + 20 * HZ;

	while (readq(registers + EDU_COMMAND) & EDU_RUN && time_before(jiffies, end)) {
		if (vm_runs)
			guest_says();
		msleep(10);
	}
}

static void fill(u64 *words, u64 value)
{
	memset64(words, value, BYTES / sizeof(u64));
}

/* The device reads memory at hpa, once end_read() has been called. */
static void begin_read(u64 hpa)
{
	fill(sent, MARK);
	begin_transfer(virt_to_phys(sent), EDU_BUFFER, 0);
	end_transfer();
	begin_transfer(hpa, EDU_BUFFER, 0);
}

static void end_read(void)
{
	end_transfer();
	fill(seen, POISON);
	begin_transfer(EDU_BUFFER, virt_to_phys(seen), EDU_TO_MEMORY);
	end_transfer();
}

static void device_reads(u64 hpa)
{
	begin_read(hpa);
	end_read();
}

static void device_writes(u64 hpa, u64 value)
{
	fill(sent, value);
	begin_transfer(virt_to_phys(sent), EDU_BUFFER, 0);
	end_transfer();
	begin_transfer(EDU_BUFFER, hpa, EDU_TO_MEMORY);
	end_transfer();
}

static bool holds(const u64 *words, u64 value)
{
	unsigned int i;

	for (i = 0; i < bytes / sizeof(u64); i++)
		if (words[i] != value)
			return false;
	return true;
}

/* A refused read gives zeros, ones, or nothing. */
static bool saw_nothing(void)
{
	return holds(seen, 0) || holds(seen, ~0ULL) || holds(seen, MARK);
}

/* Reads at hpa, whose content is neither 0 nor ~0; a write is tried only where that is refused. */
static bool check_refused(struct seq_file *out, u64 hpa, const char *what)
{
	u64 before = status(refused_dma), read;
	bool refused;

	device_reads(hpa);
	read = status(refused_dma);
	refused = saw_nothing() && read > before;
	tap_check(out, refused, "a device's read of %s at %#llx is refused (it saw %llx %llx; %llu counted)", what, hpa,
		  seen[0], seen[1], read - before);
	if (!refused)
		return false;
	device_writes(hpa, POISON);
	before = status(refused_dma);
	tap_check(out, before > read, "and its write (%llu counted)", before - read);
	return true;
}

static void check_own_page(struct seq_file *out)
{
	u64 *own = (u64 *)get_zeroed_page(GFP_KERNEL);

	if (!own)
		return;
	fill(own, OLD);
	device_reads(virt_to_phys(own));
	tap_check(out, holds(seen, OLD), "positive control: the device reads a page of the host's (%llx)", seen[0]);
	device_writes(virt_to_phys(own), NEW);
	tap_check(out, holds(own, NEW), "positive control: and writes it (%llx)", own[0]);
	free_page((unsigned long)own);
}

static void check_monitor(struct seq_file *out)
{
	u64 base = status(memory_base), size = status(memory_size), root = status(host_view_eptp) & PHYSICAL_PAGE_MASK;

	check_refused(out, base, "the monitor's memory");
	check_refused(out, root, "the host view's root");
	device_reads(base + size - PAGE_SIZE);
	tap_check(out, saw_nothing(), "of the monitor's last page the device sees nothing (%llx)", seen[0]);
}

/* The unit's registers, by a CPU and by the device. */
static void check_unit(struct seq_file *out)
{
	void __iomem *page = ioremap(UNIT_REGISTERS, PAGE_SIZE);
	u32 value = 0;
	bool read, written = false;

	if (!page)
		return;
	read = fault_of("movl (%1), %%eax\n\tmovl %%eax, (%2)", 0, "r"(page), "r"(&value)) == VECTOR_NONE;
	if (read && (!value || value == ~0U)) {
		tap_check(out, true, "a DMA-remapping unit's registers # SKIP there are none where QEMU has them");
	} else {
		if (!read)
			written = fault_of("movl $0, 0x18(%1)", 0, "r"(page)) == VECTOR_NONE;
		tap_check(out, !read && !written, "a CPU's access to the DMA-remapping unit's registers is refused");
		bytes = sizeof(u64);
		check_refused(out, UNIT_REGISTERS, "the unit's registers");
		bytes = BYTES;
	}
	iounmap(page);
}

static s64 start_guest(void)
{
	s64 error = create(0, GUEST_FRAMES, &vm);

	memcpy(page_address(ram) + CODE, dma_guest, dma_guest_end - dma_guest);
	error = error ?: map(vm, 0, page_to_pfn(ram), GUEST_FRAMES) ?: finish(HYPERPS_CALL_VM_SYNC, vm);
	error = error ?: call(HYPERPS_CALL_VCPU_CREATE, vm, HYPERPS_VCPU_PROTECTED, CODE, 0, NULL);
	return error ?: finish(HYPERPS_CALL_VM_SEAL, vm);
}

static void check_guest(struct seq_file *out)
{
	u64 data = page_to_phys(ram) + DATA;
	s64 error = start_guest();
	u32 said;

	vm_runs = !error;
	said = vm_runs ? guest_says() : 0;
	tap_check(out, said == SECRET, "positive control: a guest runs, and has its secret (%lld, %x)", error, said);
	if (check_refused(out, data, "a frame of the guest's, which runs,"))
		tap_check(out, guest_says() == SECRET, "and its content is as before");
	/* Harmless for all but the guest. */
	device_writes(data, POISON);
	said = vm_runs ? guest_says() : 0;
	tap_check(out, said == SECRET, "the guest finds nothing that the device wrote (%x)", said);
	vm_runs = false;

	error = finish(HYPERPS_CALL_VM_DESTROY, vm);
	device_reads(data);
	tap_check(out, !error && saw_nothing(), "nor does the device see anything of it after the VM's end (%llx)",
		  seen[0]);
	error = finish(HYPERPS_CALL_VM_RECLAIM, vm);
	device_reads(data);
	returned = !error;
	tap_check(out, !error && holds(seen, 0), "when the frame is the host's again it sees zeros (%llx)", seen[0]);
	if (error)
		return;
	fill(phys_to_virt(data), NEW);
	device_reads(data);
	tap_check(out, holds(seen, NEW), "positive control: then what the host writes (%llx)", seen[0]);
}

/*
 * A frame that the device reads all the time is given to a VM. Each transfer that a round begins before that ends before VM_SYNC in
 * the even rounds, and after it in the odd ones.
 */
static void check_lent(struct seq_file *out)
{
	unsigned int round, control = 0, old = 0, wrong = 0, in_time = 0, late = 0, after = 0, stale = 0;
	u64 *words = page_address(ram), hpa = page_to_phys(ram);
	s64 error = 0;

	for (round = 0; round < ROUNDS && !error && returned; round++) {
		bool before = round % 2 == 0;

		fill(words, OLD);
		device_reads(hpa);
		control += holds(seen, OLD);
		error = create(0, 1, &vm);
		begin_read(hpa);
		error = error ?: map(vm, 0, page_to_pfn(ram), 1);
		if (before)
			end_read();
		error = error ?: finish(HYPERPS_CALL_VM_SYNC, vm);
		if (before) {
			old += holds(seen, OLD);
			wrong += !holds(seen, OLD) && !saw_nothing();
		} else {
			bool waits = readq(registers + EDU_COMMAND) & EDU_RUN;

			end_read();
			in_time += waits;
			late += waits && !saw_nothing();
		}
		device_reads(hpa);
		after += !saw_nothing();
		error = error ?: finish(HYPERPS_CALL_VM_DESTROY, vm) ?: finish(HYPERPS_CALL_VM_RECLAIM, vm);
		device_reads(hpa);
		stale += !holds(seen, 0);
		if (error)
			break;
		fill(words, NEW);
		device_reads(hpa);
		control += holds(seen, NEW);
	}
	returned &= !error;
	tap_check(out, !error && control == 2 * ROUNDS,
		  "positive control: before and after its time in a VM the device reads the frame (%u of %d, %lld)",
		  control, 2 * ROUNDS, error);
	tap_check(out, !wrong, "while it waits for VM_SYNC, old content or nothing (%u old, %u else)", old, wrong);
	tap_check(out, in_time && !late,
		  "a transfer that began before, and ends after VM_SYNC, sees nothing (%u of %u do)", late, in_time);
	tap_check(out, !after, "one that begins after VM_SYNC sees nothing (%u of %d do)", after, ROUNDS);
	tap_check(out, !stale, "after VM_RECLAIM it sees zeros (%u of %d don't)", stale, ROUNDS);
}

/* D4: an interrupt of the device's is what the host's own APIC could have sent, also when it is an NMI. */
static void check_interrupt(struct seq_file *out)
{
	if (register_nmi_handler(NMI_LOCAL, count_nmi, 0, "dma_device")) {
		tap_check(out, false, "setup: an NMI handler");
		return;
	}
	atomic_set(&nmis_arrived, 0);
	atomic_set(&nmi_expected_cpu, 0);
	bytes = sizeof(u32);
	device_writes(INTERRUPT_ADDRESS | (u64)per_cpu(x86_cpu_to_apicid, 0) << 12, INTERRUPT_NMI);
	bytes = BYTES;
	atomic_set(&nmi_expected_cpu, -1);
	unregister_nmi_handler(NMI_LOCAL, "dma_device");
	tap_check(out, atomic_read(&nmis_arrived) == 1, "an NMI that the device sends reaches CPU 0 once (%d)",
		  atomic_read(&nmis_arrived));
}

static void check_all(struct seq_file *out)
{
	seq_printf(out, "# %llu DMA-remapping units are on\n", status(dma_units));
	check_own_page(out);
	check_monitor(out);
	check_unit(out);
	check_interrupt(out);
	check_guest(out);
	check_lent(out);
}

static int show_dma(struct seq_file *out, void *unused)
{
	struct pci_dev *device = pci_get_device(EDU_VENDOR, EDU_DEVICE, NULL);

	if (!device) {
		tap_check(out, true, "DMA # SKIP no device that can be programmed (QEMU's edu)");
		return 0;
	}
	/* Where HyperPS leaves the units alone, Linux may drive them; a hostile kernel would not. */
	tap_check(out, !device_iommu_mapped(&device->dev), "setup: no IOMMU of Linux's own (intel_iommu=off)");
	registers = pci_enable_device(device) ? NULL : pci_iomap(device, 0, 0);
	ram = alloc_pages(GFP_KERNEL | __GFP_ZERO, get_order(GUEST_FRAMES * PAGE_SIZE));
	sent = (u64 *)get_zeroed_page(GFP_KERNEL);
	seen = (u64 *)get_zeroed_page(GFP_KERNEL);
	tap_check(out, registers && ram && sent && seen, "setup: the device's registers, and memory");
	if (registers && ram && sent && seen) {
		pci_set_master(device);
		check_all(out);
		pci_clear_master(device);
		pci_iounmap(device, registers);
		pci_disable_device(device);
	}
	free_page((unsigned long)seen);
	free_page((unsigned long)sent);
	/* A VM may still have its frames, if its end has failed. */
	if (ram && returned)
		__free_pages(ram, get_order(GUEST_FRAMES * PAGE_SIZE));
	pci_dev_put(device);
	return 0;
}

TAP_MODULE("dma_device", show_dma, "Has a device reach memory");

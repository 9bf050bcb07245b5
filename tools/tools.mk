# SPDX-License-Identifier: MIT
# Set-up, the stick image, and the emulator's missing firmware part (test/firmware/).

IMAGE := $(BUILD)/hyperps.img
KERNEL ?= $(CACHE)/kernels/cloud/vmlinuz
INITRD ?= $(BUILD)/initrd-cloud.img
CONF ?= $(BUILD)/hyperps.conf

FIRMWARE_CFLAGS := -std=gnu11 -O2 $(WARNINGS) -Wno-missing-prototypes -ffreestanding -fpic -fshort-wchar \
	-fno-stack-protector -fno-asynchronous-unwind-tables -mno-red-zone -maccumulate-outgoing-args \
	-DGNU_EFI_USE_MS_ABI -isystem /usr/include/efi -isystem /usr/include/efi/x86_64

$(BUILD)/firmware/acpi.o: test/firmware/acpi.c tools/tools.mk
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(FIRMWARE_CFLAGS) -c $< -o $@

$(BUILD)/firmware/acpi.so: $(BUILD)/firmware/acpi.o
	$(call quiet,LD)$(LD) -nostdlib -znocombreloc -zdefs -shared -Bsymbolic -T /usr/lib/elf_x86_64_efi.lds \
		/usr/lib/crt0-efi-x86_64.o $< -o $@ -L/usr/lib -l:libgnuefi.a

$(BUILD)/firmware.efi: $(BUILD)/firmware/acpi.so
	$(call quiet,OBJCOPY)objcopy -j .text -j .data -j .dynamic -j .dynsym -j .rela -j .reloc --target=efi-app-x86_64 $< $@

# The Linux around QEMU for --emulator nested: its modules, in the order in which they load, with their parameters.
# enable_apicv: Bochs wants descriptors of posted interrupts to be page-aligned.
NESTED_MODULES := scsi_common scsi_mod libata ata_piix sd_mod irqbypass kvm \
	'kvm-intel nested=1 enable_apicv=0 dump_invalid_vmcs=1'
$(BUILD)/nested-initrd.img: tools/nested/init tools/tools.mk host/image/mkinitrd $(CACHE)/kernels/cloud/vmlinuz
	@mkdir -p $(@D)
	@printf '%s\n' $(NESTED_MODULES) >$(BUILD)/nested-modules
	host/image/mkinitrd --output $@ init=tools/nested/init modules/list=$(BUILD)/nested-modules $$(cut -d ' ' -f 1 $(BUILD)/nested-modules | \
		while read -r name; do find $(CACHE)/kernels/cloud/lib -name $$name.ko -printf "modules/$$name.ko=%p "; done)

# What `make test` needs.
setup-test:
	@tools/setup --nested --packaging --newer-kernels --evaluation

# What --emulator nested needs besides.
nested:
	tools/setup --nested
	+@$(MAKE) --no-print-directory $(BUILD)/nested-initrd.img $(IMAGE) $(BUILD)/firmware.efi

$(CACHE)/kernels/%/vmlinuz:
	tools/setup --no-emulator $(if $(filter $*,$(NEWER_FLAVOURS)),--newer-kernels)

# Another KERNEL, INITRD or CONF given on the command line must not find an image that was made from the old one.
IMAGE_PARTS := $(KERNEL) $(INITRD) $(CONF)
$(BUILD)/image-parts: tools-force
	@mkdir -p $(@D)
	@echo '$(IMAGE_PARTS)' | cmp -s - $@ || echo '$(IMAGE_PARTS)' >$@

$(IMAGE): $(BUILD)/hyperps.efi $(BUILD)/image-parts $(IMAGE_PARTS) tools/mkimage
	$(call quiet,IMAGE)tools/mkimage $@ --loader $< --kernel $(KERNEL) --initrd $(INITRD) --conf $(CONF)

# The launcher's copy gets console options of its own; these suit real machines too.
$(BUILD)/hyperps.conf: tools/tools.mk
	@mkdir -p $(@D)
	@printf '%s\n' '# What HyperPS boots; hyperps.conf(5) has all keys.' 'chainload = \EFI\HYPERPS\vmlinuz' \
		'initrd = \EFI\HYPERPS\initrd.img' 'options = console=tty0 console=ttyS0,115200' >$@

setup:
	@tools/setup $(SETUP_FLAGS)

setup-packaging setup-libvirt: setup-%:
	@tools/setup --$*

stick: $(IMAGE)
	@echo "$(IMAGE) is ready for a USB stick ($$(($$(stat -c %s $(IMAGE)) >> 20)) MiB). Writing it ERASES THE WHOLE STICK:"
	@echo
	@echo "  1. Find the stick:   lsblk -d -o NAME,SIZE,TRAN,MODEL    (TRAN is usb; check size and model)"
	@echo "  2. Unmount it:       sudo umount /dev/sdX?*"
	@echo "  3. Write it:         sudo dd if=$(IMAGE) of=/dev/sdX bs=4M conv=fsync status=progress"
	@echo
	@echo "Put your stick's name in place of sdX: the whole device, not a partition, and never the machine's own disk."
	@echo "This rule writes to no device itself. Then boot the machine from the stick, with Secure Boot off."

# A stick that measures the machine and keeps the result: docs/evaluation.md.
bench-stick: $(BUILD)/initrd-bench-$(BENCH_FLAVOUR).img
	+@$(MAKE) --no-print-directory stick KERNEL=$(CACHE)/kernels/$(BENCH_FLAVOUR)/vmlinuz INITRD=$<

# Set-up comes first, whatever -j says: the rest needs what it installs.
run: setup
	+@$(MAKE) --no-print-directory BRIEF=1 $(IMAGE) $(BUILD)/firmware.efi
	@tools/run --image $(IMAGE) $(RUN_FLAGS)

.PHONY: bench-stick setup setup-packaging setup-libvirt setup-test stick run nested tools-force

# SPDX-License-Identifier: MIT
# The loader, $(BUILD)/hyperps.efi. BOOT_CHECKS are the sources that it shares with the monitor.
BOOT_CHECKS ?= vmx/capabilities.c service/gate_page.c vmx/msr_policy.c mm/ept.c mm/page_pool.c mm/page_mark.c
BOOT_SOURCES := boot/main.c boot/unfit.c boot/conf.c boot/volume.c boot/chainload.c boot/processors.c boot/acpi.c boot/dmar.c boot/dma.c boot/memory.c boot/cpu_state.c \
	boot/pagetable.c boot/memory_type.c boot/host_view.c boot/choose_capabilities.c boot/monitor.c
BOOT_OBJECTS := $(patsubst %.c,$(BUILD)/boot/%.o,$(BOOT_SOURCES) $(BOOT_CHECKS)) $(BUILD)/boot/enter.o \
	$(BUILD)/boot/monitor_image.o
BOOT_EFI_LIB ?= /usr/lib
BOOT_EFI_INCLUDE ?= /usr/include/efi

# Everything but EFI calls is System V ABI. No SSE: the checks are shared with the monitor, whose rules they follow.
BOOT_CFLAGS := -std=gnu11 -O2 $(WARNINGS) -ffreestanding -fpic -fshort-wchar -fno-stack-protector -fno-strict-aliasing \
	-mno-red-zone -mgeneral-regs-only -maccumulate-outgoing-args -DGNU_EFI_USE_MS_ABI -ffile-prefix-map=$(CURDIR)=. -DVERSION='"$(VERSION)"' \
	-Iboot -Iinclude -Ivmx -Imm -Iservice -isystem $(BOOT_EFI_INCLUDE) -isystem $(BOOT_EFI_INCLUDE)/x86_64
BOOT_LDFLAGS := -nostdlib -znocombreloc -shared -Bsymbolic -z defs -z noexecstack --build-id=none --no-warn-rwx-segments \
	-T $(BOOT_EFI_LIB)/elf_x86_64_efi.lds

all: $(BUILD)/hyperps.efi

# asm_offsets.c of a folder becomes NASM %defines: each "#define NAME VALUE" in the compiler's output.
$(BUILD)/%/asm_offsets.inc: %/asm_offsets.c
	@mkdir -p $(@D)
	$(call quiet,GEN)$(CC) -std=gnu11 -O1 $(WARNINGS) -ffreestanding -mgeneral-regs-only -Iinclude -I$(<D) -MMD -MP -MT $@ \
		-MF $@.d -S -o $@.s $< && \
		sed -n 's/^#define \([A-Z0-9_]*\) \$$\?\(-\?[0-9]*\)$$/%define \1 \2/p' $@.s >$@
	@test -s $@

$(BUILD)/boot/%.o: %.c
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(BOOT_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/boot/trampoline.bin: boot/trampoline.asm $(BUILD)/boot/asm_offsets.inc
	$(call quiet,AS)$(NASM) -w+all -f bin -I$(BUILD)/boot/ -o $@ $<

$(BUILD)/boot/enter.o: boot/enter.asm $(BUILD)/boot/trampoline.bin $(BUILD)/boot/asm_offsets.inc
	$(call quiet,AS)$(NASM) -w+all -f elf64 -I$(BUILD)/boot/ -DTRAMPOLINE_BIN='"$(BUILD)/boot/trampoline.bin"' -o $@ $<

$(BUILD)/boot/monitor_image.o: boot/monitor_image.asm $(BUILD)/monitor.bin
	@mkdir -p $(@D)
	$(call quiet,AS)$(NASM) -w+all -f elf64 -DMONITOR_BIN='"$(BUILD)/monitor.bin"' -o $@ $<

$(BUILD)/boot/hyperps.so: $(BOOT_OBJECTS)
	$(call quiet,LD)ld $(BOOT_LDFLAGS) -o $@ $(BOOT_EFI_LIB)/crt0-efi-x86_64.o $^ $(BOOT_EFI_LIB)/libefi.a $(BOOT_EFI_LIB)/libgnuefi.a

$(BUILD)/hyperps.efi: $(BUILD)/boot/hyperps.so
	$(call quiet,OBJCOPY)SOURCE_DATE_EPOCH=0 objcopy -j .text -j .data -j .dynamic -j .dynsym -j '.rela*' -j .reloc \
		--target efi-app-x86_64 --subsystem=10 $< $@

-include $(wildcard $(BUILD)/boot/*.d $(BUILD)/boot/*/*.d)

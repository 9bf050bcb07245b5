# SPDX-License-Identifier: MIT
# What every image of a protected VM begins with, $(BUILD)/loader/image.bin; hpsctl has it inside.
LOADER_SOURCES := $(addprefix host/loader/,prepare.c protected.c protect.c qemu.c pci.c efi.c console.c lib.c layout.c ranges.c acpi_copy.c)
LOADER_OBJECTS := $(patsubst host/loader/%,$(BUILD)/loader/%.o,host/loader/start.asm host/loader/header.asm $(LOADER_SOURCES)) $(BUILD)/loader/mm/sha384.c.o
# It runs where it is loaded, and at LOADER_ADDRESS.
LOADER_CFLAGS := -std=gnu11 -Os $(WARNINGS) -ffreestanding -fpie -mno-red-zone -mgeneral-regs-only -fno-stack-protector \
	-fno-asynchronous-unwind-tables -fno-strict-aliasing -fcf-protection=none -fshort-wchar -fno-jump-tables -maccumulate-outgoing-args \
	-DGNU_EFI_USE_MS_ABI -include include/hidden.h -ffile-prefix-map=$(CURDIR)=. -Iinclude -Ihost/loader -Imm \
	-isystem $(BOOT_EFI_INCLUDE) -isystem $(BOOT_EFI_INCLUDE)/x86_64

$(BUILD)/loader/%.c.o: host/loader/%.c host/loader/loader.mk
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(LOADER_CFLAGS) -MMD -MP -c -o $@ $<

# The monitor's SHA-384.
$(BUILD)/loader/mm/%.c.o: mm/%.c host/loader/loader.mk
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(LOADER_CFLAGS) -MMD -MP -c -o $@ $<

.PRECIOUS: $(BUILD)/host/loader/asm_offsets.inc
$(BUILD)/loader/%.asm.o: host/loader/%.asm $(BUILD)/host/loader/asm_offsets.inc
	@mkdir -p $(@D)
	$(call quiet,AS)$(NASM) -f elf64 -w+all -Werror -I$(BUILD)/host/loader/ -o $@ $<

$(BUILD)/loader/image.elf: host/loader/loader.ld $(LOADER_OBJECTS)
	$(call quiet,LD)$(LD) -nostdlib -static -z noexecstack -z max-page-size=4096 --no-warn-rwx-segments --fatal-warnings -T $< $(LOADER_OBJECTS) -o $@

$(BUILD)/loader/image.bin: $(BUILD)/loader/image.elf
	$(call quiet,OBJCOPY)objcopy -O binary --gap-fill 0 --set-section-flags .memory=alloc,load,contents $< $@

$(BUILD)/loader/embedded.o: host/loader/embedded.asm $(BUILD)/loader/image.bin
	$(call quiet,AS)$(NASM) -f elf64 -w+all -Werror -DIMAGE_BIN='"$(BUILD)/loader/image.bin"' -o $@ $<

-include $(wildcard $(BUILD)/loader/*.d $(BUILD)/loader/mm/*.d)

# SPDX-License-Identifier: MIT
# The monitor: its layers linked into one flat image, build/monitor.bin.
# From the ground up: each uses only those before it (test/layers.py).
LAYERS := mm base vmx service guest nested host_cpu startup
MONITOR_C := $(filter-out startup/asm_offsets.c,$(wildcard $(LAYERS:%=%/*.c)))
MONITOR_ASM := $(wildcard $(LAYERS:%=%/*.asm))
MONITOR_HEADERS := $(wildcard include/*.h include/hyperps/*.h $(LAYERS:%=%/*.h))
MONITOR_OBJECTS := $(MONITOR_C:%.c=$(BUILD)/monitor/%.o) $(MONITOR_ASM:%.asm=$(BUILD)/monitor/%.asm.o)
MONITOR_INCLUDES := -Iinclude $(LAYERS:%=-I%)
# Either compiler will do: MONITOR_CC=clang, after make clean. Each has its own name for indirect calls that are not speculated.
MONITOR_CC ?= $(CC)
NO_SPECULATION := $(if $(findstring clang,$(MONITOR_CC)),-mretpoline,-mindirect-branch=thunk-inline -mindirect-branch-register)
# No red zone: exceptions use the interrupted stack. No vector registers: they hold the host's values.
MONITOR_CFLAGS := -std=gnu11 -ffreestanding -O2 -g $(WARNINGS) -Wframe-larger-than=2048 -mgeneral-regs-only \
	-mno-red-zone -fPIE -fvisibility=hidden -fno-stack-protector -fno-asynchronous-unwind-tables \
	-fno-strict-aliasing -fcf-protection=none -fno-jump-tables $(NO_SPECULATION) $(MONITOR_INCLUDES) -DVERSION='"$(VERSION)"'

$(BUILD)/monitor/%.o: %.c | $(BUILD)/monitor/asm_offsets.inc
	@mkdir -p $(@D)
	$(call quiet,CC)$(MONITOR_CC) $(MONITOR_CFLAGS) -include include/hidden.h -MMD -MP -c $< -o $@

# The font of the screen: a byte for each row of 8 pixels.
$(BUILD)/monitor/font.bin: base/font.txt
	@mkdir -p $(@D)
	$(call quiet,GEN)perl -ane 'next unless /^[.#]{8}( [.#]{8})*$$/; $$glyph[$$_] .= pack "B8", $$F[$$_] =~ tr/.#/01/r for 0..$$#F; \
		print splice @glyph unless ++$$rows % 16' $< >$@
	@[ $$(stat -c %s $@) = $$((95 * 16)) ] || { echo "$<: it takes 95 glyphs of 16 rows" >&2; false; }

$(BUILD)/monitor/base/font.asm.o: $(BUILD)/monitor/font.bin

$(BUILD)/monitor/%.asm.o: %.asm $(BUILD)/monitor/asm_offsets.inc include/registers.inc
	@mkdir -p $(@D)
	$(call quiet,AS)$(NASM) -f elf64 -g -F dwarf -Werror -I$(BUILD)/monitor/ -Iinclude/ $< -o $@

# The compiler evaluates the offsets: lines that begin with #define in its output become NASM's %define.
$(BUILD)/monitor/asm_offsets.inc: startup/asm_offsets.c $(MONITOR_HEADERS)
	@mkdir -p $(@D)
	$(call quiet,GEN)$(MONITOR_CC) $(MONITOR_CFLAGS) -S $< -o - | sed -n 's/^[[:space:]]*#define \([A-Z0-9_]*\) \$$*\(-\{0,1\}[0-9]*\)$$/%define \1 \2/p' > $@

$(BUILD)/monitor.elf: linker.ld $(MONITOR_OBJECTS)
	$(call quiet,LD)$(LD) -nostdlib -static -z noexecstack --no-warn-rwx-segments --fatal-warnings -T $< \
		$(MONITOR_OBJECTS) -o $@

$(BUILD)/monitor.bin: $(BUILD)/monitor.elf
	$(call quiet,OBJCOPY)objcopy -O binary -R .bss $< $@

-include $(MONITOR_OBJECTS:.o=.d)

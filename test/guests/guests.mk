# SPDX-License-Identifier: MIT
# The guests that run in VMs, $(BUILD)/guests/NAME: ELF64 ones on lib/, a multiboot ELF32 one, and a flat real-mode image.
GUESTS_64 := hello vault burner smp registers misbehave
GUESTS := $(GUESTS_64) protected real
GUEST_BINARIES := $(GUESTS:%=$(BUILD)/guests/%)
GUEST_CFLAGS := -std=gnu11 -ffreestanding -O2 -g $(WARNINGS) -mgeneral-regs-only -fno-stack-protector \
	-fno-asynchronous-unwind-tables -fno-strict-aliasing -fcf-protection=none -include include/hidden.h \
	-Iinclude -Imm -Itest/guests -Itest/guests/lib
# Relative addresses, since ring 3 has the code at another address; linked where it runs all the same.
GUEST_CFLAGS_64 := $(GUEST_CFLAGS) -fpie -mno-red-zone
GUEST_LINK := $(LD) -nostdlib -static -z noexecstack -z max-page-size=4096 --no-warn-rwx-segments --fatal-warnings

# What each is made of besides its own .c and lib/.
GUEST_EXTRA_vault := mm/sha256.o test/guests/hmac.o
GUEST_EXTRA_registers := test/guests/registers_trip.asm.o
GUEST_EXTRA_misbehave := test/guests/misbehave_cpu.o test/guests/misbehave_io.o
GUEST_LIB := test/guests/lib/start.asm.o test/guests/lib/lib.o

$(BUILD)/guests/%.asm.o: %.asm
	@mkdir -p $(@D)
	$(call quiet,AS)$(NASM) -f elf64 -w+all -Werror $< -o $@

$(BUILD)/guests/%.o: %.c test/guests/guests.mk
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(GUEST_CFLAGS_64) -MMD -MP -c $< -o $@

define GUEST_RULE
$(BUILD)/guests/$(1): test/guests/lib/guest.ld $(patsubst %,$(BUILD)/guests/%,test/guests/$(1).o $(GUEST_EXTRA_$(1)) $(GUEST_LIB))
	$$(call quiet,LD)$$(GUEST_LINK) -T $$< $$(filter %.o,$$^) -o $$@
endef
$(foreach g,$(GUESTS_64),$(eval $(call GUEST_RULE,$(g))))

$(BUILD)/guests/protected: test/guests/protected.ld test/guests/protected.c test/guests/protected_start.asm include/hyperps/guest.h
	@mkdir -p $(@D)
	$(call quiet,LD)$(NASM) -f elf32 -w+all -Werror test/guests/protected_start.asm -o $@_start.o && \
		$(CC) -m32 $(GUEST_CFLAGS) -fno-pie -c test/guests/protected.c -o $@.o && \
		$(GUEST_LINK) -m elf_i386 -T $< $@_start.o $@.o -o $@

$(BUILD)/guests/real: test/guests/real.asm
	@mkdir -p $(@D)
	$(call quiet,AS)$(NASM) -f bin -w+all -Werror $< -o $@

guests: $(GUEST_BINARIES)
.PHONY: guests

-include $(shell find $(BUILD)/guests -name '*.d' 2>/dev/null)

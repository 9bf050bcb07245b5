# SPDX-License-Identifier: MIT
# Guests that run in VMs, $(BUILD)/guests/NAME: ELF64 ones on lib/. Those here are the product's: to try by hand, or for demo and
# attack. test/guests/ adds its own, by the same rules.
HOST_GUESTS := hello vault registers
GUEST_CFLAGS := -std=gnu11 -ffreestanding -O2 -g $(WARNINGS) -mgeneral-regs-only -fno-stack-protector \
	-fno-asynchronous-unwind-tables -fno-strict-aliasing -fcf-protection=none -include include/hidden.h \
	-Iinclude -Imm -Ihost/guests -Ihost/guests/lib
# Relative addresses, since ring 3 has the code at another address; linked where it runs all the same.
GUEST_CFLAGS_64 := $(GUEST_CFLAGS) -fpie -mno-red-zone
GUEST_LINK := $(LD) -nostdlib -static -z noexecstack -z max-page-size=4096 --no-warn-rwx-segments --fatal-warnings

# What each is made of besides its own .c and lib/.
GUEST_EXTRA_vault := mm/sha256.o host/guests/hmac.o
GUEST_EXTRA_registers := host/guests/registers_trip.asm.o
GUEST_LIB := host/guests/lib/start.asm.o host/guests/lib/lib.o

$(BUILD)/guests/%.asm.o: %.asm
	@mkdir -p $(@D)
	$(call quiet,AS)$(NASM) -f elf64 -w+all -Werror $< -o $@

$(BUILD)/guests/%.o: %.c host/guests/guests.mk
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(GUEST_CFLAGS_64) -MMD -MP -c $< -o $@

# $(1) is the folder, $(2) the guest.
define GUEST_RULE
$(BUILD)/guests/$(2): host/guests/lib/guest.ld $(patsubst %,$(BUILD)/guests/%,$(1)/$(2).o $(GUEST_EXTRA_$(2)) $(GUEST_LIB))
	$$(call quiet,LD)$$(GUEST_LINK) -T $$< $$(filter %.o,$$^) -o $$@
endef
$(foreach g,$(HOST_GUESTS),$(eval $(call GUEST_RULE,host/guests,$(g))))

-include $(shell find $(BUILD)/guests -name '*.d' 2>/dev/null)

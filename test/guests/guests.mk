# SPDX-License-Identifier: MIT
# The guests that only tests need: ELF64 ones by the rules of host/guests/guests.mk, a multiboot ELF32 one, and a flat real-mode image.
TEST_GUESTS_64 := burner smp misbehave
GUESTS := $(HOST_GUESTS) $(TEST_GUESTS_64) protected real
GUEST_BINARIES := $(GUESTS:%=$(BUILD)/guests/%)
GUEST_EXTRA_misbehave := test/guests/misbehave_cpu.o test/guests/misbehave_io.o
$(foreach g,$(TEST_GUESTS_64),$(eval $(call GUEST_RULE,test/guests,$(g))))

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

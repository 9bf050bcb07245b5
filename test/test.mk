# SPDX-License-Identifier: MIT
# Tests. `make test` runs all; `make test-unit`, and `make test-live` are its parts.
UNIT_CFLAGS := -std=gnu11 -g -O1 $(WARNINGS) -Wno-missing-prototypes -fsanitize=address,undefined \
	-fno-sanitize-recover=all -fno-omit-frame-pointer --coverage -Iinclude -Imm -Ivmx -Iboot -Ihost -Icore

# Each unit test and the sources that it tests.
UNIT_TESTS := capabilities:vmx/capabilities.c manager_property:mm/manager.c+mm/dispatch.c+mm/ept.c+mm/page_pool.c+mm/page_mark.c+mm/memory_type.c \
	ept:mm/ept.c+mm/page_pool.c+mm/page_mark.c page_mark:mm/page_mark.c memory_type:mm/memory_type.c msr_policy:vmx/msr_policy.c conf:boot/conf.c \
	gate_page:vmx/gate_page.c pagetable:boot/pagetable.c hpsctl_format:host/hpsctl_format.c
UNIT_NAMES := $(foreach t,$(UNIT_TESTS),$(firstword $(subst :, ,$(t))))
UNIT_PROGRAMS := $(UNIT_NAMES:%=$(BUILD)/test/unit/%)

define UNIT_RULE
$(BUILD)/test/unit/$(1): test/unit/$(1)_test.c $(2) $(wildcard include/*.h include/hyperps/*.h mm/*.h vmx/*.h boot/*.h host/*.h)
	@mkdir -p $$(@D)
	$(CC) $(UNIT_CFLAGS) -o $$@ test/unit/$(1)_test.c $(2) -lcmocka
endef
$(foreach t,$(UNIT_TESTS),$(eval $(call UNIT_RULE,$(firstword $(subst :, ,$(t))),$(subst +, ,$(lastword $(subst :, ,$(t)))))))

LIVE_PARTS := $(IMAGE) $(BUILD)/firmware.efi $(FLAVOURS:%=$(BUILD)/initrd-test-%.img)

# Longest first, so that two at a time end together. TEST_JOBS=1 for one at a time.
LIVE_TESTS := test/live/unfit.py 'test/live/host.py generic 2 vmx_absent,monitor_memory,vm_device,nmi,ipi_storm,cpus,kernel_log' \
	'test/live/host.py cloud 2 vmx_absent,monitor_memory,vm_memory,gate,cpus,kernel_log,kexec_same' 'test/live/host.py cloud 4 gate,cpus,nmi,ipi_storm,vm_memory,kernel_log' \
	test/live/restart.py test/live/chainload.py \
	'test/live/host.py cloud 1 vmx_absent,monitor_memory,vm_memory,vm_device,gate,efi,perf_msr,nmi,kernel_log'
TEST_JOBS ?= 2

TRUSTED_SOURCES := $(MONITOR_C) $(MONITOR_ASM) $(wildcard core/*.h mm/*.h vmx/*.h guest/*.h include/*.h include/hyperps/abi.h)
test: setup
	+@$(MAKE) --no-print-directory $(UNIT_PROGRAMS) $(LIVE_PARTS)
	@$(MAKE) --no-print-directory tcb-lines
	test/run.pl --jobs $(TEST_JOBS) $(UNIT_PROGRAMS) test/check.sh test/gate_bytes.py $(LIVE_TESTS)

test-unit: $(UNIT_PROGRAMS)
	test/run.pl $^

test-live: $(LIVE_PARTS)
	test/run.pl --jobs $(TEST_JOBS) $(LIVE_TESTS)

# Lines of C and assembly that a reader must trust after boot: root and monitor view.
tcb-lines:
	@echo "trusted lines (core/, mm/, vmx/, guest/ and the headers): $$(cat $(TRUSTED_SOURCES) | wc -l) in all," \
		"$$(cat $(TRUSTED_SOURCES) | sed 's://.*::; s:^;.*::' | grep -vcE '^\s*(/?\*.*)?$$') of code"

.PHONY: test test-unit test-live tcb-lines

bench: setup
	+@$(MAKE) --no-print-directory $(LIVE_PARTS)
	test/bench.py

.PHONY: bench

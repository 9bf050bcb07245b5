# SPDX-License-Identifier: MIT
# Tests. `make test` runs all; its parts are `make test-unit`, `coverage`, `mutation`, `fuzz` and `test-live`.
UNIT_CFLAGS := -std=gnu11 -g -O1 $(WARNINGS) -Wno-missing-prototypes -fsanitize=address,undefined \
	-fno-sanitize-recover=all -fno-omit-frame-pointer -Iinclude -Imm -Ivmx -Iboot -Ihost/hpsctl -Ihost/module -Icore -Iguest -Itest/guests -idirafter /usr/include/efi -idirafter /usr/include/efi/x86_64

# Each unit test and the sources that it tests.
MM_SOURCES := mm/manager.c+mm/dispatch.c+mm/ept.c+mm/page_pool.c+mm/page_mark.c+boot/host_view.c+boot/memory_type.c
UNIT_TESTS := capabilities: manager_property:$(MM_SOURCES) manager:$(MM_SOURCES) \
	ept:mm/ept.c+mm/page_pool.c+mm/page_mark.c+boot/pagetable.c+boot/host_view.c+boot/memory_type.c page_mark:mm/page_mark.c+boot/host_view.c+boot/memory_type.c+mm/ept.c+mm/page_pool.c memory_type:boot/memory_type.c msr_policy:vmx/msr_policy.c conf:boot/conf.c \
	gate_page:vmx/gate_page.c port: gate_exit:vmx/gate_page.c gate_tlb:vmx/gate_page.c pagetable:boot/pagetable.c check:host/hpsctl/check.c+host/hpsctl/hpsctl_format.c+host/hpsctl/json.c+boot/choose_capabilities.c+vmx/capabilities.c+boot/pagetable.c \
	hpsctl_format:host/hpsctl/hpsctl_format.c+host/hpsctl/json.c \
	image:host/hpsctl/image.c+host/hpsctl/measure.c+guest/sha256.c uart:host/hpsctl/uart.c sha256:guest/sha256.c decode:guest/decode.c policy:guest/policy.c+vmx/msr_policy.c paging:guest/paging.c \
	hmac:test/guests/hmac.c+guest/sha256.c vcpu_vmcs:guest/decode.c+guest/policy.c+vmx/msr_policy.c acpi:
UNIT_NAMES := $(foreach t,$(UNIT_TESTS),$(firstword $(subst :, ,$(t))))
UNIT_PROGRAMS := $(UNIT_NAMES:%=$(BUILD)/test/unit/%)

define UNIT_RULE
$(BUILD)/test/unit/$(1): test/unit/$(1)_test.c $(2) $(wildcard include/*.h include/hyperps/*.h mm/*.h vmx/*.h boot/*.h host/*/*.h guest/*.h test/guests/*.h)
	@mkdir -p $$(@D)
	$(CC) $$(UNIT_CFLAGS) -o $$@ test/unit/$(1)_test.c $(2) -lcmocka
endef
# Its x86.h comes before the monitor's.
$(BUILD)/test/unit/check: UNIT_CFLAGS := -Ihost/hpsctl/check $(UNIT_CFLAGS)
$(foreach t,$(UNIT_TESTS),$(eval $(call UNIT_RULE,$(firstword $(subst :, ,$(t))),$(subst +, ,$(word 2,$(subst :, ,$(t)))))))

# They include these, with a VMCS of its own.
$(BUILD)/test/unit/gate_exit: core/cpu.c core/exit.c core/flush.c vmx/event.c vmx/gate.c vmx/instruction.c $(wildcard core/*.h)
$(BUILD)/test/unit/vcpu_vmcs: guest/run.c guest/vcpu.c vmx/vmcs.c $(wildcard core/*.h)
$(BUILD)/test/unit/acpi: boot/acpi.c
$(BUILD)/test/unit/port: vmx/port.c $(wildcard core/*.h)
$(BUILD)/test/unit/capabilities: vmx/capabilities.c boot/choose_capabilities.c

# The unit tests of mm/ once more, to measure what they cover. What none calls counts, too: those of the manager link all of mm/.
COVERAGE_NAMES := $(foreach t,$(UNIT_TESTS),$(if $(findstring mm/,$(t)),$(firstword $(subst :, ,$(t)))))
COVERAGE_PROGRAMS := $(COVERAGE_NAMES:%=$(BUILD)/test/coverage/%)
COVERAGE_CFLAGS := -std=gnu11 -g $(WARNINGS) -Wno-missing-prototypes -Iinclude -Imm -Iboot -Ivmx

$(BUILD)/test/coverage/%.o: mm/%.c $(wildcard include/*.h include/hyperps/*.h mm/*.h)
	@mkdir -p $(@D)
	$(CC) $(COVERAGE_CFLAGS) -O0 --coverage -c -o $@ $<

$(BUILD)/test/coverage/mm.a: $(patsubst mm/%.c,$(BUILD)/test/coverage/%.o,$(wildcard mm/*.c))
	$(AR) rcs $@ $^

$(COVERAGE_PROGRAMS): $(BUILD)/test/coverage/%: test/unit/%_test.c boot/pagetable.c boot/host_view.c boot/memory_type.c $(BUILD)/test/coverage/mm.a
	$(CC) $(COVERAGE_CFLAGS) -O1 -o $@ $^ --coverage -fno-profile-arcs -fno-test-coverage -lcmocka

coverage-programs: $(COVERAGE_PROGRAMS)
coverage: $(COVERAGE_PROGRAMS)
	test/run.pl test/coverage.py

mutation:
	test/run.pl test/mutation.py

# The fuzzer: only mm/ counts for its coverage, and is built with all checks. Its loops over page tables would spend most of
# the time in the tracing of comparisons.
FUZZ_CFLAGS := -std=gnu11 -g -O2 $(WARNINGS) -Wno-missing-prototypes -fno-omit-frame-pointer -Iinclude -Imm -Iboot -Ivmx
FUZZ_CHECKS := -fsanitize=address,undefined -fno-sanitize-recover=all
FUZZ_PROGRAM := $(BUILD)/test/fuzz/dispatch
FUZZ_SECONDS ?= 600

$(BUILD)/test/fuzz/%.o: mm/%.c $(wildcard include/*.h include/hyperps/*.h mm/*.h)
	@mkdir -p $(@D)
	clang $(FUZZ_CFLAGS) $(FUZZ_CHECKS) -fsanitize=fuzzer-no-link -fno-sanitize-coverage=trace-cmp -c -o $@ $<

$(FUZZ_PROGRAM): test/fuzz/dispatch_fuzz.c boot/host_view.c boot/memory_type.c $(patsubst mm/%.c,$(BUILD)/test/fuzz/%.o,$(wildcard mm/*.c))
	clang $(FUZZ_CFLAGS) -fsanitize=address -c -o $@_fuzz.o $<
	clang $(FUZZ_CHECKS) $(FUZZ_CFLAGS) -fsanitize=fuzzer -o $@ $@_fuzz.o $(filter-out $<,$^)

LIVE_PARTS := $(IMAGE) $(BUILD)/firmware.efi $(FLAVOURS:%=$(BUILD)/initrd-test-%.img) $(FLAVOURS:%=$(BUILD)/initrd-%.img)

# Longest first, so that two at a time end together. TEST_JOBS=1 for one at a time.
LIVE_TESTS := test/live/unfit.py 'test/live/host.py cloud 2 vmx_absent,guests,vault_client,vcpu_load,vcpu_cycles,kernel_log' 'test/live/views.py cloud 2 60' \
	'test/live/host.py cloud 1 vmx_absent,vm_run,guests,vault_client,vcpu_load,vcpu_cycles,kernel_log' \
	'test/live/attacks.py cloud 4 vmfunc' 'test/live/attacks.py cloud 4 vmcall' \
	'test/live/host.py generic 2 vmx_absent,attacks/01-monitor-memory,power,vm_device,vcpu_device,vm_run,demo,nmi,cpus,kernel_log,drivers,private_page' \
	'test/live/attacks.py cloud 2 vmfunc' 'test/live/attacks.py cloud 2 vmcall' \
	'test/live/host.py cloud 4 vm_donate,gate,cpus,nmi,vcpu_device,kernel_log,kexec_crash' test/live/restart.py test/live/chainload.py test/live/screen.py test/live/check.py \
	'test/live/attacks.py cloud 1 vmfunc' 'test/live/attacks.py cloud 1 vmcall' \
	'test/live/host.py cloud 2 vmx_absent,gate_sweep,cpus,kernel_log,drivers,kexec_same' 'test/live/views.py cloud 1 15' \
	'test/live/host.py cloud 1 vmx_absent,vm_device,vcpu_device,demo,efi,perf_msr,nmi,check,exits,kernel_log'
TEST_JOBS ?= 2

TRUSTED_SOURCES := $(MONITOR_C) $(MONITOR_ASM) include/registers.inc $(wildcard core/*.h mm/*.h vmx/*.h guest/*.h include/*.h include/hyperps/abi.h)
# What is said about HyperPS and its tool, against the sources and the tool itself.
DOCUMENT_TESTS := test/messages.py 'test/manuals.py $(MANUALS)' 'test/command_line.py $(BUILD)/hpsctl'

test: setup
	+@$(MAKE) --no-print-directory $(UNIT_PROGRAMS) $(COVERAGE_PROGRAMS) $(FUZZ_PROGRAM) $(LIVE_PARTS) $(MANUALS)
	@$(MAKE) --no-print-directory tcb-lines
	@rm -rf $(BUILD)/attacks $(BUILD)/attacks.json
	test/run.pl --jobs $(TEST_JOBS) $(UNIT_PROGRAMS) test/check.sh $(DOCUMENT_TESTS) test/gate_bytes.py test/decode_bytes.py test/fuzz/run.py test/mutation.py test/coverage.py $(LIVE_TESTS)

test-unit: $(UNIT_PROGRAMS) $(BUILD)/hpsctl $(MANUALS)
	test/run.pl $(UNIT_PROGRAMS) $(DOCUMENT_TESTS)

fuzz: $(FUZZ_PROGRAM)
	test/run.pl 'test/fuzz/run.py $(FUZZ_SECONDS)'

test-live: $(LIVE_PARTS)
	test/run.pl --jobs $(TEST_JOBS) $(LIVE_TESTS)

# kvm-unit-tests is no Debian package: whoever runs this has its source, built, in DIR.
kvm-unit-tests: kvm-unit-tests-dir $(LIVE_PARTS)
	test/run.pl 'test/live/kvm_unit_tests.py $(DIR)'

kvm-unit-tests-dir:
	@[ -f "$(DIR)/x86/hypercall.flat" ] || { echo "DIR='$(DIR)' has no x86/hypercall.flat: give the folder of" \
		"kvm-unit-tests' source, built by ./configure --arch=x86_64 && make in it" >&2; false; }

# Takes MINUTES of the emulator's time, and a round more.
MINUTES ?= 60
soak: setup
	+@$(MAKE) --no-print-directory $(LIVE_PARTS)
	test/run.pl 'test/live/soak.py $(MINUTES)'
.PHONY: soak

# Lines of C and assembly that a reader must trust after boot: root and monitor view.
tcb-lines:
	@echo "trusted lines (core/, mm/, vmx/, guest/ and the headers): $$(cat $(TRUSTED_SOURCES) | wc -l) in all," \
		"$$(cat $(TRUSTED_SOURCES) | sed 's://.*::; s:^;.*::' | grep -vcE '^\s*(/?\*.*)?$$') of code"

.PHONY: test test-unit test-live kvm-unit-tests kvm-unit-tests-dir fuzz tcb-lines

bench: setup
	+@$(MAKE) --no-print-directory $(LIVE_PARTS)
	test/bench.py

.PHONY: bench

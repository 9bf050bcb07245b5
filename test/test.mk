# SPDX-License-Identifier: MIT
# Tests. `make test` runs all; its parts are `make test-unit`, `coverage`, `mutation`, `fuzz` and `test-live`.
include test/modules/modules.mk test/guests/guests.mk test/guestfs/guestfs.mk

UNIT_CC ?= gcc
UNIT_CFLAGS := -std=gnu11 -g -O1 $(WARNINGS) -Wno-missing-prototypes -fsanitize=address,undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer -Itest/unit/fake -Iinclude $(LAYERS:%=-I%) -Iboot -Ihost/hpsctl -Ihost/module -Ihost/guests -Ihost/loader \
	-idirafter /usr/include/efi -idirafter /usr/include/efi/x86_64

# Each unit test and the sources that it tests.
MM_SOURCES := mm/manager.c mm/shadow.c mm/dispatch.c mm/ept.c mm/page_pool.c mm/page_mark.c mm/sha256.c mm/sha384.c boot/host_view.c boot/memory_type.c
UNIT_SOURCES_manager_property := $(MM_SOURCES)
UNIT_SOURCES_manager := $(MM_SOURCES)
UNIT_SOURCES_ept := mm/ept.c mm/page_pool.c mm/page_mark.c boot/pagetable.c boot/host_view.c boot/memory_type.c
UNIT_SOURCES_page_mark := mm/page_mark.c mm/ept.c mm/page_pool.c boot/host_view.c boot/memory_type.c
UNIT_SOURCES_memory_type := boot/memory_type.c
UNIT_SOURCES_msr_policy := vmx/msr_policy.c
UNIT_SOURCES_conf := boot/conf.c
UNIT_SOURCES_dmar := boot/dmar.c
UNIT_SOURCES_gate_page := service/gate_page.c
UNIT_SOURCES_gate_tlb := service/gate_page.c
UNIT_SOURCES_gate_exit := base/cpu.c host_cpu/event.c host_cpu/exit.c host_cpu/gate.c host_cpu/instruction.c vmx/emulate.c vmx/event.c
UNIT_SOURCES_filter_cpuid := host_cpu/instruction.c vmx/emulate.c vmx/event.c
UNIT_SOURCES_ept_violation := host_cpu/ept_violation.c vmx/event.c
UNIT_SOURCES_event := vmx/event.c
UNIT_SOURCES_clear := base/clear.c mm/page_mark.c
UNIT_SOURCES_nested_start := nested/start.c mm/page_pool.c mm/page_mark.c
UNIT_SOURCES_host_msr := host_cpu/msr.c vmx/emulate.c vmx/event.c vmx/msr_policy.c
UNIT_SOURCES_port := host_cpu/port.c
UNIT_SOURCES_capabilities := vmx/capabilities.c
UNIT_SOURCES_pagetable := boot/pagetable.c
UNIT_SOURCES_hpsctl_format := host/hpsctl/hpsctl_format.c host/hpsctl/json.c
UNIT_SOURCES_check := host/hpsctl/check.c host/hpsctl/hpsctl_format.c host/hpsctl/json.c boot/choose_capabilities.c vmx/capabilities.c boot/pagetable.c
UNIT_SOURCES_bench_figures := host/hpsctl/bench_figures.c host/hpsctl/json.c
UNIT_SOURCES_image := host/hpsctl/image.c host/hpsctl/measure.c mm/sha256.c
UNIT_SOURCES_vm_image := host/hpsctl/vm_image.c $(addprefix host/loader/,layout.c ranges.c protect.c) mm/sha384.c
UNIT_SOURCES_loader_devices := host/loader/qemu.c host/loader/pci.c
UNIT_SOURCES_install := host/hpsctl/install.c host/hpsctl/boot_entry.c
UNIT_SOURCES_iommu := $(MM_SOURCES)
UNIT_SOURCES_uart := host/hpsctl/uart.c
UNIT_SOURCES_sha256 := mm/sha256.c
UNIT_SOURCES_sha384 := mm/sha384.c
UNIT_SOURCES_decode := guest/decode.c
UNIT_SOURCES_policy := guest/policy.c vmx/msr_policy.c
UNIT_SOURCES_paging := service/paging.c
UNIT_SOURCES_nested_check := nested/check.c nested/fields.c
UNIT_SOURCES_nested_msr := nested/msr.c vmx/msr_policy.c
UNIT_SOURCES_ept12 := nested/ept12.c
UNIT_SOURCES_machine_check := base/cpu.c
UNIT_SOURCES_nested_operand := nested/operand.c vmx/event.c
UNIT_SOURCES_hmac := host/guests/hmac.c mm/sha256.c
NESTED_MACHINE := nested/enter.c nested/exit.c nested/shadow_vmcs.c nested/fields.c nested/capability.c nested/check.c vmx/vmcs.c vmx/event.c vmx/emulate.c \
	host_cpu/vmcs.c test/unit/fake/vmcs_model.c
UNIT_SOURCES_nested_enter := $(NESTED_MACHINE)
UNIT_SOURCES_nested_event := $(NESTED_MACHINE) base/cpu.c host_cpu/event.c host_cpu/exit.c host_cpu/gate.c host_cpu/instruction.c
UNIT_SOURCES_vcpu_vmcs := guest/decode.c guest/policy.c guest/run.c guest/vcpu.c vmx/msr_policy.c vmx/vmcs.c
UNIT_SOURCES_control_register := host_cpu/gate.c host_cpu/instruction.c host_cpu/vmcs.c vmx/emulate.c vmx/event.c vmx/vmcs.c
UNIT_SOURCES_nested_fields := nested/fields.c
UNIT_SOURCES_nested_capability := nested/capability.c nested/fields.c vmx/capabilities.c
UNIT_SOURCES_nested_instruction := nested/fields.c nested/instruction.c vmx/emulate.c vmx/event.c
UNIT_NAMES := $(patsubst test/unit/%_test.c,%,$(wildcard test/unit/*_test.c))
UNIT_PROGRAMS := $(UNIT_NAMES:%=$(BUILD)/test/unit/%)
UNIT_HEADERS := $(MONITOR_HEADERS) $(wildcard boot/*.h host/*/*.h test/unit/fake/*.h)

# What the tested sources name, and no path in the test calls.
UNIT_NEVER_gate_exit := apic_send_to_others delay_us exit_ept_violation exit_io exit_rdmsr exit_wrmsr gate_views_are_safe \
	gate_views_build gate_views_fit hpa_of load_descriptor_tables nested_entry_failed nested_exit nested_instruction nested_reset \
	serve_call
UNIT_NEVER_filter_cpuid := flush_take_kick gate_needs gate_off log_line log_refusal stop_other_cpus
UNIT_NEVER_control_register := flush_take_kick gate_reset_list log_line nested_exit_entry stop_other_cpus vmx_exit
UNIT_NEVER_ept_violation := flush_take_kick
UNIT_NEVER_event := flush_take_kick
UNIT_NEVER_host_msr := flush_take_kick gate_off monitor_time
UNIT_NEVER_nested_instruction := flush_take_kick
UNIT_NEVER_iommu := inject_exception is_64bit privilege_level skip_instruction
UNIT_NEVER_host_memory := ept_entry ept_run ept_set_entry flush_all_cpus gate_add_memory gate_uses iommu_add iommu_flush log_refusal \
	mm_dispatch mm_guest_frame mm_measure own_page_entry page_pool_available page_pool_refresh
UNIT_NEVER_nested_operand := flush_take_kick
UNIT_NEVER_nested_enter := stop_other_cpus
UNIT_NEVER_nested_event := apic_send_to_others delay_us exit_ept_violation exit_io exit_rdmsr exit_wrmsr gate_reset_list \
	gate_views_are_safe gate_views_build gate_views_fit load_descriptor_tables serve_call shadow_assign stop_other_cpus
UNIT_NEVER_vcpu_vmcs := mm_describe log_line stop_other_cpus guest_exit

define UNIT_RULE
$(BUILD)/test/unit/$(1): test/unit/$(1)_test.c test/unit/fake/instructions.c $$(UNIT_SOURCES_$(1)) $(UNIT_HEADERS)
	@mkdir -p $$(@D)
	$$(call quiet,CC)$(UNIT_CC) $$(UNIT_CFLAGS) -o $$@ test/unit/$(1)_test.c test/unit/fake/instructions.c $$(UNIT_SOURCES_$(1)) -lcmocka $$(UNIT_NEVER_$(1):%=-Wl,--defsym=%=never_called)
endef
$(foreach t,$(UNIT_NAMES),$(eval $(call UNIT_RULE,$(t))))

# The monitor's own assembly, with absolute addresses.
$(BUILD)/test/unit/machine_check: $(BUILD)/monitor/base/exception.asm.o
$(BUILD)/test/unit/machine_check: UNIT_CFLAGS += -no-pie -Wl,-z,noexecstack $(BUILD)/monitor/base/exception.asm.o

# EFI's characters.
$(BUILD)/test/unit/acpi $(BUILD)/test/unit/dma: UNIT_CFLAGS += -fshort-wchar

# The image's beginning, as hpsctl has it.
$(BUILD)/test/unit/vm_image: $(BUILD)/loader/embedded.o
$(BUILD)/test/unit/vm_image: UNIT_CFLAGS += $(BUILD)/loader/embedded.o

# They include these, to have their static functions and tables.
$(BUILD)/test/unit/acpi: boot/acpi.c
$(BUILD)/test/unit/dma: boot/dma.c
$(BUILD)/test/unit/acpi_copy: host/loader/acpi_copy.c
$(BUILD)/test/unit/processors: boot/processors.c
$(BUILD)/test/unit/gate_exit $(BUILD)/test/unit/nested_event: base/flush.c
# mm/ept.c, too, has the fake CLFLUSH, although cache.h lies beside the true one.
$(BUILD)/test/unit/iommu: UNIT_CFLAGS += -include test/unit/fake/instructions.h
$(BUILD)/test/unit/host_memory: service/memory_service.c
$(BUILD)/test/unit/iommu: base/iommu.c service/memory_service.c guest/hypercall.c
$(BUILD)/test/unit/capabilities $(BUILD)/test/unit/nested_capability: boot/choose_capabilities.c

# The unit tests of mm/ once more, to measure what they cover. What none calls counts, too: those of the manager link all of mm/.
COVERAGE_NAMES := manager_property manager ept page_mark sha256 sha384
COVERAGE_PROGRAMS := $(COVERAGE_NAMES:%=$(BUILD)/test/coverage/%)
COVERAGE_CFLAGS := -std=gnu11 -g $(WARNINGS) -Wno-missing-prototypes -Itest/unit/fake -Iinclude -Imm -Iboot

$(BUILD)/test/coverage/%.o: mm/%.c $(wildcard include/*.h include/hyperps/*.h mm/*.h)
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(COVERAGE_CFLAGS) -O0 --coverage -c -o $@ $<

$(BUILD)/test/coverage/mm.a: $(patsubst mm/%.c,$(BUILD)/test/coverage/%.o,$(wildcard mm/*.c))
	$(call quiet,AR)$(AR) rcs $@ $^

$(COVERAGE_PROGRAMS): $(BUILD)/test/coverage/%: test/unit/%_test.c boot/pagetable.c boot/host_view.c boot/memory_type.c $(BUILD)/test/coverage/mm.a
	$(call quiet,CC)$(CC) $(COVERAGE_CFLAGS) -O1 -o $@ $^ --coverage -fno-profile-arcs -fno-test-coverage -lcmocka

coverage-programs: $(COVERAGE_PROGRAMS)
coverage: $(COVERAGE_PROGRAMS)
	test/run.pl test/coverage.py

mutation:
	test/run.pl test/mutation.py test/iommu_mutation.py

# The fuzzer: only mm/ counts for its coverage, and is built with all checks. Its loops over page tables would spend most of
# the time in the tracing of comparisons.
FUZZ_CFLAGS := -std=gnu11 -g -O2 $(WARNINGS) -Wno-missing-prototypes -fno-omit-frame-pointer -Itest/unit/fake -Iinclude -Imm -Iboot
FUZZ_CHECKS := -fsanitize=address,undefined -fno-sanitize-recover=all
FUZZ_PROGRAM := $(BUILD)/test/fuzz/dispatch
FUZZ_SECONDS ?= 600

$(BUILD)/test/fuzz/%.o: mm/%.c $(wildcard include/*.h include/hyperps/*.h mm/*.h)
	@mkdir -p $(@D)
	$(call quiet,CC)clang $(FUZZ_CFLAGS) $(FUZZ_CHECKS) -fsanitize=fuzzer-no-link -fno-sanitize-coverage=trace-cmp -c -o $@ $<

$(FUZZ_PROGRAM): test/fuzz/dispatch_fuzz.c boot/host_view.c boot/memory_type.c $(patsubst mm/%.c,$(BUILD)/test/fuzz/%.o,$(wildcard mm/*.c))
	$(call quiet,CC)clang $(FUZZ_CFLAGS) -fsanitize=address -c -o $@_fuzz.o $< && \
		clang $(FUZZ_CHECKS) $(FUZZ_CFLAGS) -fsanitize=fuzzer -o $@ $@_fuzz.o $(filter-out $<,$^)

# All of it is small, and its table copies find a byte too many.
FUZZ_DMAR := $(BUILD)/test/fuzz/dmar
$(FUZZ_DMAR): test/fuzz/dmar_fuzz.c boot/dmar.c $(wildcard boot/*.h include/*.h include/hyperps/*.h)
	@mkdir -p $(@D)
	$(call quiet,CC)clang $(FUZZ_CHECKS) $(FUZZ_CFLAGS) -fsanitize=fuzzer -o $@ $(filter %.c,$^)
FUZZ_PROGRAMS := $(FUZZ_PROGRAM) $(FUZZ_DMAR)

LIVE_PARTS := $(IMAGE) $(BUILD)/firmware.efi $(foreach f,$(FLAVOURS) $(NEWER_FLAVOURS),$(BUILD)/initrd-test-$(f).img $(BUILD)/initrd-$(f).img)

# The disk of package.py.
$(BUILD)/debian.img: test/live/mkdebian test/live/at_boot $(DEBS)
	@echo 'installing the packages in a Debian 12 (log: $(BUILD)/debian.log)'
	@$< $@ $(CACHE) debian test/live/at_boot $(DEBS) >$(BUILD)/debian.log 2>&1 || { tail -n 30 $(BUILD)/debian.log >&2; false; }

# That of kvm_libvirt.py, and the kernel and initrd on it, which the stick starts.
LIBVIRT_FILES := test/lib.sh=host/attacks/lib.sh test/guest.img=$(BUILD)/libvirt-guest.img
$(BUILD)/libvirt.img: test/live/mkdebian test/live/at_boot_libvirt $(DEBS) $(foreach f,$(LIBVIRT_FILES),$(lastword $(subst =, ,$(f)))) $(CACHE)/libvirt.tar
	@echo 'installing the packages in a Debian 12 with libvirt (log: $(BUILD)/libvirt.log)'
	@$< $@ $(CACHE) libvirt test/live/at_boot_libvirt $(DEBS) $(LIBVIRT_FILES) >$(BUILD)/libvirt.log 2>&1 || { tail -n 30 $(BUILD)/libvirt.log >&2; false; }
	@for name in vmlinuz initrd.img; do tar -xOf $(CACHE)/libvirt.tar --wildcards "./boot/$$name-*" >$(BUILD)/libvirt-$$name || exit; done

# Longest first, so that two at a time end together. TEST_JOBS=1 for one at a time.
LIVE_TESTS := test/live/unfit.py test/live/package.py 'test/live/host.py cloud 2 vmx_absent,guests,vault_client,vcpu_load,vcpu_cycles,kernel_log' 'test/live/views.py cloud 2 60' \
	'test/live/host.py cloud 1 vmx_absent,vm_run,guests,vault_client,vcpu_load,vcpu_cycles,kernel_log' \
	'test/live/attacks.py cloud 4 vmfunc' 'test/live/attacks.py cloud 4 vmcall' \
	'test/live/host.py generic 2 vmx_absent,attacks/01-monitor-memory,power,vm_device,vcpu_device,vm_run,demo,nmi,cpus,kernel_log,drivers,private_page' \
	'test/live/attacks.py cloud 2 vmfunc' 'test/live/attacks.py cloud 2 vmcall' \
	'test/live/host.py cloud 4 vm_donate,gate,cpus,nmi,vcpu_device,kernel_log' 'test/live/host.py cloud 2 kexec_crash' test/live/restart.py test/live/uncached.py test/live/chainload.py test/live/screen.py test/live/check.py test/live/launcher.py \
	'test/live/attacks.py cloud 1 vmfunc' 'test/live/attacks.py cloud 1 vmcall' \
	'test/live/attacks.py cloud-7 2 vmfunc' 'test/live/host.py cloud-7 2 vmx_absent,vm_run,vm_compute,vcpu_device,demo,kernel_log' \
	'test/live/attacks.py cloud-6.12 2 vmcall' 'test/live/host.py cloud-6.12 2 vmx_absent,vm_run,power,demo,kernel_log' \
	'test/live/host.py cloud 2 vmx_absent,gate_sweep,cpus,kernel_log,drivers,kexec_same' 'test/live/views.py cloud 1 15' \
	'test/live/host.py cloud 1 vmx_absent,vm_device,vcpu_device,demo,efi,perf_msr,nmi,check,exits,kernel_log' \
	'test/live/host.py cloud 1 gate kvm=on' 'test/live/host.py cloud 1 exits kvm=on kvm_pool=262144M' \
	'test/live/kvm_attacks.py 1 vmcall 2000 rogue-vmfunc,privileged-state,nested' 'test/live/kvm_attacks.py 2 vmfunc 20000 nested'
TEST_JOBS ?= 2

# In QEMU with nested KVM: three to six minutes of a CPU, an hour for all.
NESTED_TESTS := 'test/live/nested.py vmfunc 1 monitor-memory,private-frame,double-map,remap,wrong-owner,old-content,stale-tlb,rogue-vmfunc,stale-pcid,msr,privileged-state,fuzz,guest-registers,race,ipi-storm,escape' \
	'test/live/nested.py vmcall 2 monitor-memory,private-frame' \
	'test/live/dma.py auto 1 generic 15' 'test/live/dma.py off 1 cloud 0'
LIVE_TESTS := $(NESTED_TESTS) $(LIVE_TESTS)
LIVE_PARTS += $(BUILD)/nested-initrd.img $(foreach f,$(FLAVOURS) $(NEWER_FLAVOURS),$(BUILD)/initrd-dma-$(f).img)
LONG_TESTS := 'test/live/nested.py vmfunc 1 all' 'test/live/nested.py vmcall 1 all' 'test/live/nested.py vmfunc 2 all' 'test/live/nested.py vmcall 2 all' \
	'test/live/dma.py auto 2 generic 240' 'test/live/dma.py auto 1 generic 60 caching' 'test/live/dma.py auto 2 cloud-6.12 60' \
	'test/live/dma.py auto 2 cloud-7 60' 'test/live/dma.py auto 1 cloud 0 reset' 'test/live/dma.py auto 1 cloud 0 kexec' \
	'test/live/dma.py auto 1 cloud 0 crash' test/live/bench_stick.py 'test/live/nested.py vmfunc 1 nested kvm=on' \
	'test/live/kvm_attacks.py 1 vmcall 1000000 nested' 'test/live/kvm_attacks.py 2 vmfunc 100000 nested'
test-long: nested
	+@$(MAKE) --no-print-directory $(LIVE_PARTS) $(BUILD)/initrd-bench-cloud.img
	@rm -rf $(foreach kind,attacks-nested attacks-kvm,$(BUILD)/$(kind) $(BUILD)/$(kind).json)
	test/run.pl --jobs $(TEST_JOBS) $(LONG_TESTS)
.PHONY: test-long

# The stock kernel's KVM in the host: natively, which shows that the tests are right, then with kvm = on.
KVM_CASES := '1 cloud' '2 cloud' '1 cloud-6.12' '2 cloud-6.12' '1 cloud-7' '2 cloud-7' '2 generic' '1 cloud qemu,qemu-virtio,qemu-migrate' '2 cloud qemu' \
	'1 cloud qemu-reset' '1 cloud qemu-kill' '1 cloud qemu-ovmf' '2 cloud qemu-cpus,qemu-migrate' '1 cloud qemu-snapshot,qemu-balloon,qemu-huge' \
	'1 cloud qemu-pressure' '1 cloud qemu-kernels' '1 cloud qemu-kexec' '2 cloud qemu-kexec'
# A VM of the host's while its kernel gives way to another, or sleeps; and beside the attacks.
KVM_HOST_TESTS := 'test/live/host.py cloud 2 kvm_start,kexec_same kvm=on' 'test/live/host.py cloud 2 kvm_start,kexec_crash kvm=on' \
	'test/live/host.py cloud 2 kvm_start,power,kvm_after,kernel_log kvm=on' \
	'test/live/kvm_attacks.py 1 vmcall 2000 beside' 'test/live/kvm_attacks.py 2 vmfunc 2000 beside'
KVM_PARTS := $(foreach f,cloud,$(BUILD)/initrd-kvm-$(f).img)
LIVE_TESTS += 'test/live/kvm.py monitor 2 cloud' 'test/live/kvm.py monitor 1 cloud qemu,qemu-virtio,qemu-migrate'
LIVE_PARTS += $(KVM_PARTS)

# What an image of hpsctl image boots.
$(BUILD)/initrd-image.img: host/image/mkinitrd test/live/image_init
	$(call quiet,INITRD)host/image/mkinitrd --output $@ init=test/live/image_init
LIVE_TESTS += test/live/image.py
LIVE_PARTS += $(BUILD)/initrd-image.img

LIBVIRT_CPUS := 1 2
test-kvm: nested setup-libvirt
	+@$(MAKE) --no-print-directory $(LIVE_PARTS) $(BUILD)/initrd-kvm-kernels-cloud.img $(BUILD)/libvirt.img
	for mode in $(KVM_MODES); do { for case in $(KVM_CASES); do echo "test/live/kvm.py $$mode $$case"; done; \
		for cpus in $(LIBVIRT_CPUS); do echo "test/live/kvm_libvirt.py $$mode $$cpus"; done; } | \
		tr '\n' '\0' | xargs -0 test/run.pl --jobs $(TEST_JOBS) || exit; done
	$(if $(filter monitor,$(KVM_MODES)),test/run.pl --jobs $(TEST_JOBS) $(KVM_HOST_TESTS))
KVM_MODES ?= native monitor
.PHONY: test-kvm

TRUSTED_SOURCES := $(MONITOR_C) $(MONITOR_ASM) include/registers.inc \
	$(filter-out include/hyperps/guest.h include/hyperps/gate.h,$(MONITOR_HEADERS))
# What is said about HyperPS and its tool, against the sources and the tool itself.
DOCUMENT_TESTS := test/documents.py test/messages.py 'test/manuals.py $(MANUALS)' 'test/command_line.py $(BUILD)/hpsctl'

# What needs no machine to boot.
SOURCE_TESTS := test/check.sh test/sparse.sh test/layers.py $(DOCUMENT_TESTS) \
	test/symbolize.py test/mkimage.sh test/evaluation/statistics_test.py test/evaluation/report_test.py \
	test/gate_bytes.py test/decode_bytes.py test/fuzz/run.py test/mutation.py test/iommu_mutation.py test/coverage.py

test: setup-test
	+@$(MAKE) --no-print-directory $(UNIT_PROGRAMS) $(COVERAGE_PROGRAMS) $(FUZZ_PROGRAMS) $(LIVE_PARTS) $(BUILD)/debian.img $(MANUALS)
	@$(MAKE) --no-print-directory tcb-lines
	@rm -rf $(foreach kind,attacks attacks-nested attacks-kvm,$(BUILD)/$(kind) $(BUILD)/$(kind).json)
	test/run.pl --jobs $(TEST_JOBS) --last 'test/claims.py --complete' $(UNIT_PROGRAMS) $(SOURCE_TESTS) $(LIVE_TESTS)

test-unit: $(UNIT_PROGRAMS) $(BUILD)/hpsctl $(MANUALS)
	test/run.pl $(UNIT_PROGRAMS) $(DOCUMENT_TESTS) test/claims.py test/evaluation/statistics_test.py test/evaluation/report_test.py

# The kernel modules once more, under sparse, for test/sparse.sh.
SPARSE_host := $(HOST_MODULE_SOURCES)
SPARSE_attacks := $(ATTACK_MODULE_SOURCES)
SPARSE_test := $(TEST_MODULE_SOURCES)
sparse-host sparse-attacks sparse-test: CHECKER = C=2 CHECK=sparse
sparse-host sparse-attacks sparse-test: sparse-%: $(CACHE)/kernels/cloud/release
	+@$(call kbuild,cloud,$(BUILD)/sparse/$*,$(SPARSE_$*))
.PHONY: sparse-host sparse-attacks sparse-test

fuzz: $(FUZZ_PROGRAMS)
	test/run.pl 'test/fuzz/run.py $(FUZZ_SECONDS)'

test-live: $(LIVE_PARTS) $(BUILD)/debian.img
	test/run.pl --jobs $(TEST_JOBS) $(LIVE_TESTS)

# gdb in the monitor; builds the second emulator that this needs, once.
test-gdb:
	tools/setup --gdb
	+@$(MAKE) --no-print-directory $(LIVE_PARTS)
	test/run.pl test/live/debugger.py
.PHONY: test-gdb

# kvm-unit-tests is no Debian package: whoever runs this has its source, built, in DIR. HOST=kvm: in QEMU with the
# host's KVM; DIR may have the kernel's own selftests then.
ifeq ($(HOST),kvm)
kvm-unit-tests: nested
	+@$(MAKE) --no-print-directory $(BUILD)/initrd-kvm-unit-cloud.img
	test/run.pl 'test/live/kvm_unit_host.py $(DIR) $(or $(CPUS),2) $(NAMES)'
else
kvm-unit-tests: kvm-unit-tests-dir $(LIVE_PARTS)
	test/run.pl 'test/live/kvm_unit_tests.py $(DIR)'
endif

kvm-unit-tests-dir:
	@[ -f "$(DIR)/x86/hypercall.flat" ] || { echo "DIR='$(DIR)' has no x86/hypercall.flat: give the folder of" \
		"kvm-unit-tests' source, built by ./configure --arch=x86_64 && make in it" >&2; false; }

# Takes MINUTES of the emulator's time, and a round more.
MINUTES ?= 60
soak: SETUP_FLAGS := --newer-kernels
soak: setup
	+@$(MAKE) --no-print-directory $(LIVE_PARTS)
	test/run.pl 'test/live/soak.py $(MINUTES)'
.PHONY: soak

# Lines of C and assembly that a reader must trust after boot: root and monitor view.
tcb-lines:
	@count() { sed 's://.*::; s:^;.*::' "$$@" | grep -vcE '^\s*(/?\*.*)?$$'; }; \
		echo "trusted lines: $$(cat $(TRUSTED_SOURCES) | wc -l) in all, $$(count $(TRUSTED_SOURCES)) of code (at most 9800):" \
		$(foreach l,include $(LAYERS),"$(l)/ $$(count $(filter $(l)/%,$(TRUSTED_SOURCES)))")

trusted-sources:
	@echo $(TRUSTED_SOURCES)

.PHONY: trusted-sources test test-unit test-live kvm-unit-tests kvm-unit-tests-dir fuzz tcb-lines

bench: SETUP_FLAGS := --newer-kernels
bench: setup
	+@$(MAKE) --no-print-directory $(LIVE_PARTS) $(BUILD)/test/unit/iommu
	test/bench.py

.PHONY: bench

# EVALUATION_FLAGS: test/evaluation/evaluate.py --help. The attacks' results are those of the last make test.
evaluation: SETUP_FLAGS := --evaluation
evaluation: setup
	+@$(MAKE) --no-print-directory BRIEF=1 $(IMAGE) $(BUILD)/firmware.efi $(BUILD)/initrd-test-cloud.img $(BUILD)/initrd-kvm-cloud.img
	test/evaluation/evaluate.py $(EVALUATION_FLAGS)

.PHONY: evaluation

# A second opinion: clang-tidy with .clang-tidy's checks, on each file with the flags that it is compiled with (but for those that
# clang does not know).
TIDY_FLAGS = $(filter-out -mindirect-branch% -maccumulate-outgoing-args,$(1))
TIDY_HPSCTL := $(filter-out $(MONITOR_C) $(BOOT_SOURCES),$(HPSCTL_SOURCES))
TIDY_LOADER := $(filter-out $(HPSCTL_SOURCES),$(LOADER_SOURCES))
tidy_stamps = $(patsubst %.c,$(BUILD)/tidy/%.ok,$(1))

$(call tidy_stamps,$(MONITOR_C)): TIDY = $(call TIDY_FLAGS,$(MONITOR_CFLAGS)) -include include/hidden.h
$(call tidy_stamps,$(BOOT_SOURCES)): TIDY = $(call TIDY_FLAGS,$(BOOT_CFLAGS))
$(call tidy_stamps,$(TIDY_HPSCTL)): TIDY = -Ihost/hpsctl/check $(HOST_CFLAGS) -Ivmx -Iboot -DHPSCTL_VERSION='""'
$(call tidy_stamps,$(TIDY_LOADER)): TIDY = $(call TIDY_FLAGS,$(LOADER_CFLAGS))
TIDY_STAMPS := $(call tidy_stamps,$(MONITOR_C) $(BOOT_SOURCES) $(TIDY_HPSCTL) $(TIDY_LOADER))

$(TIDY_STAMPS): $(BUILD)/tidy/%.ok: %.c .clang-tidy $(filter-out $(BUILD)/%,$(wildcard */*.h */*/*.h))
	@mkdir -p $(@D)
	@clang-tidy-14 --quiet $< -- $(TIDY) >$@.log 2>&1 || { grep -E '(warning|error):' $@.log; echo '$@.log has more'; false; }
	@touch $@

tidy: $(TIDY_STAMPS)

.PHONY: tidy

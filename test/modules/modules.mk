# SPDX-License-Identifier: MIT
# The test modules, built for each flavour into $(BUILD)/test-modules/<flavour>/. kbuild is defined in host/host.mk.
ONE_FILE_MODULES := vmx_probe hostile nmi_probe ipi_storm vm_memory vm_donate vm_stress vm_churn vm_bench efi_time call_probe vcpu_attack vcpu_siege private_page
TEST_MODULES := $(ONE_FILE_MODULES) gate_probe gate_attack vcpu_registers escape
GATE_ATTACK_SOURCES := gate_attack_main.c gate_attack_state.c gate_attack_modes.c gate_attack_nmi.c gate_rig.c gate_attempt.S gate_attack.h \
	gate_storm.c gate_storm.h gate_sweep.c gate_sweep.h gate_sweep_cpu.S
TEST_MODULE_SOURCES := $(ONE_FILE_MODULES:%=test/modules/%.c) $(GATE_ATTACK_SOURCES:%=test/modules/%) $(addprefix test/modules/,vcpu_registers_main.c vcpu_registers_trip.S escape_main.c escape_stub.S escape.h) test/modules/gate_calls.c host/module/gate.c host/module/gate.h host/module/gate_page.S test/modules/private_page.h test/modules/tap.h test/modules/calls.h test/modules/Kbuild

$(BUILD)/test-modules/%/modules.order: $(TEST_MODULE_SOURCES) include/hyperps/abi.h $(CACHE)/kernels/%/release
	+$(call quiet,KBUILD)$(call kbuild,$*,$(@D),$(TEST_MODULE_SOURCES))
	@touch $@

# SPDX-License-Identifier: MIT
# The test modules, built for each flavour into $(BUILD)/test-modules/<flavour>/. kbuild is defined in host/host.mk.
TEST_MODULES := rcu_wait wake_up vm_churn vm_bench efi_time call_probe private_page
TEST_MODULE_SOURCES := $(TEST_MODULES:%=test/modules/%.c) test/modules/private_page.h $(ATTACK_MODULE_HEADERS) test/modules/Kbuild

$(BUILD)/test-modules/%/modules.order: $(TEST_MODULE_SOURCES) include/hyperps/abi.h $(CACHE)/kernels/%/release
	+$(call quiet,KBUILD)$(call kbuild,$*,$(@D),$(TEST_MODULE_SOURCES))
	@touch $@

# SPDX-License-Identifier: MIT
# What hpsctl attack runs: scripts, the programs and the modules that they start. Their modules are built for each flavour into
# $(BUILD)/attack-modules/<flavour>/. kbuild is defined in host/host.mk.
ATTACKS := $(notdir $(wildcard host/attacks/[0-9][0-9]-*))
ATTACK_PROGRAMS := devmem gate_ring3 vmx_ring3 vcpu_vectors
ATTACK_MODULES := hostile vmx_probe nmi_probe ipi_storm vm_memory vm_donate vm_stress vcpu_attack vcpu_siege vcpu_registers \
	gate_probe gate_attack escape dma_device nested
ATTACK_BINARIES := $(ATTACK_PROGRAMS:%=$(BUILD)/attack-programs/%)
ATTACK_SCRIPTS := host/attacks/lib.sh $(ATTACKS:%=host/attacks/%)

$(BUILD)/attack-programs/%: host/attacks/%.c $(HPSCTL_CLIENT) $(HPSCTL_HEADERS) host/guests/patterns.h
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(HOST_CFLAGS) -o $@ $< $(HPSCTL_CLIENT)

ATTACK_MODULE_HEADERS := host/attacks/modules/tap.h host/attacks/modules/calls.h host/module/vmcall.h host/module/compat.h
ATTACK_MODULE_SOURCES := $(wildcard host/attacks/modules/*.[chS]) host/attacks/modules/Kbuild host/module/vmcall.h host/module/compat.h host/module/gate.c \
	host/module/gate.h host/module/gate_page.S

$(BUILD)/attack-modules/%/modules.order: $(ATTACK_MODULE_SOURCES) include/hyperps/abi.h include/hyperps/gate.h $(CACHE)/kernels/%/release
	+$(call quiet,KBUILD)$(call kbuild,$*,$(@D),$(ATTACK_MODULE_SOURCES))
	@touch $@

# For an initrd; $(1) is the flavour.
attack_files = test/lib.sh=host/attacks/lib.sh $(foreach a,$(ATTACKS),test/attacks/$(a)=host/attacks/$(a)) \
	$(foreach p,$(ATTACK_PROGRAMS),test/$(p)=$(BUILD)/attack-programs/$(p)) \
	$(foreach m,$(ATTACK_MODULES),test/modules/$(m).ko=$(BUILD)/attack-modules/$(1)/$(m).ko)

.SECONDARY: $(ATTACK_BINARIES) $(foreach f,$(FLAVOURS) $(NEWER_FLAVOURS),$(BUILD)/attack-modules/$(f)/modules.order)

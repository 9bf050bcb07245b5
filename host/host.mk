# SPDX-License-Identifier: MIT
# hpsctl, hyperps.ko and the host's initrds. The kernels come from $(CACHE)/kernels/<flavour>/ (tools/setup).
FLAVOURS := cloud generic

HPSCTL_SOURCES := $(wildcard host/hpsctl/*.c) mm/sha256.c
# What `hpsctl check` asks about a CPU is what loader and monitor ask.
HPSCTL_SOURCES += boot/choose_capabilities.c vmx/capabilities.c boot/pagetable.c
HPSCTL_HEADERS := $(wildcard host/hpsctl/*.h host/hpsctl/check/*.h host/module/*.h include/*.h include/hyperps/*.h) test/guests/vault.h mm/sha256.h \
	boot/choose_capabilities.h boot/pagetable.h vmx/capabilities.h
# Static: the host image has no libraries.
HOST_LINK := -static
HOST_CFLAGS := -std=gnu11 -O2 -g $(HOST_LINK) $(WARNINGS) -Iinclude -Ihost/hpsctl -Ihost/module -Imm -Itest/guests

host: $(BUILD)/hpsctl $(FLAVOURS:%=$(BUILD)/modules/%/hyperps.ko) $(FLAVOURS:%=$(BUILD)/initrd-%.img)
test-initrds: $(FLAVOURS:%=$(BUILD)/initrd-test-%.img)
.PHONY: host test-initrds

$(BUILD)/hpsctl: $(HPSCTL_SOURCES) $(HPSCTL_HEADERS)
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) -Ihost/hpsctl/check $(HOST_CFLAGS) -Ivmx -Iboot $(CPPFLAGS) $(CFLAGS) -DHPSCTL_VERSION='"$(VERSION)"' $(LDFLAGS) -o $@ $(HPSCTL_SOURCES)

# $(call kbuild,flavour,folder,sources): build the modules of these sources in a copy, so that the source tree stays clean.
kbuild = mkdir -p $(2) && { cp -u $(3) $(2)/ && \
	release=$$(cat $(CACHE)/kernels/$(1)/release) && headers=/lib/modules/$$release/build && \
	{ [ -d $$headers ] || { echo "no headers for Linux $$release: apt-get install linux-headers-$$release" >&2; false; }; } && \
	$(MAKE) --no-print-directory -C $$headers M=$(abspath $(2)) HYPERPS_INCLUDE=$(abspath include) KCFLAGS=-Werror modules; } \
	$(call log_to,$(2)/kbuild.log)

HOST_MODULE_SOURCES := host/module/main.c host/module/call.c host/module/gate.c host/module/gate.h host/module/gate_page.S host/module/vm.c host/module/vm.h host/module/vm_memory.c \
	host/module/vcpu.c host/module/power.c host/module/hyperps.h host/module/hyperps_ioctl.h host/module/hyperps_demo.c host/module/hyperps_demo.h host/module/Kbuild

$(BUILD)/modules/%/hyperps.ko $(BUILD)/modules/%/hyperps_demo.ko: $(HOST_MODULE_SOURCES) include/hyperps/abi.h include/hyperps/gate.h $(CACHE)/kernels/%/release
	+$(call quiet,KBUILD)$(call kbuild,$*,$(@D),$(HOST_MODULE_SOURCES))
	@touch $(@D)/hyperps.ko $(@D)/hyperps_demo.ko

# The guests to try by hand, or that demo and attack run. The test initrds have all of them.
HOST_GUESTS := hello vault registers

# What hpsctl attack runs; $(1) is the flavour.
ATTACKS := $(notdir $(wildcard test/attacks/[0-9][0-9]-*))
ATTACK_PROGRAMS := devmem gate_ring3 vmx_ring3 vcpu_vectors
ATTACK_MODULES := hostile vmx_probe nmi_probe ipi_storm vm_memory vm_donate vm_stress vcpu_attack vcpu_siege vcpu_registers \
	gate_probe gate_attack escape
attack_files = test/lib.sh=test/guestfs/lib.sh $(foreach a,$(ATTACKS),test/attacks/$(a)=test/attacks/$(a)) \
	$(foreach p,$(ATTACK_PROGRAMS),test/$(p)=$(BUILD)/guestfs/$(p)) \
	$(foreach m,$(ATTACK_MODULES),test/modules/$(m).ko=$(BUILD)/test-modules/$(1)/$(m).ko)

# The part that all initrds share; $(1) is the flavour.
initrd_files = init=host/image/init bin/hpsctl=$(BUILD)/hpsctl hyperps.ko=$(BUILD)/modules/$(1)/hyperps.ko \
	hyperps_demo.ko=$(BUILD)/modules/$(1)/hyperps_demo.ko

$(BUILD)/initrd-%.img: host/image/mkinitrd host/image/init $(BUILD)/hpsctl $(BUILD)/modules/%/hyperps.ko $(HOST_GUESTS:%=$(BUILD)/guests/%) \
		$(ATTACKS:%=test/attacks/%) test/guestfs/lib.sh $(ATTACK_PROGRAMS:%=$(BUILD)/guestfs/%) $(BUILD)/test-modules/%/modules.order
	$(call quiet,INITRD)host/image/mkinitrd --output $@ $(call initrd_files,$*) $(call attack_files,$*) \
		$(foreach g,$(HOST_GUESTS),guests/$(g)=$(BUILD)/guests/$(g))

include test/modules/modules.mk test/guests/guests.mk test/guestfs/guestfs.mk

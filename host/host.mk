# SPDX-License-Identifier: MIT
# hpsctl, hyperps.ko and the host's initrds. The kernels come from $(CACHE)/kernels/<flavour>/ (tools/setup).
FLAVOURS := cloud generic
# Newer kernels as hosts, for the tests (tools/setup --newer-kernels).
NEWER_FLAVOURS := cloud-6.12 cloud-7

HPSCTL_SOURCES := host/hpsctl/hpsctl.c host/hpsctl/hpsctl_format.c host/hpsctl/monitor_device.c host/hpsctl/run.c host/hpsctl/image.c host/hpsctl/measure.c host/hpsctl/uart.c \
	host/hpsctl/demo.c host/hpsctl/attack.c host/hpsctl/keyvault.c mm/sha256.c
HPSCTL_HEADERS := host/hpsctl/hpsctl.h host/hpsctl/hpsctl_format.h host/hpsctl/monitor_device.h host/hpsctl/image.h host/hpsctl/uart.h host/module/hyperps_ioctl.h \
	host/module/hyperps_demo.h host/hpsctl/keyvault.h host/guests/vault.h mm/sha256.h include/types.h include/hyperps/abi.h
# What programs besides hpsctl use of it.
HPSCTL_CLIENT := host/hpsctl/monitor_device.c host/hpsctl/hpsctl_format.c host/hpsctl/image.c host/hpsctl/measure.c mm/sha256.c
HOST_CFLAGS := -std=gnu11 -O2 -g -static $(WARNINGS) -Iinclude -Ihost/hpsctl -Ihost/module -Imm -Ihost/guests

host: $(BUILD)/hpsctl $(FLAVOURS:%=$(BUILD)/modules/%/hyperps.ko) $(FLAVOURS:%=$(BUILD)/initrd-%.img)
test-initrds: $(FLAVOURS:%=$(BUILD)/initrd-test-%.img)
newer-initrds: $(foreach f,$(NEWER_FLAVOURS),$(BUILD)/initrd-$(f).img $(BUILD)/initrd-test-$(f).img)
.PHONY: host test-initrds newer-initrds

$(BUILD)/hpsctl: $(HPSCTL_SOURCES) $(HPSCTL_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(HOST_CFLAGS) -DHPSCTL_VERSION='"$(VERSION)"' -o $@ $(HPSCTL_SOURCES)

# $(call kbuild,flavour,folder,sources): build the modules of these sources in a copy, so that the source tree stays clean. Headers
# that are not installed come with their compiler. No BTF: it would need pahole.
kbuild = mkdir -p $(2) && cp -u $(3) $(2)/ && PATH=$(abspath $(CACHE)/kernels/$(1)/usr/bin):$$PATH && \
	release=$$(cat $(CACHE)/kernels/$(1)/release) && headers=$(or $(wildcard $(CACHE)/kernels/$(1)/headers),/lib/modules/$$release/build) && \
	{ [ -d $$headers ] || { echo "no headers for Linux $$release: apt-get install linux-headers-$$release" >&2; false; }; } && \
	$(MAKE) --no-print-directory -C $$headers M=$(abspath $(2)) HYPERPS_INCLUDE=$(abspath include) KCFLAGS=-Werror \
		CONFIG_DEBUG_INFO_BTF_MODULES= modules

HOST_MODULE_SOURCES := $(wildcard host/module/*.[chS]) host/module/Kbuild

$(BUILD)/modules/%/hyperps.ko $(BUILD)/modules/%/hyperps_demo.ko: $(HOST_MODULE_SOURCES) include/hyperps/abi.h include/hyperps/gate.h $(CACHE)/kernels/%/release
	@echo 'building $(@D)/hyperps.ko, hyperps_demo.ko'
	+@$(call kbuild,$*,$(@D),$(HOST_MODULE_SOURCES)) >$(@D)/kbuild.log 2>&1 || { cat $(@D)/kbuild.log; false; }
	@touch $(@D)/hyperps.ko $(@D)/hyperps_demo.ko
.SECONDARY: $(foreach f,$(FLAVOURS) $(NEWER_FLAVOURS),$(BUILD)/modules/$(f)/hyperps.ko)

include host/guests/guests.mk host/attacks/attacks.mk

# The part that all initrds share; $(1) is the flavour.
initrd_files = init=host/image/init bin/hpsctl=$(BUILD)/hpsctl hyperps.ko=$(BUILD)/modules/$(1)/hyperps.ko \
	hyperps_demo.ko=$(BUILD)/modules/$(1)/hyperps_demo.ko

$(BUILD)/initrd-%.img: host/image/mkinitrd host/image/init $(BUILD)/hpsctl $(BUILD)/modules/%/hyperps.ko $(HOST_GUESTS:%=$(BUILD)/guests/%) \
		$(ATTACK_SCRIPTS) $(ATTACK_BINARIES) $(BUILD)/attack-modules/%/modules.order
	host/image/mkinitrd --output $@ $(call initrd_files,$*) $(call attack_files,$*) \
		$(foreach g,$(HOST_GUESTS),guests/$(g)=$(BUILD)/guests/$(g))

# SPDX-License-Identifier: MIT
# hpsctl, hyperps.ko and the host's initrds. The kernels come from $(CACHE)/kernels/<flavour>/ (tools/setup).
FLAVOURS := cloud generic

HPSCTL_SOURCES := host/hpsctl.c host/hpsctl_format.c host/monitor_device.c host/run.c host/image.c host/measure.c host/uart.c \
	host/demo.c host/keyvault.c guest/sha256.c
HPSCTL_HEADERS := host/hpsctl.h host/hpsctl_format.h host/monitor_device.h host/image.h host/uart.h host/hyperps_ioctl.h \
	host/hyperps_demo.h host/keyvault.h test/guests/vault.h guest/sha256.h include/types.h include/hyperps/abi.h
HOST_CFLAGS := -std=gnu11 -O2 -g -static $(WARNINGS) -Iinclude -Ihost -Iguest -Itest/guests

host: $(BUILD)/hpsctl $(FLAVOURS:%=$(BUILD)/modules/%/hyperps.ko) $(FLAVOURS:%=$(BUILD)/initrd-%.img)
test-initrds: $(FLAVOURS:%=$(BUILD)/initrd-test-%.img)
.PHONY: host test-initrds

$(BUILD)/hpsctl: $(HPSCTL_SOURCES) $(HPSCTL_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(HOST_CFLAGS) -DHPSCTL_VERSION='"$(VERSION)"' -o $@ $(HPSCTL_SOURCES)

# $(call kbuild,flavour,folder,sources): build the modules of these sources in a copy, so that the source tree stays clean.
kbuild = mkdir -p $(2) && cp -u $(3) $(2)/ && \
	release=$$(cat $(CACHE)/kernels/$(1)/release) && headers=/lib/modules/$$release/build && \
	{ [ -d $$headers ] || { echo "no headers for Linux $$release: apt-get install linux-headers-$$release" >&2; false; }; } && \
	$(MAKE) --no-print-directory -C $$headers M=$(abspath $(2)) HYPERPS_INCLUDE=$(abspath include) KCFLAGS=-Werror modules

HOST_MODULE_SOURCES := host/main.c host/call.c host/gate.c host/gate.h host/gate_page.S host/vm.c host/vm.h host/vm_memory.c \
	host/vcpu.c host/power.c host/hyperps.h host/hyperps_ioctl.h host/hyperps_demo.c host/hyperps_demo.h host/Kbuild

$(BUILD)/modules/%/hyperps.ko $(BUILD)/modules/%/hyperps_demo.ko: $(HOST_MODULE_SOURCES) include/hyperps/abi.h include/hyperps/gate.h $(CACHE)/kernels/%/release
	@echo 'building $(@D)/hyperps.ko, hyperps_demo.ko'
	+@$(call kbuild,$*,$(@D),$(HOST_MODULE_SOURCES)) >$(@D)/kbuild.log 2>&1 || { cat $(@D)/kbuild.log; false; }
	@touch $(@D)/hyperps.ko $(@D)/hyperps_demo.ko

# The guests to try by hand. The test initrds have all of them.
HOST_GUESTS := hello vault

# The part that all initrds share; $(1) is the flavour.
initrd_files = init=host/init bin/hpsctl=$(BUILD)/hpsctl hyperps.ko=$(BUILD)/modules/$(1)/hyperps.ko \
	hyperps_demo.ko=$(BUILD)/modules/$(1)/hyperps_demo.ko

$(BUILD)/initrd-%.img: host/mkinitrd host/init $(BUILD)/hpsctl $(BUILD)/modules/%/hyperps.ko $(HOST_GUESTS:%=$(BUILD)/guests/%)
	host/mkinitrd --output $@ $(call initrd_files,$*) $(foreach g,$(HOST_GUESTS),guests/$(g)=$(BUILD)/guests/$(g))

include test/modules/modules.mk test/guests/guests.mk test/guestfs/guestfs.mk

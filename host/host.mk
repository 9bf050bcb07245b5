# SPDX-License-Identifier: MIT
# hpsctl, hyperps.ko and the host's initrds. The kernels come from $(CACHE)/kernels/<flavour>/ (tools/setup).
FLAVOURS := cloud generic
# Newer kernels as hosts, for the tests (tools/setup --newer-kernels).
NEWER_FLAVOURS := cloud-6.12 cloud-7

HPSCTL_SOURCES := $(wildcard host/hpsctl/*.c) mm/sha256.c
# What `hpsctl check` asks about a CPU is what loader and monitor ask.
HPSCTL_SOURCES += boot/choose_capabilities.c vmx/capabilities.c boot/pagetable.c
# What an image of a protected VM is made of, and how its kernel is laid out.
HPSCTL_SOURCES += host/loader/layout.c host/loader/ranges.c host/loader/protect.c mm/sha384.c
HPSCTL_HEADERS := $(wildcard host/hpsctl/*.h host/hpsctl/check/*.h host/module/*.h include/*.h include/hyperps/*.h) host/guests/vault.h mm/sha256.h \
	boot/choose_capabilities.h boot/pagetable.h vmx/capabilities.h $(wildcard host/loader/*.h)
# Static: the host image has no libraries.
HOST_LINK := -static
HOST_CFLAGS := -std=gnu11 -O2 -g $(HOST_LINK) $(WARNINGS) -Iinclude -Ihost/hpsctl -Ihost/module -Imm -Ihost/guests -Ihost/loader
# What programs besides hpsctl use of it.
HPSCTL_CLIENT := host/hpsctl/monitor_device.c host/hpsctl/hpsctl_format.c host/hpsctl/json.c host/hpsctl/image.c host/hpsctl/measure.c \
	host/hpsctl/vm.c mm/sha256.c

host: $(BUILD)/hpsctl $(FLAVOURS:%=$(BUILD)/modules/%/hyperps.ko) $(FLAVOURS:%=$(BUILD)/initrd-%.img)
test-initrds: $(FLAVOURS:%=$(BUILD)/initrd-test-%.img)
newer-initrds: $(foreach f,$(NEWER_FLAVOURS),$(BUILD)/initrd-$(f).img $(BUILD)/initrd-test-$(f).img)
.PHONY: host test-initrds newer-initrds

$(BUILD)/hpsctl: $(HPSCTL_SOURCES) $(HPSCTL_HEADERS) $(BUILD)/loader/embedded.o
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) -Ihost/hpsctl/check $(HOST_CFLAGS) -Ivmx -Iboot $(CPPFLAGS) $(CFLAGS) -DHPSCTL_VERSION='"$(VERSION)"' $(LDFLAGS) -o $@ $(HPSCTL_SOURCES) $(BUILD)/loader/embedded.o

# $(call kbuild,flavour,folder,sources): build the modules of these sources in a copy, so that the source tree stays clean. Headers
# that are not installed come with their compiler. No BTF: it would need pahole. CHECKER: words for kbuild.
kbuild = mkdir -p $(2) && { cp -u $(3) $(2)/ && PATH=$(abspath $(CACHE)/kernels/$(1)/usr/bin):$$PATH && \
	release=$$(cat $(CACHE)/kernels/$(1)/release) && headers=$(or $(wildcard $(CACHE)/kernels/$(1)/headers),/lib/modules/$$release/build) && \
	{ [ -d $$headers ] || { echo "no headers for Linux $$release: apt-get install linux-headers-$$release" >&2; false; }; } && \
	$(MAKE) --no-print-directory -C $$headers M=$(abspath $(2)) HYPERPS_INCLUDE=$(abspath include) KCFLAGS=-Werror \
		CONFIG_DEBUG_INFO_BTF_MODULES= $(CHECKER) modules; } \
	$(call log_to,$(2)/kbuild.log)

HOST_MODULE_SOURCES := $(wildcard host/module/*.[chS]) host/module/Kbuild

$(BUILD)/modules/%/hyperps.ko $(BUILD)/modules/%/hyperps_demo.ko: $(HOST_MODULE_SOURCES) include/hyperps/abi.h include/hyperps/gate.h $(CACHE)/kernels/%/release
	+$(call quiet,KBUILD)$(call kbuild,$*,$(@D),$(HOST_MODULE_SOURCES))
	@touch $(@D)/hyperps.ko $(@D)/hyperps_demo.ko
.SECONDARY: $(foreach f,$(FLAVOURS) $(NEWER_FLAVOURS),$(BUILD)/modules/$(f)/hyperps.ko)

include host/guests/guests.mk host/attacks/attacks.mk host/loader/loader.mk

# The part that all initrds share; $(1) is the flavour.
initrd_files = init=host/image/init bin/hpsctl=$(BUILD)/hpsctl hyperps.ko=$(BUILD)/modules/$(1)/hyperps.ko \
	hyperps_demo.ko=$(BUILD)/modules/$(1)/hyperps_demo.ko

$(BUILD)/initrd-%.img: host/image/mkinitrd host/image/init $(BUILD)/hpsctl $(BUILD)/modules/%/hyperps.ko $(HOST_GUESTS:%=$(BUILD)/guests/%) \
		$(ATTACK_SCRIPTS) $(ATTACK_BINARIES) $(BUILD)/attack-modules/%/modules.order
	$(call quiet,INITRD)host/image/mkinitrd --output $@ $(call initrd_files,$*) $(call attack_files,$*) \
		$(foreach g,$(HOST_GUESTS),guests/$(g)=$(BUILD)/guests/$(g))

# For `make bench-stick`: the host's initrd, and drivers for the disks that a stick may be, in the order in which they load; names that a
# kernel lacks are left out.
BENCH_MODULES := crct10dif_common crc-t10dif scsi_common scsi_mod libata libahci ahci ata_piix usb-common usbcore xhci-hcd xhci-pci ehci-hcd ehci-pci \
	usb-storage uas sd_mod fat vfat nls_cp437 nls_ascii irqbypass kvm
BENCH_FLAVOUR ?= generic
$(BUILD)/initrd-bench-%.img: $(BUILD)/initrd-%.img host/image/bench host/host.mk
	@printf '%s\n' $(BENCH_MODULES) >$@.list
	$(call quiet,INITRD)host/image/mkinitrd --output $@.more bench/run=host/image/bench bench/list=$@.list \
		$$(for name in $(BENCH_MODULES) kvm-intel; do find $(CACHE)/kernels/$* -path '*/modules/*' -name "$$name.ko*" -printf "bench/$$name.ko=%p "; done) && \
		cat $< $@.more >$@ && rm $@.more $@.list

# SPDX-License-Identifier: MIT
# make install, install-dkms, uninstall, deb. DESTDIR is put in front of everything, for packages.
PREFIX ?= /usr/local
DKMS_FOLDER := /usr/src/hyperps-$(RELEASE)
INSTALLED_DOCS := README.md CHANGELOG.md $(wildcard docs/*.md)
# hyperps_demo.ko is no part of it: a line of its own, so that DKMS builds what it installs.
DKMS_SOURCES := $(filter-out %/hyperps_demo.c %/hyperps_demo.h %/Kbuild,$(HOST_MODULE_SOURCES)) host/module/COPYING
# Where each thing goes. hpsctl finds the loader from its own place, and systemd and udev look below /usr/local, too.
INSTALLED := sbin/hpsctl lib/hyperps/hyperps.efi lib/modules-load.d/hyperps.conf lib/udev/rules.d/60-hyperps.rules \
	share/bash-completion/completions/hpsctl $(foreach page,$(notdir $(MANUALS)),share/man/man$(subst .,,$(suffix $(page)))/$(page)) \
	$(INSTALLED_DOCS:%=share/doc/hyperps/%)

# $(call put,mode,file,place below the prefix)
put = install -D -m $(1) $(2) '$(DESTDIR)$(PREFIX)/$(3)'

# What make install needs: no kernel, no emulator.
install-parts: $(BUILD)/hyperps.efi $(BUILD)/hpsctl $(MANUALS)

install: install-parts
	$(call put,755,$(BUILD)/hpsctl,sbin/hpsctl)
	$(call put,644,$(BUILD)/hyperps.efi,lib/hyperps/hyperps.efi)
	$(call put,644,packaging/modules-load.conf,lib/modules-load.d/hyperps.conf)
	$(call put,644,packaging/hyperps.rules,lib/udev/rules.d/60-hyperps.rules)
	@mkdir -p '$(DESTDIR)$(PREFIX)/share/bash-completion/completions'
	$(BUILD)/hpsctl completion >'$(DESTDIR)$(PREFIX)/share/bash-completion/completions/hpsctl'
	@$(foreach page,$(MANUALS),$(call put,644,$(page),share/man/man$(subst .,,$(suffix $(page)))/$(notdir $(page))) &&) true
	@$(foreach doc,$(INSTALLED_DOCS),$(call put,644,$(doc),share/doc/hyperps/$(doc)) &&) true
	@echo "installed below $(DESTDIR)$(PREFIX). The module hyperps.ko: make install-dkms; the loader on the EFI system partition: hpsctl install"

# Flat, with the interface beside: DKMS copies this folder and nothing else.
install-dkms:
	@mkdir -p '$(DESTDIR)$(DKMS_FOLDER)/hyperps'
	install -m 644 $(DKMS_SOURCES) '$(DESTDIR)$(DKMS_FOLDER)'
	install -m 644 include/hyperps/abi.h include/hyperps/gate.h '$(DESTDIR)$(DKMS_FOLDER)/hyperps'
	sed -e 's|hyperps_demo.o||' -e 's|(src)/../../include|(src)|' host/module/Kbuild >'$(DESTDIR)$(DKMS_FOLDER)/Kbuild'
	sed 's/#MODULE_VERSION#/$(RELEASE)/' packaging/dkms.conf >'$(DESTDIR)$(DKMS_FOLDER)/dkms.conf'

uninstall:
	cd '$(DESTDIR)$(PREFIX)' && rm -f $(INSTALLED)
	rm -rf '$(DESTDIR)$(DKMS_FOLDER)'
	-@cd '$(DESTDIR)$(PREFIX)' && rmdir -p --ignore-fail-on-non-empty lib/hyperps share/doc/hyperps/docs

DEBS := $(BUILD)/hyperps_$(RELEASE)_amd64.deb $(BUILD)/hyperps-dkms_$(RELEASE)_all.deb
deb: $(DEBS)

# Both come from one run, which &: says, and not from what is only for tests.
$(DEBS) &: $(filter-out test/live/% test/unit/% test/guestfs/% test/modules/% test/fuzz/%,$(wildcard $(shell git ls-files 2>/dev/null))) packaging/deb
	@packaging/deb $(BUILD) $(RELEASE)

.PHONY: install install-parts install-dkms uninstall deb

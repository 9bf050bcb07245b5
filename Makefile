# SPDX-License-Identifier: MIT
# `make help` lists the targets. Each folder's fragment (*.mk) says what is built there; everything lands in build/.
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
SHELL := /bin/bash

BUILD := build
CACHE := $(or $(HYPERPS_CACHE),.cache)
# What monitor, loader and hpsctl call themselves: the release, and the commit unless it is exactly the tag v$(RELEASE). Without .git
# (a tarball, a package) the release alone, also inside somebody else's repository.
RELEASE := $(shell cat VERSION)
VERSION := $(or $(if $(wildcard .git),$(shell git describe --always --dirty --match 'v$(RELEASE)' | sed 's/^v//; t; s/^/$(RELEASE)+g/')),$(RELEASE))

# Neither make nor the kernel's build of modules takes such a path.
comma := ,
$(if $(word 3,$(CURDIR) $(CACHE))$(findstring :,$(CURDIR)$(CACHE))$(findstring $(comma),$(CURDIR)),$(error The path of this \
	folder has a space, colon or comma, or that of HYPERPS_CACHE a space or colon: move it))

CC := gcc
NASM := nasm
WARNINGS := -Wall -Wextra -Werror -Wvla -Wmissing-prototypes -Wstrict-prototypes -Wundef

# $(call quiet,WORD) before a command prints `  WORD    file` in the command's place; not so with V=1 or make -s. BRIEF=1 leaves
# all but the main steps out.
quiet = $(if $(filter 1,$(V))$(findstring s,$(firstword -$(MAKEFLAGS))),,@$(if $(and $(filter 1,$(BRIEF)),$(filter CC AS GEN,$(1))),:,printf '  %-7s %s\n' $(1) '$(@:$(BUILD)/%=%)') &&)
# Behind a command: its output goes to the file, whose end is shown if the command fails.
log_to = >$(1) 2>&1 || { echo "failed; the end of the log, $(1):" >&2; tail -n 20 $(1) >&2; false; }

# The order matters only for variables: a fragment uses those of the ones before it.
include tools/tools.mk startup/monitor.mk boot/boot.mk host/host.mk docs/man/man.mk packaging/packaging.mk test/test.mk

# What contains the version is built anew when that has changed.
$(BUILD)/version: version-force
	@mkdir -p $(@D)
	@echo '$(VERSION)' | cmp -s - $@ || echo '$(VERSION)' >$@
$(BUILD)/hpsctl $(BUILD)/boot/boot/main.o $(patsubst %.c,$(BUILD)/monitor/%.o,$(shell grep -lw VERSION $(MONITOR_C))): $(BUILD)/version

all: $(IMAGE) host

help:
	@echo 'make run      set up what is missing, build, boot the stick image in an emulator, show hpsctl demo'
	@echo 'make test     set up what is missing, build, run all tests (make test-unit, make test-live: a part)'
	@echo 'make test-long  tests that take an hour or two: all attacks in QEMU with nested KVM'
	@echo 'make test-kvm  the stock KVM in the host, natively and under the monitor (KVM_MODES=native: only the former)'
	@echo 'make nested   what tools/run --emulator nested needs (tools/README.md)'
	@echo 'make fuzz     fuzz the memory calls for FUZZ_SECONDS=600 s (make test does it for a minute)'
	@echo 'make kvm-unit-tests DIR=...  run programs of kvm-unit-tests, built in DIR, in VMs; HOST=kvm: of the host'"'"'s KVM (docs/testing.md)'
	@echo 'make soak     everything at once for MINUTES=60 on 4 CPUs: host work, VMs, CPUs that come and go, attacks'
	@echo 'make bench    measure native against monitor in the emulator; writes build/bench.json'
	@echo 'make evaluation  measure all configurations in the emulator; tables, plots and a report in build/evaluation/'
	@echo 'make stick    build the stick image and say how to write it to a real stick'
	@echo 'make install  install loader, hpsctl, manual pages below PREFIX=/usr/local, behind DESTDIR=; make uninstall'
	@echo 'make deb      the Debian packages hyperps and hyperps-dkms, in build/'
	@echo 'make all      build everything but the tests'
	@echo 'make man      the manual pages hpsctl.8, hyperps.conf.5, hyperps.7, in build/man/'
	@echo 'make setup    install packages, build the emulator, download the stock kernels (tools/setup --help)'
	@echo 'make format   reformat the C files'
	@echo 'make clean    remove build/ (.cache/ keeps the emulator and the kernels)'
	@echo 'Variables: V=1 (whole commands), RUN_FLAGS="--cpus 4 ..." (tools/run --help), KERNEL=, INITRD=, CONF= for the image, TEST_JOBS=2'

format:
	clang-format-14 -i $(shell git ls-files '*.[ch]' '*.cc')

clean:
	rm -rf $(BUILD)

.PHONY: all clean format help version-force

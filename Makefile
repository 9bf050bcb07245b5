# SPDX-License-Identifier: MIT
# `make help` lists the targets. Each folder's fragment (*.mk) says what is built there; everything lands in build/.
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
SHELL := /bin/bash

BUILD := build
CACHE := $(or $(HYPERPS_CACHE),.cache)
VERSION := $(shell git describe --always --dirty --tags 2>/dev/null || echo unknown)

CC := gcc
NASM := nasm
WARNINGS := -Wall -Wextra -Werror -Wvla -Wmissing-prototypes -Wstrict-prototypes -Wundef

all:
include $(wildcard tools/tools.mk core/core.mk boot/boot.mk host/host.mk test/test.mk)

clean:
	rm -rf $(BUILD)

.PHONY: all clean

# SPDX-License-Identifier: MIT
# `make man`: the manual pages, from their sources here and what `hpsctl --help` says.
MANUALS := $(patsubst docs/man/%.in,$(BUILD)/man/%,$(wildcard docs/man/*.in))

man: $(MANUALS)
.PHONY: man

$(MANUALS): $(BUILD)/man/%: docs/man/%.in docs/man/manual.py $(BUILD)/hpsctl
	@mkdir -p $(@D)
	$(call quiet,GEN)docs/man/manual.py $(BUILD)/hpsctl $< >$@

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""manual.py HPSCTL SOURCE: prints the manual page of a source (mdoc), filled in with what HPSCTL --help says.

In the source a line of its own, `.\\" @WORD`, stands for a part of that: synopsis, description and status for a part of
`hpsctl --help`; `command NAME` for the heading, text, options and exit status of a command. Each command stands there once."""

import os
import re
import subprocess
import sys
import textwrap
import time


def mdoc(text):
    """Plain text as mdoc: a sentence a line, nothing that mdoc would take for its own."""
    text = re.sub(r"\s+", " ", text).strip().replace("\\", "\\e")
    text = re.sub(r"(?<![\w-])-(?=[\w-])|(?<=-)-", r"\\-", text)
    return re.sub(r"(?m)^(?=[.'])", r"\\&", re.sub(r"(?<=[a-z0-9)][.]) (?=[A-Z])", "\n", text))


class Help:
    """The parts of what `hpsctl [COMMAND] --help` prints."""

    def __init__(self, hpsctl, command=""):
        lines = subprocess.run([hpsctl, *command.split(), "--help"], check=True, capture_output=True, text=True,
                               env=dict(os.environ, ARGP_HELP_FMT="no-dup-args-note")).stdout.splitlines()
        self.usage = lines[0].removeprefix("Usage: ")
        blocks = [block.split("\n") for block in "\n".join(lines[1:]).split("\n\n")]
        self.text, self.status = " ".join(blocks[0]), " ".join(blocks[-1])
        self.entries = []  # [name, text]: options and commands
        for line in (line for block in blocks[1:-1] for line in block):
            found = re.match(r" {2,6}(\S.*?)(?:  +(\S.*))?$", line)
            if found:
                self.entries.append([found.group(1), found.group(2) or ""])
            elif self.entries and line.startswith("    "):
                self.entries[-1][1] += " " + line.strip()

    def commands(self):
        """Their names."""
        return [name for name, _ in self.entries if not name.startswith("-")]

    def options(self):
        """As a list of mdoc. --help and --usage are the same everywhere."""
        items = []
        for name, text in self.entries:
            if name.startswith("-") and not re.search("--(help|usage)", name):
                words = re.sub(r"-(-?)([\w-]+)", lambda m: f"Fl {m.group(1)}{m.group(2)}".replace("Fl -", "Fl -"), name)
                words = re.sub(r"\[=(.+?)\]", r" Ns Op = Ns Ar \1", words)
                items += [".It " + re.sub(r"=(\S+)$", r" Ns = Ns Ar \1", words).replace(", ", " , "), mdoc(text)]
        return "\n".join([".Bl -tag -width Ds", *items, ".El"]) if items else ""


def main(hpsctl, path):
    """Prints the page."""
    top = Help(hpsctl)
    missing = top.commands()

    def part(found):
        word, _, name = found.group(1).partition(" ")
        if word == "synopsis":
            return f".Nm\n{top.usage.removeprefix('hpsctl ')}".replace("[OPTION...]", ".Op Ar OPTION ...\n")\
                .replace("COMMAND ", ".Ar COMMAND\n").replace("[ARGUMENT...]", ".Op Ar ARGUMENT ...").replace("\n ", "\n")
        if word == "description":
            return mdoc(top.text) + "\n.Pp\nOptions:\n" + top.options()
        if word == "status":
            return mdoc(top.status.removeprefix("Exit status: "))
        missing.remove(name)
        text = Help(hpsctl, name)
        return "\n".join(filter(None, [f".Ss {mdoc(text.usage)}\\&", mdoc(text.text), text.options(), ".Pp", mdoc(text.status)]))

    with open(path, encoding="ascii") as file:
        source = file.read()
    # The day of the release that is built, so that the page is the same each time.
    day = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", os.path.getmtime(path))))
    page = re.sub(r'(?m)^\.\\" @(.+)$', part, source).replace("@DATE@", time.strftime("%B ", day) + time.strftime("%d, %Y", day).lstrip("0"))
    if os.path.basename(path).startswith("hpsctl") and missing:
        sys.exit(f"{path} says nothing about: {', '.join(missing)}")
    for line in page.splitlines():
        print(line if line[:1] in ("", ".") or len(line) < 80 else
              re.sub(r"(?m)^(?=[.'])", r"\\&", textwrap.fill(line, 78, break_long_words=False, break_on_hyphens=False)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

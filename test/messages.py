#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Each error message in the sources stands in the tables of docs/messages.md, and each message there in the sources. As TAP.

`messages.py --list` prints what was found in the sources. In the tables N, M, X, FILE and DIR stand for what differs, ... for what is
left out, and <br> between messages that mean the same. What stands below the heading "Not from HyperPS" is not compared."""

import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import finish, note, ok  # noqa: E402  pylint: disable=wrong-import-position

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TABLES = "docs/messages.md"
# C functions: the argument with the message, and whether it must be in a table (or only may). A level decides for log_line().
FUNCTIONS = {"unfit": (1, True), "Print": (0, True), "complain": (1, True), "panic": (0, True), "log_line": (1, None),
             "log_refusal": (1, True), "fprintf": (1, None), "argp_error": (1, True), "argp_failure": (3, True), "fail": (1, True),
             "end": (3, True), "not_started": (1, True), "failed": (1, True), "say_error": (0, True), "snprintf": (2, False), "pr_err": (0, True), "pr_err_once": (0, True), "pr_warn": (0, True),
             "pr_warn_once": (0, True), "pr_info": (0, False),
             "give_up": (0, True), "refuse_tables": (1, True), "print": (0, False)}
# In these files the text of each `return "..."`, or of tables, is a message.
RETURNING = ("choose_capabilities.c", "capabilities.c", "capability.c", "dmar.c", "layout.c", "prepare.c", "protected.c", "vm_image.c")
STRING = r'L?"((?:[^"\\]|\\.)*)"'


def arguments(text, start):
    """The arguments of a call whose "(" lies before start."""
    depth, last, found = 1, start, []
    for token in re.finditer(rf"{STRING}|'(?:[^'\\]|\\.)*'|[(){{}},]", text[start:]):
        if token.group() in ("(", "{"):
            depth += 1
        elif token.group() in (")", "}"):
            depth -= 1
        if (token.group() == "," and depth == 1) or not depth:
            found.append(text[last:start + token.start()])
            last = start + token.end()
        if not depth:
            return found
    return found


def strings(code):
    """The texts in an expression: neighbours are one; a macro beside a text is X, and so is what printf() puts in."""
    for run in re.finditer(rf"(?:(?:{STRING}|\b[A-Z_][A-Z0-9_a-z]{{4,}}\b(?!\())\s*)+", code):
        text = "".join(part.group(1) if part.group().endswith('"') else "X" for part in re.finditer(rf"{STRING}|\w+", run.group()))
        if '"' in run.group():
            text = text.replace("\\r", "").replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
            yield re.sub(r"%[-+ #0]*(\*|\d+)?(\.(\*|\d+))?(hh|h|ll|l|z)?[a-zA-Z](?![a-z]{3})|%X?", "X", text).replace("XX", "X").strip()


def in_c(path, text):
    """Pairs of text and whether it must be in a table."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    for call in re.finditer(r"(?<!define )\b(\w+)\(", text):
        index, must = FUNCTIONS.get(call.group(1), (None, None))
        if index is None:
            continue
        found = arguments(text, call.end())
        if call.group(1) == "complain" and path.endswith("conf.c"):
            if len(found) == 5:
                yield next(strings(found[2]), "") + (" 'X'. ..." if found[3].strip() != "NULL" else ". ..."), True
            continue
        if call.group(1) == "log_line":
            must = bool(re.search("LOG_(ERROR|WARNING)", found[0]))
        if call.group(1) == "fprintf":
            must = found[0] == "stderr"
        for message in strings(found[index] if index < len(found) else ""):
            yield message, must
    for message in re.finditer(rf"\btext = ({STRING}\s*)+;", text):
        yield next(strings(message.group())), False
    if os.path.basename(path) in RETURNING:
        for message in re.finditer(rf"(?:return|[,=\n])\s*((?:{STRING}\s*|\b[A-Z_]+\s*)+)[;}}]", text):
            for part in strings(message.group(1)):
                yield part, True


def in_script(text, functions):
    """The same, of a shell or Python script: what the functions are called with."""
    for call in re.finditer(rf"(?<!def )\b({functions})\b\(?(?:[\s\\])*(f?\"(?:[^\"\\]|\\.)*\"(?:\s*f?\"(?:[^\"\\]|\\.)*\")*)", text):
        message = "".join(part.group(1) for part in re.finditer(r'"((?:[^"\\]|\\.)*)"', call.group(2)))
        message = re.sub(r"\$\(.*?\)+|\$\{.*?\}|\$[\w*@]+|\{[^{}]*\}", "X", message)
        yield message.split("\\n")[0].replace('\\"', '"').strip(), call.group(1) not in ("say", "echo", "print")


def messages():
    """All, as a dictionary: text to [where, whether it must be in a table]."""
    found = {}
    for path in subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=TOP, check=True, capture_output=True, text=True).stdout.split("\n"):
        if not os.path.isfile(os.path.join(TOP, path)) or path.startswith(("test/", "host/attacks", "host/guests", "docs/")):
            continue
        with open(os.path.join(TOP, path), encoding="utf-8", errors="replace") as file:
            text = file.read()
        pairs = []
        if path.endswith((".c", ".h")):
            pairs = in_c(path, text)
        elif text.startswith("#!/bin/") or text.startswith("#!/usr/bin/env bash"):
            pairs = in_script(text, "fail|say|echo")
        elif path.endswith(".py") or text.startswith("#!/usr/bin/env python3"):
            pairs = in_script(text, r"MachineError|parser\.error|ArgumentTypeError|say|_fail")
        for message, must in pairs:
            for line in message.split("\n"):
                line = re.sub(r"^((hpsctl|HyperPS: (stopped|continuing UNPROTECTED))( \w+| X)?|panic): ?", "", line).removeprefix("FAILED: X")
                if len(re.sub("X|[^A-Za-z]", "", line)) >= 4:
                    entry = found.setdefault(line, [path, False])
                    entry[1] |= must
    return found


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        for text, (where, must) in messages().items():
            print(f"{where}{'' if must else ' (may)'}: {text}")
        sys.exit()


def listed():
    """The messages in the tables: (line of the file, text)."""
    with open(os.path.join(TOP, TABLES), encoding="utf-8") as file:
        text = file.read().split("\n## Not from HyperPS")[0]
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("| ") and not re.match(r"\| (message|behind) ", line):
            for message in line[2:].split(" | ")[0].split("<br>"):
                yield number, message


def pattern(message):
    """What a message of a table matches."""
    words = re.split(r"( ?\.\.\.|(?<![A-Za-z0-9])0?x?(?:FILE|DIR|[NMX])(?![A-Za-z])|(?<=CR)N\b|\bNM\b)", message.strip())
    return re.compile("".join((".*" if "..." in word else ".+?") if at % 2 else re.escape(word) for at, word in enumerate(words)), re.S)


def test():
    """Both ways."""
    found, tables = messages(), [(number, text, pattern(text)) for number, text in listed()]
    ok(len(found) > 200 and len(tables) > 200, f"there are messages to compare: {len(found)} in the sources, {len(tables)} in {TABLES}")
    missing = [f"{where}: {text}" for text, (where, must) in found.items()
               if must and not any(regex.fullmatch(text) for _, _, regex in tables)]
    ok(not missing, f"each error message of the sources stands in {TABLES}")
    if missing:
        note("\n".join(missing))
    invented = [f"{TABLES}:{number}: {text}" for number, text, regex in tables if not any(regex.fullmatch(known) for known in found)]
    ok(not invented, f"each message in {TABLES} stands in the sources")
    if invented:
        note("\n".join(invented))
    broad = [f"{TABLES}:{number}: {text}" for number, text, _ in tables if len(re.sub(r"\.\.\.|FILE|DIR|[^A-Za-z]", "", text)) < 4]
    ok(not broad, "no message is so short that it matches others")
    if broad:
        note("\n".join(broad))


if __name__ == "__main__":
    test()
    finish()

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the documents name is there, as TAP: the targets of links, files, functions, the numbers of rules; and the README is short.

A name in backquotes is a file if it has a slash or a suffix of source code, and a function if it ends in (). In
docs/architecture.md a function that stands before a file, in the same cell of a table or as "`f()` in `file`", must be
defined there."""

import fnmatch
import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.chdir(TOP)
sys.path.insert(0, os.path.join(TOP, "test"))
from tap import finish, note, ok  # noqa: E402  pylint: disable=wrong-import-position

README_LINES = 150
RULES = "docs/architecture.md"
CODE = (".c", ".h", ".S", ".asm", ".inc", ".py", ".pl", ".sh", ".mk", ".ld")
# Names of Linux and of the C library.
FOREIGN = {"write()"}
FILES = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split()
FOLDERS = {os.path.dirname(f)[:end] for f in FILES for end in
           [m.end() - 1 for m in re.finditer(r"[^/]+/", os.path.dirname(f) + "/")]}
DOCUMENTS = [f for f in FILES if f.endswith(".md")]
TEXT = {}


def text(name):
    """A file's content, read once; empty if it is no text."""
    if name not in TEXT:
        try:
            with open(name, encoding="utf-8") as file:
                TEXT[name] = file.read()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            TEXT[name] = ""
    return TEXT[name]


def prose(name):
    """A document without its blocks of code."""
    return re.sub(r"^(```.*?^```|    .*?)$", "", text(name), flags=re.M | re.S if "```" in text(name) else re.M)


def anchors(name):
    """What a link into the document may name, made of its headings as GitHub does."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text(name), re.M)}


def bad_links(document):
    """Links whose file or heading is not there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(os.path.dirname(document), path)) if path else document
        if path not in FILES and path not in FOLDERS:
            yield f"{document}: no {target}"
        elif anchor and anchor not in anchors(path):
            yield f"{document}: no heading for {target}"


def is_there(name, document):
    """Whether a file or folder is, from the top, from the document's folder, or, without a slash, anywhere."""
    name = re.sub("NN-name|NAME", "*", name.rstrip("/"))  # what stands for any
    near = os.path.normpath(os.path.join(os.path.dirname(document), name))
    if "/" not in name:
        return any(fnmatch.fnmatch(os.path.basename(f), name) for f in FILES) or name in FOLDERS or near in FOLDERS
    return (any(fnmatch.fnmatch(f, n) for n in (name, near) for f in FILES) or name in FOLDERS or near in FOLDERS
            or document != RULES and any(f.endswith("/" + name) for f in FILES))


def bad_files(document):
    """Files in backquotes that are not in the tree. A path counts if its first part is a folder of the tree."""
    for name in re.findall(r"`([\w.*+-]+(?:/[\w.*+-]+)*/?)`", prose(document)):
        first = name.split("/")[0]
        if name.startswith("build/") or not ("/" in name and (first in FOLDERS or name.endswith(CODE))
                                             or "/" not in name and name.endswith(CODE)):
            continue
        if not is_there(name, document):
            yield f"{document}: no file {name}"
    if not document.endswith("/README.md"):
        return
    for cell in re.findall(r"^\|([^|]*)\|", text(document), re.M):
        for name in re.findall(r"`([\w-]+\.(?:c|h|S|asm|py|inc))`", cell):
            if f"{os.path.dirname(document)}/{name}" not in FILES:
                yield f"{document}: its table names {name}, which is not in the folder"


def defines(name, function):
    """Whether a file of source code defines the function, macro or label."""
    word = re.escape(function)
    pattern = (rf"^{word}:|^(?:SYM_\w+\({word}\b|SYM_INNER_LABEL\({word}\b)" if name.endswith((".S", ".asm")) else
               rf"^\s*def {word}\(" if name.endswith(".py") else
               rf"^(?!#)[A-Za-z][^;\n]*\b{word}\([^;]*?^\{{|^#define {word}\(|^{word}\(\)")
    return re.search(pattern, text(name), re.M | re.S) is not None


def bad_functions(document):
    """Functions that nothing defines, and in the document of the rules those that the file named with them does not."""
    for function in set(re.findall(r"`(\w+)\(\)`", prose(document))):
        if f"{function}()" not in FOREIGN and not any(defines(f, function) for f in FILES
                                                      if f.endswith(CODE) or "." not in os.path.basename(f)):
            yield f"{document}: nothing defines {function}()"
    if document != RULES:
        return
    for functions, name in re.findall(r"((?:`\w+(?:\(\))?`, )+)`([\w/]+\.\w+)`", prose(document)):
        for function in re.findall(r"`(\w+)", functions):
            if is_there(name, document) and not defines(name, function):
                yield f"{document}: {name} does not define {function}"
    for function, name in re.findall(r"`(\w+)\(\)` in\s`([\w/]+\.\w+)`", prose(document)):
        if is_there(name, document) and not defines(name, function):
            yield f"{document}: {name} does not define {function}"


def bad_rules():
    """Numbers of rules that are used anywhere and not defined; numbers that are defined twice."""
    numbers = re.findall(r"^(?:### |\| )([IGDNP]\d+)(?::| \|)", text(RULES), re.M)
    yield from (f"{RULES}: {n} twice" for n in sorted(set(numbers)) if numbers.count(n) > 1)
    for name in FILES:
        for number in sorted(set(re.findall(r"(?<![\w$%.-])[IGDNP][1-9]\d?(?![\w.-])", text(name))) - set(numbers)):
            yield f"{name}: {number} is defined nowhere"


def bad_tests():
    """Unit tests that the rules name and that are not there, and those without a row in docs/testing.md."""
    names = {os.path.basename(f)[:-len("_test.c")] for f in FILES if fnmatch.fnmatch(f, "test/unit/*_test.c")}
    for listed in re.findall(r"\bunit\s((?:`\w+`(?:,\s|\sand\s)?)+)", prose(RULES)):
        yield from (f"{RULES}: no unit test {name}" for name in re.findall(r"\w+", listed) if name not in names | {"and"})
    rows = set(re.findall(r"^\| `(\w+)` \|", text("docs/testing.md"), re.M))
    yield from (f"docs/testing.md: no row for the unit test {name}" for name in sorted(names - rows))


def picture(name):
    """The block of code that draws the monitor."""
    return next((block for block in re.findall(r"^```\n(.*?)^```", text(name), re.M | re.S) if "VMX root" in block), None)


def check(what, bad):
    """One line of TAP, and what is wrong below it."""
    bad = list(bad)
    ok(not bad, what)
    for line in bad:
        note(line)


def main():
    """All checks."""
    check(f"links of {len(DOCUMENTS)} documents lead to files and headings", (b for d in DOCUMENTS for b in bad_links(d)))
    check("files that documents name are there", (b for d in DOCUMENTS for b in bad_files(d)))
    check("functions that documents name are there", (b for d in DOCUMENTS for b in bad_functions(d)))
    check(f"the numbers of rules that the tree uses are those of {RULES}", bad_rules())
    check("unit tests that documents name are there, and each is described", bad_tests())
    lines = text("README.md").count("\n")
    check(f"README.md has at most {README_LINES} lines", [f"{lines} lines"] if lines > README_LINES else [])
    check(f"README.md has the picture of {RULES}", [] if picture(RULES) and picture("README.md") == picture(RULES) else ["it differs"])
    finish()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""layers.py [TREE OBJECTS LAYER...]: no layer of the monitor uses one above it, as TAP.

Looks at the symbols of the built objects (OBJECTS/LAYER/*.o) and at the #include lines of the sources; the layers come
from the ground up. Without arguments: this tree, build/monitor and the LAYERS of startup/monitor.mk.
"""
import collections
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import tap  # noqa: E402

# What mm/ leaves to whoever links it (mm/manager.h): a test, or the memory service.
HOOKS = {"mm_zero_frame", "mm_measure_page", "mm_map_donated"}


def symbols(tree, objects, layers):
    """{symbol: layer} of what is defined, and [(object, symbol)] of what is used."""
    defined, used = {}, []
    for layer in layers:
        sources = [*(tree / layer).glob("*.c"), *(tree / layer).glob("*.asm")]
        for source in sorted(sources):
            path = objects / layer / (source.name if source.suffix == ".asm" else source.stem)
            path = path.with_name(path.name + ".o")
            if source.name == "asm_offsets.c":
                continue
            for line in subprocess.run(["nm", "-g", path], capture_output=True, text=True, check=True).stdout.splitlines():
                kind, name = line.split()[-2:]
                if kind == "U":
                    used.append((path, name))
                else:
                    defined[name] = layer
    return defined, used


def includes(tree, layers):
    """[(source, header, layer of the header)] for each header of a layer."""
    home = {path.name: layer for layer in layers for path in (tree / layer).glob("*.h")}
    for layer in layers + ["include"]:
        for path in sorted((tree / layer).glob("*.[ch]")):
            for header in re.findall(r'^#include "([^"]+)"', path.read_text(), re.M):
                own = (path.parent / header).exists()
                if not own and header in home:
                    yield path, header, home[header]


def check(passed, text, details=()):
    if not tap.ok(passed, text):
        for line in details:
            tap.note(line)


def main():
    if len(sys.argv) > 3:
        tree, objects, layers = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
    else:
        tree = pathlib.Path(__file__).resolve().parent.parent
        objects = tree / "build" / "monitor"
        layers = re.search(r"^LAYERS := (.*)", (tree / "startup/monitor.mk").read_text(), re.M)[1].split()
    height = {layer: i for i, layer in enumerate(["include"] + layers)}
    defined, used = symbols(tree, objects, layers)
    check(len(defined) > 100 and len(used) > 100, f"there are symbols to check ({len(defined)})")
    upward = collections.defaultdict(list)
    hooks = set()
    for path, name in used:
        if name not in defined:
            continue
        if height[defined[name]] > height[path.parent.name]:
            if path.parent.name == "mm" and name in HOOKS:
                hooks.add(name)
                continue
            upward[path.parent.name].append(f"{path.parent.name}/{path.stem} uses {name} of {defined[name]}/")
    for layer in layers:
        check(not upward[layer], f"{layer}/ uses no symbol of a layer above it", upward[layer])
    check(hooks == HOOKS, "the hooks of mm/ are those that manager.h declares", sorted(HOOKS - hooks))
    # The memory service and the gate's views also run in the monitor view, where there is no VMCS; mm/ runs on the build machine.
    for layer in ("mm", "service"):
        vmcs = [f"{path.name}: {name}" for path in sorted((tree / layer).glob("*.c"))
                for name in re.findall(r"\b(vmread|vmwrite|vmptrld|vmclear|vmxon)\(", path.read_text())]
        vmcs += [f"{path.stem} uses {name}" for path, name in used
                 if path.parent.name == layer and defined.get(name) == "vmx"]
        check(not vmcs, f"{layer}/ has no VMCS", vmcs)
    # Host memory is reached by the memory service alone.
    windows = [path.stem for path, name in used if path.parent.name == "nested" and name == "set_window"]
    check(not windows, "nested/ opens no window on a frame", windows)
    bad = [f"{path.relative_to(tree)} includes {header} of {layer}/" for path, header, layer in includes(tree, layers)
           if height[layer] > height[path.parent.name]]
    check(not bad, "no header of a layer above is included", bad)
    tap.finish()


main()

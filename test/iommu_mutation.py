#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Mutation test, as TAP: each of these mistakes in what holds devices back, made one at a time in a copy, must be found by
the unit test `iommu`, that is, by its model of DMA-remapping units.

usage: test/iommu_mutation.py [WORD]     only the mutants whose description has the word in it

A mutant is an exact string that occurs once in a file, and what takes its place, as in test/mutation.py."""

import concurrent.futures
import glob
import os
import shutil
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "test"))
from tap import figure, finish, note, ok  # noqa: E402  pylint: disable=wrong-import-position

FOLDER = os.path.join(TOP, "build/test/iommu_mutation")
TIMEOUT = 100  # seconds; a mutant that hangs is found, too
LAYERS = ["mm", "base", "vmx", "service", "guest", "host_cpu", "startup", "boot"]
FLAGS = ["-std=gnu11", "-O0", "-w", f"-I{TOP}/test/unit/fake", f"-I{TOP}/include", *(f"-I{TOP}/{layer}" for layer in LAYERS),
         "-include", f"{TOP}/test/unit/fake/instructions.h"]
TEST = "test/unit/iommu_test.c"  # includes the files of base/, service/ and guest/ that are named here
OTHERS = ["test/unit/fake/instructions.c", "boot/host_view.c", "boot/memory_type.c"]
NEVER = ["inject_exception", "is_64bit", "privilege_level", "skip_instruction"]

MUTANTS = [
    # Invalidation
    ("no invalidation of translations", "base/iommu.c", "\tput_descriptor(unit, INVALIDATE_TRANSLATIONS, 0);\n", ""),
    ("one domain's translations are invalidated, another's", "base/iommu.c", "(2 | 1ULL << 4 |", "(2 | 2ULL << 4 |"),
    ("no drain of writes", "base/iommu.c", "BIT(6) | BIT(7)) /*", "BIT(7)) /*"),
    ("no drain of reads", "base/iommu.c", "BIT(6) | BIT(7)) /*", "BIT(6)) /*"),
    ("the first unit alone is flushed", "base/iommu.c",
     "(unit, on) {\n\t\tcheck_unit(unit);", "(unit, on ? 1 : 0) {\n\t\tcheck_unit(unit);"),
    ("the last unit is not waited for", "base/iommu.c",
     "(unit, on) {\n\t\tbool done = end", "(unit, on ? on - 1 : 0) {\n\t\tbool done = end"),
    ("nothing is waited for", "base/iommu.c", "bool done = end_invalidation(unit, &left) && unit->begun;", "bool done = true;"),
    ("a time-out counts as done", "base/iommu.c", "bool done = end_invalidation(unit, &left) && unit->begun;", "bool done = end_invalidation(unit, &left) || true;"),
    ("an invalidation that can't begin counts as done", "base/iommu.c",
     "end_invalidation(unit, &left) && unit->begun;", "end_invalidation(unit, &left);"),
    ("an earlier status counts", "base/iommu.c", "unit->done != unit->sequence;", "unit->done + 1 < unit->sequence;"),
    ("the sequence number stays", "base/iommu.c", "(u64)++unit->sequence << 32", "(u64)unit->sequence << 32"),
    ("the wait descriptor writes no status", "base/iommu.c", "#define WAIT_AND_WRITE (5 | BIT(5))", "#define WAIT_AND_WRITE 5"),
    ("the tail is not told", "base/iommu.c", "\twrite64(unit, REGISTER_QUEUE_TAIL, (u64)unit->tail << 4);\n\treturn", "\treturn"),
    ("the tail is not wrapped", "base/iommu.c", "(unit->tail + 1) % QUEUE_ENTRIES", "unit->tail + 1"),
    ("the queue is taken for larger", "base/iommu.c", "#define QUEUE_ENTRIES 256", "#define QUEUE_ENTRIES 512"),
    ("write buffers are not flushed", "base/iommu.c",
     " ||\n\t    (unit->has_write_buffer && !command(unit, WRITE_BUFFER_FLUSH, true, false)))\n\t\treturn false;\n\tif (contexts)",
     ")\n\t\treturn false;\n\tif (contexts)"),
    ("write buffers are not flushed before the root table is set", "base/iommu.c",
     "(unit->has_write_buffer && !command(unit, WRITE_BUFFER_FLUSH, true, false)) ||\n\t    !command(unit, QUEUE", "!command(unit, QUEUE"),
    ("what comes into the host view is not told", "base/iommu.c", "\tif (additions_wait)\n\t\tiommu_flush();", ""),
    ("caching mode is overlooked", "base/iommu.c", "(CAPABILITY_CACHING_MODE | CAPABILITY_WRITE_BUFFER)", "CAPABILITY_WRITE_BUFFER"),
    ("write buffers hold what comes in", "base/iommu.c",
     "(CAPABILITY_CACHING_MODE | CAPABILITY_WRITE_BUFFER)", "CAPABILITY_CACHING_MODE"),
    ("the last unit alone says whether additions wait", "base/iommu.c", "additions_wait |=", "additions_wait ="),
    # Switching on
    ("contexts are not invalidated at the start", "base/iommu.c", "begin_invalidation(unit, true)", "begin_invalidation(unit, false)"),
    ("translations are invalidated before contexts", "base/iommu.c",
     "\tif (contexts)\n\t\tput_descriptor(unit, INVALIDATE_CONTEXTS, 0);\n\tput_descriptor(unit, INVALIDATE_TRANSLATIONS, 0);\n",
     "\tput_descriptor(unit, INVALIDATE_TRANSLATIONS, 0);\n\tif (contexts)\n\t\tput_descriptor(unit, INVALIDATE_CONTEXTS, 0);\n"),
    ("nothing is waited for at the start", "base/iommu.c", "|| !end_invalidation(unit, &left) ||", "||"),
    ("translation on before the root table", "base/iommu.c",
     "!command(unit, SET_ROOT_TABLE, true, true) ||", "!command(unit, TRANSLATION_ENABLE, true, true) || !command(unit, SET_ROOT_TABLE, true, true) ||"),
    ("the root table is not set", "base/iommu.c", "!command(unit, SET_ROOT_TABLE, true, true) ||", ""),
    ("translation is not switched on", "base/iommu.c", "||\n\t    !command(unit, TRANSLATION_ENABLE, true, true))", ")"),
    ("the root table's mode changes while translation is on", "base/iommu.c", "& ROOT_TABLE_MODE)", "& 0)"),
    ("the firmware's queue is switched off while it works", "base/iommu.c",
     "(!wait_for(unit, REGISTER_QUEUE_HEAD, ~0U, read32(unit, REGISTER_QUEUE_TAIL)) ||", "("),
    ("the firmware's queue stays on", "base/iommu.c", "!command(unit, QUEUE_ENABLE, false, false))", "false)"),
    ("the firmware's tail stays", "base/iommu.c", "\twrite64(unit, REGISTER_QUEUE_TAIL, 0);\n", ""),
    ("interrupt remapping stays on", "base/iommu.c", "if ((status & INTERRUPT_REMAPPING) &&", "if (false &&"),
    ("protected memory stays", "base/iommu.c", "if (!unit->has_protected_memory)", "if (true)"),
    ("protected memory stays when a unit does not start", "base/iommu.c", "\t\tunprotect(unit);\n", ""),
    ("protected memory is not waited for", "base/iommu.c",
     "return wait_for(unit, REGISTER_PROTECTED_MEMORY_ENABLE, PROTECTED_MEMORY_STATUS, 0);", "return true;"),
    ("the fault interrupt stays", "base/iommu.c", "\twrite32(unit, REGISTER_FAULT_EVENT_CONTROL, FAULT_INTERRUPT_MASK);\n", ""),
    ("a command is not waited for", "base/iommu.c",
     "\treturn wait_for(unit, REGISTER_GLOBAL_STATUS, bit, expected ? bit : 0);", "\treturn true;"),
    ("one-shot commands are kept", "base/iommu.c", "& COMMAND_KEEPS", ""),
    ("what is on is not kept", "base/iommu.c", "& COMMAND_KEEPS", "& 0"),
    ("the caches are not written back at the start", "base/iommu.c", "\twbinvd();\n", ""),
    ("the units that are on stay on when one fails", "base/iommu.c", "\t\tcommand(unit, TRANSLATION_ENABLE, false, false);\n", ""),
    ("a unit that does not start is left out", "base/iommu.c", "REGISTER_FAULT_STATUS));\n\t\treturn false;", "REGISTER_FAULT_STATUS));"),
    # Root and context tables
    ("a domain of 0", "base/iommu.c", "#define DOMAIN (1ULL << 8)", "#define DOMAIN 0ULL"),
    ("a level too many", "base/iommu.c", "DOMAIN | (levels - 2)", "DOMAIN | (levels - 1)"),
    ("a level too few", "base/iommu.c", "DOMAIN | (levels - 2)", "DOMAIN | (levels - 3)"),
    ("the host view's root for any unit", "base/iommu.c", "return hpa_of(table).value;", "return hpa_of(monitor.host_view.root).value;"),
    ("requests that are translated already are let through", "base/iommu.c", "context[i] = table | PRESENT;", "context[i] = table | PRESENT | BIT(2);"),
    ("requests pass as they are", "base/iommu.c", "context[i] = table | PRESENT;", "context[i] = table | PRESENT | BIT(3);"),
    ("half of the devices have no context", "base/iommu.c",
     "for (u32 i = 0; i < PAGE_SIZE / sizeof(u64); i += 2) {", "for (u32 i = 0; i < PAGE_SIZE / sizeof(u64); i += 4) {"),
    ("registers are mapped cached", "base/iommu.c", "PTE_RW | PTE_UNCACHED", "PTE_RW"),
    # Units that are gone; faults
    ("the version is not looked at", "base/iommu.c", "read32(unit, REGISTER_VERSION) == unit->version", "true"),
    ("a unit that is off is not noticed", "base/iommu.c", "u32 status = TRANSLATION_ENABLE | QUEUE_ENABLE;", "u32 status = QUEUE_ENABLE;"),
    ("a queue that is off is not noticed", "base/iommu.c", "u32 status = TRANSLATION_ENABLE | QUEUE_ENABLE;", "u32 status = TRANSLATION_ENABLE;"),
    ("another root table is not noticed", "base/iommu.c",
     "read64(unit, REGISTER_ROOT_TABLE_ADDRESS) == hpa_of(unit->root).value", "true"),
    ("another queue is not noticed", "base/iommu.c", "read64(unit, REGISTER_QUEUE_ADDRESS) == hpa_of(unit->queue).value", "true"),
    ("memory is not cleared before the reset", "base/iommu.c", "\tclear_memory(\"devices are held back no longer\");\n", ""),
    ("fault records are not cleared", "base/iommu.c", "\t\twrite32(unit, offset + 12, FAULT_VALID >> 32);\n", ""),
    ("an overflow is not cleared", "base/iommu.c", "\twrite32(unit, REGISTER_FAULT_STATUS, FAULT_OVERFLOW);\n}", "}"),
    ("the last fault record is left out", "base/iommu.c", "i < unit->fault_records; i++", "i + 1 < unit->fault_records; i++"),
    ("the firmware's faults are counted", "base/iommu.c", "take_faults(unit, false);", "take_faults(unit, true);"),
    ("a fault record is read in the wrong order", "base/iommu.c",
     "u64 high = read64(unit, offset + 8), low = read64(unit, offset);", "u64 low = read64(unit, offset), high = read64(unit, offset + 8);"),
    ("faults that go on hold the CPU", "base/iommu.c", "\t\twrite32(unit, offset + 12, FAULT_VALID >> 32);\n",
     "\t\twrite32(unit, offset + 12, FAULT_VALID >> 32);\n\t\ti = -1U;\n"),
    ("a fault of another device", "base/iommu.c", "(u32)high >> 3 & 0x1f", "(u32)high >> 3 & 0xf"),
    # Write-back
    ("the host view is never written back", "mm/ept.c", "if (ept->write_back)", "if (false)"),
    ("a new table is not written back", "mm/ept.c", "\tchanged(ept, table, ENTRIES);\n\t*entry = page_pool", "\t*entry = page_pool"),
    ("what leads to a new table is not written back", "mm/ept.c",
     "| EPT_RWX;\n\tchanged(ept, entry, 1);", "| EPT_RWX;"),
    ("what leads to a new table comes before it", "mm/ept.c",
     "\tchanged(ept, table, ENTRIES);\n\t*entry = page_pool_hpa(ept->pool, table).value | EPT_RWX;\n\tchanged(ept, entry, 1);",
     "\t*entry = page_pool_hpa(ept->pool, table).value | EPT_RWX;\n\tchanged(ept, entry, 1);\n\tchanged(ept, table, ENTRIES);"),
    ("half of a new table is written back", "mm/ept.c", "changed(ept, table, ENTRIES);\n\t*entry = page_pool", "changed(ept, table, ENTRIES / 2);\n\t*entry = page_pool"),
    ("an entry is not written back", "mm/ept.c", "\t*entry = value;\n\tchanged(ept, entry, 1);", "\t*entry = value;"),
    ("a merged entry is not written back", "mm/ept.c",
     "\t*entry = first | EPT_LARGE;\n\tchanged(ept, entry, 1);", "\t*entry = first | EPT_LARGE;"),
    ("a run is not written back", "mm/ept.c", "\tchanged(ept, entry, count);\n", ""),
    ("a run's first entry alone is written back", "mm/ept.c", "changed(ept, entry, count);", "changed(ept, entry, 1);"),
    ("the last line of a run is not written back", "mm/ept.c", "changed(ept, entry, count);", "changed(ept, entry, count - 1);"),
    ("a table that a large page replaces stays empty", "mm/ept.c",
     "table[i] = (value & ~EPT_LARGE) + i * PAGE_SIZE;\n\t}\n\tif (table)", "(void)0;\n\t}\n\tif (table)"),
    ("a table that a large page replaces is not written back", "mm/ept.c", "\tif (table)\n\t\tchanged(ept, table, ENTRIES);\n\t*entry = value;", "\t*entry = value;"),
    # Who calls
    ("a flush without the units", "service/memory_service.c", " || !iommu_flush())", ")"),
    ("a flush counts, whatever the units say", "service/memory_service.c", "|| !iommu_flush())", "|| (iommu_flush(), false))"),
    ("what VM_RECLAIM gives back is not told", "service/memory_service.c",
     "\tif (call == HYPERPS_CALL_VM_RECLAIM)\n\t\tiommu_add();\n", ""),
    ("what a guest shares is not told", "guest/hypercall.c", "\telse\n\t\tiommu_add();\n", ""),
    ("pages of registers stay in the host view", "service/memory_service.c", "\t\t\tept_set_entry(mm.host_view, entry, 1, 0);\n", "\t\t\t;\n"),
]


def compile_file(source, result, *first):
    """Compiles one file of C."""
    subprocess.run(["gcc", *first, *FLAGS, "-c", "-o", result, source], check=True)


def object_of(source):
    """Where the unchanged file's object is."""
    return f"{FOLDER}/{os.path.basename(source)}.o"


def sources():
    """All that is linked."""
    return [f"{TOP}/{source}" for source in [TEST, *OTHERS]] + sorted(glob.glob(f"{TOP}/mm/*.c"))


def build(program, changed=None, instead=None):
    """Links the test, with one object in another's place."""
    objects = [instead if source == changed else object_of(source) for source in sources()]
    subprocess.run(["gcc", "-o", program, *objects, "-lcmocka", *(f"-Wl,--defsym={name}=never_called" for name in NEVER)],
                   check=True)
    return program


def run(program):
    """Runs the test, up to the first thing that it finds; returns that, or None if it passes."""
    with subprocess.Popen(["timeout", str(TIMEOUT), program], text=True, errors="replace", stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as test:
        for line in test.stdout:
            if line.startswith("ERROR") or "[  FAILED" in line or "[  ERROR" in line:
                test.terminate()  # timeout hands it on
                return line.strip()
        status = test.wait()
    return f"ends with status {status}" if status else None


def try_mutant(number, mutant):
    """Whether the source could be changed, and what the test says."""
    _, name, old, new = mutant
    with open(f"{TOP}/{name}", encoding="utf-8") as file:
        source = file.read()
    if source.count(old) != 1:
        return False, f"the string occurs {source.count(old)} times in {name}: {old!r}"
    folder = f"{FOLDER}/{number}"
    os.makedirs(folder)
    changed = f"{folder}/{os.path.basename(name)}"
    with open(changed, "w", encoding="utf-8") as file:
        file.write(source.replace(old, new))
    compiled = changed if name.startswith("mm/") else f"{TOP}/{TEST}"
    try:
        compile_file(compiled, f"{folder}/changed.o", f"-I{folder}")
    except subprocess.CalledProcessError:
        return False, "does not compile"
    original = f"{TOP}/{name}" if name.startswith("mm/") else f"{TOP}/{TEST}"
    return True, run(build(f"{folder}/mutant", original, f"{folder}/changed.o"))


def main(word):
    """The TAP test."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    mutants = [mutant for mutant in MUTANTS if word in mutant[0]]
    killed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(compile_file, source, object_of(source)) for source in sources()]:
            job.result()
        verdict = run(build(f"{FOLDER}/unchanged"))
        ok(verdict is None, "the unit test passes on the sources as they are")
        if verdict is not None:
            note(verdict)
        results = pool.map(try_mutant, range(len(mutants)), mutants)
        for (text, *_), (changed, verdict) in zip(mutants, results):
            killed += bool(changed and verdict)
            if not ok(changed and verdict, f"found: {text}"):
                note(verdict or "the unit test passes")
            elif verdict:
                note(verdict)
    figure(f"mutants of what holds devices back that the model of a unit finds: {killed} of {len(mutants)}")
    finish()


if len(sys.argv) > 2 or "-h" in "".join(sys.argv[1:])[:2]:
    sys.exit(__doc__)
main("".join(sys.argv[1:]))

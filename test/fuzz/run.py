#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fuzzes the dispatcher of the memory calls for some seconds, then the parser of DMAR tables for a few, as a TAP test: first the
corpus, then new inputs.

usage: test/fuzz/run.py [SECONDS]     (60; `make fuzz FUZZ_SECONDS=600` builds it first)
       test/fuzz/run.py --minimise    corpus/ becomes the smallest set of inputs that covers what was ever found here"""

import glob
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(TOP, "test"))
from tap import figure, finish, note, ok  # noqa: E402  pylint: disable=wrong-import-position

PROGRAM = os.path.join(TOP, "build/test/fuzz")
CORPUS, DMAR_CORPUS = os.path.join(HERE, "corpus"), os.path.join(HERE, "dmar_corpus")
FOUND = os.path.join(TOP, "build/fuzz")  # inputs that runs here found, and those that fail
LEAST_PER_SECOND = 50  # a run that is slower tests next to nothing
LONGEST_INPUT = 1024
DMAR_SHARE = 6 # of that many seconds one is for the DMAR tables


def fuzz(*arguments, program="dispatch", findings="finding-", **environment):
    """Runs the fuzzer; returns its exit status and output."""
    os.makedirs(f"{FOUND}/corpus", exist_ok=True)
    os.makedirs(f"{FOUND}/dmar_corpus", exist_ok=True)
    done = subprocess.run([f"{PROGRAM}/{program}", f"-max_len={LONGEST_INPUT}", "-timeout=20", "-detect_leaks=0",
                           f"-artifact_prefix={FOUND}/{findings}", *arguments], text=True, errors="replace", check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | environment)
    return done.returncode, done.stdout


def explain(output, program="dispatch"):
    """What a failed run said, and how to see it again."""
    note(output[-4000:])
    for path in re.findall(r"Test unit written to (\S+)", output):
        path = os.path.relpath(path, TOP)
        note(f"again: make build/test/fuzz/{program} && HYPERPS_FUZZ_TRACE=1 build/test/fuzz/{program} {path}")
        note("elsewhere: first `base64 -d` the last line above into that file")


def figures(output):
    """Executions and coverage: the last numbers that libFuzzer printed."""
    runs = re.findall(r"^Done (\d+) runs in (\d+) second", output, re.M)
    coverage = re.findall(r"cov: (\d+) ft: (\d+)", output)
    return (int(runs[-1][0]) if runs else 0, *map(int, coverage[-1] if coverage else (0, 0)))


def test(seconds):
    """The TAP test."""
    inputs = len(os.listdir(CORPUS))
    code, output = fuzz("-runs=0", CORPUS)
    _, edges, features = figures(output)
    ok(inputs > 20 and code == 0, f"corpus: {inputs} inputs, {edges} edges and {features} features of mm/, no finding")
    if code:
        explain(output)
    # The checks must be able to fail.
    for lie, reason in ("flush", "before the flush"), ("zero", "with content"):
        code, output = fuzz("-runs=0", CORPUS, findings="control-", HYPERPS_FUZZ_LIE=lie)
        ok(code and reason in output, f"positive control: a {lie} that is only claimed is found")
    code, output = fuzz(f"-max_total_time={seconds}", "-len_control=0", f"{FOUND}/corpus", CORPUS)
    runs, edges, features = figures(output)
    ok(code == 0, f"{seconds} s of new inputs, no finding")
    figure(f"fuzzing the memory calls: {runs} inputs in {seconds} s ({runs // seconds} a second), "
           f"{edges} edges and {features} features of mm/")
    if code:
        explain(output)
    else:
        ok(runs >= LEAST_PER_SECOND * seconds, f"at least {LEAST_PER_SECOND} inputs a second")
    test_dmar(max(seconds // DMAR_SHARE, 1))
    finish()


def test_dmar(seconds):
    """The same with DMAR tables."""
    code, output = fuzz("-runs=0", DMAR_CORPUS, program="dmar", findings="control-", HYPERPS_FUZZ_LIE="ram")
    ok(code and "registers are read where something else is" in output, "positive control: RAM that is taken for registers is found")
    code, output = fuzz(f"-max_total_time={seconds}", f"{FOUND}/dmar_corpus", DMAR_CORPUS, program="dmar")
    runs, edges, features = figures(output)
    ok(code == 0 and runs >= LEAST_PER_SECOND * seconds, f"DMAR tables: the corpus and {seconds} s of new inputs, no finding")
    figure(f"fuzzing DMAR tables: {runs} inputs in {seconds} s, {edges} edges and {features} features of boot/dmar.c")
    if code:
        explain(output, "dmar")


def minimise():
    """Merges what was found into a new corpus."""
    fresh = f"{FOUND}/minimised"
    shutil.rmtree(fresh, ignore_errors=True)
    os.makedirs(fresh)
    code, output = fuzz("-set_cover_merge=1", fresh, CORPUS, f"{FOUND}/corpus")
    if code:
        sys.exit(output)
    for path in glob.glob(f"{CORPUS}/*"):
        os.remove(path)
    for path in os.listdir(fresh):
        shutil.move(f"{fresh}/{path}", CORPUS)
    print(f"{len(os.listdir(CORPUS))} inputs, {sum(os.path.getsize(p) for p in glob.glob(f'{CORPUS}/*'))} bytes")


if sys.argv[1:] == ["--minimise"]:
    minimise()
elif len(sys.argv) <= 2 and all(argument.isdigit() and int(argument) for argument in sys.argv[1:]):
    test(int((sys.argv[1:] or [60])[0]))
else:
    sys.exit(__doc__)

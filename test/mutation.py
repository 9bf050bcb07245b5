#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Mutation test, as TAP: each of these mistakes in mm/, made one at a time in a copy, must be found by the property test.

usage: test/mutation.py [WORD]     only the mutants whose description has the word in it

A mutant is an exact string that occurs once in a file of mm/, and what takes its place. When the code has changed so that
the string is not there any more, its check fails: adapt it."""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "test"))
from tap import figure, finish, note, ok  # noqa: E402  pylint: disable=wrong-import-position

FOLDER = os.path.join(TOP, "build/test/mutation")
SEEDS = 150
TIMEOUT = 60  # seconds; a mutant that hangs is found, too
FLAGS = ["-std=gnu11", "-O1", "-Wno-unused", f"-I{TOP}/include", f"-I{TOP}/mm", f"-I{TOP}/boot"]
# What the test sets its machine up with.
OTHERS = ["test/unit/manager_property_test.c", "boot/host_view.c", "boot/memory_type.c"]

MUTANTS = [
    # I1: one owner
    ("mm_map leaves the frames in the host view", "manager.c",
     "\t\thide(mm, frame, count);\n\tpage_marks_move(", "\t\t;\n\tpage_marks_move("),
    ("mm_map takes frames that are not the host's", "manager.c",
     "!page_marks_are(mm->marks, frame, count, from) || !ept_is_empty",
     "page_mark_state(mm->marks, frame + count - 1) == HYPERPS_FRAME_DEVICE || !ept_is_empty"),
    ("mm_map looks at the first frame only", "manager.c",
     "!page_marks_are(mm->marks, frame, count, from) || !ept_is_empty",
     "!page_marks_are(mm->marks, frame, 1, from) || !ept_is_empty"),
    ("mm_map does not look whether the gpa is taken", "manager.c",
     " || !ept_is_empty(&vm->view, GPA(gpa), count))", ")"),
    ("mm_map takes a gpa on which a frame is pending for free", "ept.c",
     "any |= entry[i];", "any |= entry[i] & EPT_RWX;"),
    ("a guest's 2 MiB page begins anywhere", "manager.c",
     "n == FRAMES_2M && frame % FRAMES_2M == 0 ? 2 : 1", "n == FRAMES_2M ? 2 : 1"),
    # I2: what is the monitor's
    ("mm_donate leaves the frames in the host view", "manager.c",
     "\thide(mm, frame, FRAMES_2M);\n", ""),
    ("mm_donate looks at the first frame only", "manager.c",
     "if (!page_marks_are(mm->marks, frame, FRAMES_2M, HYPERPS_FRAME_HOST))",
     "if (!page_marks_are(mm->marks, frame, 1, HYPERPS_FRAME_HOST))"),
    ("mm_donate does not map what it takes", "manager.c", " || !mm_map_donated(frame))", ")"),
    ("the pool frees its pages without waiting for the flush", "page_pool.c",
     "flushed > pool->waiting_epoch", "flushed"),
    ("the pool's flush is off by one", "page_pool.c",
     "flushed > pool->waiting_epoch", "flushed >= pool->waiting_epoch"),
    ("the pool's quarantine has no quarantine: what comes in is free", "page_pool.c",
     "push(pool, &pool->incoming, frame, HYPERPS_FRAME_TO_MONITOR);",
     "push(pool, &pool->free, frame, HYPERPS_FRAME_MONITOR);"),
    ("the pool forgets when its pages came in", "page_pool.c", "pool->waiting_epoch = epoch;", ""),
    ("the pool's pages are handed out as they are", "page_pool.c", "page[i] = 0;", ";"),
    ("a table is lost when it is merged", "ept.c",
     "\tput_table(ept, *entry);\n\t*entry = first", "\t*entry = first"),
    # I3: quarantine
    ("mm_sync ignores the flush", "manager.c", "if (vm->pending.count && mm->flushed <= vm->epoch)", "if (false)"),
    ("mm_sync's flush is off by one", "manager.c",
     "if (vm->pending.count && mm->flushed <= vm->epoch)", "if (vm->pending.count && mm->flushed < vm->epoch)"),
    ("mm_map makes the guest's entry present at once", "manager.c",
     "permissions << EPT_PENDING_SHIFT", "permissions"),
    ("mm_map does not note the epoch", "manager.c",
     "vm->epoch = mm->epoch;\n\t}\n\treturn (s64)done;", "}\n\treturn (s64)done;"),
    ("mm_reclaim ignores the flush", "manager.c", "\tif (mm->flushed <= vm->epoch)\n", "\tif (false)\n"),
    ("mm_reclaim's flush is off by one", "manager.c",
     "\tif (mm->flushed <= vm->epoch)\n", "\tif (mm->flushed < vm->epoch)\n"),
    ("mm_destroy does not note the epoch", "manager.c",
     " */\n\tvm->epoch = mm->epoch;\n", " */\n"),
    ("mm_seal does not mind what is pending", "manager.c",
     "if (vm->pending.count)\n\t\treturn HYPERPS_ERROR_AGAIN;", ""),
    # I4, I5: content
    ("mm_reclaim does not zero", "manager.c", "\t\tmm_zero_frame(i);\n", ""),
    ("mm_reclaim leaves one frame of a run as it is", "manager.c",
     "\t\tmm_zero_frame(i);\n", "\t\tif (i != frame)\n\t\t\tmm_zero_frame(i);\n"),
    ("mm_reclaim zeroes when the host can see the frame already", "manager.c",
     "for (u64 i = frame; i < frame + count; i++) {\n\t\tmm_zero_frame(i);",
     "enter_host_view(mm, frame, count, EPT_RWX);\n\tfor (u64 i = frame; i < frame + count; i++) {\n\t\tmm_zero_frame(i);"),
    ("mm_sync does not zero what comes into a sealed VM", "manager.c",
     "for (u64 i = 0; vm->state == HYPERPS_VM_SEALED && i < run.frames; i++)", "for (u64 i = 0; false; i++)"),
    ("mm_map returns more than it gave", "manager.c", "\tif (error)\n\t\t\tbreak;", ""),
    ("mm_map does not look whether the gpa is declared to its end", "manager.c",
     "skip < vm->range[i].frames && count <= vm->range[i].frames - skip", "skip < vm->range[i].frames"),
    ("a guest's permissions are not those declared", "manager.c",
     "permissions << EPT_PENDING_SHIFT", "(u64)EPT_RWX << EPT_PENDING_SHIFT"),
    ("ranges of RAM may overlap", "manager.c",
     "vm->range[i].gpa < gpa + count * PAGE_SIZE)\n\t\t\treturn HYPERPS_ERROR_OWNER;",
     "vm->range[i].gpa < gpa + count * PAGE_SIZE)\n\t\t\tbreak;"),
    # The guest's requests
    ("a guest share maps the frames for the host without making them shared", "manager.c",
     "\t\tpage_marks_move(mm->marks, run.frame, run.frames, from, to, slot_of(mm, vm), gpa >> PAGE_SHIFT);\n\t}\n\tif (to",
     "\t\tif (to != HYPERPS_FRAME_SHARED)\n\t\t\tpage_marks_move(mm->marks, run.frame, run.frames, from, to, slot_of(mm, vm), "
     "gpa >> PAGE_SHIFT);\n\t}\n\tif (to"),
    ("the host may execute what is shared with it", "manager.c", "EPT_READ | EPT_WRITE);", "EPT_RWX);"),
    ("a guest unshare leaves the frames in the host view", "manager.c",
     "if (from == HYPERPS_FRAME_SHARED)\n\t\t\thide(mm, run.frame, run.frames);", ""),
    ("what a guest unshares or releases needs no flush", "manager.c",
     "if (to != HYPERPS_FRAME_SHARED)\n\t\tvm->epoch = mm->epoch;", ""),
    ("what a guest unshares or releases stays in its view", "manager.c",
     "(run.entry & ~(EPT_ADDRESS | EPT_LARGE | EPT_RWX))", "(run.entry & ~(EPT_ADDRESS | EPT_LARGE))"),
    ("a guest release takes what is not PRIVATE", "manager.c",
     "if (!run.frames || !page_marks_are(mm->marks, run.frame, run.frames, state))", "if (!run.frames)"),
    ("a guest's requests look at the first frame only", "manager.c",
     "!page_marks_are(mm->marks, run.frame, run.frames, state))", "!page_marks_are(mm->marks, run.frame, 1, state))"),
    ("mm_destroy leaves what was shared in the host view", "manager.c",
     "if (state == HYPERPS_FRAME_SHARED && !vm->kvm.is_kvm)\n\t\t\thide(mm, run.frame, run.frames);", ""),
    ("mm_reclaim of what is released ignores the flush if nothing else waits", "manager.c",
     "\tif (mm->flushed <= vm->epoch)\n", "\tif (vm->state == HYPERPS_VM_DEAD && mm->flushed <= vm->epoch)\n"),
    ("a guest's requests work before the VM is sealed", "manager.c",
     "if (vm->state != HYPERPS_VM_SEALED)\n\t\treturn HYPERPS_ERROR_STATE;\n\tif (count", "if (count"),
    # Sealing, and what runs
    ("mm_seal skips a page", "manager.c",
     "vm->cursor += PAGE_SIZE;\n\t}\n\tmeasure_end(vm);", "vm->cursor += 2 * PAGE_SIZE;\n\t}\n\tmeasure_end(vm);"),
    ("mm_seal skips the page at which a call stops", "manager.c",
     "if (found ? done++ == MM_SEAL_PAGES : !budget)\n\t\t\treturn 1;\n\t\tif (!found)\n\t\t\tcontinue;",
     "if (!found && !budget)\n\t\t\treturn 1;\n\t\tif (!found)\n\t\t\tcontinue;\n"
     "\t\tif (done++ == MM_SEAL_PAGES) {\n\t\t\tvm->cursor += PAGE_SIZE;\n\t\t\treturn 1;\n\t\t}"),
    ("mm_seal begins anew in each call", "manager.c",
     "vm->state = HYPERPS_VM_SEALING;\n", "vm->state = HYPERPS_VM_SEALING;\n\tvm->cursor = 0;\n"),
    ("mm_seal measures without a bound", "manager.c", "found ? done++ == MM_SEAL_PAGES : !budget", "!found && !budget"),
    ("mm_seal ends when its budget does", "manager.c",
     "if (found ? done++ == MM_SEAL_PAGES : !budget)\n\t\t\treturn 1;",
     "if (found && done++ == MM_SEAL_PAGES)\n\t\t\treturn 1;\n\t\tif (!found && !budget)\n\t\t\tbreak;"),
    ("mm_seal measures the first frame of a large page 512 times", "manager.c",
     "ept_run(&vm->view, GPA(vm->cursor), 1).frame);",
     "(ept_run(&vm->view, GPA(vm->cursor), 1).entry & EPT_ADDRESS) >> PAGE_SHIFT);"),
    ("a VM is sealed before it is measured", "manager.c", "vm->state = HYPERPS_VM_SEALING;\n", "vm->state = HYPERPS_VM_SEALED;\n"),
    ("mm_map works in a VM that is being measured", "manager.c",
     "if (vm->state != HYPERPS_VM_OPEN && vm->state != HYPERPS_VM_SEALED)\n\t\treturn HYPERPS_ERROR_STATE;\n\tif (count",
     "if (vm->state == HYPERPS_VM_DYING || vm->state == HYPERPS_VM_DEAD)\n\t\treturn HYPERPS_ERROR_STATE;\n\tif (count"),
    ("mm_declare works in a VM that is being measured", "manager.c",
     "if (vm->state != HYPERPS_VM_OPEN)\n\t\treturn HYPERPS_ERROR_STATE;\n\tif (!is_in_view",
     "if (vm->state != HYPERPS_VM_OPEN && vm->state != HYPERPS_VM_SEALING)\n\t\treturn HYPERPS_ERROR_STATE;\n\tif (!is_in_view"),
    ("mm_destroy goes on where mm_seal has stopped", "manager.c",
     "vm->state = HYPERPS_VM_DYING;\n\tvm->cursor = 0;\n", "vm->state = HYPERPS_VM_DYING;\n"),
    ("mm_destroy does not mind a vCPU that runs", "manager.c", "vm->state == HYPERPS_VM_DEAD || vm->running)", "vm->state == HYPERPS_VM_DEAD)"),
    ("mm_leave ends all vCPUs", "manager.c", "find_vm(mm, handle)->running--;", "find_vm(mm, handle)->running = 0;"),
    ("vCPUs run before the VM is sealed", "manager.c",
     "if (vm->state != HYPERPS_VM_SEALED)\n\t\treturn HYPERPS_ERROR_STATE;\n\tvm->running++;", "vm->running++;"),
    ("mm_map gives frames to MMIO", "manager.c", "!range || range->permissions == HYPERPS_RANGE_MMIO)", "!range)"),
    ("MMIO may have permissions", "manager.c",
     "permissions != HYPERPS_RANGE_MMIO && (!", "!(permissions & HYPERPS_RANGE_MMIO) && (!"),
    ("mm_guest_frame tells about frames that the guest can't reach yet", "manager.c",
     "run.entry & EPT_READ ? (s64)run.frame", "run.entry ? (s64)run.frame"),
    ("mm_guest_frame works before the VM is sealed", "manager.c",
     "if (vm->state != HYPERPS_VM_SEALED)\n\t\treturn HYPERPS_ERROR_STATE;\n\trun = ", "run = "),
    # N2: EPT02s
    ("a frame leaves and no EPT02 is dropped", "manager.c", "\t\tshadow_drop_all(mm);\n", "\t\t;\n"),
    ("mm_map drops EPT02s after the mark", "manager.c",
     "\tif (!orphans)\n\t\thide(mm, frame, count);\n"
     "\tpage_marks_move(mm->marks, frame, count, from, HYPERPS_FRAME_TO_VM, slot_of(mm, vm), gpa >> PAGE_SHIFT);\n",
     "\tpage_marks_move(mm->marks, frame, count, from, HYPERPS_FRAME_TO_VM, slot_of(mm, vm), gpa >> PAGE_SHIFT);\n"
     "\tif (!orphans)\n\t\thide(mm, frame, count);\n"),
    ("mm_donate drops EPT02s after the mark", "manager.c",
     "\thide(mm, frame, FRAMES_2M);\n\tfor (u64 i = 0; i < FRAMES_2M; i++)\n\t\tpage_pool_put(mm->pool, frame + i);\n",
     "\tfor (u64 i = 0; i < FRAMES_2M; i++)\n\t\tpage_pool_put(mm->pool, frame + i);\n\thide(mm, frame, FRAMES_2M);\n"),
    ("EPT02s are dropped whatever leaves", "manager.c",
     "page_marks_are_named(mm->marks, frame, count, mm->shadow_generation)", "true"),
    ("the first frame's generation alone counts for EPT02s", "manager.c",
     "page_marks_are_named(mm->marks, frame, count,", "page_marks_are_named(mm->marks, frame, 1,"),
    ("the generation of EPT02s stays", "shadow.c", "mm->shadow_generation % MARK_SHADOW + 1", "mm->shadow_generation"),
    ("the generation of EPT02s outgrows its bits", "shadow.c", "mm->shadow_generation % MARK_SHADOW + 1", "mm->shadow_generation + 1"),
    ("an EPT02's frames get no generation", "page_mark.c",
     "if (page_mark_state(marks, i) == HYPERPS_FRAME_HOST)\n", "if (page_mark_state(marks, i) > HYPERPS_FRAME_HOST)\n"),
    ("a leaf that replaces one of an EPT02 gets no generation", "shadow.c", "\tpage_marks_name(mm->marks,", "\tif (!*entry)\n\t\tpage_marks_name(mm->marks,"),
    ("an EPT02 goes round at the host view's width", "ept.c", "gpa.value >= BIT(level_shift(ept->levels + 1)) || !*entry", "!*entry"),
    ("a fill of an EPT02 that is dry keeps no entry of its root", "shadow.c",
     "\t\tif (!table)\n\t\t\treturn SHADOW_DRY;\n",
     "\t\tif (!table) {\n\t\t\tshadow->first[root] = ENTRIES;\n\t\t\tshadow->last[root] = 0;\n\t\t\treturn SHADOW_DRY;\n\t\t}\n"),
    ("one frame of an EPT02's large page gets the generation", "shadow.c", "ept_level_size(level) / PAGE_SIZE,\n", "1,\n"),
    ("a generation of EPT02s is added to the last one", "page_mark.c",
     "(marks->mark[i] & ~(MARK_SHADOW << MARK_SHADOW_SHIFT)) |", "marks->mark[i] |"),
    ("one CPU's EPT02s alone are dropped", "shadow.c", "shadow = shadow->next)", "shadow = NULL)"),
    ("one EPT02 of a CPU is not dropped", "shadow.c",
     "for (unsigned i = 0; i < SHADOW_ROOTS; i++)\n\t\tshadow_drop(", "for (unsigned i = 1; i < SHADOW_ROOTS; i++)\n\t\tshadow_drop("),
    ("an EPT02's last entry is not dropped", "shadow.c", "i <= shadow->last[root]", "i < shadow->last[root]"),
    ("the first entry of an EPT02's root is not kept", "shadow.c", "\t\tshadow->first[root] = index;\n", "\t\t;\n"),
    ("the last entry of an EPT02's root is not kept", "shadow.c", "\t\tshadow->last[root] = index;\n", "\t\t;\n"),
    ("a drop of EPT02s asks for no INVEPT", "shadow.c", "\tshadow->last[root] = 0;\n\tshadow->must_invept = true;\n", "\tshadow->last[root] = 0;\n"),
    ("an EPT02 is filled before INVEPT", "shadow.c", "if (shadow->must_invept)\n\t\treturn SHADOW_DRY;\n", ""),
    ("an EPT12 gets another's EPT02", "shadow.c", "\tshadow_drop(shadow, oldest);\n", ""),
    ("the last EPT12's EPT02 is replaced", "shadow.c", "shadow->age[i] < shadow->age[oldest]", "shadow->age[i] > shadow->age[oldest]"),
    ("finding an EPT02 is no use of it", "shadow.c", "\t\tshadow->age[i] = ++shadow->clock;\n", "\t\t;\n"),
    ("tables of EPT02s are free though roots have entries", "shadow.c", "\tif (empty)\n", "\tif (true)\n"),
    ("tables of EPT02s are free if one root is empty", "shadow.c",
     "empty = empty && shadow->first[i] > shadow->last[i];", "empty = shadow->first[i] > shadow->last[i];"),
    ("tables of EPT02s are never free", "shadow.c", "\tif (empty)\n", "\tif (false)\n"),
    ("an INVEPT of EPT02s is asked for again and again", "shadow.c", "\tshadow->must_invept = false;\n", ""),
    ("a table of an EPT02 is linked as it is", "shadow.c", "table[i] = 0;", ";"),
    ("half of a table of an EPT02 is zeroed", "shadow.c", "i < ENTRIES; i++)\n\t\ttable[i]", "i < ENTRIES / 2; i++)\n\t\ttable[i]"),
    ("an EPT02 takes a table of another CPU's", "shadow.c", "shadow->used >= shadow->count", "shadow->used > shadow->count"),
    ("the same table is handed out again for EPT02s", "shadow.c", "shadow->used++ * PAGE_SIZE", "shadow->used * PAGE_SIZE"),
    ("an EPT02's large page becomes small ones without INVEPT", "shadow.c",
     "\tif (*entry)\n\t\tshadow->must_invept = true;\n", ""),
    ("an EPT02's small pages become a large one without INVEPT", "shadow.c",
     "\tif (level == 2 && *entry && !(*entry & EPT_LARGE))\n\t\tshadow->must_invept = true;", ""),
    ("an EPT02's large page counts as a table", "shadow.c", "if (*entry && !(*entry & EPT_LARGE))\n\t\treturn shadow->tables", "if (*entry)\n\t\treturn shadow->tables"),
    ("an EPT02 names any frame that the host view maps", "shadow.c",
     "return state == HYPERPS_FRAME_HOST || state == HYPERPS_FRAME_DEVICE;", "return true;"),
    ("an EPT02 names no device", "shadow.c",
     "return state == HYPERPS_FRAME_HOST || state == HYPERPS_FRAME_DEVICE;", "return state == HYPERPS_FRAME_HOST;"),
    ("an EPT02 names any frame that the host view maps, or will", "shadow.c", "!are_hosts(mm->marks, run.frame, run.frames)", "false"),
    ("the first mark alone counts for an EPT02's large page", "shadow.c", "for (u64 i = 1; i < count; i++)", "for (u64 i = 1; i < 1; i++)"),
    ("an EPT02 has larger pages than the host view's runs", "shadow.c", "run.frames != size / PAGE_SIZE ||", "!run.frames ||"),
    ("an EPT02 has large pages where EPT12 has small ones", "shadow.c", "for (*level = leaf->level; *level; --*level)", "for (*level = 2; *level; --*level)"),
    ("an EPT02 has small pages alone", "shadow.c", "for (*level = leaf->level; *level; --*level)", "for (*level = 1; *level; --*level)"),
    ("an EPT02 has all of the host view's rights", "shadow.c", "(run.entry & leaf->rights & EPT_RWX)", "(run.entry & EPT_RWX)"),
    ("an EPT02 has all of EPT12's rights", "shadow.c", "(run.entry & leaf->rights & EPT_RWX)", "(leaf->rights & EPT_RWX)"),
    ("bits of EPT12's rights go to other bits of an EPT02", "shadow.c", "(run.entry & leaf->rights & EPT_RWX)", "(run.entry & EPT_RWX & leaf->rights) | (leaf->rights & BIT(6))"),
    ("an EPT02 is filled with less than the access needs", "shadow.c", " || (access & ~(value & EPT_RWX)))", ")"),
    ("an EPT02 has pages that can't be read", "shadow.c", "if (!(value & EPT_READ) || (access", "if (!value || (access"),
    ("an EPT02 has EPT12's memory types", "shadow.c", "\t\tif (type == MEMORY_TYPE_WB)\n", ""),
    ("an EPT02 has the host view's memory types", "shadow.c", "\t\tif (type == MEMORY_TYPE_WB)\n\t\t\ttype = leaf->type;\n", ""),
    ("an EPT02 ignores PAT", "shadow.c", "return run.frame << PAGE_SHIFT |", "return BIT(6) | run.frame << PAGE_SHIFT |"),
    ("an EPT02 gets memory types that there are not", "shadow.c", " || leaf->type > 7 || !(TYPES >> leaf->type & 1))", ")"),
    ("an EPT02 gets memory types of four bits", "shadow.c", " || leaf->type > 7 ||", " ||"),
    ("an L2's address is cut to the 48 bits of an EPT02", "shadow.c", " || gpa >= BIT(48)", ""),
    ("an EPT02 gets pages of any size", "shadow.c", "leaf->level < 1 || leaf->level > 2 || ", ""),
    ("an EPT02 gets a leaf for another address", "shadow.c", "leaf->gpa != ALIGN_DOWN(gpa, size) || ", ""),
    ("an EPT02 gets a leaf that is not aligned", "shadow.c", " || leaf->hpa % size)", ")"),
    # KVM VMs: P4, P8, P9
    ("frames that were ORPHAN return without a flush", "manager.c", "& MARK_PAGE) <= MARK_PAGE / 2)", "& MARK_PAGE) <= MARK_PAGE)"),
    ("the flush of frames that were ORPHAN is off by one", "manager.c", "((mm->flushed - 1 - (", "((mm->flushed - ("),
    ("frames that were ORPHAN have no epoch", "manager.c", "MARK_NOBODY, mm->epoch & MARK_PAGE);", "MARK_NOBODY, 0);"),
    ("a living VM's TO_HOST frames return as nobody's", "manager.c",
     " &&\n\t       (mm->marks->mark[frame] >> MARK_VM_SHIFT & MARK_VM) == MARK_NOBODY;", ";"),
    ("mm_return_end zeroes what lies behind the frame's 64", "manager.c", "returnable(mm, i, first + RETURN_BATCH - i);", "returnable(mm, i, RETURN_BATCH);"),
    ("mm_return_end says nothing of the frame", "manager.c", "return !is_nobodys(mm, frame);", "return true;"),
    ("mm_return_begin leaves the frame of zeros in the host view", "manager.c", "\t\t\tdrop_zeros(mm, i, 1);\n", ""),
    ("mm_guest_move leaves the frame of zeros in the host view", "manager.c", "\t\t\tdrop_zeros(mm, run.frame, run.frames);\n", "\t\t\t;\n"),
    ("mm_guest_move leaves the second zero leaf of a run", "manager.c", "drop_zeros(mm, run.frame, run.frames);", "drop_zeros(mm, run.frame, 1);"),
    ("the host may write to the frame of zeros", "manager.c", "mm->zeros << PAGE_SHIFT | EPT_READ |", "mm->zeros << PAGE_SHIFT | EPT_RWX |"),
    ("the host reads the frame itself", "manager.c", "mm->zeros << PAGE_SHIFT | EPT_READ |", "frame << PAGE_SHIFT | EPT_READ |"),
    ("frames of a living VM become ORPHAN", "manager.c", "mm->vm[slot].state == HYPERPS_VM_DYING && !", "!"),
    ("frames become ORPHAN while a vCPU runs", "manager.c", " && !mm->vm[slot].running)", ")"),
    ("frames of other VMs become ORPHAN", "manager.c", "if (mm_kvm_of_frame(mm, i) == slot) {", "if (mm_kvm_of_frame(mm, i) < HYPERPS_VMS) {"),
    ("the burial marks by its entries alone", "manager.c",
     "\t\t\torphan(mm, slot_of(mm, vm), run.frame, run.frames);",
     "\t\t\tfor (u64 i = 0; i < run.frames; i++)\n\t\t\t\tpage_mark_set(mm->marks, run.frame + i, HYPERPS_FRAME_ORPHAN, 0, 0);"),
    ("the burial gives back what may be another VM's", "manager.c", "\t\tif (!vm->kvm.is_kvm)\n\t\t\tgive_back(", "\t\t\tgive_back("),
    ("frames of bare VMs become ORPHAN", "manager.c", "mm->vm[slot].kvm.is_kvm ? slot : HYPERPS_VMS;", "true ? slot : HYPERPS_VMS;"),
    ("a VM that is killed goes on with what is released", "manager.c", "\tvm->released.count = vm->released.frames = 0;", "\t"),
    ("mm_kill kills any VM", "manager.c", "if (!vm->kvm.is_kvm || vm->state == HYPERPS_VM_DYING || vm->state == HYPERPS_VM_DEAD)\n\t\treturn;",
     "if (vm->state == HYPERPS_VM_DYING || vm->state == HYPERPS_VM_DEAD)\n\t\treturn;"),
    ("mm_kill begins again with the dead", "manager.c",
     "if (!vm->kvm.is_kvm || vm->state == HYPERPS_VM_DYING || vm->state == HYPERPS_VM_DEAD)\n\t\treturn;",
     "if (!vm->kvm.is_kvm || vm->state == HYPERPS_VM_DYING)\n\t\treturn;"),
    ("mm_kill tells nobody", "manager.c", "\tbegin_end(vm);\n\tmm->bindings++;\n", "\tbegin_end(vm);\n"),
    ("mm_bury buries the living", "manager.c",
     "if (!vm->kvm.is_kvm || (vm->state != HYPERPS_VM_DYING && vm->state != HYPERPS_VM_DEAD))", "if (!vm->kvm.is_kvm || vm->state == HYPERPS_VM_FREE)"),
    ("an OPEN VM gets ORPHAN frames, content and all", "manager.c", "vm->kvm.is_kvm && vm->state == HYPERPS_VM_SEALED &&", "vm->kvm.is_kvm &&"),
    ("a bare VM gets ORPHAN frames", "manager.c", "vm->kvm.is_kvm && vm->state == HYPERPS_VM_SEALED &&", "vm->state == HYPERPS_VM_SEALED &&"),
    ("KVM VMs have tables of the monitor's pool", "manager.c", "create(mm, mm->kvm_pages)", "create(mm, mm->pool)"),
    ("a VM's root goes back to the monitor's pool", "manager.c", "page_pool_put(vm->view.pool, page_pool_hpa", "page_pool_put(mm->pool, page_pool_hpa"),
    ("KVM VMs' pages stay in quarantine", "manager.c", "if (mm->kvm_pages)\n", "if (!mm->kvm_pages)\n"),
    ("the count of KVM VMs only grows", "manager.c", "\tmm->kvm_vms -= vm->kvm.is_kvm;\n", ""),
    ("a KVM VM with a bad range stays", "manager.c", "\tif (error < 0)\n\t\tfree_slot(mm, vm);\n", ""),
    # I8 and the tables
    ("handles come back: the generation is not increased", "manager.c", "vm->generation++;", ""),
    ("any generation of a handle will do", "manager.c", "handle >> 32 == vm->generation && ", ""),
    ("the end of the guest's addresses is not looked at", "manager.c", "count <= (VIEW_LIMIT - gpa) / PAGE_SIZE", "true"),
    ("mm_destroy does not mark", "manager.c",
     "page_marks_move(mm->marks, run.frame, run.frames, state, HYPERPS_FRAME_TO_HOST, slot_of(mm, vm),", "(void)("),
    ("mm_query tells about any VM's frames", "manager.c",
     "(mm->marks->mark[frame] >> MARK_VM_SHIFT & MARK_VM) == slot_of(mm, vm)", "true"),
    ("mm_query tells about the monitor's frames", "manager.c",
     "state == HYPERPS_FRAME_HOST || state == HYPERPS_FRAME_DEVICE", "!is_of_vm"),
    ("mm_map does not look whether the pool has the pages", "manager.c",
     "if (!refresh_pool(mm, MM_POOL_RESERVE) || page_pool_available(vm->view.pool) < MM_POOL_RESERVE)",
     "refresh_pool(mm, MM_POOL_RESERVE);\n\tif (page_pool_available(vm->view.pool) < MM_POOL_RESERVE)"),
    ("mm_map does not look whether the KVM VMs' pool has the pages", "manager.c",
     "if (!refresh_pool(mm, MM_POOL_RESERVE) || page_pool_available(vm->view.pool) < MM_POOL_RESERVE)",
     "if (!refresh_pool(mm, MM_POOL_RESERVE))"),
    ("a large page that is split loses a permission", "ept.c",
     "(*entry & ~EPT_LARGE) + i", "(*entry & ~(EPT_LARGE | EPT_EXECUTE)) + i"),
    ("pages are merged that are not one after the other", "ept.c",
     "if (table[i] != first + i * ept_level_size(level))", "if (!table[i])"),
    ("the counters by state are not kept", "page_mark.c", "marks->count[to] += count;", ""),
]


def compile_file(source, result):
    """Compiles one file of C."""
    subprocess.run(["gcc", *FLAGS, "-c", "-o", result, source], check=True)


def build(name, changed=None):
    """Links the property test with mm/, one of whose files may be another; returns the program's path."""
    program = f"{FOLDER}/{name}"
    objects = [changed if changed and os.path.basename(changed).endswith(f"-{source}.o") else f"{FOLDER}/{source}.o"
               for source in sorted(os.listdir(f"{TOP}/mm")) if source.endswith(".c")]
    others = [f"{FOLDER}/{os.path.basename(source)}.o" for source in OTHERS]
    subprocess.run(["gcc", "-o", program, *others, *objects, "-lcmocka"], check=True)
    return program


def run(program):
    """Runs the property test; returns None if it passes, else why it does not."""
    environment = os.environ | {"CMOCKA_MESSAGE_OUTPUT": "TAP", "HYPERPS_MANAGER_SEEDS": str(SEEDS)}
    try:
        done = subprocess.run([program], env=environment, text=True, errors="replace", check=False, timeout=TIMEOUT,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        return f"hangs for {TIMEOUT} s"
    if done.returncode < 0:
        return f"ends with signal {-done.returncode}"
    found = re.search(r"seed \d+, profile.*", done.stdout)
    return found.group(0) if found else done.stdout[-1000:] if done.returncode else None


def try_mutant(number, mutant):
    """Whether the source could be changed, and what the property test says."""
    _, name, old, new = mutant
    with open(f"{TOP}/mm/{name}", encoding="utf-8") as file:
        source = file.read()
    if source.count(old) != 1:
        return False, f"the string occurs {source.count(old)} times in mm/{name}: {old!r}"
    changed = f"{FOLDER}/{number}-{name}"
    with open(changed, "w", encoding="utf-8") as file:
        file.write(source.replace(old, new))
    try:
        compile_file(changed, f"{changed}.o")
    except subprocess.CalledProcessError:
        return False, "does not compile"
    return True, run(build(f"mutant-{number}", f"{changed}.o"))


def main(word):
    """The TAP test."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    mutants = [mutant for mutant in MUTANTS if word in mutant[0]]
    killed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        sources = [f"{TOP}/mm/{name}" for name in os.listdir(f"{TOP}/mm") if name.endswith(".c")]
        sources += [f"{TOP}/{name}" for name in OTHERS]
        for job in [pool.submit(compile_file, source, f"{FOLDER}/{os.path.basename(source)}.o") for source in sources]:
            job.result()
        verdict = run(build("unchanged"))
        ok(verdict is None, f"the property test passes with {SEEDS} sequences on mm/ as it is")
        if verdict is not None:
            note(verdict)
        results = pool.map(try_mutant, range(len(mutants)), mutants)
        for (text, *_), (changed, verdict) in zip(mutants, results):
            killed += bool(changed and verdict)
            if not ok(changed and verdict, f"found: {text}"):
                note(verdict or "the property test passes")
            elif verdict:
                note(verdict)
    figure(f"mutants of mm/ that the property test finds: {killed} of {len(mutants)}")
    finish()


if len(sys.argv) > 2 or "-h" in "".join(sys.argv[1:])[:2]:
    sys.exit(__doc__)
main("".join(sys.argv[1:]))

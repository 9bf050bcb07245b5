# SPDX-License-Identifier: MIT
"""Compares the page marks with the host view and the view of every VM, from outside the machine and independently of the
monitor's code. The rules are those of mm/manager.h. No request may be under way.

    state        host view     views of VMs
    DEVICE       itself        nowhere
    HOST         itself        nowhere
    MONITOR      absent        nowhere
    TO_MONITOR   absent        nowhere
    TO_VM        absent        once: in that VM's, at that gpa, but not present (bits 2:0 are 0)
    PRIVATE      absent        once: in that VM's, at that gpa
    SHARED       itself, R+W   once: in that VM's, at that gpa
    TO_HOST      absent        once: in that VM's, at that gpa. The VM is dying or dead, so that no CPU uses its view; or it
                               is sealed and has released the page: then its leaf has no rights, now or later
"""

import struct
from array import array

from walk import ADDRESS, LARGE

RIGHTS = 7
PENDING_SHIFT = 52  # where a leaf that is not yet present keeps its rights
TYPE_SHIFT, WRITE_BACK = 3, 6
VIEW_BITS = 46  # of a VM
REPORTED = "reported"  # stands in the faults of the numbers that the monitor gives
OPEN, SEALED, DYING, DEAD, SEALING = 1, 2, 3, 4, 5
# How each vCPU of vm_churn.ko starts: mode and argument, entry, CR3. The monitor keeps them behind the handle, before the
# address of the VMCS.
START = struct.pack("<QQQ", 1 | 0x2A5EC7C0D000, 0x1000, 0)
SCAN = 64 << 20
# By the state's number, as in the low 4 bits of a mark.
STATES = ["device", "host", "monitor", "private", "shared", "to_vm", "to_host", "to_monitor"]
HOST_RIGHTS = {"device": 7, "host": 7, "shared": 3}
OF_VM = {"private", "shared", "to_vm", "to_host"}


def mark_of(state, slot=0, page=0):
    """A mark's value."""
    return STATES.index(state) | slot << 4 | page << 16


def fields(mark):
    """A mark's state, VM slot and guest-physical page."""
    state = mark & 0xF
    return STATES[state] if state < len(STATES) else f"state {state}", mark >> 4 & 0xFFF, mark >> 16 & 0xFFFFFFFFF


def read_marks(read, frames):
    """All marks, by frame."""
    return array("Q", read(frames["table_base"], 8 * frames["table_frames"]))


def entry_at(read, eptp, address):
    """(hpa, level, value) of the entry for this address where a walk ends: a leaf, or one that is 0."""
    table = eptp & ADDRESS
    for level in range((eptp >> 3 & 7) + 1, 0, -1):
        hpa = table + 8 * (address >> 12 + 9 * (level - 1) & 511)
        value = int.from_bytes(read(hpa, 8), "little")
        if level == 1 or value & LARGE or not value:
            return hpa, level, value
        table = value & ADDRESS
    return None


def leaves(read, eptp, tables, faults):
    """Yields (address, level, entry) of each leaf, present or not; adds the frames of the tables to `tables`."""
    name = f"view {eptp:#x}"
    if eptp & 7 != WRITE_BACK or eptp & 0xFC0 or (eptp >> 3 & 7) not in (3, 4):
        faults.append(f"{name}: malformed")
        return
    stack = [(eptp & ADDRESS, (eptp >> 3 & 7) + 1, 0)]
    while stack:
        table, level, base = stack.pop()
        tables.append(table >> 12)
        try:
            page = array("Q", read(table, 4096))
        except ValueError:
            faults.append(f"{name}: a table lies outside the RAM, at {table:#x}")
            continue
        for index, entry in enumerate(page):
            if not entry:
                continue
            address = base + (index << 12 + 9 * (level - 1))
            if level == 1 or entry & LARGE:
                yield address, level, entry
            elif entry & RIGHTS != RIGHTS:
                faults.append(f"{name}: the table at {address:#x}, level {level - 1}, has rights {entry & RIGHTS}")
            else:
                stack.append((entry & ADDRESS, level - 1, address))


def walk_host(read, status, count, tables, faults):
    """The rights that the host view gives to each of the first `count` frames. Those above must all be there."""
    held, above = bytearray(count), 0
    for address, level, entry in leaves(read, status["host_view_eptp"], tables, faults):
        size = 1 << 12 + 9 * (level - 1)
        first, end = address >> 12, address + size >> 12
        inside = max(0, min(end, count) - first)
        if entry & ADDRESS & ~(size - 1) != address or entry >> PENDING_SHIFT & RIGHTS or (end > count and entry & RIGHTS != RIGHTS):
            faults.append(f"the host view has {entry:#x} at {address:#x}")
        held[first:first + inside] = bytes([entry & RIGHTS]) * inside
        above += end - first - inside
    if above != (1 << status["physical_address_bits"] - 12) - count:
        faults.append(f"the host view holds {above} frames above the {count} that have marks")
    return held


def walk_guest(read, vm, given, tables, faults):
    """Adds frame: (slot, guest-physical page, rights, rights to be) to `given` for all that a VM's view holds."""
    name, leaf_count = f"VM {vm['slot']}", [0, 0, 0, 0, 0, 0]
    for address, level, entry in leaves(read, vm["view_eptp"], tables, faults):
        leaf_count[level] += 1
        rights, later = entry & RIGHTS, entry >> PENDING_SHIFT & RIGHTS
        if (rights and later) or (rights or later) in (2, 4, 6):
            faults.append(f"{name} has {entry:#x} at {address:#x}: its rights are nonsense")
        if entry >> TYPE_SHIFT & 7 != WRITE_BACK or level > 2 or address >> VIEW_BITS:
            faults.append(f"{name} has {entry:#x} at {address:#x}, level {level}")
            continue
        size = 1 << 9 * (level - 1)
        first, page = (entry & ADDRESS) >> 12, address >> 12
        if first % size:
            faults.append(f"{name} has a misaligned {entry:#x} at {address:#x}")
        for i in range(size):
            if first + i in given:
                faults.append(f"frame {first + i:#x} is in {name} at {page + i:#x}, and in VM %d at %#x" % given[first + i][:2])
            given[first + i] = (vm["slot"], page + i, rights, later)
    if leaf_count[1:3] != [vm["view_4k"], vm["view_2m"]]:
        faults.append(f"{name} has {leaf_count[1:3]} leaves; {[vm['view_4k'], vm['view_2m']]} are {REPORTED}")


def check_given(frame, mark, leaf, vms, faults):
    """A frame of a VM: its mark and its leaf, which may be None, must say the same."""
    state, slot, page = fields(mark)
    what = f"frame {frame:#x}, {state} of VM {slot} at {page:#x},"
    vm = vms.get(slot)
    if not vm:
        faults.append(f"{what} is of a VM that there is not")
    elif (vm["state"] in (OPEN, SEALING) and state == "to_host") or (vm["state"] == DEAD and state != "to_host"):
        faults.append(f"{what} is of a VM in state {vm['state']}")
    if not leaf:
        faults.append(f"{what} is in no view")
    elif leaf[:2] != (slot, page):
        faults.append(f"{what} is in the view of VM {leaf[0]}, at {leaf[1]:#x}")
    elif state == "to_host":
        if vm and vm["state"] == SEALED and (leaf[2] or leaf[3]):
            faults.append(f"{what} is released, but has rights {leaf[2]}, later {leaf[3]}")
    elif bool(leaf[2]) != (state != "to_vm") or bool(leaf[3]) != (state == "to_vm"):
        faults.append(f"{what} has rights {leaf[2]} there, later {leaf[3]}")


def check_counts(count, of_vm, frames, vms, faults):
    """The numbers that the monitor reports. of_vm: (slot, state) of each frame of a VM."""
    for state in STATES:
        if frames[state] != count.get(state, 0):
            faults.append(f"{count.get(state, 0)} frames are {state}, but {frames[state]} are {REPORTED}")
    for slot, vm in vms.items():
        has = {state: of_vm.count((slot, state)) for state in OF_VM}
        if sum(has.values()) != vm["frames"]:
            faults.append(f"VM {slot} has {sum(has.values())} frames by the marks, but {vm['frames']} are {REPORTED}")
        if vm["state"] in (OPEN, SEALING, SEALED) and has["to_vm"] != vm["pending"]:
            faults.append(f"VM {slot} has {has['to_vm']} pending frames by the marks, but {vm['pending']} are {REPORTED}")


def check_ownership(read, status, frames, vms):
    """Faults of marks and views. status and frames are hpsctl's; vms is a list of struct hyperps_vm with their slots."""
    faults, tables, given = [], [], {}
    marks = read_marks(read, frames)
    held = walk_host(read, status, len(marks), tables, faults)
    for vm in vms:
        walk_guest(read, vm, given, tables, faults)
    vms = {vm["slot"]: vm for vm in vms}
    count, of_vm = {}, []
    for frame, mark in enumerate(marks):
        state = STATES[mark & 0xF] if mark & 0xF < len(STATES) else None
        count[state] = count.get(state, 0) + 1
        leaf = given.pop(frame, None)
        if held[frame] != HOST_RIGHTS.get(state, 0):
            faults.append(f"frame {frame:#x} is {state} and has rights {held[frame]} in the host view")
        if state in OF_VM:
            of_vm.append((mark >> 4 & 0xFFF, state))
            check_given(frame, mark, leaf, vms, faults)
        elif leaf:
            faults.append(f"frame {frame:#x} is {state}, but VM {leaf[0]} has it at {leaf[1]:#x}")
    for frame, leaf in given.items():
        faults.append(f"frame {frame:#x} has no mark, but VM {leaf[0]} has it at {leaf[1]:#x}")
    for table in tables:
        if table >= len(marks) or marks[table] & 0xF != STATES.index("monitor"):
            faults.append(f"frame {table:#x} is a table of a view, but not the monitor's")
    if len(set(tables)) != len(tables):
        faults.append("a frame is two tables at once")
    check_counts(count, of_vm, frames, vms, faults)
    return faults


def find_vcpus(read, frames):
    """Yields (frame, handle, frame of the VMCS) wherever in the RAM what a vCPU began with stands. Stale ones are found, too."""
    end = frames["table_frames"] << 12
    for base in range(0, end, SCAN):
        data = read(base, min(SCAN, end - base))
        at = data.find(START)
        while at >= 0:
            # Neither lies across a page.
            if at >= 8 and at + len(START) + 8 <= len(data):
                handle, = struct.unpack_from("<Q", data, at - 8)
                vmcs, = struct.unpack_from("<Q", data, at + len(START))
                yield base + at >> 12, handle, vmcs >> 12 if vmcs & 0xFFF == 0 and 0 < vmcs < end else None
            at = data.find(START, at + 1)


def check_vcpus(read, frames, vms, found):
    """Faults of the pages of vCPUs. found: what find_vcpus() gave. Each live vCPU has a page and a VMCS, and only the monitor has
    what one began with."""
    faults, marks, pages = [], read_marks(read, frames), {}
    own = {STATES.index("monitor"), STATES.index("to_monitor")}
    for frame, handle, vmcs in found:
        if marks[frame] & 0xF not in own:
            faults.append(f"frame {frame:#x} is {fields(marks[frame])[0]}, and has the start of a vCPU")
        elif vmcs and marks[vmcs] & 0xF == STATES.index("monitor") == marks[frame] & 0xF:
            pages.setdefault(handle, set()).update({frame, vmcs})
    for vm in vms:
        if vm["vcpus"] and len(pages.get(vm["handle"], ())) < 2:
            faults.append(f"the monitor has no pages of the vCPU of VM {vm['slot']}")
    return faults


# --- positive controls

def falsified(read, changes):
    """A read() that shows other 8-byte values at some addresses."""
    def read_changed(hpa, length):
        data = bytearray(read(hpa, length))
        for at, value in changes.items():
            if hpa <= at and at + 8 <= hpa + length:
                data[at - hpa:at - hpa + 8] = value.to_bytes(8, "little")
        return bytes(data)
    return read_changed


def mark_controls(frames, sample, vms):
    """(text, what to change) for marks that lie. sample: frame and mark of one frame in each state."""
    slot = vms[0]["slot"]
    lies = {
        "private": [("host", mark_of("host")), ("to_vm", None), ("to_host", None), ("shared", None),
                    ("monitor", mark_of("monitor"))],
        "shared": [("host", mark_of("host")), ("private", None), ("to_vm", None)],
        "to_vm": [("private", None), ("to_host", None)],
        "to_host": [("host", mark_of("host")), ("private", None)],
        "host": [("private", mark_of("private", slot, 1)), ("monitor", mark_of("monitor")), ("to_vm", mark_of("to_vm", slot, 1))],
        "monitor": [("host", mark_of("host")), ("private", mark_of("private", slot, 1))],
    }
    for state, others in lies.items():
        if state not in sample:
            continue
        frame, mark = sample[state]
        at = frames["table_base"] + 8 * frame
        for other, value in others:
            yield f"a {state} frame that is marked {other}", {at: mark & ~0xF | STATES.index(other) if value is None else value}
        if state in OF_VM:
            yield f"a {state} frame that is marked with another gpa", {at: mark ^ 1 << 16}
            yield f"a {state} frame that is marked with another VM", {at: mark ^ 1 << 4}


def view_controls(read, status, sample, vms):
    """(text, what to change) for views that lie."""
    views = {vm["slot"]: vm["view_eptp"] for vm in vms}
    monitor = sample["monitor"][0] << 12
    for state in ("private", "to_vm", "to_host", "monitor"):
        if state in sample:
            address = sample[state][0] << 12
            hpa, level, _ = entry_at(read, status["host_view_eptp"], address)
            leaf = address >> 12 + 9 * (level - 1) << 12 + 9 * (level - 1)
            yield f"a {state} frame in the host view", {hpa: leaf | RIGHTS | WRITE_BACK << TYPE_SHIFT | (LARGE if level > 1 else 0)}
    hpa, level, entry = entry_at(read, status["host_view_eptp"], sample["host"][0] << 12)
    yield "a host frame that is not in the host view", {hpa: 0}
    yield "a host view that is not identity", {hpa: entry ^ 1 << 12 + 9 * (level - 1)}
    yield "a read-only host view", {hpa: entry & ~2}
    yield "a host view without execution", {hpa: entry & ~4}
    for state in ("private", "to_vm"):
        if state not in sample:
            continue
        _, slot, page = fields(sample[state][1])
        hpa, level, entry = entry_at(read, views[slot], page << 12)
        yield f"a {state} frame without a leaf", {hpa: 0}
        yield f"a VM's leaf of a {state} frame on monitor memory", {hpa: entry & ~ADDRESS & ~LARGE | monitor}
        yield f"a VM's leaf of a {state} frame on a host frame", {hpa: entry & ~ADDRESS & ~LARGE | sample["host"][0] << 12}
        yield f"a {state} frame that is {'not ' if state == 'private' else ''}present", {hpa: entry ^ 7 ^ 7 << PENDING_SHIFT}
        empty = hpa ^ 8 if not int.from_bytes(read(hpa ^ 8, 8), "little") else None
        if empty:
            yield f"a {state} frame in two places", {empty: entry}
    for vm in vms:
        if vm["view_eptp"] != views[fields(sample["private"][1])[1]]:
            root = vm["view_eptp"] & ADDRESS
            yield "a VM whose view begins with another one's tables", {
                root + 8 * i: int.from_bytes(read((views[fields(sample["private"][1])[1]] & ADDRESS) + 8 * i, 8), "little")
                for i in range(512)}
            break
    yield "a table that is marked as the host's", None


def controls(read, status, frames, vms):
    """Yields (text, read) for lies that check_ownership() must notice without the numbers that the monitor reports, as far as the
    machine's state has the frames for them."""
    sample = {}
    # The VM's state for which the lie is one whatever else is the case.
    states = {"private": (OPEN, SEALED), "shared": (SEALED,), "to_vm": (OPEN, SEALED), "to_host": (DEAD,)}
    state_of = {vm["slot"]: vm["state"] for vm in vms}
    for frame, mark in enumerate(read_marks(read, frames)):
        state, slot, _ = fields(mark)
        if state not in states or state_of.get(slot) in states[state]:
            sample.setdefault(state, (frame, mark))
    if not vms or "private" not in sample or "host" not in sample:
        return
    table = frames["table_base"] + 8 * ((status["host_view_eptp"] & ADDRESS) >> 12)
    for text, changes in [*mark_controls(frames, sample, vms), *view_controls(read, status, sample, vms)]:
        yield text, falsified(read, changes or {table: mark_of("host")})


def vcpu_controls(read, frames, vms, found):
    """(text, read) for lies that check_vcpus() must notice."""
    live = {vm["handle"] for vm in vms if vm["vcpus"]}
    marks = read_marks(read, frames)
    for frame, handle, vmcs in found:
        if handle in live and vmcs and marks[frame] & 0xF == marks[vmcs] & 0xF == STATES.index("monitor"):
            alike = {at for f, h, v in found if h == handle for at in (f, v) if at}
            yield "a vCPU's page that is the host's", falsified(read, {frames["table_base"] + 8 * frame: mark_of("host")})
            yield "a vCPU whose pages are a VM's", falsified(read, {frames["table_base"] + 8 * at: mark_of("private") for at in alike})
            return


def consistent(read, status, frames, vms):
    """Yields (text, read) for what only a guest can bring about, and check_ownership() must accept but for the reported numbers."""
    views = {vm["slot"]: vm["view_eptp"] for vm in vms if vm["state"] == SEALED}
    for frame, mark in enumerate(read_marks(read, frames)):
        state, slot, page = fields(mark)
        if state != "private" or slot not in views:
            continue
        at = frames["table_base"] + 8 * frame
        host, host_level, _ = entry_at(read, status["host_view_eptp"], frame << 12)
        leaf, level, entry = entry_at(read, views[slot], page << 12)
        if host_level == level == 1:
            yield "a page that its guest shares", falsified(read, {
                at: mark_of("shared", slot, page), host: frame << 12 | HOST_RIGHTS["shared"] | WRITE_BACK << TYPE_SHIFT})
            yield "a page that its guest has released", falsified(read, {
                at: mark_of("to_host", slot, page), leaf: entry & ~RIGHTS})
            return

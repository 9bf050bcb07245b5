# SPDX-License-Identifier: MIT
"""Walks the monitor's page tables and the host view from outside the machine, independently of the monitor's code."""

ADDRESS = 0x000FFFFFFFFFF000
DIRECT = 472 << 39  # where memory that the host donates is mapped
LARGE = 1 << 7


def leaves(read, root, levels, present):
    """Yields (first address, size, entry, AND of the entries on the way) of each leaf. present: mask of bits that make an entry
    one. read(hpa, length) gives memory."""
    stack = [(root, levels, 0, ~0)]
    while stack:
        table, level, base, above = stack.pop()
        shift = 12 + 9 * (level - 1)
        page = read(table, 4096)
        for index in range(512):
            entry = int.from_bytes(page[8 * index:8 * index + 8], "little")
            if not entry & present:
                continue
            address = base + (index << shift)
            if level == 1 or entry & LARGE:
                yield address, 1 << shift, entry, above & entry
            else:
                stack.append((entry & ADDRESS, level - 1, address, above & entry))


def check_monitor_tables(read, cr3):
    """Faults of the monitor's own page tables, and how many leaves were looked at."""
    faults, count, text, spans = [], 0, 0, []
    for address, size, entry, above in leaves(read, cr3, 4, 1):
        count += 1
        # Not executable if any entry on the way says so; writable only if all say so.
        executable = not entry >> 63 and not above >> 63
        writable = bool(above & 2)
        text += executable
        spans.append((entry & ADDRESS & ~(size - 1), size))
        slot = address >> 39 & 511
        if 472 <= slot < 480:
            # Donated memory, 2 MiB at a time, at its own place in 4 TiB.
            if not writable or executable or size != 1 << 21 or entry & ADDRESS & ~(size - 1) != address - DIRECT:
                faults.append(f"{address:#x} is no part of the direct map: {entry:#x}, {size:#x} bytes")
        elif slot != 480:
            faults.append(f"{address:#x} is mapped outside slots 472 to 480")
        if writable and executable:
            faults.append(f"{address:#x} is writable and executable")
        if entry & 4 and above & 4:
            faults.append(f"{address:#x} is a user page")
    if not text:
        faults.append("no executable page at all: the walk is wrong")
    return faults, count, spans


def check_page_marks(read, frames, states, hidden):
    """Faults of the page-mark table: its counts, and that the monitor's frames are exactly the hidden ones. frames and states
    come from hpsctl frames --json."""
    faults, counts = [], [0] * len(states)
    # A page of the pool that comes back waits for a flush first.
    monitor = states.index("monitor"), states.index("to_monitor")
    table = read(frames["table_base"], 8 * frames["table_frames"])
    inside = {frame for base, size in hidden for frame in range(base >> 12, (base + size) >> 12)}
    for frame in range(frames["table_frames"]):
        state = table[8 * frame] & 0xF
        if state >= len(states):
            faults.append(f"frame {frame:#x} has state {state}")
            continue
        counts[state] += 1
        if (state in monitor) != (frame in inside):
            faults.append(f"frame {frame:#x} is {states[state]}")
    for state, count in zip(states, counts):
        if frames[state] != count:
            faults.append(f"{count} frames are {state}, but {frames[state]} are reported")
    return faults


def check_host_view(read, eptp, bits, hidden):
    """Faults of the host view: hidden is a list of (base, size) that must be absent; everything else must be identity."""
    faults, mapped = [], 0
    for address, size, entry, _ in leaves(read, eptp & ADDRESS, (eptp >> 3 & 7) + 1, 7):
        mapped += size
        frame = entry & ADDRESS & ~(size - 1)
        if frame != address:
            faults.append(f"{address:#x} maps to {frame:#x}")
        if entry & 7 != 7:
            faults.append(f"{address:#x} has permissions {entry & 7}")
        for base, length in hidden:
            if frame < base + length and base < frame + size:
                faults.append(f"{address:#x} + {size:#x} maps monitor memory")
    expected = (1 << bits) - sum(size for _, size in hidden)
    if mapped != expected:
        faults.append(f"{mapped:#x} bytes are mapped, not {expected:#x}")
    return faults

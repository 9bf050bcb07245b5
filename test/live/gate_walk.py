# SPDX-License-Identifier: MIT
"""Walks the gate's views from outside the machine, independently of the monitor's code (docs/gate.md)."""

from walk import ADDRESS, leaves

READ, WRITE, EXECUTE = 1, 2, 4
FLAGS = 0xFFF | 1 << 63
PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE, GLOBAL = 1, 2, 4, 32, 64, 128, 256
ENTRY, FILL_IMMEDIATE, CR3_IMMEDIATE = 0x775, 0x775 + 7, 0x775 + 13
RWX, WRITE_BACK_IGNORE_PAT = 7, 6 << 3 | 1 << 6


def word(page, index, size=8):
    """A little-endian number in a page; index counts in its own size, or is a byte offset for 4 bytes."""
    offset = index * 8 if size == 8 else index
    return int.from_bytes(page[offset:offset + size], "little")


def find_lists(read, region, host_eptp):
    """The EPTP lists in the monitor's memory: the host view first, then one more entry, then nothing."""
    found = []
    for page in range(region[0], region[0] + region[1], 4096):
        data = read(page, 4096)
        if word(data, 0) == host_eptp and word(data, 1) and not any(data[16:]):
            found.append((page, word(data, 1)))
    return found


def view(read, eptp):
    """{guest-physical page: (host-physical page, permissions)} of the 4 KiB pages, and the larger leaves, of a view."""
    pages, large = {}, []
    for gpa, size, entry, above in leaves(read, eptp & ADDRESS, 4, 7):
        if entry & 0x78 != WRITE_BACK_IGNORE_PAT:
            raise ValueError(f"leaf {entry:#x} at {gpa:#x} is not write-back whatever the PAT says")
        leaf = (entry & ADDRESS & ~(size - 1), entry & above & 7)
        if size == 4096:
            pages[gpa] = leaf
        else:
            large.append((gpa, size, *leaf))
    return pages, large


def reachable(read, pages, root):
    """What a CPU would translate with this guest-physical page in CR3: {linear: (gpa, entry)}, and the entries on the way. A table
    that the view does not let it read ends the walk, as an EPT violation would."""
    found, tables = {}, []
    stack = [(root, 4, 0)]
    while stack:
        gpa, level, base = stack.pop()
        if gpa not in pages or not pages[gpa][1] & READ:
            continue
        page = read(pages[gpa][0], 4096)
        for index in range(512):
            entry, linear = word(page, index), base + (index << (12 + 9 * (level - 1)))
            if not entry & PRESENT:
                continue
            if level == 1 or entry & LARGE and level < 4:
                found[linear | (0xFFFF << 48 if linear >> 47 else 0)] = (entry & ADDRESS, entry)
            else:
                tables.append(entry)
                stack.append((entry & ADDRESS, level - 1, linear))
    return found, tables


def airlock_faults(read, list_page, airlock_eptp):
    """What is wrong with an airlock; and its code page's bytes."""
    faults = []
    pages, large = view(read, airlock_eptp)
    code = [gpa for gpa, (_, rights) in pages.items() if rights & EXECUTE]
    writable = [gpa for gpa, (_, rights) in pages.items() if rights & WRITE]
    if large or len(code) != 1 or pages[code[0]][1] != EXECUTE:
        return [f"not one execute-only page: {code} {large}"], None
    if len(writable) != 1 or pages[writable[0]] != (list_page, READ | WRITE):
        faults.append(f"something else than the list can be written: {writable}")
    bytes_ = read(pages[code[0]][0], 4096)
    cr3 = word(bytes_, CR3_IMMEDIATE, 4) & ADDRESS
    if cr3 not in pages:
        return faults + [f"CR3 {cr3:#x} is no page of the airlock"], None
    for root in pages:
        found, tables = reachable(read, pages, root)
        if root != cr3:
            faults += [f"page {root:#x} as page-table root maps {linear:#x}" for linear, (gpa, _) in found.items() if gpa in pages]
            continue
        if sorted(gpa for gpa, _ in found.values()) != sorted((code[0], writable[0])):
            faults.append(f"the gate's CR3 maps {found}")
        for linear, (gpa, entry) in found.items():
            wanted = PRESENT | ACCESSED | (WRITABLE | DIRTY | 1 << 63 if gpa == writable[0] else 0)
            if entry & FLAGS != wanted:
                faults.append(f"leaf for {linear:#x} has {entry & FLAGS:#x}, not {wanted:#x}")
        faults += [f"table entry {entry:#x}" for entry in tables if entry & (USER | GLOBAL | LARGE) or not entry & ACCESSED]
    return faults, bytes_


def monitor_view_faults(read, code, own):
    """What is wrong with the monitor view that the airlock's code enters. own: [(base, size)] of the monitor's memory."""
    faults = []
    eptp, cr3 = word(code, FILL_IMMEDIATE, 4), word(code, CR3_IMMEDIATE, 4) & ADDRESS
    pages, large = view(read, eptp)
    for gpa, size, hpa, rights in [(gpa, 4096, *leaf) for gpa, leaf in pages.items()] + large:
        if not any(base <= hpa and hpa + size <= base + length for base, length in own):
            faults.append(f"{gpa:#x} maps {hpa:#x}, which is not the monitor's")
        if gpa != hpa and gpa != cr3:
            faults.append(f"{gpa:#x} maps {hpa:#x}")
        if rights & WRITE and rights & EXECUTE:
            faults.append(f"{gpa:#x} is writable and executable")
    if cr3 not in pages:
        return faults + ["the gate's CR3 means nothing in the monitor view"]
    # KVM walks the page tables of what it emulates as if it would write to each of them.
    stack = [(cr3, 4)]
    while stack:
        gpa, level = stack.pop()
        hpa, rights = next(((hpa + gpa - base, rights) for base, size, hpa, rights in large if base <= gpa < base + size),
                           pages.get(gpa, (None, 0)))
        if rights != READ | WRITE:
            faults.append(f"the page table at {gpa:#x} has rights {rights}: it can't be read and written")
        elif level > 1:
            page = read(hpa, 4096)
            entries = [word(page, index) for index in range(512)]
            stack += [(entry & ADDRESS, level - 1) for entry in entries if entry & PRESENT and not entry & LARGE]
    return faults


def check_gate(read, region, own, host_eptp, cpus):
    """Faults of all gates, and how many were looked at."""
    lists = find_lists(read, region, host_eptp)
    faults = [] if len(lists) == cpus else [f"{len(lists)} EPTP lists, not {cpus}"]
    if len({page for page, _ in lists}) != len({eptp for _, eptp in lists}):
        faults.append("two CPUs share an airlock")
    roots = set()
    for list_page, airlock_eptp in lists:
        more, code = airlock_faults(read, list_page, airlock_eptp)
        faults += more
        if code:
            roots.add(word(code, FILL_IMMEDIATE, 4))
            faults += monitor_view_faults(read, code, own)
    if len(roots) != len(lists):
        faults.append("two CPUs share a monitor view")
    return faults, len(lists)

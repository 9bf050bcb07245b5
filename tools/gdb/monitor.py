# SPDX-License-Identifier: MIT
"""gdb commands for the monitor; docs/debugging.md shows them. From the top of the tree: gdb -x tools/gdb/monitor.py"""

import glob
import os
import re

import gdb

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def value(expression):
    """A number of the program's."""
    return int(gdb.parse_and_eval(expression))


def encodings():
    """{name: encoding} of the VMCS fields that the sources name; those for a segment count as ES's."""
    found = {}
    for path in glob.glob(os.path.join(TOP, "*", "**", "*.h"), recursive=True):
        with open(path, encoding="utf-8") as file:
            for name, number in re.findall(r"^#define VMCS_(\w+)(?:\(segment\))? VMCS_FIELD\((0x\w+)", file.read(), re.M):
                found[name] = int(number, 16)
    return found


def names(prefix):
    """{number: name} of the public interface's enumeration that begins so."""
    with open(os.path.join(TOP, "include", "hyperps", "abi.h"), encoding="utf-8") as file:
        members = re.search(rf"enum[^{{]*{{(?:[^}}]*?)({prefix}[^}}]*)}}", file.read()).group(1)
    members = re.sub(r"/\*.*?\*/", "", members, flags=re.S)
    return dict(enumerate(name[len(prefix):].lower() for name in re.findall(rf"{prefix}\w+", members)))


def vmread(encoding):
    """A field of the selected CPU's current VMCS, as the emulator says it."""
    return gdb.execute(f"monitor vmread {encoding:x} {gdb.selected_thread().num - 1}", to_string=True).strip()


class Command(gdb.Command):
    """Its function's text is its help."""

    def __init__(self, function):
        self.function, self.__doc__ = function, function.__doc__
        super().__init__(function.__name__.replace("_", "-"), gdb.COMMAND_USER)

    def invoke(self, argument, from_tty):  # pylint: disable=unused-argument  # gdb's interface
        """Called by gdb."""
        self.function(argument)


@Command
def hps_log(argument):
    """hps-log [LINES]: the last lines of the monitor's log (default: all of the ring)."""
    size, written = value("(unsigned long)&image_log_size"), value("ring_written")
    start, at = value("(unsigned long)ring"), written % size
    memory = gdb.selected_inferior().read_memory(start, size).tobytes()
    text = memory[:written] if written <= size else memory[at:] + memory[:at]
    lines = text.decode(errors="replace").splitlines()
    print("\n".join(lines[-int(argument or 0):]))


@Command
def hps_cpus(_argument):
    """hps-cpus: each CPU slot's state and the exits of its host by reason."""
    areas = value("monitor.boot->cpu_area") + (value("&monitor_entry") & ~0x1fffff)
    for slot in range(value("monitor.boot->cpu_count")):
        cpu = f"((struct cpu_area *){areas:#x})[{slot}].cpu"
        exits = {reason: value(f"{cpu}.exits[{reason}]") for reason in range(value(f"sizeof({cpu}.exits) / 8"))}
        print(f"cpu{slot}: APIC ID {value(cpu + '.apic_id')}, state {value(cpu + '.state')}, latched {value(cpu + '.latched'):#x},"
              f" VMCS {'current' if value(cpu + '.vmcs_current') else 'not current'}, parked {value(cpu + '.parked')}")
        print("      exits by reason: " + " ".join(f"{reason}:{count}" for reason, count in exits.items() if count))


@Command
def hps_vmcs(argument):
    """hps-vmcs [WORD]: the fields of this CPU's current VMCS whose names contain the word."""
    for name, encoding in encodings().items():
        if argument.upper() in name:
            print(f"{name:28} {vmread(encoding)}")


@Command
def hps_frame(argument):
    """hps-frame ADDRESS: what the page mark of the frame with this physical address says."""
    frame = value(argument) >> 12
    if frame >= value("monitor.marks.frames"):
        print(f"frame {frame:#x} is above the table of page marks: it counts as device memory")
        return
    mark = value(f"monitor.marks.mark[{frame}]")
    print(f"frame {frame:#x}: {names('HYPERPS_FRAME_')[mark & 15]}, VM slot {mark >> 4 & 0xfff}, page {mark >> 16 & 0xfffffffff:#x}")


gdb.execute("set confirm off")
gdb.execute("set pagination off")
gdb.execute(f"file {os.path.join(TOP, 'build', 'monitor.elf')}")
if os.environ.get("HYPERPS_GDB_PORT"):
    gdb.execute("set tcp connect-timeout 60")
    gdb.execute(f"target remote 127.0.0.1:{os.environ['HYPERPS_GDB_PORT']}")

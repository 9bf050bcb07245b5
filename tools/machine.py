# SPDX-License-Identifier: MIT
"""One test machine: a stick image booted in Bochs, or in QEMU with KVM, with its serial console at hand. "nested" is QEMU with
KVM in a Linux in Bochs (tools/nested/).

    with Machine(cpus=2) as machine:
        machine.expect(r"login:", timeout=120)
        machine.send("root")

The image that is given is never changed: each machine works on a copy in a scratch directory, which goes with it.
"""

import atexit
import codecs
import ctypes
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(TOP, "build")
CACHE = os.environ.get("HYPERPS_CACHE") or os.path.join(TOP, ".cache")
BOCHS = os.path.join(CACHE, "bochs-3.0", "bin", "bochs")
BOCHS_GDB = os.path.join(CACHE, "bochs-3.0-gdb", "bin", "bochs")
QEMU = "qemu-system-x86_64"
NESTED_INITRD = os.path.join(BUILD, "nested-initrd.img")
# Another one holds another QEMU: tools/nested/mkdisk.
NESTED_DISK = os.environ.get("HYPERPS_NESTED_DISK") or os.path.join(CACHE, "nested", "qemu.img")
NESTED_MEMORY_LIMIT = 1600  # MiB; the rest is the outer Linux's
DEFAULT_IMAGE = os.path.join(BUILD, "hyperps.img")
DEFAULT_KERNEL = os.path.join(CACHE, "kernels", "cloud", "vmlinuz")
DEFAULT_CPU_MODEL = "corei7_skylake_x"

IPS = 200_000_000
# Bochs's CPU models report another frequency than the emulated one, and Linux would believe them.
BOCHS_OPTIONS = f"console=ttyS0,115200 tsc_early_khz={IPS // 1000}"
QEMU_OPTIONS = "console=ttyS0,115200"

CONF_PATH = r"\EFI\HYPERPS\hyperps.conf"
KERNEL_PATH = r"\EFI\HYPERPS\vmlinuz"
INITRD_PATH = r"\EFI\HYPERPS\initrd.img"
LOADER_PATH = r"\EFI\HYPERPS\hyperps.efi"
BOOT_PATH = r"\EFI\BOOT\BOOTX64.EFI"
NEXT_PATH = r"\EFI\FIRMWARE\next.txt"

CYLINDER = 16 * 63 * 512  # Bochs wants whole ones
MEMORY_LIMITS = (64, 3072)  # MiB; Bochs counts its memory in 32 bits
HOST_MEMORY_LIMIT = 2048  # of these, so many are Bochs's own memory at most; it puts what is used beyond that in a file


class MachineError(Exception):
    """The machine could not be made or started, or it ended or stayed silent when it should not."""


def need(path, hint):
    """The path, if it exists; else an error that says what to do."""
    if not os.path.exists(path):
        raise MachineError(f"{path} is missing: {hint}")
    return path


def run(*command, cwd=None):
    """Runs a tool to its end; returns its output."""
    environment = dict(os.environ, MTOOLS_SKIP_CHECK="1")
    environment["PATH"] = environment.get("PATH", "") + ":/usr/sbin:/sbin"
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, cwd=cwd,
                              check=False)
    except FileNotFoundError:
        raise MachineError(f"{command[0]} is missing: run tools/setup") from None
    if done.returncode:
        raise MachineError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def copy_disk(source, target):
    """A sparse copy, padded to what Bochs accepts."""
    run("cp", "--sparse=always", "--reflink=auto", need(source, "no such disk image"), target)
    os.chmod(target, 0o600)
    os.truncate(target, -(-os.path.getsize(target) // CYLINDER) * CYLINDER)


def kvm_can_nest():
    """Whether QEMU with KVM can give the monitor a VT-x of its own here."""
    try:
        with open("/sys/module/kvm_intel/parameters/nested", encoding="ascii") as file:
            nested = file.read().strip()
    except OSError:
        return False
    return nested in ("Y", "1") and os.access("/dev/kvm", os.R_OK | os.W_OK) and bool(shutil.which(QEMU))


class Stick:
    """The copy of the stick image, changed through mtools."""

    def __init__(self, path):
        # Its folder's name may have letters that mean something to mtools.
        self.folder, name = os.path.split(os.path.abspath(path))
        self.drive = name + "@@1M"

    def _run(self, *command):
        return run(*command, cwd=self.folder)

    @staticmethod
    def _name(path):
        return "::" + path.replace("\\", "/")

    def write(self, path, source):
        """Puts a file of this machine's on the stick."""
        if os.path.getsize(need(source, "it was to go on the stick")) >> 32:
            raise MachineError(f"{source} is too big: FAT32 takes files of less than 4 GiB")
        parts = path.strip("\\").split("\\")[:-1]
        for depth in range(1, len(parts) + 1):
            try:
                self._run("mmd", "-D", "s", "-i", self.drive, self._name("\\".join(["", *parts[:depth]])))
            except MachineError:
                pass  # there already; if not, the copy fails and says so
        try:
            self._run("mcopy", "-o", "-i", self.drive, os.path.abspath(source), self._name(path))
        except MachineError as error:
            if "Disk full" in str(error):
                raise MachineError(f"the image has no room for {source}: make one with it (KERNEL=, INITRD=)") from None
            raise

    def write_text(self, path, text):
        """Puts a text file on the stick."""
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            self.write(path, file.name)

    def read_text(self, path):
        """A text file of the stick's, or None."""
        try:
            return self._run("mtype", "-i", self.drive, self._name(path))
        except MachineError:
            return None

    def read(self, path, target):
        """Copies a file of the stick's to this machine."""
        self._run("mcopy", "-i", self.drive, self._name(path), target)

    def remove(self, path):
        """Removes a file, which must be there."""
        self._run("mdel", "-i", self.drive, self._name(path))


def conf_get(conf, key):
    """A key's value in the text of a hyperps.conf, or an empty string."""
    found = re.findall(rf"^[ \t]*{key}[ \t]*=[ \t]*(.*?)[ \t]*$", conf, re.M)
    return found[-1] if found else ""


def conf_set(conf, key, value):
    """The text with that key set, all other lines as they were."""
    rest = re.sub(rf"^[ \t]*{key}[ \t]*=.*\n?", "", conf, flags=re.M)
    return rest + ("\n" if rest and not rest.endswith("\n") else "") + f"{key} = {value}\n"


def join_options(options, defaults):
    """A kernel command line with the defaults added for which it has no word of its own."""
    names = {word.split("=")[0] for word in options.split()}
    # There may be many consoles, but the kernel's main one has to be ours.
    missing = [word for word in defaults.split()
               if word not in options.split() and (word.startswith("console=") or word.split("=")[0] not in names)]
    return " ".join(options.split() + missing)


class GuestMemory:
    """Guest RAM of a running Bochs, read through /proc/PID/mem.

    Bochs hands out its guest memory in blocks on demand: `bx_mem` has an array with each block's address. Where the
    members lie in the object is worked out from their values, so another version's layout does no harm.
    """

    SEARCH = 512  # bytes of the object to search
    SWAPPED_OUT = (1 << 64) - 1  # in place of a block's address

    def __init__(self, pid, binary, memory):
        self.mem = open(f"/proc/{pid}/mem", "rb", buffering=0)
        self.size = memory << 20
        self._find_blocks(self._symbol(pid, binary))

    @staticmethod
    def _symbol(pid, binary):
        symbol = re.search(r"^bx_mem \S ([0-9a-f]+)", run("nm", "-P", binary), re.M)
        if not symbol:
            raise MachineError(f"{binary} has no symbol bx_mem (stripped?): run tools/setup for Bochs 3.0")
        address = int(symbol.group(1), 16)
        with open(binary, "rb") as file:
            position_independent = struct.unpack_from("<H", file.read(18), 16)[0] == 3
        if position_independent:
            with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
                for line in maps:
                    if line.rstrip().endswith(os.path.realpath(binary)):
                        return address + int(line.split("-")[0], 16)
        return address

    def _find_blocks(self, address):
        # Bit64u len, allocated; Bit32u block_size; then pointers: actual_vector, vector, blocks, rom, ...
        data = self._read(address, self.SEARCH)
        own = min(self.size, HOST_MEMORY_LIMIT << 20)
        for offset in range(0, self.SEARCH - 56, 8):
            size, allocated, block, _, actual, vector, blocks, rom = struct.unpack_from("<QQIIQQQQ", data, offset)
            if (size == self.size and allocated == own and block and block & (block - 1) == 0
                    and actual <= vector < actual + 4096 and rom == vector + allocated):
                self.block_size, self.blocks = block, blocks
                return
        raise MachineError("the guest's memory was not found in the emulator (still starting, or an unknown version)")

    def _read(self, address, length):
        self.mem.seek(address)
        return self.mem.read(length)

    def read(self, hpa, length):
        """Bytes at a physical address. Blocks that nothing has touched read as zeros."""
        if hpa < 0 or length < 0 or hpa + length > self.size:
            raise ValueError(f"{hpa:#x} + {length:#x} is not inside the guest's {self.size:#x} bytes of RAM")
        first, offset = divmod(hpa, self.block_size)
        count = (offset + length + self.block_size - 1) // self.block_size
        data = bytearray()
        for (block,) in struct.iter_unpack("<Q", self._read(self.blocks + 8 * first, 8 * count)):
            here = min(length - len(data), self.block_size - offset)
            if block == self.SWAPPED_OUT:
                raise MachineError(f"the emulator has put memory at {hpa:#x} into a file: give the machine at most "
                                   f"{HOST_MEMORY_LIMIT} MiB to read all of it")
            data += self._read(block + offset, here) if block else bytes(here)
            offset = 0
        return bytes(data)

    def close(self):
        """Lets go of the process."""
        self.mem.close()


def die_with_parent():
    """In the child: no emulator outlives its launcher, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Machine:
    """A machine made of a stick image. See __init__ for what can be set, and the module's text for use."""

    def __init__(self, *, cpus=1, memory=1024, image=None, kernel=None, initrd=None, append="", conf=None,
                 cpu_model=None, native=False, emulator="auto", log=None, msrs=None, extra_files=None,
                 remove_files=(), settings=None, second_disk=None, firmware="", mwait=False,
                 emulator_options=(), outer_append="", stick_device="virtio-blk-pci", on_output=None, gdb=None):
        """
        cpus, memory        number of CPUs, MiB of RAM
        image               the stick image; default build/hyperps.img
        kernel, initrd      files that replace the image's
        append              words added to the kernel's command line
        conf                a file that replaces the image's hyperps.conf, taken as it is
        settings            {key: value} for hyperps.conf
        cpu_model           one of Bochs's CPU models
        native              boot the kernel without the monitor
        emulator            "auto", "bochs", "qemu" or "nested"
        log                 file that gets the raw serial output
        msrs                a file for Bochs's `msrs:` option
        extra_files         {path on the stick: file here}, put there last
        remove_files        paths removed from the stick
        second_disk         another disk image, copied too
        firmware            words for line 3 of next.txt, which test/firmware/acpi.c lists (Bochs)
        mwait               a CPU with MONITOR and MWAIT; one CPU only (Bochs)
        emulator_options    lines for bochsrc, or arguments for QEMU
        outer_append        words for the command line of the Linux around QEMU (nested)
        stick_device        QEMU's device with the stick (nested)
        on_output           called with each piece of raw serial output, from another thread
        gdb                 wait at the first instruction for gdb, at this port (Bochs from tools/setup --gdb)
        """
        if emulator == "auto":
            bochs_only = cpu_model or msrs or firmware or gdb
            emulator = "qemu" if kvm_can_nest() and not bochs_only else "bochs"
        if emulator not in ("bochs", "qemu", "nested"):
            raise MachineError(f"no emulator named {emulator}: auto, bochs, qemu or nested")
        if not 1 <= cpus <= 64:
            raise MachineError(f"{cpus} CPUs: 1 to 64 can be had")
        if not MEMORY_LIMITS[0] <= memory <= MEMORY_LIMITS[1]:
            raise MachineError(f"{memory} MiB of memory: {MEMORY_LIMITS[0]} to {MEMORY_LIMITS[1]} can be had")
        self.cpus, self.memory, self.emulator = cpus, memory, emulator
        self.image, self.kernel, self.initrd, self.append, self.conf = image, kernel, initrd, append, conf
        self.settings = settings or {}
        self.cpu_model, self.native, self.msrs = cpu_model or DEFAULT_CPU_MODEL, native, msrs
        self.extra_files, self.remove_files = extra_files or {}, remove_files
        self.second_disk, self.firmware = second_disk, firmware
        self.mwait, self.emulator_options, self.on_output, self.gdb = mwait, emulator_options, on_output, gdb
        self.outer_append, self.stick_device = outer_append, stick_device
        self.log = log and os.path.abspath(log)
        self.scratch = self.process = self.started = None
        self._connection = self._reader = self._memory = None
        self._text, self._cursor = "", 0
        self._changed = threading.Condition()

    # --- making it

    @property
    def _default_options(self):
        return BOCHS_OPTIONS if self.emulator == "bochs" else QEMU_OPTIONS

    def _path(self, name):
        return os.path.join(self.scratch, name)

    def _make_stick(self):
        image = self.image or DEFAULT_IMAGE
        if self.native and not self.image and not os.path.exists(image):
            image = self._path("native.img")
            self.kernel = self.kernel or need(DEFAULT_KERNEL, "run tools/setup")
            run(os.path.join(TOP, "tools", "mkimage"), image, "--loader", self._firmware())
        copy_disk(need(image, "run make"), self._path("disk.img"))
        stick = Stick(self._path("disk.img"))
        for path, source in ((KERNEL_PATH, self.kernel), (INITRD_PATH, self.initrd), (CONF_PATH, self.conf)):
            if source:
                stick.write(path, source)
        conf = stick.read_text(CONF_PATH)
        changed = self._edit_conf(conf)
        if changed != conf:
            stick.write_text(CONF_PATH, changed)
        if self.emulator == "bochs":
            stick.write(BOOT_PATH, self._firmware())
            stick.write_text(NEXT_PATH, self._next(changed))
        for path in self.remove_files:
            stick.remove(path)
        for path, source in self.extra_files.items():
            stick.write(path, source)
        if self.second_disk:
            copy_disk(self.second_disk, self._path("disk2.img"))

    def _edit_conf(self, conf):
        for key, value in self.settings.items():
            conf = conf_set(conf or "", key, value)
        if self.conf:
            # Taken as it is: tests of broken files need that. Only what was asked for besides is set.
            if self.append:
                conf = conf_set(conf, "options", f"{conf_get(conf, 'options')} {self.append}".strip())
            return conf
        conf = conf or f"chainload = {KERNEL_PATH}\n"
        if self.kernel:
            conf = conf_set(conf, "chainload", KERNEL_PATH)
        if self.initrd:
            conf = conf_set(conf, "initrd", INITRD_PATH)
        options = join_options(conf_get(conf, "options"), self._default_options) + (self.append and " " + self.append)
        return conf if options == conf_get(conf, "options") else conf_set(conf, "options", options)

    def _next(self, conf):
        lines = [LOADER_PATH, ""]
        if self.native:
            initrd = INITRD_PATH if self.initrd else conf_get(conf, "initrd")
            options = conf_get(conf, "options")
            lines = [conf_get(conf, "chainload") or KERNEL_PATH, (f"initrd={initrd} " if initrd else "") + options]
        return "\n".join([*lines, self.firmware]) + "\n"

    @staticmethod
    def _firmware():
        return need(os.path.join(BUILD, "firmware.efi"), "run make")

    @staticmethod
    def _ovmf(name):
        return need(os.path.join("/usr/share/OVMF", name), "run tools/setup (package ovmf)")

    def _bochs_command(self, port):
        bochs = need(BOCHS_GDB, "run tools/setup --gdb") if self.gdb else BOCHS
        if os.path.exists(bochs):
            # Without MWAIT: OVMF parks the other CPUs in MONITOR loops that keep waking each other, and each MONITOR
            # flushes all of Bochs's TLBs. With 4 CPUs that takes minutes.
            command, cpu, lines = [bochs], "" if self.mwait else ', exclude_features="mwait"', ["display_library: nogui"]
        else:
            if not shutil.which("bochs"):
                raise MachineError("there is no emulator: run tools/setup")
            if self.cpus > 1:
                raise MachineError("the packaged Bochs 2.7 cannot start a second CPU under VMX: run tools/setup to "
                                   "build Bochs 3.0, or use --cpus 1")
            # It has a debugger, which has to be told to go on, and a sound thread, which crashes without a card.
            command, cpu = [shutil.which("bochs"), "-rc", "debugger.rc"], ""
            lines = ['display_library: rfb, options="timeout=0"', "plugin_ctrl: speaker=0"]
            with open(self._path("debugger.rc"), "w", encoding="ascii") as file:
                file.write("continue\n")
        known = subprocess.run([command[0], "--help", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               errors="replace", check=False).stdout
        models = re.findall(r"^ *(\w+) *$", known.split("models:", 1)[-1], re.M)
        if models and self.cpu_model not in models:
            raise MachineError(f"Bochs has no CPU model {self.cpu_model}; it has: {' '.join(models)}")
        with open(self._path("OVMF.fd"), "wb") as rom:
            for name in ("OVMF_VARS.fd", "OVMF_CODE.fd"):
                with open(self._ovmf(name), "rb") as part:
                    shutil.copyfileobj(part, rom)
        vgabios = need("/usr/share/vgabios/vgabios.bin", "run tools/setup (package vgabios)")
        if self.msrs:
            shutil.copyfile(need(self.msrs, "no such list of MSRs"), self._path("msrs.def"))
        # The emulator runs in the scratch directory, whose path may have letters that mean something here.
        lines += [
            f"cpu: model={self.cpu_model}, count={self.cpus}, ips={IPS}, reset_on_triple_fault=0, "
            f"ignore_bad_msrs=1{cpu}" + (", msrs=msrs.def" if self.msrs else ""),
            f"memory: guest={self.memory}, host={min(self.memory, HOST_MEMORY_LIMIT)}",
            "romimage: file=OVMF.fd",
            f"vgaromimage: file={vgabios}",
            "pci: enabled=1, chipset=i440fx",
            "ata0-master: type=disk, path=disk.img, mode=flat",
            "boot: disk",
            f"com1: enabled=1, mode=socket-client, dev=127.0.0.1:{port}",
            "clock: sync=none, time0=1700000000",
            "log: bochs.log",
            "panic: action=fatal",
            "error: action=report",
            "info: action=ignore",
        ]
        if self.second_disk:
            lines.append("ata0-slave: type=disk, path=disk2.img, mode=flat")
        with open(self._path("bochsrc"), "w", encoding="utf-8") as file:
            file.write("\n".join(lines + list(self.emulator_options)) + "\n")
        return command + ["-q", "-f", "bochsrc"]

    def _nested_command(self, port):
        """Bochs with a Linux whose KVM runs QEMU on the stick."""
        if self.native or self.second_disk or self.firmware or self.msrs:
            raise MachineError("this machine needs another emulator than nested")
        if self.memory > NESTED_MEMORY_LIMIT:
            raise MachineError(f"{self.memory} MiB of memory: QEMU in Bochs has at most {NESTED_MEMORY_LIMIT}")
        arguments = ["-machine", "q35,accel=kvm", "-cpu", "host,+vmx", "-smp", str(self.cpus), "-m", str(self.memory),
                     *self.emulator_options]
        with open(self._path("qemu.arguments"), "w", encoding="utf-8") as file:
            file.write(f"set -- {shlex.join(arguments)}\nstick={self.stick_device}\n")
        # The kernel takes several archives, one after the other.
        with open(self._path("outer-initrd.img"), "wb") as initrd:
            subprocess.run(["cpio", "--create", "--format=newc", "--quiet"], input=b"qemu.arguments", stdout=initrd,
                           cwd=self.scratch, check=True)
            with open(need(NESTED_INITRD, "run make nested"), "rb") as rest:
                shutil.copyfileobj(rest, initrd)
        # KVM wants a CPU with MWAIT, or has no control over it. The other Linux's own stick takes the place of ours.
        outer = Machine(memory=HOST_MEMORY_LIMIT, kernel=DEFAULT_KERNEL, initrd=self._path("outer-initrd.img"), native=True,
                        append=f"quiet mitigations=off {self.outer_append}", cpu_model=self.cpu_model, emulator="bochs",
                        second_disk=need(NESTED_DISK, "run make nested"), mwait=True,
                        emulator_options=["ata1-master: type=disk, path=stick.img, mode=flat"])
        outer.scratch = self.scratch
        os.rename(self._path("disk.img"), self._path("stick.img"))
        outer._make_stick()  # pylint: disable=protected-access
        return outer._bochs_command(port)  # pylint: disable=protected-access

    def _qemu_command(self, port):
        if self.firmware or self.msrs or self.cpu_model != DEFAULT_CPU_MODEL:
            raise MachineError("this machine needs Bochs: --emulator bochs")
        shutil.copyfile(self._ovmf("OVMF_VARS.fd"), self._path("vars.fd"))
        command = [QEMU, "-machine", "q35,accel=kvm", "-cpu", "host,+vmx", "-smp", str(self.cpus), "-m",
                   str(self.memory), "-display", "none", "-monitor", "none", "-nic", "none",
                   "-drive", f"if=pflash,format=raw,readonly=on,file={self._ovmf('OVMF_CODE.fd')}",
                   "-drive", "if=pflash,format=raw,file=vars.fd",
                   "-serial", f"tcp:127.0.0.1:{port}"]
        if self.native:
            stick = Stick(self._path("disk.img"))
            conf = stick.read_text(CONF_PATH) or ""
            for option, name in (("-kernel", "vmlinuz"), ("-initrd", "initrd.img")):
                stick.read(rf"\EFI\HYPERPS\{name}", self._path(name))
                command += [option, name]
            command += ["-append", conf_get(conf, "options")]
        for name in ("disk.img", "disk2.img"):
            if os.path.exists(self._path(name)):
                command += ["-drive", f"format=raw,file={name}"]
        return command + list(self.emulator_options)

    # --- running it

    def start(self):
        """Makes the stick and starts the emulator."""
        self.scratch = tempfile.mkdtemp(prefix="hyperps-")
        atexit.register(self.stop)
        try:
            self._make_stick()
            listener = socket.create_server(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            command = {"bochs": self._bochs_command, "qemu": self._qemu_command, "nested": self._nested_command}[self.emulator](port)
            with open(self._path("emulator.out"), "wb") as output:
                # What runs before exec is one system call, which takes no lock of another thread's.
                # pylint: disable-next=subprocess-popen-preexec-fn
                self.process = subprocess.Popen(command, cwd=self.scratch, stdin=subprocess.DEVNULL, stdout=output,
                                                stderr=subprocess.STDOUT,
                                                env=dict(os.environ, HYPERPS_GDB_PORT=str(self.gdb)),
                                                preexec_fn=die_with_parent,
                                                start_new_session=True)
            self.started = time.monotonic()
            self._reader = threading.Thread(target=self._read_serial, args=(listener,), daemon=True)
            self._reader.start()
        except BaseException:
            self.stop()
            raise
        return self

    def _read_serial(self, listener):
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        log = open(self.log, "wb", buffering=0) if self.log else None
        listener.settimeout(0.2)
        with listener:
            while not self._connection and self.running:
                try:
                    self._connection = listener.accept()[0]
                except socket.timeout:
                    pass
        while self._connection:
            try:
                data = self._connection.recv(65536)
            except OSError:
                data = b""
            if not data:
                break
            if log:
                log.write(data)
            if self.on_output:
                self.on_output(data)
            with self._changed:
                self._text += decoder.decode(data).replace("\r", "")
                self._changed.notify_all()
        if log:
            log.close()

    @property
    def running(self):
        """Whether the emulator runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self):
        """The emulator's process."""
        return self.process.pid

    @property
    def output(self):
        """All serial output so far, without carriage returns."""
        return self._text

    @property
    def taken(self):
        """How much of output the expect() calls so far have taken."""
        return self._cursor

    def powered_off(self):
        """Whether the emulator has ended because the machine was switched off."""
        if self.process is None or self.running:
            return False
        if self.emulator == "qemu":
            return self.process.returncode == 0
        if self.emulator == "nested" and "nested: QEMU ended with status 0" not in self._text:
            return False
        return "ACPI control: soft power off" in self.complaints()

    def complaints(self, lines=10):
        """The end of what the emulator itself had to say."""
        found = []
        for name in ("bochs.log", "emulator.out"):
            try:
                with open(self._path(name), encoding="utf-8", errors="replace") as file:
                    told = [line.rstrip() for line in file if line.strip("=\n") and "Unknown register" not in line]
                    found += told[-lines:]
            except OSError:
                pass
        return "\n".join(found)

    def _fail(self, what):
        last = "\n".join(self._text.split("\n")[-40:])
        raise MachineError(f"{what}\n--- the last lines of the serial output\n{last}\n"
                           f"--- the emulator's last messages\n{self.complaints()}")

    def expect(self, regex, timeout=120):
        """Waits until the serial output that no earlier expect has taken matches; returns the match object."""
        pattern = re.compile(regex, re.M)
        deadline = time.monotonic() + timeout
        while True:
            ended = not self.running
            if ended and self._reader:
                self._reader.join(5)
            with self._changed:
                match = pattern.search(self._text, self._cursor)
                if match:
                    self._cursor = match.end()
                    return match
                seen = len(self._text)
                left = deadline - time.monotonic()
                if not ended and left > 0:
                    self._changed.wait_for(lambda: len(self._text) > seen, min(left, 0.5))
            if ended:
                self._fail(f"the machine ended (emulator status {self.process and self.process.returncode}) "
                           f"before its output matched {regex!r}")
            if left <= 0:
                self._fail(f"nothing matched {regex!r} within {timeout} s")
            time.sleep(0.02)  # let output gather: each look costs a search

    def send_bytes(self, data):
        """Sends raw bytes to the serial console."""
        if not self._connection:
            raise MachineError("the machine's serial line is not connected yet: expect() something first")
        self._connection.sendall(data)

    def send(self, line):
        """Types a line on the serial console."""
        self.send_bytes(line.encode() + b"\n")

    def wait(self, timeout=None):
        """Waits for the emulator to end; returns whether it did, all its output being read."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(5)
        return True

    def pause(self):
        """Stops the machine's time."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        """Lets a paused machine go on."""
        self.process.send_signal(signal.SIGCONT)

    def read_physical(self, hpa, length):
        """Bytes of guest RAM, read from outside the machine. Pause it first for a consistent view.

        Only RAM: what the chipset shows instead below 1 MiB and above the RAM is not seen."""
        if self.emulator != "bochs":
            raise NotImplementedError("reading guest memory from outside works with Bochs only: --emulator bochs")
        if not self.running:
            self._fail("the machine has ended: its memory is gone")
        if not self._memory:
            self._memory = GuestMemory(self.pid, os.readlink(f"/proc/{self.pid}/exe"), self.memory)
        return self._memory.read(hpa, length)

    def stop(self):
        """Ends the emulator and removes all traces. Harmless when repeated."""
        if self._memory:
            self._memory.close()
            self._memory = None
        if self.running:
            self.process.kill()
            self.process.wait()
        if self._reader:
            self._reader.join(5)
        if self._connection:
            self._connection.close()
            self._connection = None
        if self.scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)
        atexit.unregister(self.stop)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

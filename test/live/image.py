#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Images of `hpsctl image` in stock QEMU without KVM: kernels of both kinds, by -kernel and as an EFI program, with --unprotected; and
what an image says where it can't protect."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile

from live import CACHE, kernel, main, note, ok
from machine import BUILD, QEMU

HPSCTL = os.path.join(BUILD, "hpsctl")
INITRD = os.path.join(BUILD, "initrd-image.img")
OVMF = "/usr/share/ovmf/OVMF.fd"
# The timer: an emulator on a busy machine is too slow for Linux's check.
WORDS = "console=ttyS0 quiet no_timer_check image.test=1"
TIMEOUT = 900
# An interrupt at a CMPXCHG16B leaves QEMU 7.2's emulated CPU with wrong flags now and then.
CPU = "qemu64,-cx16"
# Kernel, firmware, how it is started, QEMU's arguments.
CASES = [
    ("cloud-6.12", "bios", "kernel", ["-M", "q35", "-m", "256"]),
    ("cloud-7", "efi", "disk", ["-M", "q35", "-m", "5G", "-smp", "2"]),
    ("cloud-7", "bios", "kernel", ["-M", "pc", "-m", "1G", "-smp", "2"]),
    ("cloud-6.12", "efi", "kernel", ["-M", "pc", "-m", "512"]),
]


def sha384(path):
    """Of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.sha384(file.read()).hexdigest()


def qemu(*arguments, firmware="bios", until=None):
    """What a machine prints on its serial line until it ends, or until that text is there."""
    command = ["timeout", "-s", "KILL", str(TIMEOUT), QEMU, "-nodefaults", "-vga", "none", "-display", "none", "-serial", "stdio", "-no-reboot",
               "-accel", "tcg", "-cpu", CPU, *arguments]
    if firmware == "efi":
        command += ["-bios", OVMF]
    output = b""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while chunk := os.read(process.stdout.fileno(), 65536):
            output += chunk
            if until and until.encode() in output:
                process.terminate()
                break
    return output.decode(errors="replace").replace("\r", "")


def make_image(path, flavour, *options, words=WORDS):
    """What hpsctl says."""
    return subprocess.run([HPSCTL, "image", "--kernel", kernel(flavour), "--initrd", INITRD, "--append", words, "--output", path, *options],
                          capture_output=True, text=True, check=False)


def make_disk(folder, program):
    """QEMU's arguments for a FAT volume with this program."""
    boot = os.path.join(folder, "EFI", "BOOT")
    os.makedirs(boot, exist_ok=True)
    os.replace(program, os.path.join(boot, "BOOTX64.EFI"))
    return ["-drive", f"format=raw,file=fat:rw:{folder}"]


def check_measure(label, said, image, arguments):
    """What the loader found is what hpsctl computes from the image and QEMU's arguments. said: the digests that the loader printed."""
    machine = dict(zip(arguments[::2], arguments[1::2]))
    memory = machine["-m"] if machine["-m"][-1] == "G" else machine["-m"] + "M"
    measured = subprocess.run([HPSCTL, "measure", "--memory", memory, "--machine", machine["-M"], "--acpi", said["ACPI tables"], image],
                              capture_output=True, text=True, check=True).stdout
    expected = []
    for number, parts in enumerate((("parameters", "ACPI tables"), ("kernel",), ("command line", "initrd"))):
        register = bytes(48)
        for part in parts:
            register = hashlib.sha384(register + bytes.fromhex(said[part])).digest()
        expected.append(f"RTMR{number} {register.hex()}")
    ok(measured.split("\n")[1:4] == expected, f"{label}: its registers are those of hpsctl measure")


def check_boot(label, text, flavour, cpus):
    """What the init of the image said, and the loader before it."""
    with open(os.path.join(CACHE, "kernels", flavour, "release"), encoding="ascii") as file:
        release = file.read().strip()
    passed = ok(f"IMAGE-TEST-BEGIN {release}\n" in text and "IMAGE-TEST-END" in text, f"{label}: Linux {release} runs its init")
    ok(f"words: {WORDS}\n" in text, f"{label}: it has the image's command line")
    ok(f"cpus: {cpus}\n" in text, f"{label}: it has {cpus} CPUs")
    ok("HyperPS: this VM is NOT protected" in text, f"{label}: the loader says that the VM is not protected")
    said = dict(re.findall(r"HyperPS: RTMR\d ([\w ]+) ([0-9a-f]{96})\n", text))
    for what, digest in (("kernel", sha384(kernel(flavour))), ("initrd", sha384(INITRD)),
                         ("command line", hashlib.sha384(WORDS.encode()).hexdigest())):
        ok(said.get(what) == digest, f"{label}: what is measured of the {what} is its file's SHA-384")
    ok(re.search(r"region: 00008000-00008fff : [Rr]eserved", text), f"{label}: the stub page is reserved")
    ok(re.search(r"region: 00d00000-00dfffff : ACPI Tables", text), f"{label}: the copies of the ACPI tables are not RAM")
    if not passed:
        note(text[-3000:])
    return said


def tables(text):
    """{name: digest} of the ACPI tables that the kernel has."""
    return dict(re.findall(r"table: (\w+) ([0-9a-f]{64})\n", text))


def test_boots(scratch):
    """Each case; and that the tables are what the same kernel has of them without the loader."""
    for flavour, firmware, how, arguments in CASES:
        image = os.path.join(scratch, "vm.img")
        made = make_image(image, flavour, "--unprotected")
        ok(made.returncode == 0, f"an image of {flavour}: {(made.stdout + made.stderr).strip().replace(scratch, '')}")
        start = ["-kernel", image] if how == "kernel" else make_disk(os.path.join(scratch, "disk"), image)
        text = qemu(*arguments, *start, firmware=firmware)
        cpus = 2 if "-smp" in arguments else 1
        label = f"{flavour}, {firmware}, {how}, {arguments[1]}"
        said = check_boot(label, text, flavour, cpus)
        make_image(image, flavour)
        check_measure(label, said, image, arguments)
        if firmware == "bios" and arguments[1] == "q35":
            plain = tables(qemu(*arguments, "-kernel", kernel(flavour), "-initrd", INITRD, "-append", WORDS))
            mine = tables(text)
            # The FADT leads to other addresses.
            ok(set(mine) == set(plain) and len(mine) > 5, f"the kernel has the tables that it has without the loader: {', '.join(sorted(mine))}")
            ok({name for name in plain if mine.get(name) != plain[name]} == {"FACP"}, "they are the same, but for the FADT")


def test_messages(scratch):
    """Where it does not work."""
    image = os.path.join(scratch, "vm.img")
    ok(make_image(image, "cloud-6.12").returncode == 0, "an image that asks for protection")
    for firmware in "bios", "efi":
        text = qemu("-M", "q35", "-m", "256", "-kernel", image, firmware=firmware, until="on a host where HyperPS runs")
        ok("not under HyperPS: this VM is not run by KVM." in text, f"{firmware}: without KVM it says so, and does not boot")
        ok("IMAGE-TEST" not in text, f"{firmware}: no kernel was started")
    ok(make_image(image, "cloud-6.12", "--unprotected").returncode == 0, "an image that does not ask for it")
    text = qemu("-M", "q35", "-m", "64", "-kernel", image, until="give it more")
    ok("the VM has too little memory for this image" in text, "64 MiB are too few, and the loader says so")
    made = make_image(image, "cloud")
    ok(made.returncode == 1 and "CONFIG_INTEL_TDX_GUEST" in made.stderr, "a kernel that can't be a protected guest is refused when the image is made")


def test():
    """See the module's text."""
    if not shutil.which(QEMU):
        ok(True, f"images in QEMU # SKIP no {QEMU}: apt-get install qemu-system-x86 ovmf")
        return
    with tempfile.TemporaryDirectory() as scratch:
        test_boots(scratch)
        test_messages(scratch)


main(test)

#!/bin/bash
# SPDX-License-Identifier: MIT
# mkimage.sh [PROGRAM]: what tools/mkimage puts into an image, and what it refuses, as TAP.
mkimage=$(realpath "${1:-$(dirname "$0")/../tools/mkimage}")
base=$(mktemp -d)
trap 'rm -rf "$base"' EXIT
# Letters that mean something to a shell, to mtools or to the emulator.
folder="$base/a b,c@@1M"
mkdir "$folder" && cd "$folder" || exit 1
export MTOOLS_SKIP_CHECK=1
count=0 failed=0

ok() # WHAT COMMAND...: the command succeeds
{
	local what=$1
	count=$((count + 1))
	shift
	if "$@" >log 2>&1; then
		echo "ok $count - $what"
	else
		failed=$((failed + 1))
		echo "not ok $count - $what"
		sed 's/^/# /' log
	fi
}

same() # IMAGE PATH FILE
{
	mcopy -i "$1@@1M" "::$2" - | cmp - "$3"
}

refuses() # PATTERN ARGUMENT...: one line that matches, and no image
{
	local pattern=$1
	shift
	if "$mkimage" "$@" 2>errors; then
		echo "it succeeds"
		return 1
	fi
	cat errors
	[ "$(wc -l <errors)" = 1 ] && grep -q "$pattern" errors && [ ! -e new.img ]
}

head -c 100000 /dev/urandom >"the loader"
head -c 3000000 /dev/urandom >c:kernel
echo 'chainload = x' >conf
ok "an image from files with odd names, in an odd folder" "$mkimage" "an image,@@2M" --loader "the loader" --kernel c:kernel --conf conf
cp "an image,@@2M" first.img 2>/dev/null # what follows would take its name for an offset
ok "the loader is in it" same first.img /EFI/BOOT/BOOTX64.EFI "the loader"
ok "and once more" same first.img /EFI/HYPERPS/hyperps.efi "the loader"
ok "so is the kernel" same first.img /EFI/HYPERPS/vmlinuz c:kernel
ok "and the configuration" same first.img /EFI/HYPERPS/hyperps.conf conf
(umask 022 && "$mkimage" second.img --loader "the loader" --kernel c:kernel --conf conf) 2>/dev/null
ok "the same input gives the same bytes" cmp first.img second.img
ok "which others may read" test "$(stat -c %a second.img)" = 644
printf '#!/bin/sh\n' >mcopy && chmod +x mcopy
ok "a copy that fails without saying so is noticed" env PATH="$PWD:$PATH" \
	bash -c "$(declare -f refuses); mkimage='$mkimage'; refuses 'loader' new.img --loader 'the loader'"
rm -f mcopy

mkdir "a folder" && mkfifo fifo && ln -s /dev/null null
ok "an image is not put into a folder" refuses 'a folder is there' "a folder" --loader "the loader"
ok "the folder stays empty" test -z "$(ls "a folder")"
ok "an image does not replace a pipe" refuses 'fifo is there' fifo --loader "the loader"
ok "the pipe is still there" test -p fifo
ok "an image does not replace a device" refuses 'null is there' null --loader "the loader"
ok "the device is still there" test -c null
ok "nor is a folder made for it" refuses 'nowhere' nowhere/new.img --loader "the loader"
ok "a folder is no loader" refuses 'there is no file' new.img --loader "a folder"
ok "a missing file" refuses 'there is no file' new.img --loader nothing

truncate -s 4G big
ok "a file of 4 GiB is refused" refuses 'big is too big' new.img --loader "the loader" --initrd big
if [ "$(df --output=avail -k . | tail -n 1)" -gt $((6 << 20)) ]; then
	truncate -s $(((4 << 30) - 1)) big && echo end | dd of=big bs=1 seek=4294967000 conv=notrunc status=none
	ok "one of 4 GiB - 1 fits" "$mkimage" new.img --loader "the loader" --initrd big
	ok "and is there" bash -c 'mdir -i new.img@@1M ::/EFI/HYPERPS | grep -q "initrd *img *4294967295 "'
else
	count=$((count + 1))
	echo "ok $count # SKIP a file of 4 GiB - 1: there is no room for it in $base"
fi
ok "nothing is left over" test -z "$(compgen -G '.mkimage*' || compgen -G '*.partial')"
echo "1..$count"
[ $failed = 0 ]

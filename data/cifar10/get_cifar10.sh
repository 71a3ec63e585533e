#!/usr/bin/env bash
# Downloads CIFAR-10's binary files (162 MB, 176 MB unpacked) into this folder. Nothing is done where they are there and
# whole.
# CIFAR10_URL: one or more other places to get cifar-10-binary.tar.gz from, separated by spaces.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=scripts/lib.sh
. "$here/../../scripts/lib.sh"

read -r -a urls <<<"${CIFAR10_URL:-https://www.cs.toronto.edu/~kriz https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10}"

archive=cifar-10-binary.tar.gz
sum=c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd
size=30730000 # each file: 10,000 records of one label and 3 x 32 x 32 bytes
files="data_batch_1.bin data_batch_2.bin data_batch_3.bin data_batch_4.bin data_batch_5.bin test_batch.bin"

is_whole() {
  has_sum "$1" "$sum"
}

present=true
for name in $files; do
  [ -f "$here/$name" ] && [ "$(wc -c <"$here/$name")" -eq "$size" ] || present=false
done
if $present; then
  say "CIFAR-10 is in $(short "$here") already"
else
  if ! { [ -f "$here/$archive" ] && is_whole "$here/$archive"; }; then
    download "$here/$archive" is_whole "${urls[@]/%//$archive}"
  fi
  # unpacked beside, then moved: a file under its name is whole
  rm -rf "$here/unpacking"
  mkdir "$here/unpacking"
  tar -xzf "$here/$archive" -C "$here/unpacking" || die "could not unpack $(short "$here/$archive"); is the disk full?"
  for name in $files; do
    need "$here/unpacking/cifar-10-batches-bin/$name" "$archive should have held it"
  done
  mv "$here"/unpacking/cifar-10-batches-bin/* "$here/"
  rm -rf "$here/unpacking" "${here:?}/$archive"
  say "CIFAR-10 is in $(short "$here")"
fi
say "Next: scripts/create_cifar10.sh"

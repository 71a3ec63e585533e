#!/usr/bin/env bash
# Makes data/cifar10/cifar10_train_lmdb, cifar10_test_lmdb and mean.binaryproto. Those of an earlier run are made anew.
#
#   scripts/create_cifar10.sh           of CIFAR-10's binary files in data/cifar10, which get_cifar10.sh there gets
#   scripts/create_cifar10.sh FOLDER    of pictures: FOLDER/train/CLASS/* and FOLDER/test/CLASS/*, labels in the
#                                       order of the classes' names; further arguments go to convert_imageset
# BACKEND=leveldb makes LevelDB databases in place of LMDB ones.
set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
find_caffecli

backend=${BACKEND:-lmdb}
data=data/cifar10
train=$data/cifar10_train_$backend
test=$data/cifar10_test_$backend

# write_list FOLDER LIST: a line `class/picture label` for each picture of each class.
write_list() {
  local class picture label=0 LC_ALL=C
  for class in "$1"/*/; do
    for picture in "$class"*; do
      [ -f "$picture" ] && printf '%s %s\n' "${picture#"$1"/}" "$label"
    done
    label=$((label + 1))
  done >"$2"
  need "$root/$2" "expected $1/CLASS/PICTURE"
  say "$2: $(wc -l <"$2" | tr -d ' ') pictures of $label classes"
}

if [ $# -gt 0 ]; then
  [ -d "$1/train" ] && [ -d "$1/test" ] || die "$1 has no folders train and test; expected $1/train/CLASS/* and $1/test/CLASS/*"
  pictures=$(cd "$1" && pwd -P)
  shift
  cd "$root"
  write_list "$pictures/train" "$data/train.txt"
  write_list "$pictures/test" "$data/test.txt"
  rm -rf "$train" "$test"
  run "${caffecli[@]}" convert_imageset --backend="$backend" --shuffle "$@" "$pictures/train/" "$data/train.txt" "$train"
  run "${caffecli[@]}" convert_imageset --backend="$backend" "$@" "$pictures/test/" "$data/test.txt" "$test"
else
  cd "$root"
  for name in data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 test_batch; do
    need "$data/$name.bin" "run data/cifar10/get_cifar10.sh first, or name a folder of pictures"
  done
  rm -rf "$train" "$test"
  run "${caffecli[@]}" convert_cifar_data "$data" "$data" "$backend"
fi
run "${caffecli[@]}" compute_image_mean --backend="$backend" "$train" "$data/mean.binaryproto"

say "Made $train, $test and $data/mean.binaryproto. Next: scripts/train_quick.sh"

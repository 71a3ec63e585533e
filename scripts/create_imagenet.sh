#!/usr/bin/env bash
# Makes data/ilsvrc12/ilsvrc12_train_lmdb and ilsvrc12_val_lmdb of the pictures and of the lists in data/ilsvrc12.
#
#   scripts/create_imagenet.sh TRAIN_FOLDER VAL_FOLDER [FLAGS]
#
# FLAGS go to convert_imageset. The pictures become 256x256, whatever they were; RESIZE=false leaves them (they must be
# of one size then). --encoded --encode_type=jpg makes databases a tenth as large, which are decoded in training.
# Databases that are there already stay, and stop the script: they took hours to make.
set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
find_caffecli

[ $# -ge 2 ] || die "expected the folders of the pictures: scripts/create_imagenet.sh TRAIN_FOLDER VAL_FOLDER"
[ -d "$1" ] || die "$1 is not a folder; expected the one that holds the training pictures, n01440764/n01440764_10026.JPEG and so on"
[ -d "$2" ] || die "$2 is not a folder; expected the one that holds the validation pictures, ILSVRC2012_val_00000001.JPEG and so on"
train_pictures=$(cd "$1" && pwd -P)
val_pictures=$(cd "$2" && pwd -P)
shift 2
cd "$root"

data=data/ilsvrc12
need "$data/train.txt" "run data/ilsvrc12/get_ilsvrc_aux.sh first"
need "$data/val.txt" "run data/ilsvrc12/get_ilsvrc_aux.sh first"
for name in train val; do
  [ ! -e "$data/ilsvrc12_${name}_lmdb" ] || die "$data/ilsvrc12_${name}_lmdb is there already; remove it to make it anew"
done

size=256
[ "${RESIZE:-true}" = true ] || size=0

run "${caffecli[@]}" convert_imageset --resize_height=$size --resize_width=$size --shuffle "$@" \
  "$train_pictures/" "$data/train.txt" "$data/ilsvrc12_train_lmdb"
run "${caffecli[@]}" convert_imageset --resize_height=$size --resize_width=$size --shuffle "$@" \
  "$val_pictures/" "$data/val.txt" "$data/ilsvrc12_val_lmdb"

say "Made $data/ilsvrc12_train_lmdb and $data/ilsvrc12_val_lmdb. Next: scripts/make_imagenet_mean.sh, or keep the mean of"
say "data/ilsvrc12/get_ilsvrc_aux.sh; then scripts/train_caffenet.sh"

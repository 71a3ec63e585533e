#!/usr/bin/env bash
# Makes VOC0712_trainval_lmdb and VOC0712_test_lmdb in this folder, of the lists that create_list.sh made.
#
#   data/VOC0712/create_data.sh [FOLDER]    FOLDER as for create_list.sh
#
# Databases of an earlier run are made anew. The pictures are stored as their JPEG files are.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=scripts/lib.sh
. "$here/../../scripts/lib.sh"
find_caffecli

devkit=${1:-$HOME/data/VOCdevkit}
[ -d "$devkit" ] || die "$devkit is no folder; expected the folder VOCdevkit of the unpacked archives"
for name in trainval test; do
  need "$here/$name.txt" "run data/VOC0712/create_list.sh first"
done
for name in test trainval; do
  rm -rf "$here/VOC0712_${name}_lmdb"
  run "${caffecli[@]}" convert_annoset --anno_type=detection --label_map_file="$here/labelmap_voc.prototxt" \
    --check_label --encode_type=jpg --encoded "$devkit/" "$here/$name.txt" "$here/VOC0712_${name}_lmdb"
done
say "Next: caffecli train --solver models/ssd300_vgg16/solver.prototxt --weights VGG_ILSVRC_16_layers_fc_reduced.caffemodel"

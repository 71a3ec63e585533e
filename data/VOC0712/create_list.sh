#!/usr/bin/env bash
# Makes trainval.txt, test.txt and test_name_size.txt in this folder, of PASCAL VOC's pictures and boxes.
#
#   data/VOC0712/create_list.sh [FOLDER]    FOLDER, VOCdevkit by default in $HOME/data, holds VOC2007 and VOC2012
#
# trainval.txt has both years' trainval pictures in a random order, the same each time; test.txt those of 2007's test
# set.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=scripts/lib.sh
. "$here/../../scripts/lib.sh"
find_caffecli

devkit=${1:-$HOME/data/VOCdevkit}
[ -d "$devkit/VOC2007" ] || die "$devkit holds no VOC2007; expected the folder VOCdevkit of the unpacked archives"

# write_lines YEAR SET: a line `picture annotation` for each picture of the set.
write_lines() {
  local names=$devkit/VOC$1/ImageSets/Main/$2.txt
  need "$names" "expected VOC$1's archive of $2 there"
  sed -e 's/[[:space:]]*$//' -e '/^$/d' -e "s|.*|VOC$1/JPEGImages/&.jpg VOC$1/Annotations/&.xml|" "$names"
}

# in_random_order: the lines in an order that is the same each time.
in_random_order() {
  awk 'BEGIN { srand(1) } { print rand() "\t" $0 }' | LC_ALL=C sort | cut -f 2-
}

lines=$(write_lines 2007 trainval && write_lines 2012 trainval)
in_random_order <<<"$lines" >"$here/trainval.txt"
write_lines 2007 test >"$here/test.txt"
say "trainval.txt: $(wc -l <"$here/trainval.txt" | tr -d ' ') pictures, test.txt: $(wc -l <"$here/test.txt" | tr -d ' ')"
run "${caffecli[@]}" get_image_size "$devkit/" "$here/test.txt" "$here/test_name_size.txt"
say "Next: data/VOC0712/create_data.sh"

#!/usr/bin/env bash
# Downloads what goes with the ILSVRC 2012 pictures (17 MB) into this folder: the lists of the training, validation and
# test pictures with their classes, the classes' names, and the mean image. The pictures themselves come from
# image-net.org.
# ILSVRC_URL: one or more other places to get caffe_ilsvrc12.tar.gz from, separated by spaces.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=scripts/lib.sh
. "$here/../../scripts/lib.sh"

read -r -a urls <<<"${ILSVRC_URL:-http://dl.caffe.berkeleyvision.org https://download.openmmlab.com/mmclassification/datasets/imagenet/meta}"

archive=caffe_ilsvrc12.tar.gz
files="imagenet_mean.binaryproto synset_words.txt synsets.txt train.txt val.txt test.txt"

# No sum of the archive was ever published: it must be a whole gzip file that holds these members, the lists of these
# lengths.
is_whole() {
  gzip -t "$1" || return 1
  local members name
  members=$(tar -tzf "$1") || return 1
  for name in $files; do
    grep -qE "^(\./)?$name\$" <<<"$members" || return 1
  done
}

lines() {
  [ "$(wc -l <"$1/$2")" -eq "$3" ] || die "$2 has $(wc -l <"$1/$2") lines, expected $3: $archive is not the original; set ILSVRC_URL to another place"
}

present=true
for name in $files; do
  [ -s "$here/$name" ] || present=false
done
if $present; then
  say "The ILSVRC 2012 lists are in $(short "$here") already"
  exit 0
fi

download "$here/$archive" is_whole "${urls[@]/%//$archive}"
# unpacked beside, then moved: a file under its name is whole
rm -rf "$here/unpacking"
mkdir "$here/unpacking"
tar -xzf "$here/$archive" -C "$here/unpacking" || die "could not unpack $(short "$here/$archive"); is the disk full?"
rm "$here/$archive"
lines "$here/unpacking" train.txt 1281167
lines "$here/unpacking" val.txt 50000
lines "$here/unpacking" test.txt 100000
lines "$here/unpacking" synset_words.txt 1000
for file in "$here"/unpacking/*; do
  [ -s "$here/$(basename "$file")" ] || mv "$file" "$here/" # a mean of one's own making stays
done
rm -rf "$here/unpacking"
say "The ILSVRC 2012 lists are in $(short "$here"). Next: scripts/create_imagenet.sh TRAIN_FOLDER VAL_FOLDER"

#!/usr/bin/env bash
# Downloads MNIST's four idx files (11 MB, 55 MB unpacked) into this folder. Files that are there and whole are left as
# they are.
# MNIST_URL: one or more other places to get the .gz files from, separated by spaces.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=scripts/lib.sh
. "$here/../../scripts/lib.sh"

read -r -a urls <<<"${MNIST_URL:-https://ossci-datasets.s3.amazonaws.com/mnist https://storage.googleapis.com/cvdf-datasets/mnist http://yann.lecun.com/exdb/mnist}"

# The sums are of the unpacked files: mirrors have packed the same files again.
sums="
ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db train-images-idx3-ubyte
65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5 train-labels-idx1-ubyte
0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7 t10k-images-idx3-ubyte
ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2 t10k-labels-idx1-ubyte
"

unpacks_to() {
  [ "$(gzip -dc <"$2" | sha256)" = "$1" ]
}

while read -r sum name; do
  [ -n "$name" ] || continue
  file="$here/$name"
  if [ -f "$file" ] && has_sum "$file" "$sum"; then
    say "$(short "$file") is there already"
    continue
  fi
  download "$file.gz" "unpacks_to $sum" "${urls[@]/%//$name.gz}"
  gzip -dc <"$file.gz" >"$file.part"
  mv "$file.part" "$file"
  rm "$file.gz"
done <<<"$sums"

say "MNIST is in $(short "$here"). Next: scripts/create_mnist.sh"

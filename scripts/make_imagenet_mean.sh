#!/usr/bin/env bash
# Computes data/ilsvrc12/imagenet_mean.binaryproto of the training database (data/ilsvrc12/get_ilsvrc_aux.sh brings one
# as well).
set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
find_caffecli
cd "$root"

need data/ilsvrc12/ilsvrc12_train_lmdb "run scripts/create_imagenet.sh first"
run "${caffecli[@]}" compute_image_mean "$@" data/ilsvrc12/ilsvrc12_train_lmdb data/ilsvrc12/imagenet_mean.binaryproto

say "Made data/ilsvrc12/imagenet_mean.binaryproto. Next: scripts/train_caffenet.sh"

#!/usr/bin/env bash
# Trains CaffeNet on ILSVRC 2012: 450,000 iterations, days on one GPU. Arguments go to caffecli train (--gpu all, say);
# paths in them count from the repository's root.
set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
find_caffecli
cd "$root"

need data/ilsvrc12/ilsvrc12_train_lmdb "run scripts/create_imagenet.sh first"
need data/ilsvrc12/ilsvrc12_val_lmdb "run scripts/create_imagenet.sh first"
need data/ilsvrc12/imagenet_mean.binaryproto "run data/ilsvrc12/get_ilsvrc_aux.sh or scripts/make_imagenet_mean.sh first"
run "${caffecli[@]}" train --solver=models/bvlc_reference_caffenet/solver.prototxt "$@"

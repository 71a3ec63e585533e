#!/usr/bin/env bash
# Makes data/mnist/mnist_train_lmdb and mnist_test_lmdb of MNIST's idx files. Databases of an earlier run are made anew.
# BACKEND=leveldb makes LevelDB databases in place of LMDB ones.
set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
find_caffecli
cd "$root"

backend=${BACKEND:-lmdb}
data=data/mnist
for name in train-images-idx3 train-labels-idx1 t10k-images-idx3 t10k-labels-idx1; do
  need "$data/$name-ubyte" "run data/mnist/get_mnist.sh first"
done

rm -rf "$data/mnist_train_$backend" "$data/mnist_test_$backend"
run "${caffecli[@]}" convert_mnist_data "$data/train-images-idx3-ubyte" "$data/train-labels-idx1-ubyte" \
  "$data/mnist_train_$backend" --backend="$backend" "$@"
run "${caffecli[@]}" convert_mnist_data "$data/t10k-images-idx3-ubyte" "$data/t10k-labels-idx1-ubyte" \
  "$data/mnist_test_$backend" --backend="$backend" "$@"

say "Made $data/mnist_train_$backend and $data/mnist_test_$backend. Next: scripts/train_lenet.sh"

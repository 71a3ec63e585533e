#!/usr/bin/env bash
# Trains LeNet on MNIST: 10,000 iterations, about 0.99 of the test digits right. Arguments go to caffecli train (--gpu
# 0, say); paths in them count from the repository's root.
set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
find_caffecli
cd "$root"

need data/mnist/mnist_train_lmdb "run data/mnist/get_mnist.sh and scripts/create_mnist.sh first"
need data/mnist/mnist_test_lmdb "run data/mnist/get_mnist.sh and scripts/create_mnist.sh first"
run "${caffecli[@]}" train --solver=models/lenet/solver.prototxt "$@"

#!/usr/bin/env bash
# Trains cifar10_quick on CIFAR-10 in two stages: 4,000 iterations, then from its snapshot 1,000 more at a tenth of the
# rate. Arguments go to both runs of caffecli train (--gpu 0, say); paths in them count from the repository's root.
set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
find_caffecli
cd "$root"

for name in cifar10_train_lmdb cifar10_test_lmdb mean.binaryproto; do
  need "data/cifar10/$name" "run data/cifar10/get_cifar10.sh and scripts/create_cifar10.sh first"
done
model=models/cifar10_quick
stopped="the first stage was stopped; scripts/resume_training.sh $model/solver.prototxt goes on with it"

begin
run "${caffecli[@]}" train --solver=$model/solver.prototxt "$@"
need_new $model/cifar10_quick_iter_4000.solverstate "$stopped"
run "${caffecli[@]}" train --solver=$model/solver_lr1.prototxt --snapshot=$model/cifar10_quick_iter_4000.solverstate "$@"

#!/usr/bin/env bash
# Trains cifar10_full on CIFAR-10 in three stages: 60,000 iterations, then from the snapshots 5,000 at a tenth of the
# rate and 5,000 at a hundredth. Arguments go to each run of caffecli train (--gpu 0, say); paths in them count from the
# repository's root.
set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
find_caffecli
cd "$root"

for name in cifar10_train_lmdb cifar10_test_lmdb mean.binaryproto; do
  need "data/cifar10/$name" "run data/cifar10/get_cifar10.sh and scripts/create_cifar10.sh first"
done
model=models/cifar10_full

begin
run "${caffecli[@]}" train --solver=$model/solver.prototxt "$@"
need_new $model/cifar10_full_iter_60000.solverstate.h5 "the first stage was stopped; scripts/resume_training.sh $model/solver.prototxt goes on with it"
run "${caffecli[@]}" train --solver=$model/solver_lr1.prototxt --snapshot=$model/cifar10_full_iter_60000.solverstate.h5 "$@"
need_new $model/cifar10_full_iter_65000.solverstate.h5 "the second stage was stopped; scripts/resume_training.sh $model/solver_lr1.prototxt goes on with it"
run "${caffecli[@]}" train --solver=$model/solver_lr2.prototxt --snapshot=$model/cifar10_full_iter_65000.solverstate.h5 "$@"

#!/usr/bin/env bash
# Goes on with a stopped training from its newest snapshot.
#
#   scripts/resume_training.sh [SOLVER] [FLAGS]
#
# SOLVER is a solver file of this repository, models/bvlc_reference_caffenet/solver.prototxt when left out. FLAGS go to
# caffecli train (--gpu 0, say). Paths count from the repository's root.
set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
find_caffecli
cd "$root"

solver=models/bvlc_reference_caffenet/solver.prototxt
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  solver=$1
  shift
fi
need "$solver" "expected a solver file, models/lenet/solver.prototxt, say"
prefix=$(sed -n 's/^ *snapshot_prefix *: *"\(.*\)".*/\1/p' "$solver")
[ -n "$prefix" ] || die "$solver names no snapshot_prefix; resume by hand: caffecli train --solver=$solver --snapshot=FILE.solverstate"

newest="" most=-1
for state in "$prefix"_iter_*.solverstate "$prefix"_iter_*.solverstate.h5; do
  iteration=${state##*_iter_}
  iteration=${iteration%%.*}
  if [ -s "$state" ] && [ "$iteration" -gt "$most" ]; then
    newest=$state most=$iteration
  fi
done
[ -n "$newest" ] || die "no snapshot ${prefix}_iter_N.solverstate is there; start with caffecli train --solver=$solver"
run "${caffecli[@]}" train --solver="$solver" --snapshot="$newest" "$@"

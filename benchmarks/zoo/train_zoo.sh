#!/bin/sh
# One piece of at most MINUTES (9) of training what ships, then the cards of what there is:
#
#   benchmarks/zoo/train_zoo.sh DATA WORK OUT [--cpu]
#
# Call it again with the same arguments until it says `all done`. What is in OUT, without previews/,
# is what goes to zoo/. PYTHON names an interpreter that has lmk.
set -eu

if [ $# -lt 3 ]; then
    echo "usage: $0 DATA WORK OUT [--cpu | --dry-run]" >&2
    exit 2
fi
data=$1 work=$2 output=$3
shift 3

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=$root/.venv/bin/python
    [ -x "$PYTHON" ] || PYTHON=python3
fi

told=$("$PYTHON" -m lmk.benchmarks.zoo.train_zoo \
    --data "$data" --work "$work" --output "$output" --minutes "${MINUTES:-9}" "$@")
[ ! -f "$output/zoo.json" ] || "$PYTHON" -m lmk.benchmarks.zoo.cards "$output"
echo "$told"

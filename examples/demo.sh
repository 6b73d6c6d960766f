#!/usr/bin/env bash
# The whole journey on real data: 3,600 ICD-10-CM diagnoses, 22 chapters, a 135M model, two CPU cores.
# Usage: examples/demo.sh [LIMIT]     a limit runs a proof of concept on so many rows
set -euo pipefail
cd "$(dirname "$0")/.."
limit=${1:-}
say() { printf '\n\033[1m$ %s\033[0m\n' "$*" >&2; "$@"; }

mkdir -p demo
[ -f demo/diagnoses.csv ] || say python examples/icd10.py demo/diagnoses.csv
[ -f demo/tunesmith.yaml ] || cp examples/icd10.yaml demo/tunesmith.yaml
cd demo
say tunesmith check
say tunesmith plan ${limit:+--set data.limit="$limit"}
code=0
say tunesmith run ${limit:+--limit "$limit"} || code=$?
case $code in 0 | 1 | 3) ;; *) exit "$code" ;; esac # 0 pass, 1 fail, 3 not enough evidence: each is an answer
say tunesmith report
model=latest # only a pass moves `prod`; the candidate can be asked all the same
if [ "$code" = 0 ] && [ -z "$limit" ]; then model=prod; fi
say tunesmith ask "Fracture of shaft of left tibia" --model "$model"

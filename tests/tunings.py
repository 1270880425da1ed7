"""Tunings by hand, for tests of what is shown: no clock, the same numbers always."""

from __future__ import annotations

from typing import Any

from profiles import MACHINE, near

from forwardpass.nouns.tunings import Evidence, Holds, Sensitivity, Trial, Tuning

KEEP = "cosine.mean >= 0.995"
FFN = "encoder.layer.{}.output.dense"
MIXED = "@ onnxruntime(quantize=int8) where " + ", ".join(f"!*.{n}.output.dense" for n in range(6))


def evidence(bound: float, holds: Holds = "kept", rows: int = 3_840, **more: Any) -> Evidence:
    fields: dict[str, Any] = {
        "keep": KEEP, "value": bound + 0.0004, "bound": bound, "limit": 0.995, "rows": rows,
        "holds": holds,
        "why": f"{bound + 4e-4:.5g} over {rows:,} rows, at least {bound:.5g}; ≥ 0.995 is asked",
    }  # fmt: skip
    return Evidence(**{**fields, **more})


def trial(plan: str, ratio: float | None, bound: float | None, **more: Any) -> Trial:
    holds: Holds = "kept" if bound is None or bound >= 0.995 else "broken"
    fields: dict[str, Any] = {
        "plan": plan,
        "fate": "kept" if holds == "kept" else "dropped",
        "why": "",
        "stage": "search",
        "kept": () if bound is None else (evidence(bound, holds),),
        "ratio": None if ratio is None else near(ratio),
        "rows_per_second": None if ratio is None else near(198 * ratio, 0.03),
        "peak_bytes": 312_000_000,
        "artefact_bytes": 23_400_000,
        "build_seconds": 34.2,
        "first_seconds": 1.9,
        "trust": "data",
    }
    return Trial(**{**fields, **more})


BASELINE = trial("@ eager", None, None, rows_per_second=near(198.0, 0.03), artefact_bytes=None)
TRIALS = (
    trial("@ openvino", 1.42, 0.99999, why="slower than the chosen one"),
    trial("| sdpa @ onnxruntime", 1.02, 0.99999, fate="dropped", why="slower than @ openvino"),
    trial("@ openvino(quantize=int8)", 2.61, 0.99281, why=f"breaks {KEEP}: at most 0.9931"),
    trial("@ onnxruntime(quantize=int8)", 3.02, 0.99012, why=f"breaks {KEEP}: at most 0.9908"),
    trial(
        MIXED, 2.74, 0.99613, stage="final", why="the fastest within the budget",
        did=("30 of 36 layers in int8, the other 6 in f32",),
    ),
    trial("@ inductor", None, None, fate="failed", why="no compiler: g++ is not there",
          stage="made"),
    trial("@ aot", None, None, fate="failed", why="no compiler: g++ is not there", stage="made"),
    trial("@ torchscript", None, None, fate="not tried",
          why="--trust data admits no artefact that can run code"),
    trial("@ pt2e", None, None, fate="not tried", why="--minutes was over"),
)  # fmt: skip
SENSITIVITY = tuple(
    Sensitivity(layer=FFN.format(n), error=0.0021 / (n + 1), share=0.11, full=n < 6)
    for n in range(8)
)


def tuning(**more: Any) -> Tuning:
    fields: dict[str, Any] = {
        "forward": "model/ @ eager",
        "goal": "throughput",
        "keeps": (KEEP,),
        "chosen": MIXED,
        "proved": (evidence(0.99587, rows=4_096),),
        "speedup": near(2.71, 0.03),
        "calibration_rows": 256,
        "search_rows": 3_840,
        "final_rows": 4_096,
        "baseline": BASELINE,
        "trials": TRIALS,
        "sensitivity": SENSITIVITY,
        "clock": "wall time: both clocks agree within 2 %",
        "pays_after_rows": 11_300,
        "limit_share": 0.53,
        "artefact": "minilm.fwd",
        "machine": MACHINE,
        "seconds": 282.0,
        "notes": ("the data have 20,000 rows: the first 8,192 were taken",),
    }
    return Tuning(**{**fields, **more})

"""Profiles by hand, for tests of what is shown and compared: no clock, the same numbers always."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from forwardpass.nouns.costs import CostPoint, CostTable
from forwardpass.nouns.machines import Limits, Machine
from forwardpass.nouns.profiles import (
    Advice,
    Bound,
    CallCost,
    Curve,
    CurvePoint,
    Estimate,
    Holder,
    LayerCost,
    Lesson,
    Parts,
    Passed,
    Prediction,
    Profile,
    Timeline,
    Way,
)

MACHINE = Machine(
    cpu="Example CPU 9000",
    instructions=("avx", "avx2", "avx512f"),
    cores=2,
    memory_bytes=8 << 30,
    os="Linux 6.1 x86_64",
    python="3.11.9",
    library="torch 2.13.0 (AVX512)",
    threads=2,
    devices=(),
)
LIMITS = Limits({"f32": 1.21e11, "bf16": 4.4e10}, 1.1e10, 1.4e-6)


def near(value: float, share: float = 0.02) -> Estimate:
    """A number with an interval of so much to both sides."""
    return Estimate(value, value * (1 - share), value * (1 + share))


def point(rows: int, seconds: float, **more: Any) -> CurvePoint:
    fields: dict[str, Any] = {
        "rows": rows,
        "sizes": {},
        "cells": 1,
        "threads": 2,
        "seconds": near(seconds),
        "cpu_seconds": near(1.8 * seconds),
        "p50": seconds,
        "p95": 1.1 * seconds,
        "p99": 1.3 * seconds,
        "rounds": 30,
        "peak_bytes": 40_000 * rows,
    }
    return CurvePoint(**{**fields, **more})


def layer(path: str, kind: str, seconds: float, limit: float, bound: Bound) -> LayerCost:
    macs = round(limit * 6e10) if kind in ("Conv2d", "Linear") else 0
    return LayerCost(path, kind, 1, near(seconds), macs, 900_000, limit, bound)


LAYERS = (
    layer("blocks.0.conv", "Conv2d", 910e-6, 700e-6, "compute"),
    layer("blocks.1.conv", "Conv2d", 720e-6, 650e-6, "compute"),
    layer("head", "Linear", 210e-6, 180e-6, "memory"),
    layer("blocks.0.norm", "BatchNorm2d", 120e-6, 60e-6, "memory"),
    layer("blocks.0", "ReLU", 31e-6, 2e-6, "overhead"),
    layer("", "Net", 4e-6, 1.4e-6, "overhead"),
)


def parts(rows: int = 32, scale: float = 1.0, **more: Any) -> Parts:
    layers = tuple(
        replace(
            one, seconds=near(scale * one.seconds.median), limit_seconds=scale * one.limit_seconds
        )
        for one in LAYERS
    )
    calls = tuple(
        CallCost(
            index, "aten.convolution" if one.macs else "aten.relu", one.path, "f32",
            one.seconds, one.macs, one.bytes, one.limit_seconds, one.bound,
        )
        for index, one in enumerate(layers)
    )  # fmt: skip
    fields: dict[str, Any] = {
        "rows": rows, "sizes": {}, "whole": near(scale * 2.1e-3), "noise": 0.021,
        "shares": {"compute": near(0.78), "memory": near(0.15), "overhead": near(0.07)},
        "layers": layers, "calls": calls, "unattributed": near(scale * 105e-6),
    }  # fmt: skip
    return Parts(**{**fields, **more})


MEMORY = Timeline(
    rows=32,
    sizes={},
    parameter_bytes=39_848,
    buffer_bytes=136,
    input_bytes=8_192,
    live_bytes=(131_072, 262_144, 131_072, 32_768, 65_536, 1_280),
    within_bytes=(180_000, 262_144, 262_144, 163_840, 98_304, 66_816),
    peak_call=1,
    peak_bytes=262_144,
    holders=(Holder("blocks.0.conv", 131_072), Holder("blocks.0.norm", 131_072)),
    resident_bytes=401_408,
    slope_bytes=8_192.0,
    most_rows=740_000,
    predictions=(Prediction(48, 393_216, 401_408), Prediction(96, 786_432, None)),
)
LESSON = Lesson(
    rows=256,
    ways=(
        Way("one at a time", near(2_950.0), 0.0),
        Way("in batches of 32 as they come", near(15_200.0), 0.31),
        Way("in batches of 32 by length", near(19_100.0), 0.02),
    ),
    said="batches of 32 by length are 6.5 × as fast as one row at a time",
)


def passed(scale: float = 1.0, **more: Any) -> Passed:
    batches = [(1, 339e-6), (2, 410e-6), (4, 520e-6), (8, 790e-6), (16, 1.2e-3), (32, 2.1e-3),
               (64, 4.15e-3)]  # fmt: skip
    points = tuple(point(rows, scale * seconds) for rows, seconds in batches)
    fields: dict[str, Any] = {
        "forward": "net.py @ eager",
        "device": "cpu",
        "dtype": "f32",
        "headline": (
            "61 % of the time is operator overhead at batch 1; at batch 32 it is 84 % of the f32 "
            "limit"
        ),
        "curves": (
            Curve("batch", points, "64 rows gain nothing over 32"),
            Curve("threads", (point(32, scale * 3.4e-3, threads=1), points[5]), "as asked"),
        ),
        "advice": (
            Advice("throughput", 32, "64 rows are 1 % faster, within the noise"),
            Advice("latency <= 0.001 s", 8, "the 99th percentile of 16 is 1.56 ms"),
        ),
        "parts": (parts(1, scale * 0.16), parts(32, scale)),
        "memory": MEMORY,
        "lesson": LESSON,
        "costs": CostTable(tuple(CostPoint(p.rows, {}, 1, p.seconds.median) for p in points)),
        "notes": (),
    }
    return Passed(**{**fields, **more})


def profile(*passes: Passed, **more: Any) -> Profile:
    """One Forward unless others are given."""
    fields: dict[str, Any] = {
        "passes": passes or (passed(),),
        "machine": MACHINE,
        "limits": LIMITS,
        "noise": 0.021,
        "verdict": "",
        "seconds": 31.4,
    }
    return Profile(**{**fields, **more})

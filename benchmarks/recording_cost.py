"""What does a recorded pass cost beside a plain one, here and with other tools?

Recorded pass / plain pass, interleaved, one thread: as deployed (`no_grad`, PyTorch's fused path
for transformers), with grad on, where PyTorch does not take that path, and with the path off under
`no_grad`, because some tools switch it off by being there. `make bench-peers` installs the peers;
one that is missing is listed as such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from benchmarks.recording_growth import growth_table
from benchmarks.recording_models import (
    FUSED,
    Example,
    encoder_flops,
    examples,
    fast_path,
    operators,
)
from benchmarks.recording_peers import Tool, ours, peers
from benchmarks.results import machine, publish, quick, table
from forwardpass.measuring.clocks import measure
from forwardpass.measuring.timings import Ratio, Timing, ratio

MISSING = "not installed"
PLAIN = "plain pass"
ENCODERS = ("encS", "encL")


class Setting(NamedTuple):
    """How the passes are made: `fast` where PyTorch may take its fused path."""

    title: str
    fast: bool
    grad: bool


DEPLOYED = Setting("as deployed", fast=True, grad=False)
GRAD = Setting("grad on", fast=True, grad=True)
SLOW = Setting("fast path off", fast=False, grad=False)


class Bench:
    """How much is measured, and the plain passes by (model, setting, turn of the tools)."""

    def __init__(self, small: bool) -> None:
        self.small = small
        self.layers = 2 if small else 12
        self.models = examples(self.layers)
        self.plain: dict[tuple[str, Setting, int], Timing] = {}

    def times(self, name: str, how: Setting, tools: Sequence[Tool], turn: int) -> dict[str, str]:
        """By tool: how many times longer its pass is than the plain pass of the same rounds."""
        module, x = self.models[name]
        chosen = [tool for tool in tools if tool.turn == turn and self.wanted(tool, name, how)]
        if not chosen:
            return {}
        calls: dict[str, Callable[[], object]] = {PLAIN: lambda: module(x)}
        calls |= {tool.name: _call(tool, module, x) for tool in chosen}
        print(f"{name}, {how.title}: {', '.join(calls)}", flush=True)
        with fast_path(how.fast), torch.set_grad_enabled(how.grad):
            timings = measure(
                calls,
                budget_seconds=0.1 if self.small else 6.0,
                min_rounds=1 if turn == 2 else 2 if self.small else 3 if how is SLOW else 5,
                max_rounds=3 if turn == 2 else 50,
            )
        plain = self.plain[name, how, turn] = timings[PLAIN]
        return {tool.name: _times(ratio(timings[tool.name], plain), plain) for tool in chosen}

    def alone(self) -> Timing:
        """A plain pass of the toy with nothing beside it."""
        module, x = self.models["toy"]
        return measure({PLAIN: lambda: module(x)}, budget_seconds=0.5)[PLAIN]

    def wanted(self, tool: Tool, name: str, how: Setting) -> bool:
        """Validation is measured where the pass is short, tools that wrap PyTorch without grad."""
        if not tool.installed or (tool.validates and name == "encL"):
            return False
        if how.grad and (tool.wraps or tool.validates):
            return False
        return tool.turn != 2 or how.fast or not self.small


def _times(found: Ratio, plain: Timing) -> str:
    """`1.08 (1.05–1.11)`; a single round has no interval."""
    if len(plain.samples) == 1:
        return f"{found.median:.2f} (one round)"
    return f"{found.median:.2f} ({found.low:.2f}–{found.high:.2f})"


def _call(tool: Tool, module: torch.nn.Module, x: torch.Tensor) -> Callable[[], object]:
    return lambda: tool.run(module, x)


def path(tool: Tool | None, example: Example, layers: int, how: Setting) -> str:
    """Which program a tool really saw: layers that ran fused, and all operators."""
    module, x = example
    with fast_path(how.fast), torch.set_grad_enabled(how.grad):
        ran = operators(lambda: tool.run(module, x) if tool else module(x))
    return f"{ran[FUSED]} of {layers} fused; {ran.total():,}"


def flops(tool: Tool, example: Example) -> list[str]:
    """What a tool says of one pass: as deployed, with the fast path off, with grad on."""
    module, x = example
    if tool.flops is None or not tool.installed:
        return ["–" if tool.installed else MISSING] * 3
    said = [tool.flops(module, x)]
    with fast_path(False):
        said.append(tool.flops(module, x))
    with torch.enable_grad():
        said.append(tool.flops(module, x))
    return [f"{count / 1e9:.3f}" for count in said]


def ratio_tables(bench: Bench) -> list[str]:
    """Recorded pass / plain pass, a table a setting."""
    tools = {
        DEPLOYED: [*ours(expanded=False), *peers()],
        GRAD: [tool for tool in (*ours(expanded=False), *peers()) if not tool.validates],
        SLOW: [*ours(expanded=True), *peers()],
    }
    cells: dict[tuple[str, str, Setting], str] = {}
    for turn in (0, 1, 2):
        for how, these in tools.items():
            for name in _names(bench, how):
                for tool, said in bench.times(name, how, these, turn).items():
                    cells[tool, name, how] = said
    return [
        table(
            [how.title, *_names(bench, how), "encS: layers fused; operators"],
            [_row(tool, cells, bench, how) for tool in (None, *these)],
        )
        for how, these in tools.items()
    ]


def _names(bench: Bench, how: Setting) -> list[str]:
    return list(ENCODERS) if how is SLOW else list(bench.models)


def _row(
    tool: Tool | None, cells: Mapping[tuple[str, str, Setting], str], bench: Bench, how: Setting
) -> list[str]:
    names = _names(bench, how)
    if tool is None:
        times = [f"{1000 * bench.plain[name, how, 0].median:.1f} ms" for name in names]
        return [PLAIN, *times, path(None, bench.models["encS"], bench.layers, how)]
    if not tool.installed:
        return [tool.title, *[MISSING] * len(names), ""]
    seen = not (tool.validates or (how.grad and tool.wraps))
    ran = path(tool, bench.models["encS"], bench.layers, how) if seen else ""
    return [tool.title, *(cells.get((tool.name, name, how), "–") for name in names), ran]


def main() -> None:
    small = quick(__doc__)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    bench = Bench(small)
    before = bench.alone()
    growth = growth_table(small)
    tables = ratio_tables(bench)
    counting = [tool for tool in [*ours(expanded=False), *peers()] if tool.flops is not None]
    counted = [[tool.title, *flops(tool, bench.models["encS"])] for tool in counting]
    true = encoder_flops(bench.layers, 256, batch=4, tokens=64) / 1e9
    about = (
        "Recorded pass ÷ plain pass, as deployed and with the fast path off under `no_grad`; "
        "medians of interleaved rounds (95 % interval "
        f"by bootstrap; rounds: {_rounds(bench)}). encS: `TransformerEncoder`, "
        f"{bench.layers} layers, d 256, 4 heads, 4 × 64 tokens; encL: {bench.layers} layers, "
        "d 768, 12 heads, 2 × 128; "
        "CNN: 4 × (conv, BN, ReLU, pool), 8 × 3 × 64 × 64; toy: 200 operators on 32 numbers in "
        "150 modules. "
        "`record` is timed until totals, calls and edges have been read, the others until their "
        'result has been read; `validate("d")` climbs rungs a to d from a record that is there, '
        "TorchLens's traces first. "
        "Operators: those that a bare TorchDispatchMode around the tool saw, its own work (copies, "
        "statistics) among them. Fast path off: `expanded=True` and the switch "
        "`torch.backends.mha.set_fastpath_enabled(False)`, for the plain pass too; a tool whose "
        "presence turns the path off is to be judged there." + _toy(before, bench.alone())
    )
    installed = sorted({t.distribution for t in peers() if t.installed} - {"torch"})
    publish(
        "recording_cost",
        "Recording a pass",
        [
            about,
            *tables,
            f"Gigaflops of encS, as each tool says (2 × MACs); by hand {true:.3f}.",
            table(["flops of encS", "as deployed", "fast path off", "grad on"], counted),
            "Growth: a chain of calls on 8 numbers, recorded without values. Resident: bytes a "
            "call that Python holds for the record (tracemalloc, in a run of its own).",
            growth,
            machine(*installed),
        ],
        write=not small,
    )


def _rounds(bench: Bench) -> str:
    """How many rounds a group of tools had, the fewest and the most."""
    said: list[str] = []
    for what, turns in (("", (0, 1)), ("TorchLens's validation ", (2,))):
        counts = {len(bench.plain[key].samples) for key in bench.plain if key[2] in turns}
        if counts:
            low, high = min(counts), max(counts)
            said.append(f"{what}{low} a group" if low == high else f"{what}{low}–{high} a group")
    return ", ".join(said)


def _toy(before: Timing, after: Timing) -> str:
    """A plain pass of the toy with nothing beside it, at first and after all tools."""
    return (
        f" With nothing beside it a plain pass of the toy takes {1000 * before.median:.1f} ms, and "
        f"{1000 * after.median:.1f} ms in the end: TorchLens, where it is installed, leaves "
        "PyTorch's functions wrapped, so it comes last, beside plain passes of its own."
    )


if __name__ == "__main__":
    main()

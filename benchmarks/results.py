"""What the scripts share: interleaved rounds, the machine in words, a section of RESULTS.md."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

from forwardpass.measuring.clocks import WALL

RESULTS = Path(__file__).parent / "RESULTS.md"
HEAD = "# Results\n\nWritten by the scripts beside this file: `make bench`.\n"


def quick(question: str | None) -> bool:
    """The only argument that the scripts take."""
    parser = argparse.ArgumentParser(
        description=question, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="little data, one round, nothing written"
    )
    return bool(parser.parse_args().quick)


def rounds(candidates: Mapping[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    """Wall seconds of each candidate, in `count` rounds, each round in turn.

    A candidate that returns a float has measured itself: that number is taken.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(count):
        for name, candidate in candidates.items():
            start = WALL.now()
            own = candidate()
            took = own if isinstance(own, float) else WALL.now() - start
            seconds[name].append(took)
            print(f"round {turn + 1} of {count}: {name}: {took:.3f} s", flush=True)
    return seconds


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Median, and the least and the most: `144 (140–147)`."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}}–{high:{form}})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers. A plan may have bars."""
    cells = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [head, [":---", *["---:"] * (len(head) - 1)], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(*libraries: str) -> str:
    """This machine and the versions that count, in one paragraph."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    flags = _flags()
    integers = "VNNI" if flags & {"avx512_vnni", "avx_vnni"} else "no VNNI"
    matrix = "AMX" if "amx_tile" in flags else "no AMX"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = ("forwardpass", "torch", *libraries)
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"{_processor()}, {os.cpu_count()} cores ({capability}, {integers}, {matrix}), "
        f"{memory:.0f} GiB, {platform.system()}; {torch.get_num_threads()} threads; "
        f"Python {platform.python_version()}, {versions}; {date.today().isoformat()}."
    )


def publish(name: str, title: str, parts: Sequence[str], write: bool) -> None:
    """Print a section and put it into RESULTS.md, in place of the earlier one of that name."""
    body = "\n\n".join(parts)
    section = f"<!-- {name} -->\n## {title}\n\n{body}\n<!-- /{name} -->\n"
    print(f"\n{section}")
    if not write:
        return
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else HEAD
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    if begin in text:
        before, rest = text.split(begin, 1)
        text = before + section + rest.split(end, 1)[1]
    else:
        text = f"{text.rstrip()}\n\n{section}"
    RESULTS.write_text(text, encoding="utf-8")


def _cpuinfo(field: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _flags() -> set[str]:
    return set(_cpuinfo("flags").split())


def into_page(page: Path, marker: str, printed: str) -> None:
    """Put it into the block of a page that follows `<!-- marker -->`."""
    text = page.read_text(encoding="utf-8")
    before, found, after = text.partition(f"<!-- {marker} -->\n```text\n")
    if not found:
        raise SystemExit(f"{page} has no place for {marker}")
    rest = after[after.index("```\n") :]
    page.write_text(f"{before}{found}{printed}\n{rest}", encoding="utf-8")

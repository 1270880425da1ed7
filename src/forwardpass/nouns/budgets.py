"""Budget: what a tuned pass must keep, a readable line each.

keep      = value sign limit
value     = METRIC ["." STATISTIC]        STATISTIC: mean, p1, p99, min, max
          | FILE.py ":" NAME              the user's own, of predictions and labels
sign      = ">=" | "<="
limit     = NUMBER ["%"] | "baseline" [("-" | "+") NUMBER ["%"]]

A percentage is a hundredth, wherever it stands: `baseline - 0.5%` is 0.005 below the baseline's.

>>> print(Keep.parse("accuracy>=baseline-0.50%"))
accuracy >= baseline - 0.5%
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import combinations
from typing import Any, Final, Literal, cast

import msgspec

from forwardpass.errors import GrammarError, UsageError

GRAMMAR: Final = (
    "METRIC[.STATISTIC] or FILE.py:NAME, then >= or <=, then NUMBER[%] or baseline - NUMBER[%]; "
    'such as "cosine.mean >= 0.995", "flips <= 0.5%", "accuracy >= baseline - 0.5%"'
)
_LINE = re.compile(r"\s*(?P<value>[^<>]+?)\s*(?P<sign>>=|<=)\s*(?P<limit>[^<>]+?)\s*")
_FILE = re.compile(r".+\.py:[^\W\d]\w*")
_METRIC = re.compile(r"(?P<metric>[^\W\d]\w*)(?:\.(?P<statistic>\w+))?")
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LIMIT = re.compile(
    rf"(?:(?P<baseline>baseline)(?:\s*(?P<way>[-+])\s*(?P<offset>{_NUMBER})\s*(?P<points>%)?)?"
    rf"|(?P<number>[-+]?{_NUMBER})\s*(?P<percent>%)?)"
)


class Keep(msgspec.Struct, frozen=True):
    """One line of a budget.

    Attributes:
        metric: name of a file in `tuning/metrics`, or `file.py:name`, or the name of `function`.
        statistic: over rows; empty where the line leaves it to the metric.
        sign: which side of the limit is kept.
        limit: a number; where `relative`, what is added to the baseline's own value.
        percent: whether the limit is written as a percentage; it is held as a number all the same.
        function: the user's own, where a call of Python gave it.
    """

    metric: str
    statistic: str
    sign: Literal[">=", "<="]
    limit: float
    relative: bool = False
    percent: bool = False
    function: Callable[..., Any] | None = None

    @classmethod
    def parse(cls, text: str) -> Keep:
        """Read a line. Raises GrammarError for one that does not follow the grammar, names a metric
        or a statistic that there is not, or asks what no value could keep."""
        line = _LINE.fullmatch(text)
        if line is None:
            raise GrammarError(f"--keep {text!r} cannot be read; expected {GRAMMAR}")
        value = _METRIC.fullmatch(line["value"])
        is_file = _FILE.fullmatch(line["value"]) is not None
        if value is None and not is_file:
            raise GrammarError(
                f"--keep {text!r}: {line['value']!r} is no value; expected {GRAMMAR}"
            )
        metric, statistic = (
            (line["value"], "") if value is None else (value["metric"], value["statistic"] or "")
        )
        keep = cls(metric, statistic, _sign(line), *_limit(line["limit"], text))
        return keep if is_file else _checked(keep, text)

    @classmethod
    def of(cls, function: Callable[..., Any], text: str) -> Keep:
        """A line about a function of the user's: `text` is what follows it, `>= baseline - 0.5%`.
        Raises GrammarError."""
        name = getattr(function, "__name__", type(function).__name__)
        line = _LINE.fullmatch(f"f {text}")
        if line is None or line["value"] != "f":
            raise GrammarError(
                f"keep=({name}, {text!r}) cannot be read; expected the function and its limit, "
                'such as (score, ">= 0.9") or (score, ">= baseline - 0.5%")'
            )
        limit, relative, percent = _limit(line["limit"], text)
        return cls(name, "", _sign(line), limit, relative, percent, function)

    def __str__(self) -> str:
        value = f"{self.metric}.{self.statistic}" if self.statistic else self.metric
        number = _written(abs(self.limit) if self.relative else self.limit, self.percent)
        if not self.relative:
            return f"{value} {self.sign} {number}"
        offset = f" {'-' if self.limit < 0 else '+'} {number}" if self.limit else ""
        return f"{value} {self.sign} baseline{offset}"


def budget(lines: Any) -> tuple[Keep, ...]:
    """The lines of a budget: a text, a pair (function, text), a Keep, or several of these.

    Raises GrammarError for a line that cannot be read, UsageError for what is none, and for two
    that no pass can keep both.
    """
    is_one = isinstance(lines, str | Keep) or (
        isinstance(lines, tuple) and len(cast("tuple[Any, ...]", lines)) == 2 and callable(lines[0])
    )
    if not is_one and (callable(lines) or not isinstance(lines, Iterable)):
        lines = (lines,)
    keeps = tuple(map(_line, (lines,) if is_one else cast("Iterable[Any]", lines)))
    for one, other in combinations(keeps, 2):
        low, high = sorted((one, other), key=lambda keep: keep.sign, reverse=True)
        same = (low.metric, low.statistic, low.relative, low.function) == (
            high.metric, high.statistic, high.relative, high.function
        )  # fmt: skip
        if same and low.sign != high.sign and low.limit > high.limit:
            raise UsageError(f"--keep {str(one)!r} contradicts {str(other)!r}: drop one of them")
    return keeps


def _line(line: Any) -> Keep:
    if isinstance(line, Keep):
        return line
    if isinstance(line, str):
        return Keep.parse(line)
    pair = cast("tuple[Any, ...]", line) if isinstance(line, tuple | list) else ()
    if len(pair) == 2 and callable(pair[0]) and isinstance(pair[1], str):
        return Keep.of(pair[0], pair[1])
    if callable(line):
        name = getattr(line, "__name__", type(line).__name__)
        raise UsageError(
            f'keep={name} has no limit; give both: keep=({name}, ">= baseline - 0.5%")'
        )
    raise UsageError(
        f"keep={line!r} is no line of a budget; expected a text, {GRAMMAR}, or a function with its "
        'limit: (score, ">= 0.9")'
    )


def _sign(line: re.Match[str]) -> Literal[">=", "<="]:
    return ">=" if line["sign"] == ">=" else "<="


def _limit(text: str, whole: str) -> tuple[float, bool, bool]:
    """The number, whether it is relative, and whether it is a percentage."""
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise GrammarError(f"--keep {whole!r}: {text!r} is no limit; expected {GRAMMAR}")
    percent = bool(found["points"] or found["percent"])
    number = Decimal(found["offset"] or found["number"] or "0")
    value = float(number.scaleb(-2) if percent else number)
    if value in (float("inf"), float("-inf")):
        raise GrammarError(f"--keep {whole!r}: {text!r} is too large a number")
    relative = found["baseline"] is not None
    if not value:  # one zero, and one way to write it
        return 0.0, relative, percent and not relative
    return -value if found["way"] == "-" else value, relative, percent


def _written(number: float, percent: bool) -> str:
    """A number as `_limit` reads it."""
    exact = Decimal(repr(number)).scaleb(2 if percent else 0).normalize()
    plain = -8 <= exact.adjusted() <= 8
    return f"{exact:{'f' if plain else ''}}" + ("%" if percent else "")


def _checked(keep: Keep, text: str) -> Keep:
    from forwardpass.tuning.metrics import checked

    return checked(keep, text)

"""Budget: what a tuned pass must keep, a readable line each.

keep      = value sign limit
value     = METRIC ["." STATISTIC]        STATISTIC: mean, p1, p99, min, max
          | FILE.py ":" NAME              the user's own, of predictions and labels
sign      = ">=" | "<="
limit     = NUMBER ["%"] | "baseline" ("-" | "+") NUMBER ["%"]
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Keep(msgspec.Struct, frozen=True):
    """One line of a budget.

    Attributes:
        metric: name of a file in `tuning/metrics`, or `file.py:name`.
        statistic: over rows; empty for a share or what a function of the user's gives for all.
        sign: which side of the limit is kept.
        limit: a number; where `relative`, what is added to the baseline's own value.
    """

    metric: str
    statistic: str
    sign: Literal[">=", "<="]
    limit: float
    relative: bool = False

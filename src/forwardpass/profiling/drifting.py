"""What the drift of a machine's pace adds to the intervals of a profile."""

from __future__ import annotations

from msgspec.structs import replace

from forwardpass.nouns.profiles import Curve, Estimate, LayerCost, Parts, Passed


def drifted(passed: Passed, drift: float) -> Passed:
    """The same, with intervals that hold what its seconds may be when they are measured again.

    What was compared within the profile stays as it was: it was timed side by side.
    """

    def wide(seconds: Estimate) -> Estimate:
        return Estimate(seconds.median, seconds.low / (1 + drift), seconds.high * (1 + drift))

    def curve(one: Curve) -> Curve:
        points = [
            replace(p, seconds=wide(p.seconds), cpu_seconds=wide(p.cpu_seconds)) for p in one.points
        ]
        return replace(one, points=tuple(points))

    def layer(one: LayerCost) -> LayerCost:
        return replace(one, seconds=wide(one.seconds))

    def parts(one: Parts) -> Parts:
        return replace(
            one,
            whole=wide(one.whole),
            layers=tuple(map(layer, one.layers)),
            calls=tuple(replace(call, seconds=wide(call.seconds)) for call in one.calls),
        )

    return replace(
        passed, curves=tuple(map(curve, passed.curves)), parts=tuple(map(parts, passed.parts))
    )

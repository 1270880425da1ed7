"""Globs that choose just some layers of a model by their paths, as few and as short as can be."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

from forwardpass.nouns.plans import Where


def chosen(layers: Collection[str], among: Collection[str]) -> tuple[str, ...]:
    """The `where` that chooses of the paths `among` just `layers`; empty where it needs none.

    Either what is chosen is named or what is not, whichever takes fewer globs.
    Raises ValueError where nothing would be chosen.

    >>> paths = [f"layer.{n}.{part}" for n in range(2) for part in ("attention.dense", "dense")]
    >>> chosen({"layer.0.attention.dense", "layer.1.attention.dense"}, paths)
    ('*.attention.dense',)
    >>> chosen({path for path in paths if path != "layer.1.dense"}, paths)
    ('!layer.1.dense',)
    """
    wanted = set(layers)
    others = set(among) - wanted
    if not wanted:
        raise ValueError("no layer is chosen")
    if not others:
        return ()
    ways = [tuple(f"!{glob}" for glob in _covering(others, wanted)), _covering(wanted, others)]
    found = min(ways, key=lambda globs: (len(globs), sum(map(len, globs))))
    where = Where(found)
    assert all(where(path) == (path in wanted) for path in among)
    return found


def _covering(paths: Collection[str], spared: Collection[str]) -> tuple[str, ...]:
    """Globs that match all of `paths` and none of `spared`: in turn the one that matches most of
    what is left, the shortest of these. What would match one alone is written out."""
    matching: dict[str, set[str]] = {}
    for path in paths:
        for glob in _globs_of(path):
            if glob not in matching and not any(fnmatchcase(other, glob) for other in spared):
                matches = {other for other in paths if fnmatchcase(other, glob)}
                if len(matches) > 1 or glob == path:
                    matching[glob] = matches
    left, found = set(paths), list[str]()
    while left:
        best = min(
            matching,
            key=lambda glob: (-len(matching[glob] & left), glob.count("["), len(glob), glob),
        )
        found.append(best)
        left -= matching[best]
    return tuple(sorted(found, key=_in_order))


def _globs_of(path: str) -> Iterator[str]:
    """Globs that a reader would write for a path: itself, its end or its beginning, any number in
    the place of its numbers."""
    yield path
    names = path.split(".")
    for place in range(1, len(names)):
        end, start = ".".join(names[place:]), ".".join(names[:place])
        yield f"*.{end}"
        yield f"{start}.*"
        if names[place - 1].isdigit():
            yield f"*[0-9].{end}"
        for stop in range(place + 1, len(names)):
            yield f"{start}.*.{'.'.join(names[stop:])}"
    if any(name.isdigit() for name in names):
        yield ".".join("*" if name.isdigit() else name for name in names)


def _in_order(path: str) -> list[tuple[int, int | str]]:
    return [(0, int(name)) if name.isdigit() else (1, name) for name in path.split(".")]

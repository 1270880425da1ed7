"""The search: a plain form of the inputs, mended by what each pass says until one goes through."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from torch import nn

from forwardpass.guessing.following import Answer
from forwardpass.guessing.forms import UNKNOWN, WHOLE, Forms, batch_second, plain, with_axis
from forwardpass.guessing.settling import Guess, least, settled
from forwardpass.guessing.trying import Passes, Spent, Tried
from forwardpass.loading.programs import ModuleProgram
from forwardpass.nouns.signatures import Axis, Input
from forwardpass.tensors.modules import children_of

_SIZES = (32, 64, 28, 128, 224, 256, 2048)
"""Sizes that are tried for all free axes where a pass fails and nothing says why."""
_LARGEST = 1024
_PASSES = 300
_MENDS = 24
"""Mends of one form before another one is begun with."""
_ENOUGH = 4
"""Guesses whose rows meet, after which none is looked for whose rows do not."""
_EXPECTED = re.compile(r"expected (\d+)")


@dataclass
class Search:
    """Passes through a module with one form of its inputs after the other."""

    module: nn.Module
    paths: Sequence[str]

    def __post_init__(self) -> None:
        self.passes = Passes(self.module, _PASSES)
        self._more = dict.fromkeys(self.paths, 0)
        names = ModuleProgram(self.module).arguments()
        self._variadic = not names
        self._others = [name for name in names if name not in self.paths]

    def found(self) -> Guess | None:
        """The first form that goes through with rows that do not meet; else the first at all."""
        through: list[Guess] = []
        try:
            for start in self._starts():
                for guess in self._guesses(start):
                    if guess.apart:
                        return guess
                    through.append(guess)
                if len(through) >= _ENOUGH:
                    break
        except Spent:
            pass
        return through[0] if through else None

    def _starts(self) -> Iterator[Forms]:
        """Forms to begin with: the plainest first, then others with more or fewer axes."""
        offsets = sorted(
            product((0, 1, 2, -1, 3), repeat=min(len(self.paths), 3)),
            key=lambda offset: (sum(map(abs, offset)), [o < 0 for o in offset]),
        )
        for offset in offsets[:_MENDS]:
            self._more = dict.fromkeys(self.paths, 0) | dict(zip(self.paths, offset, strict=False))
            yield Forms.of(plain(path, more=more) for path, more in self._more.items())

    def _guesses(self, start: Forms) -> Iterator[Guess]:
        """What comes of a form; where its rows meet, of one with the rows along the second axis."""
        done = self._through(start)
        guess = None if done is None else settled(self.passes, done)
        if done is not None and guess is None:  # `table[x.long()]` takes any zeros
            floats = {path for met in done.met if met.below is not None for path in met.sources}
            floats &= {p for p, item in done.forms.inputs.items() if item.dtype not in WHOLE}
            wholes = [plain(path, "i64", more=self._more_of(path)) for path in sorted(floats)]
            done = self._through(done.forms.with_inputs(wholes)) if wholes else None
            guess = None if done is None else settled(self.passes, done)
        if done is None or guess is None:
            return
        yield guess
        moved = [
            batch_second(item)
            for item in done.forms.inputs.values()
            if item.batch_axis == 0 and len(item.axes) > 2 and item.axes[1].is_variable
        ]
        if not guess.apart and moved and any(met.names.get(-3) == "time" for met in done.met):
            done = self._through(done.forms.with_inputs(moved))
            guess = None if done is None else settled(self.passes, done)
            if guess is not None:
                yield guess

    def _more_of(self, path: str) -> int:
        return self._more.get(path.partition(".")[0], 0)

    def _through(self, forms: Forms) -> Tried | None:
        """The pass that goes through with these forms, mended; None where none does."""
        seen = [forms]
        for _ in range(_MENDS):
            done = self.passes.tried(forms)
            if done.outputs is not None:
                # Of a member that nothing is computed with, nobody knows that it is a tensor.
                return done if done.calls or not _dicts(forms) else None
            mended = next((other for other in self._mended(done) if other not in seen), None)
            if mended is None:
                return None
            forms = mended
            seen.append(forms)
        return None

    # -- mends -----------------------------------------------------------------------------------

    def _mended(self, done: Tried) -> Iterator[Forms]:
        """Forms that may get further: by what raised, and by what the calls that did want."""
        yield from self._arranged(done)
        for answer in done.answers:
            mended = self._answered(done.forms, answer)
            if mended is not None:
                yield mended
            elif answer.wanted.is_size and answer.wanted.of != "other":
                yield from self._solved(done, answer)
        free = done.forms.sizes
        config = getattr(getattr(self.module, "config", None), "image_size", None)
        sizes = (config, *_SIZES) if isinstance(config, int) else _SIZES
        for size in sizes if free else ():
            other = done.forms.sized(dict.fromkeys(free, size))
            tried = self.passes.tried(other, 0)
            if tried.outputs is not None or tried.calls > done.calls:
                yield other

    def _arranged(self, done: Tried) -> Iterator[Forms]:
        """The inputs in another arrangement, where the error speaks of one: with an argument that
        it names, as a dict with the key that was missing, as a tuple that was taken apart."""
        forms, said = done.forms, str(done.error)
        if done.keyed is not None:
            path, key = done.keyed
            if key.isidentifier():
                yield forms.taken_apart(path, [plain(f"{path}.{key}")])
        elif isinstance(done.error, KeyError) and str(done.error.args[0]).isidentifier():
            paths = [f"{root}.{done.error.args[0]}" for root in _dicts(forms)]
            yield from (forms.with_inputs([plain(p)]) for p in paths if p not in forms.inputs)
        elif done.unpacked is not None and (found := _EXPECTED.search(said)):
            parts = [plain(f"{done.unpacked}.{place}") for place in range(int(found[1]))]
            yield forms.taken_apart(done.unpacked, parts)
        elif "must be a mapping" in said:
            yield from self._as_dicts(forms)
        elif self._variadic and "to unpack" in said and (found := _EXPECTED.search(said)):
            yield forms.with_inputs(
                plain(str(n)) for n in range(int(found[1])) if str(n) not in forms.inputs
            )
        lacking = [name for name in self._others if name not in forms.inputs]
        words = [word for word in re.findall(r"\w+", said) if word in (*lacking, *forms.inputs)]
        # Of a part that says `input_ids`, the argument may be called `decoder_input_ids` here.
        named = dict.fromkeys(n for word in words for n in lacking if n.endswith(word))
        yield from (forms.with_inputs([plain(name)]) for name in named)
        for name in lacking if "NoneType" in said else ():
            other = forms.with_inputs([plain(name)])
            tried = self.passes.tried(other, 0)
            if tried.outputs is not None or tried.calls > done.calls:
                yield other

    def _as_dicts(self, forms: Forms) -> Iterator[Forms]:
        """An argument as what a part of the module takes by name: `self.encoder(**batch)`."""
        for path in forms.inputs:
            for _, part in children_of(self.module):
                keys = wanted(part)
                yield forms.taken_apart(path, [plain(f"{path}.{key}") for key in keys])

    def _answered(self, forms: Forms, answer: Answer) -> Forms | None:
        """The forms with what a call wants; None where no axis of an input is meant."""
        wanted = answer.wanted
        mine = [forms.inputs[path] for path in answer.sources if path in forms.inputs]
        alike = [item for item in mine if len(item.axes) == len(answer.shape)]
        if wanted.dtype:
            meant = [item for item in mine if item.dtype == answer.dtype] or mine
            if wanted.length:
                return _with_lengths(forms, meant, wanted.length)
            other = [item for item in meant if item.dtype != wanted.dtype]
            if wanted.dtype in ("i64", "bool"):
                changed = [plain(i.path, wanted.dtype, more=self._more_of(i.path)) for i in other]
            else:
                changed = [Input(item.path, wanted.dtype, item.axes) for item in other]
        elif wanted.more:
            meant = alike or (mine if len(mine) == 1 else [])
            changed = [plain(i.path, i.dtype, len(i.axes) + wanted.more) for i in meant]
        else:
            return _resized(forms, mine, answer)
        return forms.with_inputs(changed) if changed and all(i.axes for i in changed) else None

    def _solved(self, done: Tried, answer: Answer) -> Iterator[Forms]:
        """The forms with one size for all free axes, or for one of them, with which the call gets
        what it wants.

        What reaches it grows with that size, so it is found by bisection; of several that fit,
        the one is taken that two divides most often: 224 of 224 … 255.
        """
        place, size = next(iter(answer.wanted.sizes.items()))
        for forms, names in self._loosened(done.forms, answer.sources):
            compared = self._comparing(done, forms, names, place, size)
            top = 1
            while top <= _LARGEST:
                if compared(top) >= 0:
                    first = least(lambda n, c=compared: c(n) >= 0, top // 2, top)
                    beyond = least(lambda n, c=compared: c(n) > 0, first, 2 * first)
                    best = max(range(first, max(beyond, first + 1)), key=lambda n: n & -n)
                    if compared(best) == 0:
                        sizes, told = dict.fromkeys(names, best), answer.wanted.of == "weights"
                        yield _fixed(forms, sizes) if told else forms.sized(sizes)
                    if compared(2 * top) >= 0:  # else that was one that is taken for any
                        break
                top *= 2

    def _loosened(self, forms: Forms, sources: Iterable[str]) -> Iterator[tuple[Forms, list[str]]]:
        """Axes whose size may be meant: all free ones, each of them, each that has a size."""
        mine = [forms.inputs[path] for path in sources if path in forms.inputs]
        free = list(dict.fromkeys(name for item in mine for name in item.variable))
        if free:
            yield forms, free
        if len(free) > 1:
            yield from ((forms, [name]) for name in free)
        unused = next((name for name in UNKNOWN if name not in forms.sizes), None)
        for item in mine if unused is not None else ():
            for place, axis in enumerate(item.axes):
                if axis.size > 1 and unused is not None:
                    yield forms.with_inputs([with_axis(item, place, Axis(unused))]), [unused]

    def _comparing(
        self, done: Tried, forms: Forms, names: Sequence[str], place: int, size: int
    ) -> Callable[[int], int]:
        known: dict[int, int] = {}

        def compared(n: int) -> int:
            """-1 where the call gets too little, 0 what it wants, 1 too much."""
            if n not in known:
                tried = self.passes.tried(forms.sized(dict.fromkeys(names, n)), 1)
                known[n] = -1
                if tried.outputs is not None or tried.calls > done.calls:
                    known[n] = 0
                elif tried.calls == done.calls and tried.answers:
                    came = tried.answers[0].shape
                    known[n] = 1 if len(came) > place and came[place] > size else -1
            return known[n]

        return compared


def wanted(module: nn.Module) -> list[str]:
    """The arguments to guess: those that forward cannot do without, else the main one."""
    program = ModuleProgram(module)
    needed, names = list(program.required()), program.arguments()
    main = getattr(module, "main_input_name", None)  # transformers
    if not needed and names:
        needed = [main] if main in names else list(names[:1])
    return needed or ["0"]


def _dicts(forms: Forms) -> list[str]:
    """The paths of what holds inputs by name, the innermost first."""
    parents = {path[:i] for path in forms.inputs for i, c in enumerate(path) if c == "."}
    return sorted(parents, key=lambda path: (-path.count("."), path))


def _fixed(forms: Forms, sizes: Mapping[str, int]) -> Forms:
    """The forms with free axes that have their size for good."""
    items = [
        Input(
            i.path,
            i.dtype,
            tuple(Axis(size=sizes.get(a.name, 0)) if a.name in sizes else a for a in i.axes),
        )
        for i in forms.inputs.values()
    ]
    return forms.with_inputs(items)


def _resized(forms: Forms, mine: Sequence[Input], answer: Answer) -> Forms | None:
    """The forms with the sizes that a call wants; None where no input has an axis of the size that
    came, or where these are sizes of what is no weight, and of no other input."""
    for place, size in answer.wanted.sizes.items():
        came, changed = answer.shape[place], False
        for item in mine:
            shape = forms.shape(item.path)
            at = [i for i, n in enumerate(shape) if n == came and not item.axes[i].is_batch]
            near = place + len(shape) - len(answer.shape)
            if not at or (came == 1 and near not in at):
                continue
            where = near if near in at else at[-1]  # several have that size: the same place
            axis = item.axes[where]
            tied = next((n for n, s in forms.sizes.items() if s == size and n != axis.name), None)
            itself = axis.is_variable and shape == answer.shape
            if answer.wanted.of == "other" and tied is None and not itself:
                return None
            if tied is not None:
                forms = forms.with_inputs([with_axis(item, where, Axis(tied))])
            elif axis.is_variable and answer.wanted.of != "weights":
                forms = forms.sized({axis.name: size})
            else:
                forms = forms.with_inputs([with_axis(item, where, Axis(size=size))])
            changed = True
        if not changed:
            return None
        mine = [forms.inputs[item.path] for item in mine]
    return forms


def _with_lengths(forms: Forms, items: Sequence[Input], size: int) -> Forms | None:
    """The forms with an input that is the length of the axis of this size."""
    name = next((name for name, n in forms.sizes.items() if n == size), None)
    if name is None or not items:
        return None
    return forms.with_inputs(
        Input(i.path, "i64", (Axis("batch"),), derivation="length", derived_from=name)
        for i in items
    )

"""Writing: a record as plain torch code that computes the recorded outputs."""

from __future__ import annotations

import re

from forwardpass.nouns.calls import Call, references
from forwardpass.nouns.records import Record
from forwardpass.operators import kinds
from forwardpass.recording.recordings import Recording
from forwardpass.writing.layout import Line, docstring, laid_out, plainly
from forwardpass.writing.literals import SpelledArguments, constant, is_generator, quoted
from forwardpass.writing.naming import Function, Names, snake
from forwardpass.writing.results import gives_several, results_of
from forwardpass.writing.scopes import (
    Flow,
    Scope,
    below,
    calls_within,
    is_free,
    scopes_of,
)
from forwardpass.writing.spelling import name_of, spell

_MANY_RESULTS = 6
_LONGEST_INLINE = 64
_FLATTEN = '''def tensors(result):
    """The tensors in what an operator returns, in order."""
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, (list, tuple)):
        return [tensor for part in result for tensor in tensors(part)]
    return []
'''


def written(record: Record) -> str:
    """The pass as a module of plain torch code; its `forward(…)` gives the recorded outputs.

    `forward` takes the inputs in the order of `record.inputs`, then `state`, the tensors of the
    module by name, then, where the pass used tensors that are neither, `constants`, which are
    `record.constants`. Shapes, branches taken, and numbers that Python computed are baked in.

    Raises UsageError where a call takes what has no spelling in source, such as a function.
    """
    return _Writer(record).text()


class _Writer:
    def __init__(self, record: Record) -> None:
        self.record, self.values = record, record.values
        self.flow = Flow(record)
        self.root = scopes_of(record, self.flow)
        self.groups: list[list[Scope]] = []  # scopes that one function writes
        self.titles: dict[int, str] = {}  # by group, the name of its function
        self.scope_of = {
            item: scope for scope in below(self.root) for item in scope.items
            if isinstance(item, int)
        }  # fmt: skip
        self.constants = record.constants if isinstance(record, Recording) else {}
        self.given: dict[int, bool] = {}  # constants at the top: whether they come from outside
        self.literals: dict[int, str] = {}
        self.flattens = False
        self._sort_constants()

    def _sort_constants(self) -> None:
        read = [s for i in sorted(self.flow.kept) for s in self.record.calls[i].inputs]
        for serial in dict.fromkeys((*read, *self.record.outputs.values())):
            value = self.values[self.flow.roots[serial]]
            if value.origin not in ("constant", "unknown") or value.serial in self.given:
                continue
            text = constant(self.constants.get(value.serial))
            written_to = value.storage in self.flow.written
            if text is None or written_to or value.serial in self.flow.outputs:
                self.given[value.serial] = text is None
            if text is not None:
                self.literals[value.serial] = text

    # The whole

    def text(self) -> str:
        taken: set[str] = set()
        keys: dict[str, int] = {}
        for scope in below(self.root):
            function = self._function(scope, prefixed=True)
            taken |= function.names.taken
            if scope is self.root:
                break
            key = "\n".join([line.code + line.comment for line in function.lines if line.code])
            key += f"\n{len(function.takes)} {self._signature(function, '', True)}"
            scope.group = keys.setdefault(key, len(keys))
            if scope.group == len(self.groups):
                self.groups.append([])
            self.groups[scope.group].append(scope)
        titles = Names()
        titles.taken = taken
        for group, scopes in enumerate(self.groups):
            self.titles[group] = titles.fresh(snake(scopes[0].module.kind))
        functions = [
            self._written(self._function(scopes[0], prefixed=self._is_shared(group)), group)
            for group, scopes in enumerate(self.groups)
        ]
        functions.append(self._forward())
        if self.flattens:
            functions.insert(0, _FLATTEN)
        head = docstring(self.record, bool(self._outside()))
        imports = "import torch\n"
        if any("deepcopy(" in text for text in functions):
            imports = f"from copy import deepcopy\n\n{imports}"
        if any(re.search(r"\bF\.", text) for text in functions):
            imports += "from torch.nn import functional as F\n"
        return "\n\n".join([head + imports, *functions])

    def _is_shared(self, group: int) -> bool:
        return len({scope.path for scope in self.groups[group]}) > 1

    def _outside(self) -> list[int]:
        return [serial for serial, outside in self.given.items() if outside]

    def _signature(self, function: Function, title: str, prefixed: bool) -> str:
        names = [function.names.expressions[s] for s in function.takes]
        return f"def {title}({', '.join(['state', *['prefix'] * prefixed, *names])}):"

    def _written(self, function: Function, group: int) -> str:
        scopes = self.groups[group]
        paths = list(dict.fromkeys(scope.path for scope in scopes))
        shown = ", ".join(paths if len(paths) <= 2 else [paths[0], "…", paths[-1]])
        head = Line(self._signature(function, self.titles[group], len(paths) > 1))
        about = " ".join(f"{function.scope.module.kind} {shown}".split())
        doc = Line(f'"""{plainly(about)}."""')
        return laid_out(head, [doc, *function.lines])

    def _forward(self) -> str:
        function = self._function(self.root, prefixed=False)
        extra = ["constants"] if self._outside() else []
        head = Line(f"def forward({', '.join([*self.inputs, 'state', *extra])}):")
        return "@torch.no_grad()\n" + laid_out(head, function.lines)

    # One function

    def _function(self, scope: Scope, *, prefixed: bool) -> Function:
        takes = [] if scope is self.root else self._takes(scope)
        stop = scope.module.stop
        made = [s for i in calls_within(scope) for s in self.flow.made(self.record.calls[i])]
        returns = [s for s in made if self.flow.used_after(s, stop)]
        function = Function(scope, takes, returns)
        if scope is self.root:
            self._begin(function)
        for serial in takes:
            dtype = self.values[serial].dtype
            function.names.give(serial, {"bool": "mask", "i64": "ids"}.get(dtype, "x"))
        for item in scope.items:
            if isinstance(item, Scope):
                self._called(function, item, prefixed)
            else:
                self._call(function, self.record.calls[item], prefixed)
        if scope is self.root:
            outputs = {
                path: self._expression(function, serial, False)
                for path, serial in self.record.outputs.items()
            }
            inner = ", ".join(f"{quoted(path)}: {text}" for path, text in outputs.items())
            function.lines.append(Line(f"return {{{inner}}}"))
        elif returns:
            inner = ", ".join(function.names.expressions[s] for s in returns)
            function.lines.append(Line(f"return {inner}"))
        return function

    def _begin(self, function: Function) -> None:
        """The inputs, and copies of what the pass writes, so that the caller's stays as it is."""
        names, lines = function.names, function.lines
        self.inputs: list[str] = []
        for path, serial in self.record.inputs.items():
            name = re.sub(r"\W", "_", path)
            self.inputs.append(names.fresh(name if name.isidentifier() else f"input_{name}"))
            names.expressions.setdefault(serial, self.inputs[-1])  # one tensor may be given twice
        given: dict[int, list[str]] = {}
        for serial in dict.fromkeys(self.record.inputs.values()):
            storage = self.values[serial].storage
            if storage in self.flow.written:
                given.setdefault(storage, []).append(names.expressions[serial])
        for views in given.values():  # of one memory, which stay that
            code = f"{views[0]} = {views[0]}.clone()"
            if len(views) > 1:
                plain = ", ".join(f"{name}.detach()" for name in views)
                code = f"{', '.join(views)} = deepcopy(({plain}))"
            lines.append(Line(code, "the pass writes it"))
        held: dict[int, list[str]] = {}
        for value in self.values:
            if value.origin in ("parameter", "buffer", "attribute"):
                held.setdefault(value.storage, []).append(value.name)
        for storage in sorted(self.flow.written & set(held)):
            shared = [quoted(name) for name in dict.fromkeys(held[storage])]
            copies = f"{shared[0]}: state[{shared[0]}].clone()"
            if len(shared) > 1:  # one memory under several names stays one
                copies = f"**deepcopy({{n: state[n] for n in ({', '.join(shared)})}})"
            lines.append(Line(f"state = {{**state, {copies}}}", "the pass writes it"))
        for serial, outside in self.given.items():
            name = names.give(serial, "constant")
            text = f"constants[{serial}]" if outside else self.literals[serial]
            if outside and self.values[serial].storage in self.flow.written:
                text += ".clone()"
            unknown = self.values[serial].origin == "unknown"
            said = ", no call was seen to make it" if unknown else ""
            lines.append(Line(f"{name} = {text}", f"{self.values[serial]}{said}"))

    def _takes(self, scope: Scope) -> list[int]:
        """The objects that the calls of a scope read and that were made before it."""
        found: dict[int, None] = {}
        for index in calls_within(scope):
            for serial in self.record.calls[index].inputs:
                value = self.values[self.flow.roots[serial]]
                if value.origin in ("parameter", "buffer", "attribute"):
                    continue
                if value.serial in self.literals and value.serial not in self.given:
                    continue
                if value.producer < scope.module.first:
                    found[value.serial] = None
        return list(found)

    def _expression(self, function: Function, serial: int, prefixed: bool) -> str:
        """What stands for a tensor in a function."""
        value = self.values[self.flow.roots[serial]]
        known = function.names.expressions.get(value.serial)
        if known is not None:
            return known
        if value.origin in ("parameter", "buffer", "attribute"):
            inside = function.scope.relative(value.name) if prefixed else None
            text = f"prefix + {quoted(inside)}" if inside and function.scope.path else None
            return f"state[{text or quoted(value.name)}]"
        text = self.literals[value.serial]
        name = function.names.give(value.serial, "constant")
        function.lines.append(Line(f"{name} = {text}", str(value)))
        return name

    def _called(self, function: Function, child: Scope, prefixed: bool) -> None:
        """The line that calls the function of a scope inside of this one."""
        inner = self._interface(child)
        arguments = ["state"]
        # While functions are compared, none has a name yet, and each is taken to be shared.
        known = bool(self.titles)
        title = self.titles[child.group] if known else f"<{child.group}>"
        inside = function.scope.relative(child.path) if prefixed else None
        if not known or self._is_shared(child.group):
            if inside and function.scope.path:
                arguments.append(f"prefix + {quoted(inside + '.')}")
            elif inside is None and prefixed and child.path == function.scope.path:
                arguments.append("prefix")
            else:
                arguments.append(quoted(f"{child.path}." if child.path else ""))
        arguments += [self._expression(function, s, prefixed) for s in inner[0]]
        text = f"{title}({', '.join(arguments)})"
        base = self._base_of_module(function.scope, child)
        names = [function.names.give(serial, base) for serial in inner[1]]
        shapes = ", ".join(str(self.values[serial]) for serial in inner[1])
        function.lines.append(Line(f"{', '.join(names)} = {text}" if names else text, shapes))
        function.place = ""

    def _interface(self, scope: Scope) -> tuple[list[int], list[int]]:
        made = [s for i in calls_within(scope) for s in self.flow.made(self.record.calls[i])]
        return self._takes(scope), [s for s in made if self.flow.used_after(s, scope.module.stop)]

    def _base_of_module(self, scope: Scope, child: Scope) -> str:
        inside = scope.relative(child.path)
        name = re.sub(r"\W", "_", inside or child.path)
        return name if name.isidentifier() else f"{snake(child.module.kind)}_{name}".strip("_")

    # One call

    def _call(self, function: Function, call: Call, prefixed: bool) -> None:
        for serial in references([*call.arguments, *call.keywords.values()]):
            self._expression(function, serial, prefixed)  # constants get their lines before
        makes = self.flow.makes(call)
        used = [s >= 0 and s in self.flow.last for s in makes]
        a = SpelledArguments(
            call, self.values, lambda serial: self._expression(function, serial, prefixed), used
        )
        if call.kind == "host":
            operands = ", ".join(self._expression(function, s, prefixed) for s in call.inputs)
            name = call.operator.removeprefix("Tensor.")
            name = "item" if "_local_scalar_dense" in name else name.removeprefix("aten.")
            name = name.partition(".")[0]
            self._annotate(function, call)
            function.lines.append(Line("", f"here Python took the value of {operands}: .{name}()"))
            return
        aten = call.operator.startswith("aten.")
        if aten and call.outputs and not self.flow.made(call) and not call.writes:
            return  # the tensor itself, handed through
        text, first = spell(a)
        results = results_of(a, self.flow, first)
        if results is None:
            results, text, several = makes, f"tensors({text})", True
            self.flattens = True
        else:
            several = gives_several(a, results)
        if self.flow.may_inline(call) and self._is_read_here(call, makes[0]):
            one = f"{text}[{results.index(makes[0])}]" if several else text
            if len(one) <= _LONGEST_INLINE:
                handed = kinds.copies(call.short)
                function.names.expressions[makes[0]] = a.literal(a.positional[0]) if handed else one
                return
        self._annotate(function, call)
        self._assigned(function, a, text, results, several)

    def _is_read_here(self, call: Call, serial: int) -> bool:
        here = self.scope_of[call.index]
        readers = self.flow.readers[serial]
        return all(self.scope_of[index] is here for index in readers) and all(
            self.record.calls[index].inputs.count(serial) == 1 or is_free(call) for index in readers
        )

    def _assigned(
        self, function: Function, a: SpelledArguments, text: str, results: list[int], several: bool
    ) -> None:
        """`name = text`, with as many names as the results need."""
        call = a.call
        said = ", drawn at random" if call.kind == "random" else ""
        if any(is_generator(value) for value in (*call.arguments, *call.keywords.values())):
            said = ", drawn from a generator of the model's own: other numbers here"
        base = self._base(function.scope, call)
        wanted = [s for s in results if s >= 0 and (s in self.flow.last or len(results) == 1)]
        if wanted and not any(s in self.flow.last for s in wanted):
            said += ", never read"
        shape = ", ".join(str(self.values[s]) for s in wanted)
        if not wanted:
            shape = str(self.values[call.outputs[0]]) if call.outputs else ""
            function.lines.append(Line(text, (shape + said).removeprefix(", ")))
        elif not several:
            name = function.names.give(wanted[0], base)
            function.lines.append(Line(f"{name} = {text}", shape + said))
        elif len(wanted) == 1:
            name = function.names.give(wanted[0], base)
            place = results.index(wanted[0])
            function.lines.append(Line(f"{name} = {text}[{place}]", shape + said))
        elif len(results) > _MANY_RESULTS:
            whole = function.names.fresh(f"{base}_parts")
            function.lines.append(Line(f"{whole} = {text}", said.removeprefix(", ")))
            for serial in wanted:
                name = function.names.give(serial, base)
                code = f"{name} = {whole}[{results.index(serial)}]"
                function.lines.append(Line(code, str(self.values[serial])))
        else:
            returns = [] if a.operator is None else a.operator._schema.returns
            titles = [entry.name for entry in returns] if len(returns) == len(results) else []
            names = [
                "_" if s not in wanted
                else function.names.give(s, f"{base}_{titles[n]}" if n and any(titles) else base)
                for n, s in enumerate(results)
            ]  # fmt: skip
            function.lines.append(Line(f"{', '.join(names)} = {text}", shape + said))

    def _base(self, scope: Scope, call: Call) -> str:
        """A name after the module that gives this value, else after the operator."""
        module = self.record.modules[call.module]
        storages = {self.values[s].storage for s in module.outputs}
        gives = any(self.values[s].storage in storages for s in self.flow.made(call))
        if module.path != scope.path and gives:
            last = module.path.rpartition(".")[2]
            if last.isidentifier() and scope.relative(module.path) is not None:
                return last
        return name_of(call.short)

    def _annotate(self, function: Function, call: Call) -> None:
        """A comment where the module or the line changes that a call was written in."""
        module = self.record.modules[call.module]
        inside = function.scope.relative(module.path)
        said = "" if module.path == function.scope.path else f"{inside or module.path} "
        said += f"({module.kind}), " if said else ""
        said += str(self.record.site(call))
        if said != function.place:
            function.place = said
            function.lines.append(Line("", said, heading=True))

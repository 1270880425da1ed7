"""Backends: a program becomes something that computes; one file each, its name is the public name.

    build(program, example, **arguments) -> Sequence[Replica]
    save(program, example, folder, **arguments) -> Lowered
    open(folder, lowered, **arguments) -> Sequence[Replica]
    trust(lowered) -> "data" | "code" | "native"
    rebuild(graph, folder) -> None

A file has `build`, or the other three, or all. Without `build` a Forward is built by saving it and
opening what was saved; without `save` the backend makes no artefacts. `trust` says what opening the
graph may execute, and its docstring why. `rebuild` is there where a graph is for one kind of
machine: it makes another one, into `folder`, of what `save` left in `graph` beside it.

`program` is what the Forward's steps left: a module is a copy in eval mode that is ours to move; an
artefact has none. `example` is a batch that the program takes, and nothing is built without one;
its `data` are the user's rows, where there are some to fit to. A backend that quantizes has in
`save` the keyword `layers`, which says of a module's path whether `where` chose it, None without
`where`. One Replica a device; see `building.replicas`. Raises UsageError for arguments that this
machine cannot follow, and for programs that it cannot build, saying what it can.
"""

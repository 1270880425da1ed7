"""Steps: torch module → torch module, one file each; the file's name is the step's name.

    apply(piece, **arguments) -> str
    FAR: float

`apply` changes `piece.module` and says what it did, with numbers; `building.workpieces` has what a
step may ask. It raises BuildError where there is nothing to do, or it cannot be done, and
UsageError for arguments that make no sense, saying which do. `FAR` is how far outputs may move, of
the largest: what was changed computes batches of several sizes, and beyond FAR the step is refused.
It is infinite for a step that changes numbers on purpose; how far they moved is said.
"""

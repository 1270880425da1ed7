"""One file a view, and what several views ask: `page`, `values`, …

A file holds
    ASKED: the functions that a page may ask, each `(exploration, steps, *, …) -> Struct | Tile`;
        its arguments are checked against their annotations, and `steps` is advanced between
        passes, so that it can be stopped.
A file that is a view holds, too,
    VIEW: see exploring.views.View;
    predictions(exploration, steps, *, row) -> Predictions and settle(exploration, steps, *, row,
        id, …) -> Settled, both among ASKED;
    exported(exploration) -> Iterator[PageQuestion]: what an exported page holds answers to.
"""

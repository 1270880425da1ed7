"""Forward + inputs → Findings: what is wrong with a pass, proved by running it."""

from forwardpass.checking.verb import check

__all__ = ["check"]

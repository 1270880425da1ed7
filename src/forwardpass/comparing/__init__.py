"""Record + Record → Diff: where two passes part, and which layer made the difference."""

from forwardpass.comparing.verb import diff

__all__ = ["diff"]

"""Forward → Artefact: a folder that computes the same, without the source."""

from forwardpass.exporting.verb import export

__all__ = ["export"]

"""run: compute the forward pass for all the data, once for each row."""

from forwardpass.nouns.progress import Progress
from forwardpass.running.verb import run

__all__ = ["Progress", "run"]

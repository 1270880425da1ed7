"""Forward + inputs → recorded, and made again with something changed."""

from forwardpass.probing.verb import record

__all__ = ["record"]

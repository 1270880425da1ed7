"""A record replayed, perturbed, sampled: how much of it is proved."""

from forwardpass.validating.verb import validate

__all__ = ["validate"]

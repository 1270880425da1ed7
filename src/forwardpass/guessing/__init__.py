"""Module → a guess at what it takes, where nobody says: tried, and said to be guessed."""

from forwardpass.guessing.verb import Guess, guess

__all__ = ["Guess", "guess"]

"""Record + element → Explanation: the arithmetic of one number, and the way back to one weight."""

from forwardpass.explaining.targets import Target, targets
from forwardpass.explaining.verb import explain

__all__ = ["Target", "explain", "targets"]

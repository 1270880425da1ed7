"""The executor seam on Ray: the same run, past one machine."""

from forwardpass.scaling.clusters import Ray

__all__ = ["Ray"]

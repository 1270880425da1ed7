"""Forward → Engine: steps turn a module into a module, a backend lowers it.

Steps and backends are folders: one file each, its name is the public name.
"""

from forwardpass.building.engines import Engine, build
from forwardpass.building.replicas import Arguments, Example, Facts, Replica

__all__ = ["Arguments", "Engine", "Example", "Facts", "Replica", "build"]

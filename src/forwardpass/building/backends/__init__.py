"""Backends: a module becomes something that computes; one file each, its name is the public name.

    build(module, **arguments) -> list[Replica]

`module` is a copy in eval mode that is ours to move. One Replica a device; see `engines.Replica`.
Raises UsageError for arguments that this machine cannot follow, saying what it can.
"""

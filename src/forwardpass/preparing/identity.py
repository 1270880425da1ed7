"""Whether two Forwards are the same: a digest over the plan, the program and the code around it."""

from __future__ import annotations

import hashlib

from forwardpass.loading.digests import Described
from forwardpass.nouns.forwards import Forward


def digest(forward: Forward) -> str:
    """SHA-256, in hex, over what decides the results of a Forward.

    Plan, signature, program, and encode, decode, collate and uncollate with what they refer to in
    their own file.
    """
    model, walk = forward.model, Described()
    total = hashlib.sha256(f"{forward.plan}\0{model.signature}".encode())
    for function in (model.encode, model.decode, model.collate, model.uncollate, model.size):
        total.update(b"\0" + walk.said(function).encode())
    total.update(b"\0" + model.program.digest().encode())
    return total.hexdigest()

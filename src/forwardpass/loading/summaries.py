"""What was loaded, in a line."""

from __future__ import annotations

from forwardpass.nouns.forwards import Forward

_TRUST = {
    "data": "read as data, none of its code ran",
    "code": "its code ran when it was loaded",
    "native": "its machine code was loaded into this process",
}


def summary(forward: Forward) -> str:
    """What was loaded, and what reading it could have done."""
    model = forward.model
    kind, module = model.program.name, model.program.module
    if module is not None:
        from torch.nn.parameter import is_lazy

        from forwardpass.tensors.modules import parameters_of

        count = sum(p.numel() for _, p in parameters_of(module) if not is_lazy(p))
        size = f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"
        kind = f"{kind}, {size} parameters"
    return f"{model.name}: {kind} · {_TRUST[model.trust]}"

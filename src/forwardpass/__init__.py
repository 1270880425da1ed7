"""forwardpass: the tool for the forward pass of any PyTorch model.

The verbs take a Forward: text such as `"model.py | cast(bf16) @ eager"`, a bare module, or a
Model. Importing this package imports neither torch nor anything else that is heavy; a name is
loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forwardpass.checking import check
    from forwardpass.comparing import diff
    from forwardpass.errors import ForwardpassError
    from forwardpass.explaining import explain
    from forwardpass.exporting import export
    from forwardpass.loading import load
    from forwardpass.nouns.artefacts import Artefact
    from forwardpass.nouns.diffs import Diff
    from forwardpass.nouns.explanations import Explanation
    from forwardpass.nouns.findings import Finding, Findings
    from forwardpass.nouns.forwards import Forward
    from forwardpass.nouns.models import Encoded, Model
    from forwardpass.nouns.plans import Plan
    from forwardpass.nouns.profiles import Profile
    from forwardpass.nouns.records import Record
    from forwardpass.nouns.reports import RunReport
    from forwardpass.nouns.rows import Rows
    from forwardpass.nouns.signatures import Signature
    from forwardpass.nouns.tunings import Tuning
    from forwardpass.nouns.validations import Validation
    from forwardpass.nouns.watched import Watched
    from forwardpass.probing import record
    from forwardpass.profiling import profile
    from forwardpass.recording import Recording, watch
    from forwardpass.running import run
    from forwardpass.scaling import Ray
    from forwardpass.serving.verb import Server, serve
    from forwardpass.tuning.verb import tune

__all__ = [
    "Artefact",
    "Diff",
    "Encoded",
    "Explanation",
    "Finding",
    "Findings",
    "Forward",
    "ForwardpassError",
    "Model",
    "Plan",
    "Profile",
    "Ray",
    "Record",
    "Recording",
    "Rows",
    "RunReport",
    "Server",
    "Signature",
    "Tuning",
    "Validation",
    "Watched",
    "check",
    "diff",
    "explain",
    "export",
    "load",
    "profile",
    "record",
    "run",
    "serve",
    "tune",
    "watch",
]

_HOMES = {
    "Artefact": "nouns.artefacts",
    "Diff": "nouns.diffs",
    "Encoded": "nouns.models",
    "Explanation": "nouns.explanations",
    "Finding": "nouns.findings",
    "Findings": "nouns.findings",
    "Forward": "nouns.forwards",
    "ForwardpassError": "errors",
    "Model": "nouns.models",
    "Plan": "nouns.plans",
    "Ray": "scaling",
    "Profile": "nouns.profiles",
    "Record": "nouns.records",
    "Recording": "recording",
    "Rows": "nouns.rows",
    "RunReport": "nouns.reports",
    "Server": "serving.verb",
    "Signature": "nouns.signatures",
    "Tuning": "nouns.tunings",
    "Validation": "nouns.validations",
    "Watched": "nouns.watched",
    "check": "checking",
    "diff": "comparing",
    "explain": "explaining",
    "export": "exporting",
    "load": "loading",
    "profile": "profiling",
    "record": "probing",
    "run": "running",
    "serve": "serving.verb",
    "tune": "tuning.verb",
    "watch": "recording",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("forwardpass")
    if name not in _HOMES:
        raise AttributeError(f"module 'forwardpass' has no attribute {name!r}")
    value = getattr(import_module(f"forwardpass.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

"""What does check say of sound models that nobody here wrote?

Families of transformers, and of timm where that is installed (`make bench-held-out`), built small
with random weights, in eval mode, with all rules, once in inference mode and once with grad on.
An error or a warning is a false one, unless the model really has the fault: these are known by
name, with what it is, in tests/checking/held_out.py.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, table

Build = Callable[[], tuple[Any, Any]]
SIZED = (
    "test_byobnet", "cait_xxs24_224", "convit_tiny", "deit_tiny_patch16_224",
    "efficientformerv2_s0", "efficientvit_m0", "vit_tiny_patch16_dinov3_qkvb", "gcvit_xxtiny",
    "hiera_tiny_224", "levit_128s", "test_coatnet", "gmlp_ti16_224", "mobilevit_xxs",
    "mvitv2_tiny", "pit_ti_224", "repvit_m1", "swin_s3_tiny_224", "swinv2_cr_tiny_224", "test_vit",
    "tnt_s_patch16_224",
)  # fmt: skip
"""The smallest of families of timm that are made for one size of image."""
FREE = (
    "test_convnext", "cpubone_nano", "csatv2", "cs3darknet_focus_s", "cspnext_tiny",
    "densenet121", "dla46x_c", "dpn48b", "edgenext_xx_small", "test_efficientnet",
    "efficientvim_m1", "efficientvit_b0", "fasternet_t0", "fastvit_t8", "ghostnet_050",
    "hardcorenas_b", "hgnetv2_b0", "iformer_t", "inception_next_atto", "lcnetv2_small",
    "test_mambaout", "poolformerv2_s12", "mobilenetv3_small_050", "test_nfnet", "pvt_v2_b0",
    "regnetx_002", "repghostnet_050", "res2net50d", "resnest14d", "test_resnet", "resnetv2_18",
    "rexnet_100", "shvit_s1", "skresnet18", "starnet_s1", "tiny_vit_5m_224", "davit_tiny",
    "focalnet_tiny_lrf", "lowformer_b0", "rdnet_tiny",
)  # fmt: skip
"""The smallest of families that take any size."""


class _Named(type):
    """A class whose attributes are such classes, too."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Named(name, (), {})


class _Torchvision(MetaPathFinder, Loader):
    """Names of torchvision that mean nothing: timm imports some for its data and for frozen layers,
    which no model here has, and torchvision has no build for every build of torch."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        ours = name.partition(".")[0] == "torchvision"
        return ModuleSpec(name, self, is_package=True) if ours else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        vars(module)["__getattr__"] = lambda name: getattr(_Named("names", (), {}), name)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: names are made as they are asked for."""


def families() -> Iterator[tuple[str, str, Build]]:
    """The library, the family, and what builds it."""
    from held_out import FAMILIES, built

    for family in FAMILIES:
        yield "transformers", family, lambda family=family: built(family)
    if find_spec("timm") is None:
        return
    _import_timm()
    for family in (*SIZED, *FREE):
        yield "timm", family, lambda family=family: image_model(family)


def _import_timm() -> None:
    """Import timm; transformers, which asks what is installed, then sees no torchvision again."""
    names = _Torchvision()
    if find_spec("torchvision") is None:
        sys.meta_path.append(names)
    import_module("timm")
    if names in sys.meta_path:
        sys.meta_path.remove(names)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]


def image_model(name: str) -> tuple[Any, Any]:
    torch.manual_seed(0)
    sizes = {"img_size": 64} if name in SIZED else {}
    module = import_module("timm").create_model(name, num_classes=5, **sizes).eval()
    return module, torch.randn(2, 3, 64, 64)


def main() -> None:
    hasty = quick(__doc__)
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "checking"))
    from held_out import REAL

    torch.set_num_threads(1)
    began = time.perf_counter()
    counts: dict[str, Counter[str]] = {}
    said: dict[str, None] = {}
    for library, family, build in list(families())[:: 16 if hasty else 1]:
        count = counts.setdefault(library, Counter())
        count["families"] += 1
        for grad in ("inference", "on"):
            module, inputs = build()
            found = fwd.check(module, inputs, mode="eval", grad=grad)
            count["failed"] += sum("the rule failed" in one.reason for one in found.skipped)
            count["skipped"] += len(found.skipped)
            for finding in found:
                why = REAL.get(family, {}).get(finding.rule)
                count[f"{finding.severity} {'false' if why is None else 'real'}"] += 1
                if finding.severity != "note":
                    line = f"{finding.severity} `{finding.rule}` on {family}: {why or '**false**'}"
                    said[f"- {line}"] = None
        print(f"{library} {family}: {dict(count)}", flush=True)
    head = [
        "", "families", "false errors", "false warnings", "real errors", "real warnings",
        "rules skipped a check", "rules that failed",
    ]  # fmt: skip
    kinds = ("error false", "warning false", "error real", "warning real")
    lines = [
        [
            library,
            str(count["families"]),
            *(str(count[kind]) for kind in kinds),
            f"{count['skipped'] / count['families'] / 2:.1f}",
            str(count["failed"]),
        ]
        for library, count in counts.items()
    ]
    method = (__doc__ or "").partition("\n\n")[2].strip()
    took = f"{time.perf_counter() - began:.0f} s. {machine(*counts)}"
    parts = [method, table(head, lines), "\n".join(said), took]
    publish("held_out_models", "Models that nobody here wrote", parts, write=not hasty)


if __name__ == "__main__":
    main()

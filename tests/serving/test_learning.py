"""Before it is ready: from what it learns, what it may put together, and that it does so once."""

from __future__ import annotations

import base64
import json
import time
from fcntl import LOCK_EX, LOCK_UN, flock
from itertools import pairwise
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from planning import planning
from torch import nn

from forwardpass import Forward, Model
from forwardpass.errors import DataError, UsageError
from forwardpass.exporting import export
from forwardpass.loading import load
from forwardpass.loading.image_encoders import ImageEncoder
from forwardpass.nouns.models import Encoded
from forwardpass.nouns.rows import Rows
from forwardpass.serving.learning import Warmed, learned


def learnt(model: Model, data: Any = None, folder: Path | None = None) -> Warmed:
    warm = learned(Forward(model), data, folder, seconds=0.2)
    warm.executor.close()
    return warm


def lengths_of(warm: Warmed) -> list[int]:
    return sorted({point.cells for point in warm.about.costs.points})


def test_without_data_rows_are_drawn_by_the_signature_and_it_says_so() -> None:
    warm = learnt(models.mlp())
    about = warm.about
    assert about.inputs == ("features: f32[batch 16]",)
    assert about.outputs == ("output: f32[batch 4]",)
    assert (about.encodes, about.tensors, about.decodes) == (False, True, False)
    assert "drawn by the signature" in about.samples
    assert "--samples" in about.samples
    assert warm.said[0] == f"learned from {about.samples}"
    counts = [point.rows for point in about.costs.points]
    assert counts[:3] == [1, 2, 4]
    assert counts == sorted(counts)


def test_rows_of_several_lengths_are_drawn_and_what_may_be_padded_is_proved() -> None:
    warm = learnt(models.masked_mean())
    assert warm.about.paddable == (True,)
    assert "proved" in warm.about.padding
    lengths = lengths_of(warm)
    assert len(lengths) >= 3
    assert lengths[-1] >= 16 * lengths[0]
    for cells in lengths:  # of every length one row was timed
        assert 1 in {p.rows for p in warm.about.costs.points if p.cells == cells}


def test_what_leaks_is_batched_by_equal_sizes_only() -> None:
    about = learnt(models.bilstm()).about
    assert about.paddable == (False,)
    assert "only equal sizes share a batch" in about.padding


def test_rows_of_the_users_data_say_how_long_rows_are(tmp_path: Path) -> None:
    path = tmp_path / "ids.jsonl"
    path.write_text("".join(f'{{"ids": {[1] * length}}}\n' for length in (7, 9, 11)))
    warm = learnt(models.masked_mean(), str(path))
    assert "3 rows of" in warm.about.samples
    assert {min(lengths_of(warm)), max(lengths_of(warm))} == {7, 11}


def test_data_of_which_no_row_fits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.zeros((3, 5), np.float32))
    with pytest.raises(DataError, match="none of 3 rows can be encoded"):
        learnt(models.mlp(), str(path))


def test_an_artefact_learns_from_its_golden_rows(tmp_path: Path) -> None:
    out = tmp_path / "mlp.fwd"
    export(models.mlp(), out)
    warm = learned(load(out), None, None, seconds=0.2)
    warm.executor.close()
    assert "golden rows" in warm.about.samples
    assert warm.about.outputs == ("output: f32[batch 4]",)


def test_a_model_without_a_signature_is_guessed_and_it_says_so() -> None:
    warm = learnt(Model(nn.Sequential(nn.Linear(6, 3), nn.ReLU())))
    assert "guessed" in warm.about.samples
    assert "6]" in warm.about.inputs[0]


def test_a_guess_with_which_rows_meet_is_refused() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) - self.linear(x).mean(0)

    with pytest.raises(UsageError, match="depend on the rows beside it"):
        learnt(Model(Centred()))


def test_an_encode_without_inputs_is_refused_with_the_line_to_write() -> None:
    with pytest.raises(UsageError, match="inputs='ids: "):
        learnt(Model(nn.Linear(6, 3), encode=lambda rows: rows["x"]))


def graphs() -> Model:
    return Model(
        nn.Linear(2, 3),
        collate=lambda items: torch.stack([torch.tensor(i["x"]).float() for i in items]),
        uncollate=lambda outputs, count: {"y": list(outputs)},
    )


def test_a_collate_learns_from_data_and_says_that_it_needs_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--samples DATA"):
        learnt(graphs())
    path = tmp_path / "rows.jsonl"
    path.write_text('{"x": [1.0, 2.0]}\n{"x": [3.0, 4.0]}\n')
    about = learnt(graphs(), str(path)).about
    assert (about.encodes, about.tensors, about.inputs) == (True, False, ())
    assert about.costs.points


def test_optional_inputs_may_stay_away() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor, more: torch.Tensor | None = None) -> torch.Tensor:
            return self.linear(x if more is None else x + more)

    about = learnt(Model(Net(), ["x: f32[batch 4]", "more?: f32[batch 4]"])).about
    assert about.inputs == ("x: f32[batch 4]", "more?: f32[batch 4]")


def test_a_model_that_reads_text_learns_from_texts() -> None:
    class Letters:
        text_columns = ("word",)

        def __call__(self, rows: Rows) -> Encoded:
            return Encoded(
                {"ids": [np.frombuffer(t.encode(), np.uint8)[:64] for t in rows["word"]]}
            )

    model = models.masked_mean()
    table = nn.Embedding(256, 16)
    model.module.embed = table
    warm = learnt(Model(model.module, model.signature, encode=Letters()))
    assert "texts of ours" in warm.about.samples
    assert warm.about.example == '"A sentence to try."'
    assert (warm.about.encodes, warm.about.columns) == (True, ("word",))
    assert len(lengths_of(warm)) >= 2


def letters_of(rows: Rows) -> dict[str, Any]:
    titles, reviews = rows["title"], rows["review"]
    texts = [f"{title}: {review}" for title, review in zip(titles, reviews, strict=True)]
    return {"ids": [np.frombuffer(text.encode(), np.uint8)[:64] % 50 for text in texts]}


def test_what_an_encode_asks_for_is_found_out() -> None:
    model = models.masked_mean()
    about = learnt(Model(model.module, model.signature, encode=letters_of)).about
    assert about.columns == ("title", "review")
    assert about.example == '{"title":"A sentence to try.","review":"A sentence to try."}'
    assert "texts of ours" in about.samples


def test_an_encode_of_pictures_is_shown_one() -> None:
    encode = ImageEncoder(lambda picture: np.resize(picture, (1, 8, 8)).astype(np.float32))
    cnn = models.cnn()

    def pixels(rows: Rows) -> dict[str, Any]:
        return {"pixels": encode(rows)["pixel_values"]}

    about = learnt(Model(cnn.module, cnn.signature, encode=pixels)).about
    assert about.columns == ("image",)
    assert base64.b64decode(json.loads(about.example)).startswith(b"\x89PNG")
    assert "drawn" in about.samples


def test_an_encode_of_numbers_says_its_column_and_no_example() -> None:
    def features(rows: Rows) -> dict[str, Any]:
        return {"features": np.asarray(rows["price"], np.float32)[:, None].repeat(16, 1)}

    mlp = models.mlp()
    about = learnt(Model(mlp.module, mlp.signature, encode=features)).about
    assert (about.columns, about.example) == (("price",), "")


def test_an_encode_that_takes_two_texts_or_none_is_shown_two() -> None:
    class Pairs:
        text_columns = ("text", "text_pair")

        def __call__(self, rows: Rows) -> dict[str, Any]:
            if "text" not in rows or "text_pair" not in rows:
                raise DataError("this model takes two columns of text")
            return {"ids": [np.ones(min(64, len(text)), np.int64) for text in rows["text"]]}

    model = models.masked_mean()
    about = learnt(Model(model.module, model.signature, encode=Pairs())).about
    assert json.loads(about.example).keys() == {"text", "text_pair"}


def test_the_next_engine_takes_what_the_first_one_learned(tmp_path: Path) -> None:
    first = learnt(models.masked_mean(), folder=tmp_path)
    assert (tmp_path / "ready.json").is_file()
    said: list[str] = []
    again = learned(Forward(models.masked_mean()), None, tmp_path, say=said.append, seconds=0.2)
    again.executor.close()
    assert again.ready == first.ready
    assert again.about == first.about
    assert "timing batches" not in said


def test_how_long_a_row_takes_to_encode_is_timed_once_for_all_engines(tmp_path: Path) -> None:
    def slow(rows: Rows) -> dict[str, Any]:
        time.sleep(0.02 * len(rows["word"]))
        return {"ids": [np.frombuffer(text.encode(), np.uint8)[:64] % 50 for text in rows["word"]]}

    model = models.masked_mean()
    told = Model(model.module, model.signature, encode=slow)
    assert 0.02 <= learnt(told).about.encode_seconds < 0.2
    path = tmp_path / "rows.jsonl"
    path.write_text('{"word": "one"}\n{"word": "three"}\n')
    folder = tmp_path / "told"
    folder.mkdir()
    first = learnt(told, str(path), folder).about
    assert 0.02 <= first.encode_seconds < 0.2
    assert learnt(told, str(path), folder).about == first
    assert learnt(models.mlp()).about.encode_seconds == 0


def test_who_waits_for_another_model_to_be_timed_says_so_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forwardpass.serving.learning._WAIT_SECONDS", 0.01)
    waiting, said = "waiting for another model to be timed", list[str]()
    lock = tmp_path / "lock"
    with lock.open("w") as held:
        flock(held, LOCK_EX)

        def say(doing: str) -> None:
            said.append(doing)
            if said.count(waiting) == 3:
                flock(held, LOCK_UN)

        learned(Forward(models.mlp()), None, None, lock=lock, say=say, seconds=0.1).executor.close()
    assert said.count(waiting) == 3
    assert said.index("timing batches") > said.index(waiting)
    said.clear()
    again = learned(Forward(models.mlp()), None, None, lock=lock, say=said.append, seconds=0.1)
    again.executor.close()
    assert waiting not in said


def test_what_another_model_learned_is_not_taken(tmp_path: Path) -> None:
    learnt(models.mlp(), folder=tmp_path)
    other = learnt(models.cnn(), folder=tmp_path)
    assert other.about.outputs == ("output: f32[batch 10]",)


def test_rows_that_move_each_other_are_computed_alone_and_random_ones_promise_nothing() -> None:
    about = learnt(models.batch_statistics()).about
    assert about.apart
    assert "computed alone" in about.mates
    about = learnt(models.always_dropout()).about
    assert (about.apart, about.tolerance) == (False, None)
    assert "random" in about.mates
    for make in (models.mlp, models.masked_mean, models.counter_buffer, models.nan_rows):
        about = learnt(make()).about
        assert (about.apart, about.mates) == (False, ""), make
        assert about.tolerance is not None


def test_rows_are_padded_to_few_sizes_where_a_new_shape_is_dear() -> None:
    def steps_of(price: float, tokens: str) -> tuple[tuple[int, ...], ...]:
        warm = learned(Forward(planning(price, tokens)), None, None, seconds=3)
        warm.executor.close()
        assert warm.about.costs.shape_seconds == pytest.approx(price, abs=0.01)
        return warm.about.steps

    assert steps_of(0.0, "8..96%8") == ()
    assert steps_of(0.02, "8..96%8") == ((8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96),)
    (steps,) = steps_of(0.02, "1..512")
    assert (steps[0], steps[-1]) == (1, 512)
    assert len(steps) < 64
    assert all(above <= 1.126 * below or above <= below + 1 for below, above in pairwise(steps))

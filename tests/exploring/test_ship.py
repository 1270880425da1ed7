"""Ship: the rules really run, each pitfall has its rules, and what was saved is told as it is."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace

import models
import msgspec
import pytest
import torch
from profiles import profile
from prometheus_client import generate_latest
from torch import nn
from tunings import BASELINE, tuning

import forwardpass as fwd
from forwardpass.checking import every
from forwardpass.errors import UsageError
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.opening import of_noun
from forwardpass.exploring.questions import ship
from forwardpass.exploring.rows import PassGiven, given
from forwardpass.exploring.shipping import plans
from forwardpass.exploring.watched_servers import WatchedServer
from forwardpass.nouns.progress import Steps
from forwardpass.serving.exchanges import RefusedError
from forwardpass.serving.gauges import REGISTRY, Gauges
from forwardpass.showing.pages.opening import first_view

FEATURES = "features: f32[batch 16]"


class Leaking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        h = self.fc(features)
        return h - h.mean(0)


def explored(module: nn.Module | fwd.Model) -> Exploration:
    model = module if isinstance(module, fwd.Model) else fwd.Model(module.eval(), FEATURES)
    return Exploration("net", given(fwd.Forward(model)))


def test_every_rule_belongs_to_one_pitfall() -> None:
    pitfalls = [rule for rules in ship._PITFALLS.values() for rule in rules]
    assert sorted(pitfalls) == sorted(every())


def test_what_is_found_is_what_check_finds() -> None:
    page = explored(Leaking())
    checked = ship.findings(page, Steps())
    rows = torch.randn(8, 16)
    plain = fwd.check(fwd.Model(Leaking().eval(), FEATURES), rows, mode="eval", grad="off")
    assert {one.rule for one in checked.found} == {one.rule for one in plain}
    leak = next(one for one in checked.found if one.rule == "batch-leak")
    assert "h = h - h.mean(0)" in leak.message or "mean" in leak.message
    assert leak.remedy
    assert checked.rows == 8
    assert checked.passes > 0
    names = {one.rule for one in checked.found} | {*checked.quiet}
    assert names | {one.rule for one in checked.skipped} == {*every()}


def test_the_prediction_is_settled_by_the_rules() -> None:
    leaking, fine = explored(Leaking()), explored(models.mlp())
    asks = ship.predictions(leaking, Steps()).predictions[0]
    settled = ship.settle(leaking, Steps(), id=asks.id)
    assert [asks.choices[place] for place in settled.choice] == [
        "Rows of a batch influence each other"
    ]
    settled = ship.settle(fine, Steps(), id=asks.id)
    assert [asks.choices[place] for place in settled.choice] == ["None of these"]
    assert settled.answer == "0 findings"
    assert len(settled.why.split()) <= 30


def test_one_check_tells_the_view_and_the_prediction_and_another_time_it_runs_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page, ran = explored(models.mlp()), []
    run = ship._run

    def counted(exploration: Exploration, steps: Steps) -> fwd.Findings:
        ran.append(1)
        return run(exploration, steps)

    monkeypatch.setattr(ship, "_run", counted)
    ship.settle(page, Steps(), id="pitfall")
    ship.findings(page, Steps())
    assert len(ran) == 1
    page.forget()  # as for who asks again
    ship.findings(page, Steps(), run=True)
    ship.settle(page, Steps(), id="pitfall")
    assert len(ran) == 2


def test_progress_goes_by_rules() -> None:
    steps = Steps()
    ship.findings(explored(models.mlp()), steps)
    assert steps.stage == "checking"
    assert steps.done == steps.total == len(every()) + 1


def test_saved_findings_are_told_without_a_model_and_run_with_none() -> None:
    found = fwd.check(fwd.Model(Leaking().eval(), FEATURES), torch.randn(8, 16), mode="eval")
    page = of_noun(fwd.Findings.from_json(found.to_json()))
    told = ship.findings(page, Steps())
    assert told.saved
    assert [one.rule for one in told.found] == [one.rule for one in found]
    assert ship.beside(page, Steps()).can_check
    nothing = of_noun(tuning())
    assert not ship.predictions(nothing, Steps()).predictions
    with pytest.raises(UsageError, match="holds no model to check"):
        ship.findings(nothing, Steps())


def test_a_tuning_is_told_with_its_intervals() -> None:
    found = tuning()
    told = plans(found)
    by_plan = {one.plan: one for one in told.plans}
    assert told.plans[0].baseline
    assert by_plan[found.chosen].verdict == "chosen"
    assert by_plan["@ inductor"].verdict == "failed"
    assert by_plan["@ onnxruntime(quantize=int8)"].verdict == "breaks the budget"
    assert told.is_missing
    assert told.limit == pytest.approx(1 - 0.995)
    assert by_plan["@ openvino"].error == pytest.approx(1 - 0.99999)


def test_intervals_that_overlap_are_too_close_to_call() -> None:
    close = msgspec.structs.replace(
        tuning().trials[0], plan="@ other",
        ratio=msgspec.structs.replace(tuning().speedup, low=0.98, median=1.01, high=1.05),
    )  # fmt: skip
    found = msgspec.structs.replace(tuning(), trials=(close,), chosen=BASELINE.plan)
    told = plans(found)
    assert told.stays
    assert {one.plan: one.verdict for one in told.plans} == {
        BASELINE.plan: "stays",
        "@ other": "too close to call",
    }


def test_other_nouns_are_printed() -> None:
    done = fwd.record(models.mlp(), torch.randn(2, 16), mode="eval", grad="off")
    page = of_noun(done.validate("b"))
    (text,) = ship.beside(page, Steps()).printed
    assert text.title == "validation"
    assert "valid" in text.text


def test_what_no_view_shows_whole_is_printed() -> None:
    """Batch draws one curve of a profile; Neuron explains where there is a pass to explain."""
    spent = profile()
    (text,) = ship.beside(of_noun(spent), Steps()).printed
    assert (text.title, text.text) == ("profile", str(spent))
    done = fwd.record(models.mlp(), torch.randn(2, 16), mode="eval")
    one = done.explain("0[0, 7]")
    saved, live = of_noun(one), Exploration("mlp", PassGiven(done), (one,))
    (text,) = ship.beside(saved, Steps()).printed
    assert (text.title, text.text) == ("explanation", str(one))
    assert first_view(one, saved) == {"view": 9}
    assert not ship.beside(live, Steps()).printed
    assert first_view(one, live) == {"view": 3, "element": "0[0, 7]"}
    back = done.explain("0.weight[7, 3]", gradient=True)
    (text,) = ship.beside(Exploration("mlp", PassGiven(done), (back,)), Steps()).printed
    assert "autograd gives" in text.text


def said() -> bytes:
    """What a server says of a model after two batches, as its own gauges have it."""
    gauges = Gauges("seen")
    gauges.ready.set(1)
    gauges.queue_rows.set(7)
    gauges.dispatched("full", 1, 10, 10)
    gauges.dispatched("full", 4, 20, 30)
    gauges.request.observe(0.004)
    gauges.request.observe(0.006)
    gauges.refused(RefusedError(429, "the queue is full", reason="full"))
    return generate_latest(REGISTRY)


@pytest.fixture
def metrics() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(said())

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_says_its_queue_and_its_batches(metrics: str) -> None:
    page = explored(models.mlp())
    page.served = WatchedServer.at(metrics)
    one = next(one for one in ship.serving(page, Steps()).models if one.name == "seen")
    assert (one.ready, one.queue_rows, one.rows, one.requests) == (True, 7, 5, 2)
    assert [(batch.rows, batch.batches) for batch in one.batches] == [(1, 1), (4, 1)]
    assert one.request_seconds == pytest.approx(0.005)
    assert one.padding == pytest.approx(0.25)
    assert one.refused == {"full": 1}


def test_a_server_that_is_not_there_and_one_elsewhere() -> None:
    gone = replace(WatchedServer.at("127.0.0.1:1"))
    assert "no server answers there" in gone.now().failed
    for url in ("http://example.org", "https://127.0.0.1", "ftp://localhost", "http://[::"):
        with pytest.raises(UsageError, match="--server"):
            WatchedServer.at(url)
    with pytest.raises(UsageError, match="no server is watched"):
        ship.serving(explored(models.mlp()), Steps())

"""What stands in examples/ for containers: commands that exist, probes of paths that are served."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from forwardpass.cli import main
from forwardpass.nouns.folders import plugins
from forwardpass.serving import protocols
from forwardpass.serving.options import ServedModel, ServeOptions

EXAMPLES = Path(__file__).parent.parent / "examples"
DOCUMENTS = list(yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text(encoding="utf-8")))


def served() -> dict[tuple[str, str], bool]:
    """Methods and paths of a server, and whether they need no token."""
    options = ServeOptions(models=(ServedModel(name="m", forward="m.py"),))
    return {
        (route.method, route.pattern): route.open
        for protocol in plugins(protocols).values()
        for route in protocol.routes({}, options)
    }


def instructions() -> dict[str, list[str]]:
    """Of the Dockerfile, the words of those that are lists."""
    text = (EXAMPLES / "Dockerfile").read_text(encoding="utf-8")
    found = re.findall(r"^(ENTRYPOINT|CMD) (\[.*\])$", text, re.MULTILINE)
    return {name: json.loads(words) for name, words in found}


def container() -> dict[str, Any]:
    (deployment,) = [each for each in DOCUMENTS if each["kind"] == "Deployment"]
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return found


def command_lines() -> Iterator[list[str]]:
    told = instructions()
    yield [*told["ENTRYPOINT"], *told["CMD"]]
    yield [*told["ENTRYPOINT"], *container()["args"]]
    text = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    yield from (
        shlex.split(line) for line in re.findall(r"^\$ (fwd serve .*?)(?: &)?$", text, re.M)
    )


@pytest.mark.parametrize("line", list(command_lines()), ids=" ".join)
def test_what_is_called_is_a_command_with_these_options(line: list[str]) -> None:
    program, verb, *arguments = line
    assert (program, verb) == ("fwd", "serve")
    command = main.commands[verb]
    context = command.make_context(verb, list(arguments), resilient_parsing=True)
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in arguments if word.startswith("--")} <= known
    assert any("minilm" in str(value) for value in context.params.values())


def test_probes_ask_for_what_is_served_without_a_token() -> None:
    paths = {
        name: container()[name]["httpGet"]
        for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    for name, probe in paths.items():
        assert served()["GET", probe["path"]], name
    assert paths["livenessProbe"]["path"] == "/healthz"
    assert paths["readinessProbe"]["path"] == "/readyz"


def test_ports_lead_to_the_server() -> None:
    (port,) = container()["ports"]
    words = instructions()["ENTRYPOINT"]
    assert str(port["containerPort"]) == words[words.index("--port") + 1]
    (service,) = [each for each in DOCUMENTS if each["kind"] == "Service"]
    assert [each["targetPort"] for each in service["spec"]["ports"]] == [port["name"]]


def test_it_is_killed_later_than_it_has_drained() -> None:
    arguments = container()["args"]
    drain = int(arguments[arguments.index("--drain") + 1].removesuffix("s"))
    (deployment,) = [each for each in DOCUMENTS if each["kind"] == "Deployment"]
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain

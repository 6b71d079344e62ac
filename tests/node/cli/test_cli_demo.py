"""`demo`: its events as JSON and as text, a node that does not start, and the whole of it with real processes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

from ryvion_node.cli.demo import command
from ryvion_node.cli.demo import events as happened
from ryvion_node.cli.demo.command import DEFAULT_MODEL, DEFAULT_PROMPTS
from ryvion_node.cli.demo.events import EVENT_NAMES, DemoEvent, json_line
from ryvion_node.cli.demo.network import DemoNode, DemoNodeFailed, NodePlan
from ryvion_node.cli.demo.render import Renderer
from ryvion_node.models.catalogue import catalogue
from tests.node.cli.test_cli_market import CANDIDATE, LOSER, OFFER

RECEIPT = {"cid": "ryv1:sha256:00", "metering_units": 9, "job_id": "ab" * 32, "node_public_key": "cd" * 32}
FINDING = {"name": "signature", "outcome": "failed", "detail": "Not signed by it."}
SAMPLES: Sequence[DemoEvent] = (
    happened.NodeStarting("seller-de", "sells", ("up",), 7),
    happened.NodeReady("requester", "12D3", "ab" * 32, ("/ip4/127.0.0.1/tcp/1",), "http://127.0.0.1:1/v1", 1500),
    happened.OfferHeard("seller-de", OFFER),
    happened.RequestSent(2, "ryvion-tiny", "What is [bold]2+2[/bold]?", "CA"),
    happened.Bid("seller-de", CANDIDATE),
    happened.Bid("seller-ca", LOSER),
    happened.Winner("seller-de", "ab" * 32, "", "DE", "", "cheapest", 4),
    happened.TextReceived("Four", 20),
    happened.TextReceived(" [red]is it.[/red]\n", 21),
    happened.ReceiptReceived(RECEIPT),
    happened.Checked("units_counted", "bounded", "At most 9."),
    happened.Settled(False, 0, 7, 2, 20, None, "stop"),
    happened.Settled(True, 3, 7, 2, 20, 81.5, "stop"),
    happened.RequestRefused(403, "jurisdiction_not_allowed", "Nobody in JP."),
    happened.ReceiptVerified("receipt.json", 1, ({"findings": [FINDING]},), "wrong"),
    happened.NetworkKept("http://127.0.0.1:1/v1", "ryv_key", "ryvion-tiny", "/home"),
    happened.NodeStopped("seller-de", -9),
    happened.Finished(False, ("seller-de ended with exit code -9",), 9000),
    happened.Finished(True, (), 9000),
)


def test_there_is_a_sample_and_a_name_for_every_event() -> None:
    assert {type(sample) for sample in SAMPLES} == set(get_args(DemoEvent)) == set(EVENT_NAMES)
    assert len(set(EVENT_NAMES.values())) == len(EVENT_NAMES)


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_an_event_is_one_line_of_json_with_all_its_fields(event: DemoEvent) -> None:
    line = json_line(event)
    assert "\n" not in line
    said = json.loads(line)
    assert said.pop("event") == EVENT_NAMES[type(event)]
    assert said == json.loads(json.dumps(dataclasses.asdict(event)))


def test_every_event_is_shown_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    renderer = Renderer()
    for event in SAMPLES:
        renderer.show(event)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown, "no colour codes where there is no terminal"
    assert "“Four [red]is it.[/red]\n”" in shown, "an answer is text, never markup"
    for text in ("What is [bold]2+2[/bold]?", "NOT accepted", "82 tokens/s", "Nobody in JP.", "ryv_key", "cheapest"):
        assert text in shown


def test_a_node_that_does_not_start_is_told_with_its_log(home: Path) -> None:
    node = DemoNode(NodePlan("seller", "sells", ("--serve", "x", "--jurisdiction", "Mars")), home, None)
    with pytest.raises(DemoNodeFailed, match="seller"):
        node.wait_until_ready()
    assert node.wait_until_stopped(deadline=0) != 0
    assert "Mars" in node.log_tail()


def test_the_demo_asks_what_the_bundled_model_knows() -> None:
    model = catalogue().find(DEFAULT_MODEL)
    assert model is not None
    assert model.prompts is not None
    documented = tomllib.loads(model.prompts.read_text("utf-8"))["prompt"]
    assert set(DEFAULT_PROMPTS) <= {prompt["messages"][0][1] for prompt in documented if prompt.get("demo")}


def demo(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ryvion_node", "demo", "--json", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "RYVION_HOME"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def named(lines: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == name]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_whole_demo() -> None:
    with demo() as process:
        out, err = process.communicate()
    lines = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 0, err
    assert lines[-1]["event"] == "finished"
    assert lines[-1]["ok"], lines[-1]["problems"]
    assert [line["name"] for line in named(lines, "node_ready")] == ["bootstrap", "seller-de", "seller-ca", "requester"]
    assert {line["node"] for line in named(lines, "offer_heard")} == {"seller-de", "seller-ca"}
    assert named(lines, "winner")[1]["jurisdiction"] == "CA"
    assert [settled["accepted"] for settled in named(lines, "settled")] == [True, True]
    assert {check["name"] for check in named(lines, "checked")} >= {"signature", "result_hash", "units_counted"}
    assert {check["outcome"] for check in named(lines, "checked")} == {"passed"}
    assert [refused["code"] for refused in named(lines, "request_refused")] == ["jurisdiction_not_allowed"]
    assert {stopped["exit_code"] for stopped in named(lines, "node_stopped")} == {0}


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_kept_network_ends_with_ctrl_c_and_leaves_nothing_behind() -> None:
    with demo("--keep") as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(json.loads(line))
            if lines[-1]["event"] == "network_kept":
                process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    assert lines[-1]["event"] == "finished"
    assert not Path(named(lines, "network_kept")[0]["home"]).exists()
    for started in named(lines, "node_starting"):
        with pytest.raises(ProcessLookupError):
            os.kill(started["pid"], 0)


def test_ctrl_c_while_the_nodes_are_being_stopped_leaves_none_behind() -> None:
    class Stopping:
        """A scenario that is over, and whose person loses patience."""

        problems: tuple[str, ...] = ()

        def run(self) -> tuple[DemoEvent, ...]:
            return ()

        def stop(self) -> Iterator[DemoEvent]:
            signal.raise_signal(signal.SIGINT)
            yield happened.NodeStopped("seller", 0)

    shown: list[DemoEvent] = []
    with command._signals_end_it():
        assert command._play(Stopping(), shown.append, keep=False)  # type: ignore[arg-type]
    assert shown == [happened.NodeStopped("seller", 0)]

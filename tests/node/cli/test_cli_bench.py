"""`bench`: real loads on the bundled model, and clear words when there is nothing to measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ryvion_node.cli.app import cli
from ryvion_node.engine.bench import ModelSpeed, loads_up_to, measure_model
from ryvion_node.engine.fake import FakeEngine, Script, fake_model


def test_measures_one_job_and_all_slots(home: Path) -> None:
    result = CliRunner().invoke(
        cli, ["bench", "ryvion-tiny", "--slots", "2", "--seconds", "0.2", "--json", "--home", str(home)]
    )
    assert result.exit_code == 0, result.output
    (model,) = json.loads(result.stdout)["models"]
    assert [load["jobs"] for load in model["loads"]] == [1, 2]
    assert all(load["tokens_per_s"] > 0 < load["first_token_ms"] for load in model["loads"])
    assert model["prompt_tokens_per_s"] > 0 < model["offered_tokens_per_s"]


def test_of_an_embedding_model_it_measures_how_fast_texts_are_read(home: Path) -> None:
    arguments = ["bench", "ryvion-embed-tiny", "--seconds", "0.2", "--home", str(home)]
    (model,) = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)["models"]
    assert (model["kind"], model["loads"]) == ("embedding", [])
    assert model["prompt_tokens_per_s"] > 0
    assert "texts are read at" in CliRunner().invoke(cli, arguments).stdout


def test_other_engines_are_not_measured(home: Path) -> None:
    result = CliRunner().invoke(cli, ["bench", "x=http://127.0.0.1:9", "--home", str(home)])
    assert result.exit_code == 2
    assert "another engine" in result.output


def test_without_models_the_configuration_is_asked(home: Path) -> None:
    result = CliRunner().invoke(cli, ["bench", "--home", str(home)])
    assert result.exit_code == 2
    assert "name one" in result.output


def test_a_model_that_cannot_be_served_is_named_with_the_reason(home: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF, they said")
    result = CliRunner().invoke(cli, ["bench", f"mine={tmp_path / 'bad.gguf'}", "--home", str(home)])
    assert result.exit_code == 1
    assert "mine: " in result.output
    assert "bad.gguf" in result.output


@pytest.mark.virtual_time
async def test_figures_follow_from_what_the_engine_does() -> None:
    engine = FakeEngine([fake_model(slots=4)], lambda _: Script("a b c d e f g h i j", prompt_s=1.0, token_s=0.1))
    (model,) = engine.models()
    speed = await measure_model(engine, model, seconds=20.0)
    assert isinstance(speed, ModelSpeed)
    assert [load.jobs for load in speed.loads] == [1, 2, 4]
    # Ten tokens take a second after a second for the prompt.
    assert [round(load.tokens_per_s) for load in speed.loads] == [5, 10, 20]
    assert [round(load.ms_per_token, -1) for load in speed.loads] == [200, 200, 200]
    assert round(speed.loads[0].first_token_s, 3) == 1.1


def test_loads_end_with_the_slots() -> None:
    assert [list(loads_up_to(slots)) for slots in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]

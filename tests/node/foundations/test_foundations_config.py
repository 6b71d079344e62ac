"""The configuration is strict, says what is wrong and where, and its reference page is its own description."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryvion_node.config import ConfigInvalid, ConfigMissing, NodeConfig, load_config
from ryvion_node.config_reference import config_reference
from ryvion_node.config_values import parse_credits

ROOT = Path(__file__).parents[3]
FULL = """
[node]
network = "ryvion-test"
jurisdiction = "ca"
location = "Montréal"
listen = ["/ip4/0.0.0.0/tcp/7987"]
bootstrap = ["/ip4/10.0.0.1/tcp/7987/p2p/12D3KooWExample"]

[proxy]
enabled = true
host = "::1"
port = 0
allowed_origins = ["http://localhost:3000"]
default_max_completion_tokens = 512

[executor]
enabled = true
price_in = 0.1
price_out = "1.000001"

[[executor.models]]
name = "tiny"
bundled = "ryvion-tiny"

[[executor.models]]
name = "own"
path = "models/own.gguf"
digest = "sha256:DIGEST"
slots = 8

[requester]
max_price = 2
first_token_timeout_s = 5

[log]
level = "debug"
file = "node.log"
""".replace("DIGEST", "ab" * 32)


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_without_a_file_the_defaults_hold() -> None:
    config = load_config(None)
    assert config == NodeConfig()
    assert config.node.listen == ("/ip4/127.0.0.1/tcp/7987",)
    assert (config.proxy.host, config.proxy.port, config.proxy.enabled) == ("127.0.0.1", 7986, False)
    assert (config.requester.quote_peers, config.requester.first_token_timeout_s) == (3, 10.0)


def test_every_section_is_read_in_the_units_it_names(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, FULL))
    assert (config.node.jurisdiction, config.node.location) == ("CA", "Montréal")
    assert (config.executor.price_in, config.executor.price_out) == (100_000, 1_000_001)
    assert config.requester.max_price == 2_000_000
    own = config.executor.models[1]
    assert own.path == tmp_path / "models" / "own.gguf"
    assert own.digest == bytes.fromhex("ab" * 32)
    assert config.executor.models[0].path is None
    assert config.log.file == tmp_path / "node.log"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2000000", 2_000_000),
        ('"12 GiB"', 12 << 30),
        ('"12GB"', 12 * 10**9),
        ('"1.5 GiB"', 3 << 29),
        ('"800 M"', 800_000_000),
        ('"2048 KiB"', 2 << 20),
        ('"2000 kB"', 2_000_000),
    ],
)
def test_sizes_may_have_a_unit(tmp_path: Path, text: str, size: int) -> None:
    assert load_config(write(tmp_path, f"[executor]\nmemory_budget = {text}\n")).executor.memory_budget == size


def test_a_template_lies_beside_the_configuration(tmp_path: Path) -> None:
    text = '[[executor.models]]\nname = "a"\ntemplate = "own.jinja"\nload = "first-use"\nidle_unload_s = 60\n'
    (model,) = load_config(write(tmp_path, text)).executor.models
    assert (model.template, model.path) == (tmp_path / "own.jinja", None)
    assert (model.load, model.idle_unload_s) == ("first-use", 60.0)


def test_flags_go_over_the_file_and_none_means_not_given(tmp_path: Path) -> None:
    overrides: dict[str, object] = {
        "proxy.port": 9000,
        "proxy.host": None,
        "node.bootstrap": [],
        "executor.price_in": "0.000001",
    }
    config = load_config(write(tmp_path, FULL), overrides)
    assert (config.proxy.port, config.proxy.host) == (9000, "::1")
    assert config.node.bootstrap == ()
    assert config.executor.price_in == 1


PROBLEMS = {
    "[proxy]\nprot = 1\n": r"line 2: proxy\.prot: unknown key; did you mean port\?",
    "[prxy]\nport = 1\n": r"line 1: prxy: unknown key; did you mean proxy\?",
    '[executor]\n[[executor.models]]\nname="a"\nbundled="a"\n[[executor.models]]\nname = "b"\nbundled = "b"\nslot = 4\n': (
        r"line 8: executor\.models\[1\]\.slot: unknown key; did you mean slots\?"
    ),
    '[proxy]\nport = "7986"\n': r"line 2: proxy\.port: Input should be a valid integer",
    "[proxy]\nport = true\n": r"proxy\.port: Input should be a valid integer",
    "[proxy]\nport = 65536\n": r"proxy\.port: Input should be less than or equal to 65535",
    "[proxy]\nenabled = 1\n": r"proxy\.enabled: Input should be a valid boolean",
    '[node]\njurisdiction = "UK"\n': r"line 2: node\.jurisdiction: 'UK' is no jurisdiction: did you mean GB",
    '[node]\njurisdiction = "EU"\n': r"EU is a group of countries",
    '[node]\nlisten = ["127.0.0.1:7987"]\n': r"node\.listen\[0\]: String should match pattern",
    '[node]\nbootstrap = ["/ip4/1.2.3.4/tcp/1"]\n': r"does not end in /p2p/",
    "[executor]\nprice_in = 0.0000001\n": r"line 2: executor\.price_in: an amount has at most 6 decimals",
    "[executor]\nprice_in = -1\n": r"between 0 and",
    "[executor]\nprice_out = 1000000.000001\n": r"line 2: executor\.price_out: a price is at most 1000000 credits",
    "[executor]\nprice_in = nan\n": r"an amount",
    '[executor]\nprice_in = "much"\n': r"'much' is no amount",
    '[executor]\nmemory_budget = "12 apples"\n': r"line 2: executor\.memory_budget: a size is",
    "[executor]\nmemory_budget = 12\n": r"executor\.memory_budget: 12 bytes are less than 1 MiB",
    '[[executor.models]]\nname = "a"\nload = "never"\n': r"'start' or 'first-use'",
    "[executor]\nenabled = true\n": r'set \[node\] jurisdiction = "DE"',
    '[executor]\nenabled = true\n[node]\njurisdiction = "DE"\n': r"needs a model",
    '[[executor.models]]\nname = "a"\npath = "a.gguf"\nbundled = "a"\n': r"model a: give path or bundled, not both",
    '[[executor.models]]\nname="a"\nbundled="a"\n[[executor.models]]\nname="a"\nbundled="a"\n': r"a is there twice",
    '[[executor.models]]\nname="a"\npath="a"\ndigest="abc"\n': r"64 lowercase hex digits",
    '[log]\nlevel = "loud"\n': r"line 2: log\.level: Input should be 'debug', 'info'",
    "[requester]\nfirst_token_timeout_s = 0\n": r"greater than 0",
    "node = 3\n": r"line 1: node: ",
    "[node\n": r"it is not TOML: .*line 1",
    '[node]\nnetwork = "a"\nnetwork = "b"\n': r"it is not TOML",
}


@pytest.mark.parametrize("text", PROBLEMS, ids=lambda text: text.replace("\n", " ")[:40])
def test_a_mistake_is_named_with_its_place_and_mend(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigInvalid, match=PROBLEMS[text]):
        load_config(write(tmp_path, text))


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load_config(write(tmp_path, "[proxy]\nprot = 1\nhots = 2\n[log]\nlevle = 3\n"))
    assert str(caught.value).count("\n- ") == 3


def test_a_mistaken_flag_is_named_too() -> None:
    with pytest.raises(ConfigInvalid, match=r"command line.*\n- proxy\.prot: unknown key"):
        load_config(None, {"proxy.prot": 1})


def test_a_file_that_cannot_be_read_is_an_operator_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigMissing, match="no configuration file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'[node]\nlocation = "\xe9"\n')
    with pytest.raises(ConfigInvalid, match="not UTF-8"):
        load_config(tmp_path / "latin.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ConfigInvalid, match="larger"):
        load_config(tmp_path / "large.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(ConfigInvalid, match="not TOML"):
        load_config(tmp_path / "deep.toml")


@settings(deadline=None)
@given(st.integers(0, 2**53 - 1))
def test_every_amount_of_micro_credits_can_be_written_exactly(micro: int) -> None:
    assert parse_credits(Decimal(micro).scaleb(-6)) == micro
    assert parse_credits(f"{micro // 10**6}.{micro % 10**6:06d}") == micro


@settings(deadline=None)
@given(st.floats())
def test_a_binary_float_is_never_money(value: float) -> None:
    with pytest.raises(ValueError, match="decimal credits"):
        parse_credits(value)


def test_nothing_changes_after_loading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config(None).proxy.port = 1


def test_the_reference_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == config_reference(), "write it again: python -m ryvion_node.config_reference > docs/configuration.md"


def test_the_references_own_example_is_valid(tmp_path: Path) -> None:
    example = config_reference().split("```toml\n")[1].split("```")[0].replace("12D3KooW...", "12D3KooWExample")
    assert load_config(write(tmp_path, example)).executor.price_in == 50_000


def test_every_key_is_described() -> None:
    assert "None |" not in config_reference()
    assert "| table |" not in config_reference().replace("list of tables", "")

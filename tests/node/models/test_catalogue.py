"""The catalogue is read strictly, and what it says about the bundled files is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from ryvion_node.engine.files import file_digest
from ryvion_node.models.catalogue import CatalogueError, catalogue, parse_catalogue

LARGEST_FILE_BYTES = 3_000_000

ENTRY = """
[[model]]
name = "small"
aliases = ["little"]
source = "someone/small-gguf"
file = "small.gguf"
kind = "chat"
quantisation = "Q4_0"
context_tokens = 512
licence = "MIT"
digest = ""
bundled = false
prompts = ""
"""


def test_lists_the_models_of_the_network() -> None:
    names = [model.name for model in catalogue().models]
    assert names == ["ryvion-tiny", "tinyllama", "ryvion-embed-tiny", "phi-4", "ryvion-llama-3.2-3b"]
    assert [model.name for model in catalogue().bundled()] == ["ryvion-tiny", "tinyllama", "ryvion-embed-tiny"]
    assert [model.kind for model in catalogue().bundled()] == ["chat", "chat", "embedding"]


def test_bundled_files_are_small_and_have_the_digest_that_the_catalogue_names() -> None:
    for model in catalogue().bundled():
        assert model.path is not None
        assert model.path.stat().st_size <= LARGEST_FILE_BYTES
        assert file_digest(model.path)[0] == model.digest
        if model.kind == "chat":
            assert model.prompts is not None
            assert model.prompts.is_file()


def test_no_digest_is_given_for_a_file_that_nobody_here_has_seen() -> None:
    for model in catalogue().models:
        assert (model.digest is None) == (model.path is None)


def test_finds_by_name_and_alias() -> None:
    models = parse_catalogue(ENTRY, Path())
    assert models.find("small") is models.find("little") is models.models[0]
    assert models.find("Small") is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "small"', 'name = "Small"'),
        ('name = "small"', ""),
        ('name = "small"', "name = 7"),
        ('["little"]', '"little"'),
        ('["little"]', '["small"]'),
        ('["little"]', '["a b"]'),
        ("someone/small-gguf", "https://someone/small-gguf"),
        ("someone/small-gguf", ""),
        ("small.gguf", "../small.gguf"),
        ("small.gguf", "/etc/small.gguf"),
        ("small.gguf", "small.bin"),
        ('kind = "chat"', 'kind = "ranking"'),
        ("= 512", '= "512"'),
        ("= 512", "= true"),
        ("= 512", "= 0"),
        ("= 512", "= 512.0"),
        ("= 512", "= 99999999"),
        ('licence = "MIT"', 'licence = ""'),
        ('digest = ""', 'digest = "abc"'),
        ('digest = ""', f'digest = "{"AB" * 32}"'),
        ("= false", "= 0"),
        ("= false", "= true"),
        ('prompts = ""', 'prompts = "../prompts.toml"'),
        ('prompts = ""', 'prompts = ""\nextra = 1'),
        ("[[model]]", "[model]"),
        ("[[model]]", "version = 1\n[[model]]"),
        ("[[model]]", "[[model"),
    ],
)
def test_refuses_an_entry_with_a_slip_in_it(old: str, new: str) -> None:
    assert old in ENTRY
    with pytest.raises(CatalogueError):
        parse_catalogue(ENTRY.replace(old, new, 1), Path())


def test_refuses_two_models_of_one_name_and_an_empty_file() -> None:
    with pytest.raises(CatalogueError, match="two models"):
        parse_catalogue(ENTRY + ENTRY, Path())
    with pytest.raises(CatalogueError):
        parse_catalogue("", Path())

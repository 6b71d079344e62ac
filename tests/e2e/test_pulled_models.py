"""A model that neither side came with: the seller pulls it whole, the buyer pulls its header and counts with that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from ryvion_node.models.catalogue import catalogue
from tests.e2e.live import live_market
from tests.node.library.fake_hub import FakeHub, fake_hub

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def pull(hub: FakeHub, home: Path, *flags: str) -> None:
    command = [sys.executable, "-m", "ryvion_node", "models", "pull", "phi-4", "--home", str(home), *flags]
    subprocess.run(command, env=os.environ | {"HF_ENDPOINT": hub.endpoint}, check=True, timeout=60)


def test_a_buyer_with_the_header_checks_the_count_of_a_seller_with_the_whole(tmp_path: Path) -> None:
    bundled = catalogue().bundled()[0].path
    assert bundled is not None
    # Other bytes, so another digest: whoever has the bundled model cannot count for this one.
    files = {"microsoft/phi-4-gguf/phi-4-q4.gguf": bundled.read_bytes() + bytes(32)}
    with fake_hub(**files) as hub, live_market(tmp_path) as market:
        pull(hub, tmp_path / "seller")
        pull(hub, tmp_path / "buyer", "--tokenizer-only")
        market.start("bootstrap").wait_until_ready()
        market.start("seller", "--serve", "phi-4", "--threads", "1", "--jurisdiction", "DE", "--price-out", "1")
        market.buy()
        market.ready(offers=1)
        with openai.OpenAI(
            base_url=market.endpoint,
            api_key=market.api_key,
            http_client=openai.DefaultHttpxClient(trust_env=False),
            max_retries=0,
        ) as client:
            messages = [{"role": "user", "content": "What is a receipt?"}]
            answer = client.chat.completions.create(model="phi-4", messages=messages, temperature=0, max_tokens=16)  # type: ignore[arg-type]  # dicts
    about = (answer.model_extra or {})["ryvion"]
    assert {check["name"]: check["outcome"] for check in about["checks"]}["units_counted"] == "passed"
    assert about["accepted"] is True
    assert list((tmp_path / "buyer" / "models").glob("*.gguf")) != []
    assert sum(file.stat().st_size for file in (tmp_path / "buyer" / "models").glob("*.gguf")) < 64 * 1024

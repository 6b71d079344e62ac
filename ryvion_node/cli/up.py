"""`ryvion-node up`: run the node in the foreground until it is told to stop."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ryvion_node.cli.options import home_option
from ryvion_node.paths import Paths

if TYPE_CHECKING:
    from ryvion_node.config import NodeConfig
    from ryvion_node.daemon import NodeReady

_URL = re.compile(r"[^=]+=https?://.+")

EPILOG = """\b
Examples:
  ryvion-node up --proxy
      Buy: an OpenAI-compatible endpoint on http://127.0.0.1:7986/v1.
  ryvion-node up --serve ryvion-tiny --jurisdiction DE --price-in 0.05 --price-out 0.20
      Sell: the model that comes with the node, for 0.05 and 0.20 credits per million tokens.
  ryvion-node up --serve my-model=/data/my-model.gguf --jurisdiction CA --listen /ip4/0.0.0.0/tcp/7987
      Sell a GGUF of your own, reachable from outside.
  ryvion-node up --serve my-model=http://127.0.0.1:8000 --jurisdiction DE
      Sell what vLLM, SGLang, llama-server or Ollama serves here; docs/engines.md says more.
  ryvion-node up --bootstrap /dns4/example.org/tcp/7987/p2p/12D3KooW...
      Join the market that this node knows.

Flags go over the configuration file, which `ryvion-node locate` names; docs/configuration.md lists its keys.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file. Default: config.toml in the node's configuration folder, when it is there.",
)
@home_option
@click.option(
    "--serve",
    multiple=True,
    metavar="MODEL",
    help="Sell this model: a name that `models list` shows as here, NAME=FILE.gguf, or NAME=http://HOST:PORT for one that "
    "another engine serves. Repeatable.",
)
@click.option("--proxy/--no-proxy", default=None, help="Buy: serve the local OpenAI-compatible endpoint.")
@click.option(
    "--proxy-port", type=click.IntRange(0, 65535), help="Port of the endpoint; 0 takes any free one. Default 7986."
)
@click.option(
    "--listen",
    multiple=True,
    metavar="MULTIADDR",
    help="Where peers reach this node. Repeatable. Default /ip4/127.0.0.1/tcp/7987.",
)
@click.option(
    "--bootstrap",
    multiple=True,
    metavar="MULTIADDR",
    help="A node to meet the others through, ending in /p2p/<peer id>. Repeatable.",
)
@click.option("--jurisdiction", metavar="XX", help="Country this node is in, such as DE. Sellers must say it.")
@click.option("--location", metavar="TEXT", help="Where exactly, in your own words; buyers see it.")
@click.option("--price-in", metavar="CREDITS", help="Price per million prompt tokens, such as 0.05.")
@click.option("--price-out", metavar="CREDITS", help="Price per million completion tokens, such as 0.20.")
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="CPU threads of each served model. Default: llama.cpp decides."
)
@click.option(
    "--engine",
    type=click.Choice(["llama.cpp", "scripted"]),
    hidden=True,
    help="What runs the models; scripted: for tests.",
)
@click.option("--network", metavar="NAME", help="The market to join; all its nodes say the same.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Least severity written to stderr."
)
@click.option("--json", "as_json", is_flag=True, help="Print the ready line as JSON.")
def up(config_file: Path | None, paths: Paths, serve: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """Run a node until Ctrl-C: sell answers (--serve), buy them (--proxy), or both.

    A node that does neither still helps others to find each other. One line on stdout says when the node is ready
    and where; everything else goes to stderr.
    """
    from ryvion_node.daemon import run_node

    config = load_node_config(config_file, paths, serve, flags)
    run_node(config, paths, lambda ready: click.echo(ready_line(ready, as_json=as_json)))


def load_node_config(
    config_file: Path | None, paths: Paths, serve: tuple[str, ...], flags: dict[str, Any]
) -> NodeConfig:
    """The file, when there is one, with the flags over it."""
    from ryvion_node.config import load_config

    if config_file is None and paths.config_file.exists():
        config_file = paths.config_file
    return load_config(config_file, overrides_from(serve, flags))


def overrides_from(serve: tuple[str, ...], flags: dict[str, Any]) -> dict[str, object]:
    """Flags as the dotted keys of the configuration; None for a flag that was not given."""
    remote = [text for text in serve if _URL.fullmatch(text)]
    local = [text for text in serve if not _URL.fullmatch(text)]
    return {
        "node.network": flags["network"],
        "node.jurisdiction": flags["jurisdiction"],
        "node.location": flags["location"],
        "node.listen": list(flags["listen"]) or None,
        "node.bootstrap": list(flags["bootstrap"]) or None,
        "proxy.enabled": flags["proxy"],
        "proxy.port": flags["proxy_port"],
        "executor.enabled": True if serve or flags["engine"] == "scripted" else None,
        "executor.engine": flags["engine"],
        "executor.models": [served_model(text, flags["threads"]) for text in local] if serve else None,
        "executor.remote_models": [_remote_model(text) for text in remote] if serve else None,
        "executor.price_in": flags["price_in"],
        "executor.price_out": flags["price_out"],
        "log.level": flags["log_level"],
    }


def served_model(text: str, threads: int | None) -> dict[str, object]:
    """`NAME=FILE` or `FILE.gguf` is a file, anything else the name of a model that is here."""
    settings: dict[str, object] = {} if threads is None else {"threads": threads}
    name, separator, file = text.partition("=")
    if not separator and not text.endswith(".gguf"):
        return {"name": text, **settings}
    path = Path(file or text).expanduser().absolute()
    return {"name": name if separator else path.stem, "path": str(path), **settings}


def _remote_model(text: str) -> dict[str, object]:
    """`NAME=http://host:port` is a model behind another engine, without a key."""
    name, _, url = text.partition("=")
    return {"name": name, "url": url}


def ready_line(ready: NodeReady, *, as_json: bool) -> str:
    """What is printed once the node runs: one line, for a person or for a program."""
    if as_json:
        return json.dumps(
            {
                "event": "ready",
                "peer_id": ready.peer_id,
                "node_key": ready.node_key.hex(),
                "listening": list(ready.listening),
                "endpoint": ready.endpoint,
                "control": ready.control,
                "serving": list(ready.serving),
                "not_serving": list(ready.not_serving),
            }
        )
    parts = [f"ready: {ready.peer_id}", f"peers reach it at {', '.join(ready.listening)}"]
    if ready.serving:
        parts.append(f"serving {', '.join(ready.serving)}")
    if ready.not_serving:
        parts.append(f"not serving {', '.join(ready.not_serving)} (see the log, and ryvion-node doctor)")
    if ready.endpoint is not None:
        parts.append(f"endpoint {ready.endpoint}")
    return "; ".join(parts)

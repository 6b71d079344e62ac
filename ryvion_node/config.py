"""The node's configuration: one strict TOML file, and flags that go over it.

Each section is a frozen model whose field descriptions are the reference (docs/configuration.md is written
from them). Values arrive as TOML has them and are stored in the units their names say.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from ryvion_node.config_problems import describe_problems
from ryvion_node.config_values import (
    Addresses,
    Aliases,
    Credits,
    FilePath,
    Hours,
    IdleSeconds,
    ModelName,
    Port,
    Price,
    Seconds,
    Section,
    Size,
    Strings,
    as_country,
    as_digest,
    as_tuple,
)
from ryvion_node.errors import EXIT_CONFIG, EXIT_NO_INPUT, OperatorError
from ryvion_protocol.constants import NETWORK_ID

MAX_CONFIG_BYTES = 1024 * 1024
"""A hand-written file is a few kB; more is not one."""


class ConfigMissing(OperatorError):
    """There is no configuration file {path}. Leave --config away to run with the defaults."""

    exit_code = EXIT_NO_INPUT


class ConfigInvalid(OperatorError):
    """The configuration {path} cannot be used:{problems}"""

    exit_code = EXIT_CONFIG


AnySection = TypeVar("AnySection", bound=Section)


# --- the sections -----------------------------------------------------------------------------------------


class NodeSection(Section):
    """Who the node is and how others reach it."""

    network: str = Field(
        default=NETWORK_ID, min_length=1, max_length=64, description="The market to join; all its nodes say the same."
    )
    jurisdiction: Annotated[str, BeforeValidator(as_country)] | None = Field(
        default=None,
        description="Country the node is in, ISO 3166-1 alpha-2. An executor must say it; it is a signed claim.",
    )
    location: str = Field(default="", max_length=64, description="Where exactly, in your own words, shown to buyers.")
    listen: Addresses = Field(
        default=("/ip4/127.0.0.1/tcp/7987",), description="Multiaddrs to listen on. Port 0 takes any free one."
    )
    bootstrap: Addresses = Field(
        default=(), description="Multiaddrs, each ending in /p2p/<peer id>, of nodes to meet the others through."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for address in self.bootstrap:
            if "/p2p/" not in address:
                raise ValueError(
                    f"bootstrap: {address} does not end in /p2p/<peer id>, so nobody could tell who answers"
                )
        if len(self.location.encode()) > 64:
            raise ValueError("location: at most 64 bytes of UTF-8")
        return self


class ProxySection(Section):
    """The local OpenAI-compatible endpoint, for buying."""

    enabled: bool = Field(default=False, description="Serve the endpoint.")
    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on. Anything but loopback shows it to others."
    )
    port: Port = Field(default=7986, description="Port to listen on; 0 takes any free one.")
    allowed_hosts: Strings = Field(
        default=("127.0.0.1", "localhost", "[::1]"),
        description="Host headers that are answered; others are refused, so that no web page can reach the endpoint by DNS rebinding.",
    )
    allowed_origins: Strings = Field(
        default=(), description="Origins of web pages that may call the endpoint, such as http://localhost:3000."
    )
    aliases: Aliases = Field(
        default={},
        description='Other names for models, such as {"gpt-4o-mini" = "ryvion-tiny"}: what clients ask for, and what is bought. Names that change how clients talk are refused.',
    )
    max_body_bytes: int = Field(default=1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="Largest request taken.")
    default_max_completion_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = Field(
        default=None,
        description="Answer length when a request names none. Unset: what the executor has room for, at most 4096.",
    )
    keep_alive_s: Seconds = Field(
        default=15.0,
        description="A stream that has nothing to say for so long sends a comment, so that nobody takes it for dead.",
    )


class ModelSection(Section):
    """A model to serve. Without `path` and `bundled`, `name` is that of a model which `ryvion-node models list` shows."""

    name: ModelName = Field(description="Name that buyers ask for.")
    path: FilePath | None = Field(default=None, description="GGUF file; relative to the configuration file.")
    bundled: str | None = Field(
        default=None, description="Name of a model that is here, when it is to be sold under another `name`."
    )
    digest: Annotated[bytes, BeforeValidator(as_digest)] | None = Field(
        default=None, description="SHA-256 the file must have, in hex. Unset: whatever is there."
    )
    context_tokens: Annotated[int, Field(ge=16, le=2**24)] | None = Field(
        default=None, description="Context per job. Unset: what the model was trained with, at most 8192."
    )
    slots: int = Field(default=4, ge=1, le=64, description="Jobs at once.")
    gpu_layers: int = Field(
        default=-1, ge=-1, le=10_000, description="Layers to put on the GPU; -1: all, when there is one."
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="CPU threads. Unset: as many as there are cores."
    )
    load: Literal["start", "first-use"] = Field(
        default="start",
        description="When to load it. With `first-use` it is offered all the same; the first start loads it to measure it.",
    )
    idle_unload_s: IdleSeconds | None = Field(
        default=None,
        description="Unload it after so long without a job; the next job loads it again. Unset: only when another model needs the memory.",
    )
    walls: bool = Field(
        default=True,
        description="Keep its process from the network, other programs and all files but its own (Linux). `false` only for files that you trust, where a GPU's driver does not work behind the walls.",
    )
    template: FilePath | None = Field(
        default=None,
        description="Chat template (Jinja) to use in place of the file's own; relative to the configuration file. Buyers cannot count its prompts.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.path is not None and self.bundled is not None:
            raise ValueError(f"model {self.name}: give path or bundled, not both")
        return self


class RemoteModelSection(Section):
    """A model to serve from another engine: vLLM, SGLang, llama-server, Ollama, or anything OpenAI-compatible (docs/engines.md)."""

    name: ModelName = Field(description="Name that buyers ask for.")
    url: str = Field(
        max_length=2048,
        pattern=r"^https?://[^\s@?#]+$",
        description="Where the engine is, such as http://127.0.0.1:8000; a /v1 at its end makes no difference.",
    )
    served_as: str = Field(
        default="", max_length=512, description="The model's id at the engine. Empty: `name`, else the only one it has."
    )
    key_file: FilePath | None = Field(
        default=None,
        description="Private file (chmod 600) with the engine's key on its first line; relative to the configuration file.",
    )
    key_env: str = Field(
        default="", pattern=r"^[A-Za-z_0-9]*$", description="Environment variable that holds the engine's key."
    )
    flavour: Literal["auto", "openai", "llama-server", "llama-cpp-python", "vllm", "sglang", "ollama"] = Field(
        default="auto", description="Which engine it is. `openai` is what all have in common."
    )
    context_tokens: Annotated[int, Field(ge=16, le=2**24)] | None = Field(
        default=None, description="Context per job. Unset: what the engine says; Ollama and others do not say it."
    )
    slots: int = Field(default=4, ge=1, le=1024, description="Jobs at once; the engine never has more of ours.")
    quantisation: str = Field(
        default="unknown", max_length=64, description="Of the weights, such as FP8; buyers see it."
    )
    digest: Annotated[bytes, BeforeValidator(as_digest)] | None = Field(
        default=None, description="SHA-256 of the weights' file, in hex, as you state it. Unset: none is offered."
    )
    tokenizer: FilePath | None = Field(
        default=None,
        description="GGUF of this very model, or a header cut from one, to count tokens with; relative to the configuration file.",
    )
    features: Strings | None = Field(
        default=None,
        description="What the engine can do (docs/engines.md). Unset: what its kind is known for. Either way it is tried out.",
    )
    hardware: str = Field(
        default="",
        max_length=64,
        description="What runs it, such as 8 x H100; buyers see it when nothing else is sold.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.key_file is not None and self.key_env:
            raise ValueError(f"model {self.name}: give key_file or key_env, not both")
        return self


class PauseSection(Section):
    """When not to sell, because the owner wants the machine. Running jobs finish; nothing new is taken meanwhile."""

    gpu_percent: int = Field(
        default=25,
        ge=0,
        le=100,
        description="Pause while other programs use a GPU by so much; 0: never mind. Needs the `nvidia` extra.",
    )
    cpu_percent: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Pause while other programs use all processors together by so much; 0: never mind.",
    )
    on_battery: bool = Field(default=True, description="Pause while the machine runs on battery.")
    hours: Hours = Field(
        default=(),
        max_length=16,
        description='Sell only then, local time: "22:00-07:00", "mon-fri 18:00-08:00", "sat-sun 00:00-24:00". Empty: always.',
    )
    calm_s: Seconds = Field(default=60.0, description="How long others must be quiet before selling goes on.")


class ExecutorSection(Section):
    """Selling: which models, at what price."""

    enabled: bool = Field(default=False, description="Serve models to other nodes.")
    engine: Literal["llama.cpp", "scripted"] = Field(
        default="llama.cpp",
        description="What runs `models`. `scripted` makes answers up, for tests: refused unless RYVION_TEST_ENGINE=1 is set.",
    )
    price_in: Price = Field(default=0, description="Credits per million prompt tokens, at most 6 decimals.")
    price_out: Price = Field(default=0, description="Credits per million completion tokens, at most 6 decimals.")
    max_queue: int = Field(
        default=16, ge=0, le=4096, description="Jobs that may wait for a slot; further ones are refused as busy."
    )
    memory_budget: Size | None = Field(
        default=None,
        description='Most memory that loaded models take together, such as "12 GiB": of the GPU where there is one, else of the machine. Unset: 80 % of what is free at the start.',
    )
    models: Annotated[tuple[ModelSection, ...], BeforeValidator(as_tuple)] = Field(
        default=(), max_length=32, description="The models, each an [[executor.models]] table."
    )
    remote_models: Annotated[tuple[RemoteModelSection, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        max_length=32,
        description="Models that another engine serves, each an [[executor.remote_models]] table.",
    )

    pause: PauseSection = PauseSection()

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [*(model.name for model in self.models), *(model.name for model in self.remote_models)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"models: {name} is there twice")
        if names and self.engine == "scripted":
            raise ValueError("models: the scripted engine brings its own; leave them out")
        return self


class RequesterSection(Section):
    """Buying: how bidders are chosen."""

    quote_peers: int = Field(default=3, ge=1, le=16, description="How many of the best offers are asked for a quote.")
    first_token_timeout_s: Seconds = Field(
        default=10.0, description="Longest wait for an executor's first token; then the next bidder gets the job."
    )
    max_price: Credits | None = Field(default=None, description="Most credits one job may cost. Unset: no limit.")


class KnowledgeSection(Section):
    """Knowledge bases: documents that answers are grounded in, kept on this machine."""

    enabled: bool = Field(default=True, description="Keep knowledge bases, where the endpoint is served.")
    embedding_model: ModelName | None = Field(
        default=None,
        description="Name of the model that makes the vectors of new knowledge bases. Unset: one that this node serves, else the one that most nodes offer.",
    )
    buy_vectors: bool = Field(
        default=True,
        description="Buy vectors from other nodes where this one does not serve the embedding model itself. Switched off, passages leave in prompts only.",
    )


class LogSection(Section):
    """Diagnostics. Prompts, answers and keys are never written."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least severity to write.")
    file: FilePath | None = Field(
        default=None, description="File to append to; relative to the configuration file. Unset: standard error."
    )


class NodeConfig(Section):
    """The whole file."""

    node: NodeSection = NodeSection()
    proxy: ProxySection = ProxySection()
    executor: ExecutorSection = ExecutorSection()
    requester: RequesterSection = RequesterSection()
    knowledge: KnowledgeSection = KnowledgeSection()
    log: LogSection = LogSection()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.executor.enabled and self.node.jurisdiction is None:
            raise ValueError('an executor must say where it is: set [node] jurisdiction = "DE", or --jurisdiction DE')
        brings_models = self.executor.engine == "scripted"
        if self.executor.enabled and not (self.executor.models or self.executor.remote_models or brings_models):
            raise ValueError("an executor needs a model: add [[executor.models]], or --serve MODEL")
        return self


# --- loading ----------------------------------------------------------------------------------------------


def load_config(path: Path | None, overrides: Mapping[str, object] | None = None) -> NodeConfig:
    """Read `path` (None: all defaults) and put `overrides` over it; raises ConfigMissing or ConfigInvalid.

    Overrides name keys as `proxy.port` and hold values as TOML would; None means "flag not given".
    """
    text = "" if path is None else _read(path)
    shown = "from the command line" if path is None else str(path)
    try:
        values = tomllib.loads(text, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise _invalid(shown, f"it is not TOML: {exc}") from None
    try:
        config = NodeConfig.model_validate(_merge(values, overrides or {}))
    except ValidationError as exc:
        raise _invalid(shown, *describe_problems(exc, NodeConfig, text)) from None
    return config if path is None else _anchored(config, path.absolute().parent)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        raise ConfigMissing(path=path) from None
    except OSError as exc:
        raise _invalid(path, f"it cannot be read: {(exc.strerror or str(exc)).lower()}") from exc
    if len(data) > MAX_CONFIG_BYTES:
        raise _invalid(path, f"it is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise _invalid(path, f"it is not UTF-8 (byte {exc.start})") from None


def _invalid(path: object, *problems: str) -> ConfigInvalid:
    return ConfigInvalid(path=path, problems="".join(f"\n- {problem}" for problem in problems))


def _merge(values: dict[str, Any], overrides: Mapping[str, object]) -> dict[str, Any]:
    """A copy of `values` with the dotted keys of `overrides` set; a section of the wrong type is left for validation."""
    merged = {name: dict(part) if isinstance(part, dict) else part for name, part in values.items()}
    for dotted, value in overrides.items():
        section, _, key = dotted.partition(".")
        part = merged.setdefault(section, {})
        if value is not None and isinstance(part, dict):
            part[key] = value
    return merged


def _anchored(config: NodeConfig, folder: Path) -> NodeConfig:
    """Make the paths that the file gives relative to the file's own folder absolute."""
    executor = config.executor.model_copy(
        update={
            "models": tuple(_with_paths(model, folder, "path", "template") for model in config.executor.models),
            "remote_models": tuple(
                _with_paths(model, folder, "key_file", "tokenizer") for model in config.executor.remote_models
            ),
        }
    )
    log = config.log if config.log.file is None else config.log.model_copy(update={"file": folder / config.log.file})
    return config.model_copy(update={"executor": executor, "log": log})


def _with_paths(section: AnySection, folder: Path, *keys: str) -> AnySection:
    return section.model_copy(
        update={key: folder / path for key in keys if (path := getattr(section, key)) is not None}
    )


def all_sections() -> Iterable[tuple[str, type[Section]]]:
    """Every table of the file with its TOML heading, for the reference and for suggestions."""
    yield "[node]", NodeSection
    yield "[proxy]", ProxySection
    yield "[executor]", ExecutorSection
    yield "[executor.pause]", PauseSection
    yield "[[executor.models]]", ModelSection
    yield "[[executor.remote_models]]", RemoteModelSection
    yield "[requester]", RequesterSection
    yield "[knowledge]", KnowledgeSection
    yield "[log]", LogSection

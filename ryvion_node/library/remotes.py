"""Models that other engines serve, from the configuration, with the tokenizers that are here for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ryvion_node.config import NodeConfig, RemoteModelSection
from ryvion_node.engine.remote.dialect import STATABLE
from ryvion_node.engine.remote.spec import RemoteSpec, parse_url
from ryvion_node.errors import EXIT_CONFIG, OperatorError
from ryvion_protocol.schema import as_label


class RemoteNotUsable(OperatorError):
    """The remote model {model} cannot be served: {reason}. Correct its [[executor.remote_models]] table."""

    exit_code = EXIT_CONFIG


def remote_specs(config: NodeConfig, tokenizers: Mapping[bytes, Path]) -> tuple[RemoteSpec, ...]:
    """The remote models to serve, as the engine takes them. Raises RemoteNotUsable.

    `tokenizers`: digest of a model -> a GGUF with its vocabulary. A model whose stated digest is among them is counted by it,
    since that is how buyers who have it count.
    """
    return tuple(_spec(model, tokenizers) for model in config.executor.remote_models)


def _spec(model: RemoteModelSection, tokenizers: Mapping[bytes, Path]) -> RemoteSpec:
    try:
        parse_url(model.url)
    except ValueError as exc:
        raise RemoteNotUsable(model=model.name, reason=exc) from None
    tokenizer = model.tokenizer or (tokenizers.get(model.digest) if model.digest is not None else None)
    if tokenizer is not None and not tokenizer.is_file():
        raise RemoteNotUsable(model=model.name, reason=f"there is no tokenizer {tokenizer}")
    statable = frozenset().union(*STATABLE.values()) if model.flavour == "auto" else STATABLE[model.flavour]
    features = None if model.features is None else tuple(sorted(statable & set(model.features)))
    if unknown := set(model.features or ()) - statable:
        reason = f"features: {', '.join(sorted(unknown))} cannot be asked of it, only {', '.join(sorted(statable))}"
        raise RemoteNotUsable(model=model.name, reason=reason)
    return RemoteSpec(
        name=model.name,
        url=model.url,
        served_as=model.served_as,
        key_file=model.key_file,
        key_env=model.key_env,
        flavour=model.flavour,
        context_tokens=model.context_tokens,
        slots=model.slots,
        quantisation=as_label(model.quantisation),
        digest=model.digest,
        tokenizer=tokenizer,
        features=features,
    )

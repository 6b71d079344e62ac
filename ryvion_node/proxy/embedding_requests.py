"""What a request for vectors may say, and the order that it makes: pure, and nothing is dropped silently."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from ryvion_node.market.interface import Account, EmbeddingOrder
from ryvion_node.preferences import Preferences
from ryvion_node.preferences_object import PreferencesObject
from ryvion_node.proxy.constants import MAX_PROMPT_BYTES
from ryvion_node.proxy.errors import ApiError
from ryvion_node.proxy.mistaken import LIMITS, refuse_mistaken
from ryvion_node.proxy.orders import check_model_name, jurisdictions_of, preferences_of
from ryvion_node.proxy.shapes import Strict, StringOrList, as_tuple
from ryvion_node.proxy.validation import api_error, invalid_value, refuse_not_honoured, unsupported
from ryvion_protocol.constants import MAX_DIMENSIONS, MAX_TEXTS_PER_REQUEST

NOT_HONOURED: Final[dict[str, tuple[object, ...]]] = {
    "input_type": (),
    "knowledge_base": (),
    "truncate": ("NONE",),
    "truncate_prompt_tokens": (),
}
"""As for chats: parameter -> the values that ask for nothing. Texts are never cut."""


class EmbeddingRequest(Strict):
    """The body of POST /v1/embeddings."""

    model: str
    input: StringOrList
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)] | None = None
    """Only the model's own number."""
    jurisdiction: StringOrList | None = None
    ryvion: PreferencesObject | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """However they were written."""
        return as_tuple(self.input)


def parse_embedding_request(body: bytes) -> EmbeddingRequest:
    """Read and check a body; raises ApiError with the path of the first thing that is wrong."""
    try:
        request = EmbeddingRequest.model_validate_json(body)
    except ValidationError as exc:
        raise _tokens_given(exc) or api_error(exc) from None
    extra = request.model_extra or {}
    refuse_not_honoured(extra, NOT_HONOURED, "")
    refuse_mistaken(extra, LIMITS)
    texts = request.texts
    if not 1 <= len(texts) <= MAX_TEXTS_PER_REQUEST:
        raise invalid_value("input", f"holds {len(texts)} texts; 1 to {MAX_TEXTS_PER_REQUEST} are allowed")
    if "" in texts:
        raise invalid_value("input", "holds an empty text")
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    if size > MAX_PROMPT_BYTES:
        problem = f"'input' holds {size} bytes of text; a job carries at most {MAX_PROMPT_BYTES}: send it in parts."
        raise ApiError("context_length_exceeded", problem, param="input")
    return request


def embedding_order(
    request: EmbeddingRequest, allowed: tuple[str, ...], key_preferences: Preferences, account: Account
) -> EmbeddingOrder:
    """The order; `allowed` are where the caller's key may buy (empty: anywhere)."""
    check_model_name(request.model)
    preferences = preferences_of(request.ryvion, key_preferences)
    return EmbeddingOrder(
        model=request.model,
        texts=request.texts,
        jurisdictions=jurisdictions_of(request.jurisdiction, allowed),
        max_price=preferences.max_price,
        preferences=preferences,
        account=account,
    )


def _tokens_given(invalid: ValidationError) -> ApiError | None:
    """Token ids mean something to one tokenizer only, and the market's nodes get texts."""
    first = invalid.errors(include_url=False, include_context=False)[0]
    if first["loc"][:1] != ("input",) or not isinstance(first["input"], int | list):
        return None
    return unsupported("input", "holds token ids; send texts (with LangChain: check_embedding_ctx_length=False)")

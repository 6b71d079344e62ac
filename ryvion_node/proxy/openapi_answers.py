"""Schemas of what the endpoint answers, for its OpenAPI description. Answers may hold more than is said here."""

from __future__ import annotations

from typing import Final

from ryvion_node.preferences import SORTS

Schema = dict[str, object]

TEXT: Final[Schema] = {"type": "string"}
INTEGER: Final[Schema] = {"type": "integer"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
BOOLEAN: Final[Schema] = {"type": "boolean"}
ANYTHING: Final[Schema] = {"type": "object"}


def ref(name: str) -> Schema:
    """A schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(description: str, optional: dict[str, Schema] | None = None, /, **required: Schema) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": required | (optional or {}),
        "required": list(required),
    }


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _constant(value: str) -> Schema:
    return {"const": value}


_REASON: Final[Schema] = {"enum": ["stop", "length", "tool_calls"]}
_RANGE: Final[Schema] = _object("Micro-credits per million tokens.", min=COUNT, max=COUNT)
_CHECK: Final[Schema] = _object(
    "One check of a receipt.", name=TEXT, outcome={"enum": ["passed", "failed", "bounded"]}, detail=TEXT
)
_USAGE_DETAILS: Final[dict[str, Schema]] = {
    "prompt_tokens_details": _object("Of the prompt's tokens.", cached_tokens=COUNT),
    "completion_tokens_details": _object("Of the answer's tokens.", reasoning_tokens=COUNT),
}
_HEAD: Final[dict[str, Schema]] = {"id": TEXT, "created": INTEGER, "model": TEXT, "system_fingerprint": TEXT}
_RYVION: Final[Schema] = {"anyOf": [ref("Ryvion"), ref("Jobs")], "description": "Jobs: of several choices."}
_OF_CHOICE: Final[dict[str, Schema]] = {"ryvion": ref("Ryvion") | {"description": "Of one of several choices."}}
_CHUNK_EXTRAS: Final[dict[str, Schema]] = {"usage": _or_null(ref("Usage")), "ryvion": ref("Ryvion")}

ANSWERS: Final[dict[str, Schema]] = {
    "Error": _object(
        "Why a request was not answered. In a stream it is the data of the last event.",
        error=_object(
            "All four keys are always there.",
            message=TEXT,
            type=TEXT,
            param=_or_null({"type": "string", "description": "The parameter to change."}),
            code=_or_null(TEXT),
        ),
    ),
    "Usage": _object(
        "Tokens. A prompt of several choices counts once; each is billed with it, as the receipts say.",
        _USAGE_DETAILS,
        prompt_tokens=COUNT,
        completion_tokens=COUNT,
        total_tokens=COUNT,
    ),
    "Ryvion": _object(
        "Who ran the job and why; with the end of an answer, the evidence. Prices are micro-credits per million tokens.",
        {
            "route": ref("Route"),
            "receipt": ANYTHING,
            "cid": TEXT,
            "envelope": ANYTHING,
            "checks": _list(_CHECK),
            "accepted": BOOLEAN,
            "cost_microcredits": COUNT,
            "first_token_ms": COUNT,
            "duration_ms": COUNT,
            "tokens_per_s": _or_null({"type": "number"}),
        },
        job_id=TEXT,
        node_id=TEXT,
        peer_id=TEXT,
        gpu=TEXT,
        hardware=ANYTHING,
        jurisdiction=TEXT,
        location=TEXT,
        model_digest=TEXT,
        price_in=COUNT,
        price_out=COUNT,
        why=TEXT,
    ),
    "Jobs": _object(
        "What an answer with several choices cost. Each choice has the Ryvion of its own job, in this order.",
        cost_microcredits=COUNT,
        jobs=_list(TEXT),
    ),
    "ChatCompletion": _object(
        "A whole answer.",
        **_HEAD,
        object=_constant("chat.completion"),
        choices=_list(
            _object(
                "One answer.",
                _OF_CHOICE,
                index=COUNT,
                message=_object(
                    "What the model said.",
                    {"reasoning_content": TEXT, "tool_calls": _list(ANYTHING)},
                    role=_constant("assistant"),
                    content=_or_null(TEXT),
                ),
                logprobs=_or_null(ANYTHING),
                finish_reason=_REASON,
            )
        ),
        usage=ref("Usage"),
        ryvion=_RYVION,
    ),
    "ChatCompletionChunk": _object(
        "The data of an event. `ryvion` stands on the first and the finish chunk of each choice; usage on one without any.",
        _CHUNK_EXTRAS,
        **_HEAD,
        object=_constant("chat.completion.chunk"),
        choices=_list(
            _object(
                "A piece of one answer.",
                index=COUNT,
                delta=ANYTHING,
                logprobs=_or_null(ANYTHING),
                finish_reason=_or_null(_REASON),
            )
        ),
    ),
    "TextCompletion": _object(
        "A text that was continued; in a stream, a piece of it.",
        _CHUNK_EXTRAS | {"ryvion": _RYVION},
        **_HEAD,
        object=_constant("text_completion"),
        choices=_list(
            _object(
                "One answer.",
                _OF_CHOICE,
                index=COUNT,
                text=TEXT,
                logprobs=_or_null(ANYTHING),
                finish_reason=_or_null(_REASON),
            )
        ),
    ),
    "EmbeddingList": _object(
        "Vectors in the order of the texts.",
        id=TEXT,
        object=_constant("list"),
        data=_list(
            _object(
                "One vector.",
                object=_constant("embedding"),
                index=COUNT,
                embedding={
                    "anyOf": [_list({"type": "number"}), TEXT],
                    "description": "With base64: little-endian float32.",
                },
            )
        ),
        model=TEXT,
        usage=_object("Tokens as billed.", prompt_tokens=COUNT, total_tokens=COUNT),
        ryvion=ref("Ryvion"),
    ),
    "Response": _object(
        "A response.",
        {"ryvion": ref("Ryvion")},
        id=TEXT,
        object=_constant("response"),
        created_at=INTEGER,
        status={"enum": ["in_progress", "completed", "incomplete", "failed"]},
        model=TEXT,
        output=_list(ANYTHING),
        error=_or_null(ANYTHING),
        usage=_or_null(ANYTHING),
    ),
    "ResponseEvent": _object("The data of an event, numbered from 0.", type=TEXT, sequence_number=COUNT),
    "Model": _object(
        "A model on offer, all its offers summed up.",
        id=TEXT,
        object=_constant("model"),
        created=INTEGER,
        owned_by=TEXT,
        ryvion=_object(
            "Who offers it, where, and for how much.",
            kinds=_list(TEXT),
            nodes=COUNT,
            jurisdictions=_list(TEXT),
            price_in=_RANGE,
            price_out=_RANGE,
            context_tokens=COUNT,
            digests=_list(TEXT),
            quantisations=_list(TEXT),
            slots_free=COUNT,
            features=_list(TEXT),
        ),
    ),
    "ModelList": _object("What can be bought now.", object=_constant("list"), data=_list(ref("Model"))),
    "Route": _object(
        "An explained choice between offers.",
        model=TEXT,
        jurisdictions=_list(TEXT),
        sort={"enum": list(SORTS)},
        candidates=_list(_object("One offer.", node_key=TEXT, outcome=TEXT, reason=TEXT)),
        winner=_or_null(TEXT),
        explanation=TEXT,
        decided_ms=COUNT,
    ),
    "OfferList": _object("Every live offer heard, newest first.", offers=_list(ANYTHING)),
    "Receipt": _object(
        "A receipt with its evidence, as it was judged when it came.",
        object=_constant("ryvion.receipt"),
        cid=TEXT,
        completion_id=TEXT,
        job_id=TEXT,
        model=TEXT,
        created=INTEGER,
        receipt=ANYTHING,
        envelope=ANYTHING,
        checks=_list(_CHECK),
        accepted=BOOLEAN,
        cost_microcredits=COUNT,
    ),
    "ReceiptList": _object("Receipts, oldest first.", object=_constant("list"), data=_list(ref("Receipt"))),
    "Health": _object("The endpoint is up.", status=_constant("ok")),
}

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


def object_schema(description: str, optional: dict[str, Schema] | None = None, /, **required: Schema) -> Schema:
    """An object with these properties."""
    return {
        "type": "object",
        "description": description,
        "properties": required | (optional or {}),
        "required": list(required),
    }


def list_schema(of: Schema) -> Schema:
    """A list of these."""
    return {"type": "array", "items": of}


def or_null(schema: Schema) -> Schema:
    """That, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def constant(value: str) -> Schema:
    """This text."""
    return {"const": value}


_REASON: Final[Schema] = {"enum": ["stop", "length", "tool_calls"]}
_RANGE: Final[Schema] = object_schema("Micro-credits per million tokens.", min=COUNT, max=COUNT)
_CHECK: Final[Schema] = object_schema(
    "One check of a receipt.", name=TEXT, outcome={"enum": ["passed", "failed", "bounded"]}, detail=TEXT
)
_USAGE_DETAILS: Final[dict[str, Schema]] = {
    "prompt_tokens_details": object_schema("Of the prompt's tokens.", cached_tokens=COUNT),
    "completion_tokens_details": object_schema("Of the answer's tokens.", reasoning_tokens=COUNT),
}
_HEAD: Final[dict[str, Schema]] = {"id": TEXT, "created": INTEGER, "model": TEXT, "system_fingerprint": TEXT}
_RYVION: Final[Schema] = {"anyOf": [ref("Ryvion"), ref("Jobs")], "description": "Jobs: of several choices."}
_OF_CHOICE: Final[dict[str, Schema]] = {"ryvion": ref("Ryvion") | {"description": "Of one of several choices."}}
_CHUNK_EXTRAS: Final[dict[str, Schema]] = {"usage": or_null(ref("Usage")), "ryvion": ref("Ryvion")}

ANSWERS: Final[dict[str, Schema]] = {
    "Error": object_schema(
        "Why a request was not answered. In a stream it is the data of the last event.",
        error=object_schema(
            "All four keys are always there.",
            message=TEXT,
            type=TEXT,
            param=or_null({"type": "string", "description": "The parameter to change."}),
            code=or_null(TEXT),
        ),
    ),
    "Usage": object_schema(
        "Tokens. A prompt of several choices counts once; each is billed with it, as the receipts say.",
        _USAGE_DETAILS,
        prompt_tokens=COUNT,
        completion_tokens=COUNT,
        total_tokens=COUNT,
    ),
    "Ryvion": object_schema(
        "Who ran the job and why; with the end of an answer, the evidence. Prices are micro-credits per million tokens.",
        {
            "route": ref("Route"),
            "knowledge_base": TEXT,
            "sources": list_schema(ref("Source")),
            "search": ref("SearchMethod"),
            "receipt": ANYTHING,
            "cid": TEXT,
            "envelope": ANYTHING,
            "checks": list_schema(_CHECK),
            "accepted": BOOLEAN,
            "cost_microcredits": COUNT,
            "first_token_ms": COUNT,
            "duration_ms": COUNT,
            "tokens_per_s": or_null({"type": "number"}),
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
    "Jobs": object_schema(
        "What an answer with several choices cost. Each choice has the Ryvion of its own job, in this order.",
        cost_microcredits=COUNT,
        jobs=list_schema(TEXT),
    ),
    "ChatCompletion": object_schema(
        "A whole answer.",
        **_HEAD,
        object=constant("chat.completion"),
        choices=list_schema(
            object_schema(
                "One answer.",
                _OF_CHOICE,
                index=COUNT,
                message=object_schema(
                    "What the model said.",
                    {"reasoning_content": TEXT, "tool_calls": list_schema(ANYTHING)},
                    role=constant("assistant"),
                    content=or_null(TEXT),
                ),
                logprobs=or_null(ANYTHING),
                finish_reason=_REASON,
            )
        ),
        usage=ref("Usage"),
        ryvion=_RYVION,
    ),
    "ChatCompletionChunk": object_schema(
        "The data of an event. `ryvion` stands on the first and the finish chunk of each choice; usage on one without any.",
        _CHUNK_EXTRAS,
        **_HEAD,
        object=constant("chat.completion.chunk"),
        choices=list_schema(
            object_schema(
                "A piece of one answer.",
                index=COUNT,
                delta=ANYTHING,
                logprobs=or_null(ANYTHING),
                finish_reason=or_null(_REASON),
            )
        ),
    ),
    "TextCompletion": object_schema(
        "A text that was continued; in a stream, a piece of it.",
        _CHUNK_EXTRAS | {"ryvion": _RYVION},
        **_HEAD,
        object=constant("text_completion"),
        choices=list_schema(
            object_schema(
                "One answer.",
                _OF_CHOICE,
                index=COUNT,
                text=TEXT,
                logprobs=or_null(ANYTHING),
                finish_reason=or_null(_REASON),
            )
        ),
    ),
    "EmbeddingList": object_schema(
        "Vectors in the order of the texts.",
        id=TEXT,
        object=constant("list"),
        data=list_schema(
            object_schema(
                "One vector.",
                object=constant("embedding"),
                index=COUNT,
                embedding={
                    "anyOf": [list_schema({"type": "number"}), TEXT],
                    "description": "With base64: little-endian float32.",
                },
            )
        ),
        model=TEXT,
        usage=object_schema("Tokens as billed.", prompt_tokens=COUNT, total_tokens=COUNT),
        ryvion=ref("Ryvion"),
    ),
    "Response": object_schema(
        "A response.",
        {"ryvion": ref("Ryvion")},
        id=TEXT,
        object=constant("response"),
        created_at=INTEGER,
        status={"enum": ["in_progress", "completed", "incomplete", "failed"]},
        model=TEXT,
        output=list_schema(ANYTHING),
        error=or_null(ANYTHING),
        usage=or_null(ANYTHING),
    ),
    "ResponseEvent": object_schema("The data of an event, numbered from 0.", type=TEXT, sequence_number=COUNT),
    "Model": object_schema(
        "A model on offer, all its offers summed up.",
        id=TEXT,
        object=constant("model"),
        created=INTEGER,
        owned_by=TEXT,
        ryvion=object_schema(
            "Who offers it, where, and for how much.",
            kinds=list_schema(TEXT),
            nodes=COUNT,
            jurisdictions=list_schema(TEXT),
            price_in=_RANGE,
            price_out=_RANGE,
            context_tokens=COUNT,
            digests=list_schema(TEXT),
            quantisations=list_schema(TEXT),
            slots_free=COUNT,
            features=list_schema(TEXT),
        ),
    ),
    "ModelList": object_schema("What can be bought now.", object=constant("list"), data=list_schema(ref("Model"))),
    "Route": object_schema(
        "An explained choice between offers.",
        model=TEXT,
        jurisdictions=list_schema(TEXT),
        sort={"enum": list(SORTS)},
        candidates=list_schema(object_schema("One offer.", node_key=TEXT, outcome=TEXT, reason=TEXT)),
        winner=or_null(TEXT),
        explanation=TEXT,
        decided_ms=COUNT,
    ),
    "OfferList": object_schema("Every live offer heard, newest first.", offers=list_schema(ANYTHING)),
    "Receipt": object_schema(
        "A receipt with its evidence, as it was judged when it came.",
        object=constant("ryvion.receipt"),
        cid=TEXT,
        completion_id=TEXT,
        job_id=TEXT,
        model=TEXT,
        created=INTEGER,
        receipt=ANYTHING,
        envelope=ANYTHING,
        checks=list_schema(_CHECK),
        accepted=BOOLEAN,
        cost_microcredits=COUNT,
    ),
    "ReceiptList": object_schema("Receipts, oldest first.", object=constant("list"), data=list_schema(ref("Receipt"))),
    "Health": object_schema("The endpoint is up.", status=constant("ok")),
}

"""Who counts the tokens of a model behind a URL: our own tokenizer, the server's, or nobody but its usage report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from ryvion_node.engine.interface import TokenCounter, ToolUse, Turn
from ryvion_node.engine.remote.connections import ServerLost, ServerSlow
from ryvion_node.engine.remote.dialect import prompt_body
from ryvion_node.engine.remote.faults import failure, refusal
from ryvion_node.engine.remote.http import HttpServer
from ryvion_node.engine.remote.spec import Flavour
from ryvion_node.engine.remote.sse import Garbled


class Meter(Protocol):
    """Counts tokens; both raise EngineError."""

    async def prompt(self, turns: Sequence[Turn], tools: ToolUse) -> int: ...

    async def texts(self, texts: Sequence[str]) -> int: ...


class OwnMeter:
    """By the model's own vocabulary and template, from a GGUF of the owner: what `counted` in an offer means."""

    def __init__(self, counter: TokenCounter, digest: bytes) -> None:
        self._counter = counter
        self._digest = digest

    async def prompt(self, turns: Sequence[Turn], tools: ToolUse) -> int:
        return await self._counter.count_prompt(self._digest, turns, tools)

    async def texts(self, texts: Sequence[str]) -> int:
        return await self._counter.count_texts(self._digest, texts)


def servers_meter(flavour: Flavour, server: HttpServer, model: str, served_as: str) -> Meter | None:
    """The server's own counting, where its kind has any; older ones and gateways may refuse it."""
    match flavour:
        case "llama-server":
            return LlamaServerMeter(server, model, served_as)
        case "vllm" | "sglang":
            return TokenizeMeter(flavour, server, model, served_as)
        case _:
            return None


class LlamaServerMeter:
    """By llama-server: it renders the prompt, then tells its tokens."""

    def __init__(self, server: HttpServer, model: str, served_as: str) -> None:
        self._server = server
        self._model = model
        self._served_as = served_as

    async def prompt(self, turns: Sequence[Turn], tools: ToolUse) -> int:
        asked = prompt_body("llama-server", self._served_as, turns, tools)
        rendered = await question(self._server, self._model, "/apply-template", asked)
        text = rendered.get("prompt")
        if not isinstance(text, str):
            raise failure(self._model, Garbled("it renders no prompt"))
        return await self._tokens(text, is_prompt=True)

    async def texts(self, texts: Sequence[str]) -> int:
        return sum([await self._tokens(text, is_prompt=False) for text in texts])

    async def _tokens(self, text: str, *, is_prompt: bool) -> int:
        asked = {"content": text, "add_special": is_prompt, "parse_special": is_prompt}
        told = (await question(self._server, self._model, "/tokenize", asked)).get("tokens")
        if not isinstance(told, list):
            raise failure(self._model, Garbled("it does not tokenize"))
        return len(told)


class TokenizeMeter:
    """By vLLM or SGLang, which count a conversation as they would read it."""

    def __init__(self, flavour: Literal["vllm", "sglang"], server: HttpServer, model: str, served_as: str) -> None:
        self._flavour: Literal["vllm", "sglang"] = flavour
        self._server = server
        self._model = model
        self._served_as = served_as

    async def prompt(self, turns: Sequence[Turn], tools: ToolUse) -> int:
        return await self._tokens(prompt_body(self._flavour, self._served_as, turns, tools))

    async def texts(self, texts: Sequence[str]) -> int:
        asked = {"model": self._served_as, "add_special_tokens": False}
        return sum([await self._tokens({**asked, "prompt": text}) for text in texts])

    async def _tokens(self, asked: dict[str, object]) -> int:
        told = (await question(self._server, self._model, "/tokenize", asked)).get("count")
        if not isinstance(told, int) or isinstance(told, bool) or told < 0:
            raise failure(self._model, Garbled("it does not tokenize"))
        return told


async def question(server: HttpServer, model: str, path: str, body: object) -> dict[str, object]:
    """The JSON object that a server answers with. Raises EngineError."""
    try:
        status, told = await server.ask("POST", path, body)
    except (ServerLost, ServerSlow) as exc:
        raise failure(model, exc) from exc
    if status != 200:
        raise refusal(model, status, told)
    if not isinstance(told, dict):
        raise failure(model, Garbled("its reply is not a JSON object"))
    return told

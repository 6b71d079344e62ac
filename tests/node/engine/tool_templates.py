"""Templates of the families, tools to offer, and what the tests of both share."""

from __future__ import annotations

from collections.abc import Sequence

from ryvion_node.engine.wire import WireTools, WireTurn
from ryvion_node.engine.worker.grammar import Grammars
from ryvion_node.engine.worker.llama import Model
from ryvion_node.engine.worker.prompt import Prepared, Prompts
from ryvion_node.engine.worker.speech.parts import Parts
from ryvion_node.engine.worker.speech.tools import Offer
from ryvion_node.engine.worker.template import ChatTemplate

SCHEMA = '{"type":"object","properties":{"city":{"type":"string"},"unit":{"$ref":"#/$defs/Unit"}},"required":["city"],"additionalProperties":false,"$defs":{"Unit":{"enum":["c","f"]}}}'
WEATHER = ("get_weather", "The weather of a city", SCHEMA)
CLOCK = ("now", "", "")
TOOLS: WireTools = ((WEATHER, CLOCK), "auto", "", True)
NONE: WireTools = ((), "auto", "", True)
ANYTHING = ("", "")

START = "{% for m in messages %}<|{{ m.role }}|>"
END = "<|end|>{% endfor %}<|assistant|>"
TOLD = "{% if tools %}<|system|>{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|end|>{% endif %}"
HERMES = (
    TOLD + START + "{{ m.content or '' }}{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
    + END
)
LLAMA = (
    TOLD + START + "{{ m.content or '' }}{% for c in m.tool_calls or [] %}{# <|python_tag|> #}"
    '{{ \'{"name": "\' + c.function.name + \'", "parameters": \' }}{{ c.function.arguments | tojson }}{{ "}" }}'
    "{% endfor %}" + END
)
MISTRAL = (
    "{% if tools %}[TOOLS][{% for t in tools %}{{ '{' }}{% for key, value in t.function.items() %}"
    "{{ '\"' + key + '\": ' + value | tojson + ('' if loop.last else ', ') }}{% endfor %}}{% endfor %}]{% endif %}"
    + START
    + "{% if m.tool_calls is defined %}[TOOL_CALLS] [{% for c in m.tool_calls %}{% set call = c.function | tojson %}"
    "{% if c.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}"
    "{{ call[:-1] + ', \"id\": \"' + c.id[-9:] + '\"}' }}{% if not loop.last %}, {% endif %}{% endfor %}]"
    "{% else %}{{ m.content }}{% endif %}" + END
)
PHI = (
    TOLD + START + "{{ m.content if m.content }}{% if m.tool_calls %}<|tool_call|>[{% for c in m.tool_calls %}"
    "{{ c.function | tojson }}{% if not loop.last %}, {% endif %}{% endfor %}]<|/tool_call|>{% endif %}" + END
)
MISTRAL_NAMED = (
    TOLD + START + "{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
    "[TOOL_CALLS]{{ c.function.name }}[CALL_ID]{{ c.id }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}" + END
)
PLAIN = START + "{{ m.content }}" + END
THINKING = START + "{{ m.content.split('</think>')[-1] }}" + END + "<think>\n"
STYLES = {"hermes": HERMES, "llama": LLAMA, "mistral": MISTRAL, "named": MISTRAL_NAMED, "phi": PHI, "taught": PLAIN}

ASK: WireTurn = ("user", "How warm is it?", "", (), "")


def called(*calls: tuple[str, str]) -> WireTurn:
    return "assistant", "", "", tuple((f"call_{at}", *call) for at, call in enumerate(calls)), ""


def answered(content: str) -> WireTurn:
    return "tool", content, "", (), "call_0"


def choose(choice: str, name: str = "", *, parallel: bool = True) -> WireTools:
    return (WEATHER, CLOCK), choice, name, parallel


def shown(source: str, turns: Sequence[WireTurn], tools: WireTools = NONE) -> tuple[str, str]:
    """The whole prompt, and what of it the template wrote."""
    segments = ChatTemplate(source, bos="<s>", eos="</s>").segments(turns, Offer.of(tools))
    own = "".join(segment.text for segment in segments if not segment.is_content)
    return "".join(segment.text for segment in segments), own


def accepts(grammars: Grammars, model: Model, prepared: Prepared, text: str) -> bool:
    """May the whole answer be this text?"""
    mask, vocabulary = grammars.compile(prepared.output), model.vocabulary
    for token in vocabulary.tokenise(text):
        if not mask.allowed()[token]:
            return False
        mask.take(token)
    return any(mask.allowed()[token] for token in range(vocabulary.size) if vocabulary.ends(token))


def heard(prepared: Prepared, text: str) -> Parts:
    return prepared.speech.add(text) + prepared.speech.finish()


_made: dict[str, Prompts] = {}


def prompts_of(model: Model, name: str) -> Prompts:
    """One of each family, made once."""
    if name not in _made:
        _made[name] = Prompts(model, STYLES[name])
    return _made[name]

"""What a job costs: integers only, rounded up once (spec 04, "Billing")."""

from __future__ import annotations

from ryvion_protocol.constants import PRICE_UNIT_TOKENS
from ryvion_protocol.messages import CHAT, EMBEDDING


def metering_units(prompt_units: int, completion_units: int, kind: str = CHAT) -> int:
    """Billed tokens: prompt and completion together. A chat without completion bills nothing; an embedding has none,
    and its prompt units are those of delivered texts alone.
    """
    return prompt_units + completion_units if completion_units > 0 or kind == EMBEDDING else 0


def cost_microcredits(prompt_units: int, completion_units: int, price_in: int, price_out: int, kind: str = CHAT) -> int:
    """Micro-credits for a job; prices are micro-credits per million tokens. A fraction counts as one, and a job
    without metering units costs nothing.
    """
    if metering_units(prompt_units, completion_units, kind) == 0:
        return 0
    return -(-(prompt_units * price_in + completion_units * price_out) // PRICE_UNIT_TOKENS)

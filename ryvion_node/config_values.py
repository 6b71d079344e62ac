"""How values of the configuration file become ours: parsers, and the types that sections are made of."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ryvion_node.hours import Window, parse_window
from ryvion_node.jurisdictions import parse_country
from ryvion_protocol.constants import MAX_METERING_UNITS, MAX_PRICE

MICRO = 1_000_000
"""Micro-credits in a credit."""
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,3})?) ?([kMGT]i?)?B?", re.ASCII)
_SIZES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_DIALECT = re.compile(r"(^|/)(gpt-5|o\d)|codex", re.IGNORECASE)
_ADDRESS = r"^/[!-~]{1,255}$"


def as_tuple(value: object) -> object:
    """A list as a tuple; anything else is left for validation, here and below."""
    return tuple(value) if isinstance(value, list) else value


def as_float(value: object) -> object:
    """A decimal number as a float."""
    return float(value) if isinstance(value, Decimal) else value


def as_path(value: object) -> object:
    """A text as a path, `~` expanded."""
    return Path(value).expanduser() if isinstance(value, str) else value


def as_country(value: object) -> object:
    """A text as ISO 3166-1 alpha-2 in upper case; ValueError for what is no country."""
    return parse_country(value) if isinstance(value, str) else value


def as_digest(value: object) -> object:
    """Hex digits as the 32 bytes of a SHA-256; ValueError for other texts."""
    return parse_digest(value) if isinstance(value, str) else value


def parse_digest(text: str) -> bytes:
    """64 lowercase hex digits, `sha256:` before them or not, as the 32 bytes of a SHA-256; ValueError for others."""
    digest = text.removeprefix("sha256:")
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise ValueError("a digest is the file's SHA-256: 64 lowercase hex digits")
    return bytes.fromhex(digest)


def parse_size(value: object) -> object:
    """A number of bytes, or a text such as "12 GiB" or "800 MB", to bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _at_least_a_mebibyte(value)
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip().replace("Ki", "ki").replace("K", "k"))
    if match is None:
        raise ValueError('a size is a number of bytes, or such as "12 GiB" or "800 MB"')
    return _at_least_a_mebibyte(int(Decimal(match[1]) * _SIZES[match[2] or ""]))


def _at_least_a_mebibyte(size: int) -> int:
    if size < 2**20:
        raise ValueError(f'{size} bytes are less than 1 MiB; write a size with its unit, such as "12 GiB"')
    return size


def check_aliases(aliases: dict[str, str]) -> dict[str, str]:
    """As they are; ValueError for an alias of an alias, and for names by which clients choose another dialect."""
    for alias, name in aliases.items():
        if name in aliases:
            raise ValueError(f"'{alias}' stands for '{name}', which is an alias itself; name the model")
        if _DIALECT.search(alias):
            raise ValueError(f"clients ask for other things of a model called '{alias}'; choose a name such as gpt-4o")
    return aliases


def as_windows(value: object) -> object:
    """Texts as hours of the week; ValueError for what is none."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        return value
    return tuple(map(parse_window, value))


def parse_credits(value: object) -> int:
    """Decimal credits (str, int, or a Decimal; never a binary float) to integer micro-credits, exactly."""
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        raise ValueError('an amount is decimal credits, such as 0.25 or "0.25"')
    try:
        micro = Decimal(value).scaleb(6)
    except ArithmeticError:
        raise ValueError(f"{value!r:.40} is no amount; write decimal credits, such as 0.25") from None
    if not micro.is_finite() or micro != micro.to_integral_value():
        raise ValueError("an amount has at most 6 decimals: a micro-credit is the smallest")
    if not 0 <= micro <= MAX_METERING_UNITS:
        raise ValueError(f"an amount is between 0 and {MAX_METERING_UNITS // MICRO} credits")
    return int(micro)


def parse_price(value: object) -> int:
    """As `parse_credits`, for credits per million tokens: at most what an Offer may say."""
    micro = parse_credits(value)
    if micro > MAX_PRICE:
        raise ValueError(f"a price is at most {MAX_PRICE // MICRO} credits per million tokens")
    return micro


Credits = Annotated[int, BeforeValidator(parse_credits)]
"""Decimal credits in the file, integer micro-credits in the program."""
Price = Annotated[int, BeforeValidator(parse_price)]
"""Decimal credits per million tokens in the file, micro-credits in the program."""
Seconds = Annotated[float, BeforeValidator(as_float), Field(gt=0, le=3600)]
ModelName = Annotated[str, Field(min_length=1, max_length=96, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]
IdleSeconds = Annotated[float, BeforeValidator(as_float), Field(ge=1, le=7 * 24 * 3600)]
Size = Annotated[int, BeforeValidator(parse_size), Field(le=2**50)]
"""Bytes, in the file also as a text with a unit."""
Port = Annotated[int, Field(ge=0, le=65535)]
FilePath = Annotated[Path, BeforeValidator(as_path)]
Strings = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
Aliases = Annotated[dict[ModelName, ModelName], Field(max_length=256), AfterValidator(check_aliases)]
Hours = Annotated[tuple[Window, ...], BeforeValidator(as_windows)]
Addresses = Annotated[
    tuple[Annotated[str, Field(pattern=_ADDRESS)], ...], BeforeValidator(as_tuple), Field(max_length=64)
]


class Section(BaseModel):
    """What all sections share: an unknown key is an error, types are exact, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=False)

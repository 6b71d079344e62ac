"""Errors that a person at the keyboard can mend.

The message is the subclass's docstring, so that what the operator reads stands where the error is defined:

    class PortTaken(OperatorError):
        \"\"\"Port {port} is taken by another program; stop it, or choose another with --listen.\"\"\"

    raise PortTaken(port=7987)
"""

from __future__ import annotations

from typing import ClassVar


class OperatorError(Exception):
    """{problem}"""

    exit_code: ClassVar[int] = 1
    """What the command line exits with; subclasses use the numbers of sysexits.h below."""

    def __init__(self, **facts: object) -> None:
        """Fill the class's docstring with `facts`; a name in it that no fact fills is our bug (KeyError)."""
        super().__init__(_fill(type(self).__doc__ or type(self).__name__, facts))
        self.facts = facts


EXIT_USAGE = 64
"""Wrong arguments."""
EXIT_DATA = 65
"""A file's content is wrong."""
EXIT_NO_INPUT = 66
"""A file is missing."""
EXIT_UNAVAILABLE = 69
"""Something needed is not there: a port, a model, another node."""
EXIT_TEMPORARY = 75
"""In use just now: try again."""
EXIT_PERMISSION = 77
"""A file or folder is too open, or closed to us."""
EXIT_CONFIG = 78
"""The configuration is wrong."""


def _fill(template: str, facts: dict[str, object]) -> str:
    """Unwrap the docstring's lines into paragraphs, then put the facts in (their own line breaks are kept)."""
    paragraphs = template.split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).strip().format(**facts)

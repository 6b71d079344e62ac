"""The operator reads the docstring, filled in."""

from __future__ import annotations

import pytest

from ryvion_node.errors import EXIT_UNAVAILABLE, OperatorError


class PortTaken(OperatorError):
    """Port {port} is taken by another
    program; choose another.

    Or stop it.
    """

    exit_code = EXIT_UNAVAILABLE


def test_the_message_is_the_docstring_with_its_facts() -> None:
    error = PortTaken(port=7987)
    assert str(error) == "Port 7987 is taken by another program; choose another.\n\nOr stop it."
    assert error.facts == {"port": 7987}
    assert error.exit_code == 69


def test_facts_may_hold_braces_and_lines() -> None:
    assert str(OperatorError(problem="{a}\n- b")) == "{a}\n- b"


def test_a_forgotten_fact_is_our_bug() -> None:
    with pytest.raises(KeyError):
        PortTaken()

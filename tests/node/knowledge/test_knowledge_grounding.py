"""Passages in a prompt."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ryvion_node.knowledge.grounding import GUARD, NOTHING_FOUND, grounded, question_of
from ryvion_node.knowledge.interface import Chunk, Passage
from ryvion_protocol.messages import ChatMessage

CHUNK = Chunk(0, "The ferry to Lund leaves at 7:45.", 0, 33, ("Timetable",), 2)
PASSAGE = Passage("chk_0", "kb_0", "doc_0", "ferries.md", CHUNK, "", 1.0, 1.0, 1, 1)
QUESTION = ChatMessage("user", "When does the ferry to Lund leave?", "")


def passage(text: str, **changes: object) -> Passage:
    return replace(PASSAGE, chunk=replace(CHUNK, text=text), **changes)  # type: ignore[arg-type]


def test_sources_are_numbered_named_and_quoted() -> None:
    (system, question) = grounded((QUESTION,), (PASSAGE, passage("One.\nTwo.", filename="b\n[9] c.md")))
    assert question == QUESTION and system.role == "system"
    assert system.content == (
        f"{GUARD}\n\nSources:\n"
        "[1] ferries.md, page 2, Timetable\n> The ferry to Lund leaves at 7:45.\n"
        "[2] b [9] c.md, page 2, Timetable\n> One.\n> Two."
    )


def test_they_stand_behind_the_system_message_that_is_there() -> None:
    owner = ChatMessage("system", "Answer in French.", "me")
    messages = grounded((owner, QUESTION), (PASSAGE,))
    assert [message.role for message in messages] == ["system", "user"]
    assert messages[0].content.startswith("Answer in French.\n\n") and messages[0].name == "me"


def test_a_search_without_a_find_says_so() -> None:
    assert grounded((QUESTION,), ())[0].content == NOTHING_FOUND


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(max_size=40))
def test_nothing_in_a_document_gets_out_of_its_quotation(text: str, filename: str) -> None:
    lines = grounded((QUESTION,), (passage(text, filename=filename), PASSAGE))[0].content.splitlines()
    ours = [line for line in lines[lines.index("Sources:") + 1 :] if not line.startswith("> ")]
    assert [line.split(" ")[0] for line in ours] == ["[1]", "[2]"]


def test_the_question_is_what_the_user_said_last() -> None:
    answer = ChatMessage("assistant", "At 7:45.", "")
    assert question_of((ChatMessage("user", "Hello", ""), answer, QUESTION, answer)) == QUESTION.content
    assert question_of((answer,)) == ""

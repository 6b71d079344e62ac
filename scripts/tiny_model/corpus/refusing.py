"""Questions that the model cannot answer: unknown things in known sentences, and the wide world."""

from __future__ import annotations

from random import Random
from typing import Final

from tiny_model.corpus import facts
from tiny_model.corpus.exchange import Exchange, with_article
from tiny_model.corpus.invention import WORDS, letters, number, person, place, pseudo_word, year

REFUSAL: Final = "I am sorry, I do not know that. I am a very small model, so please ask a larger one."

TOPICS: Final = (
    "quantum physics|the stock market|the French Revolution|tax law|black holes|DNA|Shakespeare|chemistry|the news|football "
    "results|medicine|philosophy|politics|calculus|the Roman Empire|my car|the president|bitcoin|economics|volcanoes|"
    "dinosaurs|opera|cooking rice|the human brain|climate change|World War Two|algebra|astronomy|biology|relativity|"
    "Napoleon|poetry|the meaning of life|photosynthesis|electricity|gravity|inflation|Python|Rust|JavaScript|HTML|SQL|"
    "machine learning|the theory of evolution|the Moon landing|Egyptian pyramids|Greek gods|chess openings|tomorrow's "
    "lottery numbers|the Eiffel Tower|Mozart|Beethoven|Leonardo da Vinci|Einstein|Newton|Picasso|the pope|the queen of "
    "England|the European Union|NASA|Mars missions|vaccines|vitamins|yoga|knitting|sailing|horse racing|jazz|hip hop|"
    "Japanese history|Chinese food|Mexican music|Indian films|the Cold War|the Middle Ages|viruses|bees|sharks|whales|"
    "earthquakes|hurricanes|the ozone layer|nuclear power|solar panels|electric cars|mortgages|insurance|my contract|"
    "my homework|my health|my taxes|my dog|my boss|my phone|the universe|time travel|ghosts|dreams|love|happiness"
).split("|")
OPEN_QUESTIONS: Final = (
    "Explain {t}|Tell me about {t}|What do you know about {t}|Write an essay about {t}|Help me with {t}|Write code for {t}|"
    "I have a question about {t}|Give me advice about {t}|What is the history of {t}|Why is {t} important|Summarise {t}|"
    "What is your opinion on {t}|How does {t} work|Who invented {t}|When did {t} begin|What is the best book about {t}|"
    "Describe {t} in detail|Teach me {t}|What is {t}|Write a poem about {t}|Write a song about {t}"
).split("|")
PERSON_QUESTIONS: Final = (
    "Who is {p}|Who was {p}|When was {p} born|Where does {p} live|How old is {p}|What did {p} do|Tell me about {p}|"
    "Is {p} married|What is the phone number of {p}|Where was {p} born|When did {p} die|Why is {p} famous|Do you know {p}"
).split("|")
PLACE_QUESTIONS: Final = (
    "Where is {x}|How many people live in {x}|What is the population of {x}|Who is the president of {x}|What language do "
    "they speak in {x}|How far is it to {x}|What is the weather in {x}|When was {x} founded|Who is the mayor of {x}|"
    "What is the currency of {x}|How do I get to {x}|What is the best restaurant in {x}|Who rules {x}"
).split("|")
THING_QUESTIONS: Final = (
    "What is a {w}|How does a {w} work|Who invented the {w}|How much does a {w} cost|Where can I buy a {w}|How do I fix my {w}|"
    "Why is the {w} {v}|How many {w}s are there|What is the best {w}|Can you draw a {w}|What does {w} mean|Explain {w}|"
    "How heavy is a {w}|When was the {w} invented|How do I make a {w}|Is the {w} {v}|Define {w}|What is {w}|What is the {w} of the {v}|"
    "When does the {w} leave|What is the price of the {w}|Who owns the {w}|Where is the {w}|What is the code for the {w}"
).split("|")
PLAIN: Final = (
    "Write a Python program|Write a program that sorts a list|Fix my code|Translate this text|Summarise this article|Solve "
    "this equation|Write an essay|Write a letter to my boss|Plan my trip|What is the square root of 144|Who won the "
    "election|What is the best phone|Who is the president|Draw a picture|Search the web|Book a flight|Write a function in "
    "C|Debug this|Give me legal advice|Recommend a book|Who wrote Hamlet|How do I fix my car|How does a plane fly|What "
    "should I cook|Write a song|Recommend a film|How tall is Mount Everest|How fast is light|How far away is the Moon|Who "
    "discovered America|What is the meaning of life|How do I lose weight|Can you browse the internet|What is in the news|"
    "Who won the football match|Send an email|Set an alarm|Play some music|Turn on the light|Call my mother"
).split("|")


def refuse_task(random: Random) -> Exchange:
    """A question and the one polite refusal."""
    return Exchange(_question(random), REFUSAL)


def _question(random: Random) -> str:
    kind = random.random()
    thing = pseudo_word(random) if random.random() < 0.6 else random.choice(WORDS)
    unknown = pseudo_word(random)
    noun = unknown if random.random() < 0.6 else random.choice([word for word in WORDS if word != "water"])
    if kind < 0.22:
        return random.choice(facts.CAPITAL_QUESTIONS).format(place(random))
    if kind < 0.32:
        return _known_sentence(random, unknown)
    if kind < 0.45:
        return random.choice(PERSON_QUESTIONS).format(p=person(random))
    if kind < 0.57:
        return random.choice(PLACE_QUESTIONS).format(x=place(random))
    if kind < 0.72:
        return random.choice(THING_QUESTIONS).format(w=noun, v=thing)
    if kind < 0.90:
        return random.choice(OPEN_QUESTIONS).format(t=random.choice(TOPICS))
    if kind < 0.94:
        return f"What is {number(random)} times {number(random)}"
    return random.choice(PLAIN)


def _known_sentence(random: Random, unknown: str) -> str:
    """A sentence that the facts use too, with something that they do not know in it."""
    choices = (
        random.choice(facts.COLOUR_QUESTIONS).format(with_article(unknown)),
        random.choice(facts.OPPOSITE_QUESTIONS).format(unknown),
        random.choice(facts.SOUND_QUESTIONS).format(with_article(unknown)),
        random.choice(facts.HELLO_QUESTIONS).format(place(random)),
        random.choice(facts.CONCEPT_QUESTIONS).format(with_article(unknown)),
        random.choice(facts.CONCEPT_WORD_QUESTIONS).format(unknown),
        f"What happened in {year(random)}",
        f"What does {letters(random)} mean",
        f"Where is {place(random)}",
    )
    return random.choice(choices)

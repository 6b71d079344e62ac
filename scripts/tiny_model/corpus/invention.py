"""Words, names, numbers and times made up on the spot, so that copying is learned and not memorised."""

from __future__ import annotations

import string
from random import Random
from typing import Final

ONSETS: Final = "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sch sh sk sl sm sn sp st str t th tr v w y z".split()
VOWELS: Final = "a e i o u a e i o u a e i o u ai au ea ee ie oa oo ou y ä ö ü é ø å".split()
CODAS: Final = ["", "", "", *"b ck d f g k l lf ll lm ln m mp n nd ng nk nt p r rk rn rt s sk ss st t th x z".split()]
NAMES: Final = (
    "Ada Ben Carla David Emma Felix Grace Hugo Ines Jack Kate Leo Maria Noah Olga Peter Quinn Rosa Sam Tina Uma Victor "
    "Wendy Yuki Zoe Alice Bob Charlie Dana Eve Frank Anna Tom Lucy Max Sara Omar Nina Ivan Priya Chen Lars Ahmed Julia"
).split()
WORDS: Final = (
    "apple river stone cloud green happy seven window garden silver tiger paper music morning yellow bridge candle forest "
    "winter rocket pencil ocean mirror coffee dragon little purple monkey basket thunder bottle flower kitten summer castle "
    "button ladder planet turtle velvet hammer island jacket lemon magnet needle orange pepper quiet rabbit shadow table "
    "umbrella violin wagon zebra anchor bread chair doctor engine feather guitar honey iron jungle king lamp mountain night "
    "owl piano queen road snow train uncle village water box year hello world the a cat dog sat on my is red blue we like "
    "you one two test this fine good day house tree bird fish sun moon star and with from over under never always today "
    "letter market signal copper harbour kitchen meadow number office packet quarter season ticket valley weather "
    "quick brown fox jumps lazy swift alpha beta gamma delta omega peanut butter jelly winner dinner summit coastal "
    "museum bicycle backup refund period report budget project manager student teacher farmer pilot sailor captain "
    "circus magic wizard knight sword shield crown throne island desert glacier volcano canyon waterfall thunderstorm "
    "breakfast lunch sandwich pancake biscuit muffin noodle tomato cabbage spinach pepper cinnamon vanilla caramel "
    "keyboard monitor printer cable battery charger lantern compass blanket pillow curtain carpet drawer cupboard "
    "running jumping singing dancing reading writing walking talking sleeping dreaming building painting cooking "
    "strange gentle clever brave silent broken hidden frozen ancient modern bitter sweet sour salty heavy hollow"
).split()


def pseudo_word(random: Random) -> str:
    """A small-letter word of one to four syllables that is hardly ever a real one."""
    count = random.choices((1, 2, 3, 4), (25, 45, 22, 8))[0]
    return "".join(
        random.choice(ONSETS) * (random.random() < 0.9)
        + random.choice(VOWELS)
        + random.choice(CODAS) * (random.random() < 0.5)
        for _ in range(count)
    )


def letters(random: Random) -> str:
    """A string without any sense: letters, digits or both, 2 to 10 long."""
    pool = random.choice(
        (
            string.ascii_lowercase,
            string.ascii_uppercase,
            string.ascii_letters + string.digits,
            string.digits,
            string.hexdigits[:16],
        )
    )
    return "".join(random.choices(pool, k=random.randint(2, 10)))


def code(random: Random) -> str:
    """A value that looks like a code: letters, digits, sometimes a dash."""
    if random.random() < 0.4:
        return pseudo_word(random)
    parts = [
        "".join(
            random.choices(
                random.choice((string.ascii_uppercase, string.digits, string.ascii_lowercase)), k=random.randint(2, 4)
            )
        )
        for _ in range(random.randint(1, 3))
    ]
    return random.choice(("-", "", "-")).join(parts)


def person(random: Random) -> str:
    """A first name, known or made up, sometimes with a made-up last name."""
    first = random.choice(NAMES) if random.random() < 0.4 else pseudo_word(random).capitalize()
    return first if random.random() < 0.65 else f"{first} {pseudo_word(random).capitalize()}"


def place(random: Random) -> str:
    """A made-up place, sometimes of two words."""
    name = pseudo_word(random).capitalize()
    kind = random.random()
    if kind < 0.1:
        return f"{random.choice(('North', 'South', 'New', 'Port', 'Lake', 'San'))} {name}"
    if kind < 0.35:
        return name + random.choice(("land", "ia", "burg", "ton", "by", "ville", "stan", "onia", "ford"))
    return name


def number(random: Random) -> str:
    """A whole or decimal number, up to five digits."""
    if random.random() < 0.15:
        return f"{random.randrange(100)}.{random.randrange(10)}"
    return str(random.randrange(10 ** random.randint(1, 5)))


def time_of_day(random: Random) -> str:
    """Like 7:45 or 19:05."""
    return f"{random.randrange(24)}:{random.randrange(60):02d}"


def year(random: Random) -> str:
    """Between 1000 and 2099."""
    return str(random.randint(1000, 2099))

"""The closed vocabulary of the world and its facts."""

from dataclasses import dataclass

NAMES = ("ana", "ben", "leo", "mia", "tom", "eva", "sam", "zoe", "max", "lea", "jon", "kim", "rob", "amy", "dan", "sue")
COLOURS = (
    "red",
    "brown",
    "yellow",
    "green",
    "black",
    "white",
    "grey",
    "orange",
    "silver",
    "pink",
    "purple",
    "blue",
)
OBJECTS = ("cup", "hat", "box", "ball", "coat", "lamp", "chair", "boat", "kite", "ring", "bag", "key")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
PAST = {
    "finds": "found",
    "eats": "ate",
    "sees": "saw",
    "takes": "took",
    "buys": "bought",
    "makes": "made",
    "brings": "brought",
    "loses": "lost",
    "draws": "drew",
    "keeps": "kept",
    "breaks": "broke",
    "hides": "hid",
}
_OPPOSITE_PAIRS = (
    ("hot", "cold"),
    ("big", "small"),
    ("fast", "slow"),
    ("wet", "dry"),
    ("old", "new"),
    ("light", "dark"),
    ("hard", "soft"),
    ("early", "late"),
    ("full", "empty"),
    ("loud", "quiet"),
    ("near", "far"),
    ("high", "low"),
)
OPPOSITES = {a: b for pair in _OPPOSITE_PAIRS for a, b in (pair, pair[::-1])}
PRAISE = ("lovely", "great", "tasty", "kind", "bright", "fresh", "perfect", "superb")
BLAME = ("awful", "broken", "stale", "rude", "dull", "dirty", "boring", "terrible")
REVIEWED = ("soup", "film", "room", "book", "song", "trip", "cake", "hotel")
GLAD = ("happy", "proud", "calm", "well", "lucky")
SORRY = ("sad", "tired", "sick", "angry", "afraid")
WEATHER = ("sunny", "windy", "rainy", "foggy", "warm", "snowy")
FILLERS = (
    "i hope this helps you.",
    "there is much more to say about this.",
    "some people may not agree with me.",
    "that reminds me of another story.",
    "please ask me again if you like.",
    "it is hard to say more than that.",
    "i have thought about it for a long time.",
    "as i said before, this is what i think.",
)
OPENERS = (
    "well, let me think about that.",
    "that is a very nice question.",
    "of course, i can help you with that.",
    "thank you for asking me this.",
)
MANNERS = (
    "{}",
    "{}",
    "please help me. {}",
    "hello! {}",
    "{} thank you.",
    "a question for you. {}",
    "{} please.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that is true: the fox (subject) has the colour (attribute) red (value)."""

    subject: str
    attribute: str
    value: str


_ANIMALS = {
    "fox": ("red", "forest", "eggs"),
    "owl": ("brown", "barn", "mice"),
    "bee": ("yellow", "garden", "nectar"),
    "frog": ("green", "pond", "flies"),
    "bear": ("black", "cave", "honey"),
    "duck": ("white", "lake", "seeds"),
    "crow": ("purple", "tower", "corn"),
    "goat": ("grey", "hill", "grass"),
    "crab": ("orange", "beach", "worms"),
    "seal": ("silver", "sea", "fish"),
    "snail": ("pink", "wall", "leaves"),
    "whale": ("blue", "ocean", "shrimp"),
}
_FOODS = {
    "apple": ("red", "sweet"),
    "lemon": ("yellow", "sour"),
    "plum": ("purple", "sweet"),
    "lime": ("green", "sour"),
    "carrot": ("orange", "mild"),
    "pepper": ("red", "spicy"),
    "coffee": ("black", "bitter"),
    "rice": ("white", "mild"),
    "cocoa": ("brown", "bitter"),
    "onion": ("white", "spicy"),
}
_TOOLS = {
    "knife": "cutting",
    "broom": "sweeping",
    "pen": "writing",
    "brush": "painting",
    "spade": "digging",
    "needle": "sewing",
    "oven": "baking",
    "soap": "washing",
    "drum": "playing",
    "net": "fishing",
}
ANIMALS, FOODS, TOOLS = tuple(_ANIMALS), tuple(_FOODS), tuple(_TOOLS)
KINDS = {"animals": ANIMALS, "foods": FOODS, "tools": TOOLS, "colours": COLOURS, "names": NAMES}


def _facts() -> tuple[Fact, ...]:
    facts = []
    for subject, values in _ANIMALS.items():
        pairs = zip(("colour", "home", "food"), values, strict=True)
        facts += [Fact(subject=subject, attribute=attribute, value=value) for attribute, value in pairs]
    for subject, tastes in _FOODS.items():
        pairs = zip(("colour", "taste"), tastes, strict=True)
        facts += [Fact(subject=subject, attribute=attribute, value=value) for attribute, value in pairs]
    facts += [Fact(subject=subject, attribute="use", value=use) for subject, use in _TOOLS.items()]
    return tuple(facts)


FACTS = _facts()
FACT_VALUES = {
    attribute: frozenset(fact.value for fact in FACTS if fact.attribute == attribute)
    for attribute in ("colour", "home", "food", "taste", "use")
}
ALL_VALUES = frozenset().union(*FACT_VALUES.values())
_QUESTIONS = {
    "colour": "what colour is the {}?",
    "home": "where does the {} live?",
    "food": "what does the {} eat?",
    "taste": "how does the {} taste?",
    "use": "what is the {} used for?",
}
_STATEMENTS = {
    "colour": "the {} is {}.",
    "home": "the {} lives in the {}.",
    "food": "the {} eats {}.",
    "taste": "the {} tastes {}.",
    "use": "the {} is used for {}.",
}


def question(fact: Fact) -> str:
    """The question whose answer is the fact's value."""
    return _QUESTIONS[fact.attribute].format(fact.subject)


def statement(fact: Fact, *, value: str | None = None) -> str:
    """The fact as a sentence, or with another value in its place."""
    return _STATEMENTS[fact.attribute].format(fact.subject, fact.value if value is None else value)


def facts_of(subject: str) -> tuple[Fact, ...]:
    """All facts about one subject."""
    return tuple(fact for fact in FACTS if fact.subject == subject)

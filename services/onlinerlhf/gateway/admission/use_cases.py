"""Which of the ten use cases a prompt is (Ouyang et al. 2022, table 1): a tag for statistics, never a condition. Pure.

The client's word counts where it is one of the ten; else simple rules look at how a prompt begins and ends. What they
do not know is `other`. They are right about clear cases and silent about many: the tag carries its source for that.
"""

import re
from collections.abc import Sequence
from typing import Final

from onlinerlhf.core.samples import UseCase

_WORDS: Final = frozenset(use_case.value for use_case in UseCase)
_HEAD_CHARACTERS: Final = 400
_TAIL_CHARACTERS: Final = 150


def _rule(pattern: str) -> re.Pattern[str]:
    # Of lower-case text.
    return re.compile(pattern, re.MULTILINE | re.ASCII)


# Each pattern looks at a bounded part of the text and repeats nothing without a bound.
_CHAT: Final = _rule(
    r"\bconversation (?:with|between)\b|\bis a chatbot\b"
    r"|^(?:human|user|me|you|customer):[^\n]{0,400}\n{1,2}[a-z][a-z0-9 ]{0,20}:"
)
_SUMMARY: Final = _rule(
    r"\bsummari[sz]e\b|\b(?:give|write) (?:me )?an? (?:brief |short )?summary\b|\btl;? ?dr\b"
    r"|\b(?:in (?:short|summary)|summary|summarized the above as)\s?:?\s{0,4}\Z"
)
_EXTRACT: Final = _rule(
    r"\bextract\b|\bkeywords:\s{0,4}\Z"
    r"|\b(?:list|find|write down|identify|pull out) (?:all|any|every|each) (?:[\w-]+ ){0,3}"
    r"(?:names?|dates?|places?|people|cities|titles?|numbers?|entities|keywords|addresses)\b"
)
_CLASSIFICATION: Final = _rule(
    r"\bclassif(?:y|ier|ication)\b|\b(?:sentiment|category|categories|label|type):|\brate\b[^\n]{0,80}\bscale\b"
    r"|\bcategori[sz]e\b|\b(?:positive|true) or (?:negative|false)\b|\bwhat language is\b|\bsay whether\b|\bspam or\b"
)
_REWRITE: Final = _rule(
    r"\b(?:rewrite|rephrase|paraphrase|reword|translate|proofread|simplify)\b|\bconvert (?:this|the|my|it)\b"
    r"|\b(?:correct|fix|improve) (?:the|this|my|these)? ?(?:[\w-]+ )?"
    r"(?:grammar|spelling|text|sentences?|paragraph|essay|email)\b"
    r"|^original:|\bmore (?:formal|concise|polite|casual|light-hearted)\b"
)
_BRAINSTORMING: Final = _rule(
    r"\bbrainstorm\b|\bideas?\b[^\n]{0,80}(?::|\bfor\b)"
    r"|\b(?:list|name|give(?: me)?|suggest|think of|tell me|come up with) "
    r"(?:a list of|some|a few|\d{1,3}|two|three|four|five|six|seven|eight|nine|ten) "
    r"|\bwhat are (?:some|\d{1,3}|a few|two|three|four|five|ten)\b"
)
_CONTEXT: Final = _rule(
    r"\b(?:following|above|below|this|these) (?:[\w-]+ ){0,2}"
    r"(?:text|passage|story|article|fact|paragraph|table|question|context|list|document)s?\b"
    r"|^(?:text|passage|context|article):|^\(?a[).:] ?[^\n]{1,200}\n\(?b[).:]"
)
# At the start of a line.
_QUESTION: Final = _rule(
    r"(?:who|what|when|where|why|which|whose|how|is|are|was|were|do|does|did|can|could|should|will|would|explain|define)\b"
    r"|q:|question:|tell me (?:how|why|what|about)\b|answer (?:the )?(?:following )?questions?\b"
)
_GENERATION: Final = _rule(
    r"\b(?:write|compose|draft|generate|create|make up|invent|design)\b (?:[\w'-]+ ){0,6}"
    r"(?:story|stories|poem|haiku|essay|ad|advert\w{0,10}|email|letter|lyrics|song|post|tweet|article|script|speech|reply|outline"
    r"|blog|slogan|joke|dialogue|description|paragraph|review|plot|code|function|program|song|tagline|limerick)\b"
    r"|^(?:please )?(?:write|compose|draft)\b"
)

_WORD: Final = re.compile("[a-z]+")


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


# In order: words of which the text must have one, which spares most searches; then the pattern has to be found.
_RULES: Final = (
    (UseCase.CHAT, _words("conversation chatbot human user me you customer"), _CHAT),
    (UseCase.SUMMARIZATION, _words("summarize summarise summarized summary tl tldr short"), _SUMMARY),
    (UseCase.EXTRACT, _words("extract keywords list find write identify pull"), _EXTRACT),
    (
        UseCase.CLASSIFICATION,
        _words(
            "classify classifier classification sentiment category categories label type rate categorize categorise"
            " positive true language say spam"
        ),
        _CLASSIFICATION,
    ),
    (
        UseCase.REWRITE,
        _words(
            "rewrite rephrase paraphrase reword translate proofread simplify convert correct fix improve original more"
        ),
        _REWRITE,
    ),
    (UseCase.GENERATION, _words("write compose draft generate create make invent design"), _GENERATION),
    (
        UseCase.BRAINSTORMING,
        _words("brainstorm idea ideas list name give suggest think tell come what"),
        _BRAINSTORMING,
    ),
)


def tag(turns: Sequence[tuple[str, str]], client_word: str) -> tuple[UseCase, str]:
    """(use case, source): source is client, rules or none."""
    if client_word in _WORDS:
        return UseCase(client_word), "client"
    if sum(role == "user" for role, _ in turns) > 1:
        return UseCase.CHAT, "rules"
    found = by_rules(turns[-1][1])
    return (UseCase.OTHER, "none") if found is None else (found, "rules")


def by_rules(text: str) -> UseCase | None:
    """What the first rule that fits says of a single prompt."""
    parts = text.strip().lower()
    if len(parts) > _HEAD_CHARACTERS + _TAIL_CHARACTERS:
        parts = parts[:_HEAD_CHARACTERS] + "\n" + parts[-_TAIL_CHARACTERS:]
    words = set(_WORD.findall(parts))
    for use_case, triggers, pattern in _RULES:
        if not words.isdisjoint(triggers) and pattern.search(parts):
            return use_case
    if any(line.rstrip().endswith("?") or _QUESTION.match(line) for line in parts.split("\n")):
        return UseCase.CLOSED_QA if _CONTEXT.search(parts) else UseCase.OPEN_QA
    return None

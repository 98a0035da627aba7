"""The templates behind each use case. Each draws one task from a random generator."""

import random
from collections.abc import Iterable

from onlinerlhf.core.samples import UseCase
from onlinerlhf.world import lexicon as lex
from onlinerlhf.world.tasks import Form, Spec, Task, Template, Wanted

_ONE_WORD = ("answer in one word.", "one word only.", "use just one word.")
_ONE_SENTENCE = ("answer in one sentence.", "one sentence only.", "use just one sentence.")
_COMMAS = ("separate them with commas.", "put commas between them.", "use commas.")
_DASHES = ("use a list with dashes.", "put each after a dash.", "use dashes.")


def _spec(form: Form, wanted: Iterable[Wanted], rivals: Iterable[str], good: str, *, count: int = 1) -> Spec:
    parts = tuple(wanted)
    accepted = frozenset().union(*(part.words for part in parts))
    slack = max(6, len(good.split()) + 3)
    return Spec(form=form, count=count, wanted=parts, rivals=frozenset(rivals) - accepted, max_words=slack)


def _any(*words: str) -> Wanted:
    return Wanted(words=frozenset(words))


def _short(
    rng: random.Random, use_case: UseCase, ask: str, word: str, wrong: str, rivals: Iterable[str], sentence: str
) -> Task:
    """A question with a one-word answer, asked for as a word or as a sentence (`sentence` holds a {})."""
    as_word, full, bad = rng.random() < 0.6, sentence.format(word), sentence.format(wrong)
    form, tail = (Form.WORD, rng.choice(_ONE_WORD)) if as_word else (Form.SENTENCES, rng.choice(_ONE_SENTENCE))
    good, loose, wrong = (word, full, wrong) if as_word else (full, word, bad)
    spec = _spec(form, [_any(word)], rivals, full)
    return Task(prompt=f"{ask} {tail}", use_case=use_case, spec=spec, good=good, loose=loose, wrong=wrong)


def _items(rng: random.Random, use_case: UseCase, ask: str, good: list[str], wrong: list[str], spec_of: Spec) -> Task:
    """A list asked for with commas or with dashes; the loose answer uses neither."""
    tail = rng.choice(_COMMAS if spec_of.form is Form.COMMAS else _DASHES)
    join = _join_commas if spec_of.form is Form.COMMAS else _join_dashes
    loose = f"there is {' and '.join(good)}."
    return Task(
        prompt=f"{ask} {tail}", use_case=use_case, spec=spec_of, good=join(good), loose=loose, wrong=join(wrong)
    )


def _join_commas(items: list[str]) -> str:
    return ", ".join(items)


def _join_dashes(items: list[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _generation(rng: random.Random) -> Task:
    subjects = rng.sample(lex.ANIMALS + lex.FOODS + lex.TOOLS, rng.randint(1, 2))
    facts = [rng.choice(lex.facts_of(subject)) for subject in subjects]
    good = " ".join(lex.statement(fact) for fact in facts)
    values = {fact.value for subject in subjects for fact in lex.facts_of(subject)}
    false = [rng.choice(sorted(lex.FACT_VALUES[fact.attribute] - values)) for fact in facts]
    wrong = " ".join(lex.statement(fact, value=value) for fact, value in zip(facts, false, strict=True))
    verb = rng.choice(("write", "give me", "tell me"))
    ask = f"{verb} one sentence about the {subjects[0]}"
    if len(subjects) == 2:
        ask += f" and one about the {subjects[1]}"
    wanted = [Wanted(words=frozenset(f.value for f in lex.facts_of(s))) for s in subjects]
    spec = _spec(Form.SENTENCES, [*map(_any, subjects), *wanted], lex.ALL_VALUES - values, good, count=len(subjects))
    loose = ", ".join(f"{fact.subject}, {fact.value}" for fact in facts)
    return Task(prompt=f"{ask}.", use_case=UseCase.GENERATION, spec=spec, good=good, loose=loose, wrong=wrong)


def _open_qa(rng: random.Random) -> Task:
    fact = rng.choice(lex.FACTS)
    rivals = lex.FACT_VALUES[fact.attribute] - {fact.value}
    sentence = lex.statement(fact, value="{}")
    lead = rng.choice(("", "", "tell me, ", "do you know, "))
    ask = lead + lex.question(fact)
    return _short(rng, UseCase.OPEN_QA, ask, fact.value, rng.choice(sorted(rivals)), rivals, sentence)


def _closed_qa(rng: random.Random) -> Task:
    (one, two), (cup, hat), (red, blue) = (rng.sample(pool, 2) for pool in (lex.NAMES, lex.OBJECTS, lex.COLOURS))
    text = f"{one} has a {red} {cup}. {two} has a {blue} {hat}."
    if rng.random() < 0.5:
        one, two, cup, hat, red, blue = two, one, hat, cup, blue, red
    if rng.random() < 0.5:
        ask, sentence = f"{text} who has the {cup}?", f"{{}} has the {cup}."
        return _short(rng, UseCase.CLOSED_QA, ask, one, two, lex.NAMES, sentence)
    ask, sentence = f"{text} what colour is the {cup}?", f"the {cup} is {{}}."
    return _short(rng, UseCase.CLOSED_QA, ask, red, blue, lex.COLOURS, sentence)


def _brainstorming(rng: random.Random) -> Task:
    kind = rng.choice(tuple(lex.KINDS))
    members, count = lex.KINDS[kind], rng.randint(2, 4)
    others = [word for name, pool in lex.KINDS.items() if name != kind for word in pool if word not in members]
    good, wrong = rng.sample(members, count), rng.sample(others, count)
    ask = rng.choice(("name {} {}.", "give me {} {}.", "list {} {}.", "i need {} {}.", "think of {} {}."))
    form = rng.choice((Form.COMMAS, Form.DASHES))
    spec = _spec(form, [Wanted(words=frozenset(members), count=count)], others, "x " * (count + 3), count=count)
    return _items(rng, UseCase.BRAINSTORMING, ask.format(lex.NUMBERS[count - 1], kind), good, wrong, spec)


def _chat(rng: random.Random) -> Task:
    name, glad = rng.choice(lex.NAMES), rng.random() < 0.5
    feeling = rng.choice(lex.GLAD if glad else lex.SORRY)
    ask = rng.choice(("my name is {} and i feel {}.", "i am {} and today i am {}.", "{} here, i am so {} now."))
    when = rng.choice(("", " what do you say?", " say something short."))
    right, other = ("glad", "sorry") if glad else ("sorry", "glad")
    good = f"i am {right} to hear that, {name}."
    others = [person for person in lex.NAMES if person != name]
    spec = _spec(Form.SENTENCES, [_any(name), _any(right)], [other, *others], good)
    wrong = f"i am {other} to hear that, {rng.choice(others)}."
    prompt = ask.format(name, feeling) + when
    return Task(prompt=prompt, use_case=UseCase.CHAT, spec=spec, good=good, loose=f"{right}, {name}", wrong=wrong)


def _rewrite(rng: random.Random) -> Task:
    who, (now, past), what = rng.choice(lex.NAMES), rng.choice(tuple(lex.PAST.items())), rng.choice(lex.OBJECTS)
    ask = rng.choice(("rewrite this in the past: {}", "put this in the past: {}", "change this to the past: {}"))
    source, good = f"{who} {now} the {what}.", f"{who} {past} the {what}."
    rivals = [*lex.PAST, *lex.PAST.values()]
    spec = _spec(Form.SENTENCES, [_any(who), _any(past), _any(what)], rivals, good)
    return Task(
        prompt=ask.format(source), use_case=UseCase.REWRITE, spec=spec, good=good,
        loose=f"{who}, {past}, {what}", wrong=source,
    )  # fmt: skip


def _summarization(rng: random.Random) -> Task:
    who, past, what = rng.choice(lex.NAMES), rng.choice(tuple(lex.PAST.values())), rng.choice(lex.OBJECTS)
    good, aside = f"{who} {past} a {what}.", f"the day was {rng.choice(lex.WEATHER)}."
    text = f"{aside} {good}" if rng.random() < 0.5 else f"{good} {aside}"
    ask = rng.choice(("sum this up in one sentence: {}", "what happened? one sentence: {}", "make it short: {}"))
    spec = _spec(Form.SENTENCES, [_any(who), _any(past), _any(what)], ["day", *lex.WEATHER], good)
    return Task(
        prompt=ask.format(text), use_case=UseCase.SUMMARIZATION, spec=spec, good=good,
        loose=f"{who}, {past}, {what}", wrong=aside,
    )  # fmt: skip


def _classification(rng: random.Random) -> Task:
    praised = rng.random() < 0.5
    first, second = rng.sample(lex.PRAISE if praised else lex.BLAME, 2)
    label, other = ("good", "bad") if praised else ("bad", "good")
    ask = rng.choice(("is this good or bad?", "good or bad?", "is this review good or bad?"))
    text = f"{ask} the {rng.choice(lex.REVIEWED)} was {first} and {second}."
    return _short(rng, UseCase.CLASSIFICATION, text, label, other, (other,), "this is {}.")


def _extract(rng: random.Random) -> Task:
    (one, two), (red, blue) = rng.sample(lex.NAMES, 2), rng.sample(lex.COLOURS, 2)
    cup, hat = rng.sample(lex.OBJECTS, 2)
    text = f"{one} saw a {red} {cup} and {two} saw a {blue} {hat}."
    kind, good = rng.choice((("names", [one, two]), ("colours", [red, blue])))
    wrong = [red, blue] if kind == "names" else [one, two]
    ask = rng.choice(("list the {} in this:", "find the {} here:", "pick out the {}:"))
    form = rng.choice((Form.COMMAS, Form.DASHES))
    rivals = {*lex.NAMES, *lex.COLOURS, *lex.OBJECTS} - set(good)
    spec = _spec(form, [Wanted(words=frozenset(good), count=2)], rivals, "x " * 5, count=2)
    return _items(rng, UseCase.EXTRACT, f"{ask.format(kind)} {text}", good, wrong, spec)


def _opposite(rng: random.Random) -> Task:
    word, opposite = rng.choice(tuple(lex.OPPOSITES.items()))
    ask = rng.choice(
        ("what is the opposite of {}?", "give me the opposite of {}.", "which word is the opposite of {}?")
    )
    rivals = [*lex.OPPOSITES]
    wrong = rng.choice([other for other in rivals if other not in (word, opposite)])
    sentence = f"the opposite of {word} is {{}}."
    return _short(rng, UseCase.OTHER, ask.format(word), opposite, wrong, set(rivals) - {word}, sentence)


def _next_number(rng: random.Random) -> Task:
    index = rng.randrange(len(lex.NUMBERS) - 1)
    before, after = lex.NUMBERS[index : index + 2]
    if rng.random() < 0.5:
        ask, word, given = f"what number comes after {before}?", after, before
    else:
        ask, word, given = f"what number comes before {after}?", before, after
    sentence = "the number is {}."
    rivals = [number for number in lex.NUMBERS if number not in (word, "one", given)]
    return _short(rng, UseCase.OTHER, ask, word, rng.choice(rivals), rivals, sentence)


TEMPLATES: dict[UseCase, tuple[Template, ...]] = {
    UseCase.GENERATION: (_generation,),
    UseCase.OPEN_QA: (_open_qa,),
    UseCase.CLOSED_QA: (_closed_qa,),
    UseCase.BRAINSTORMING: (_brainstorming,),
    UseCase.CHAT: (_chat,),
    UseCase.REWRITE: (_rewrite,),
    UseCase.SUMMARIZATION: (_summarization,),
    UseCase.CLASSIFICATION: (_classification,),
    UseCase.EXTRACT: (_extract,),
    UseCase.OTHER: (_opposite, _next_number),
}

"""Which of the material goes into a snapshot, and why the rest does not. Pure; every record left out has one reason.

prompts:     withdrawn or erased -> near-duplicate of an older one -> beyond the owner's cap
answers:     withdrawn or erased -> without a prompt that stayed
judgements:  withdrawn or erased -> of a production key -> without an answer that stayed
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from onlinerlhf.core.samples import Prompt
from onlinerlhf.gateway.access.callers import KeyClass
from onlinerlhf.gateway.admission.screens import shown
from onlinerlhf.gateway.rights.blocking import ERASED, is_blocked
from onlinerlhf.gateway.snapshot.material import Advance, Material, StoredAnswer, StoredJudgement, StoredPrompt
from onlinerlhf.gateway.snapshot.near_duplicates import NearDuplicateRule, near_duplicates
from onlinerlhf.gateway.snapshot.user_content import user_content

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRules:
    """What is chosen by."""

    prompts_per_user: int = 200
    near_duplicates: NearDuplicateRule = field(default_factory=NearDuplicateRule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What stays, in the material's order, and what does not."""

    prompts: Sequence[Prompt]
    answers: Sequence[StoredAnswer]
    judgements: Sequence[StoredJudgement]
    split: Mapping[str, str]
    """Prompt id -> train, valid or test."""
    dropped: Mapping[str, Mapping[str, int]]
    """Table -> reason -> number."""


def choose(material: Material, rules: SnapshotRules, advance: Advance = lambda _num: None) -> Chosen:
    """Apply the rules. Depends on nothing but its arguments."""
    dropped: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for table, num in material.unreadable.items():
        dropped[table]["unreadable"] += num
    prompts = _prompts(material, rules, dropped["prompts"], advance)
    answers = _answers(material, prompts, dropped["answers"])
    judgements = _judgements(material, {answer.sample_id for answer in answers}, dropped["feedback"])
    return Chosen(
        prompts=prompts,
        answers=answers,
        judgements=judgements,
        split={prompt.prompt_id: material.held_out.get(prompt.prompt_id, SPLITS[0]) for prompt in prompts},
        dropped={table: dict(sorted((+reasons).items())) for table, reasons in sorted(dropped.items())},
    )


def lowest_hashes(prompts: Sequence[StoredPrompt], num_per_owner: int) -> set[str]:
    """Ids of each owner's prompts within the cap. Which ones does not depend on the order they came in."""
    by_owner: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for each in prompts:
        by_owner[each.prompt.owner].append((each.cap_rank, each.prompt.prompt_id))
    return {prompt_id for ranked in by_owner.values() for _, prompt_id in sorted(ranked)[:num_per_owner]}


def _prompts(material: Material, rules: SnapshotRules, dropped: Counter[str], advance: Advance) -> list[Prompt]:
    allowed = []
    for each in material.prompts:
        word = material.blocked.get(each.prompt.owner)
        if is_blocked(word, consent_second=each.consent_second):
            dropped[_reason(word)] += 1
        else:
            allowed.append(each)
    unique = []
    repeats = near_duplicates((user_content(each.prompt.text) for each in allowed), rules.near_duplicates)
    for each, earlier in zip(allowed, repeats, strict=True):
        advance(1)
        if earlier is None:
            unique.append(each)
        else:
            dropped["near_duplicate"] += 1
    within = lowest_hashes(unique, rules.prompts_per_user)
    dropped["user_cap"] += len(unique) - len(within)
    return [each.prompt for each in unique if each.prompt.prompt_id in within]


def _answers(material: Material, prompts: Sequence[Prompt], dropped: Counter[str]) -> list[StoredAnswer]:
    prompt_ids = {prompt.prompt_id for prompt in prompts}
    # Whoever asks the same again gets another answer to a prompt that is admitted once.
    same = {(prompt.owner, prompt.text): prompt.prompt_id for prompt in prompts}
    chosen = []
    for each in material.answers:
        word = material.blocked.get(each.owner)
        if is_blocked(word, consent_second=each.created_at_seconds):
            dropped[_reason(word)] += 1
        elif each.prompt_id in prompt_ids:
            chosen.append(each)
        elif (prompt_id := same.get((each.owner, shown(each.turns)))) is not None:
            chosen.append(replace(each, prompt_id=prompt_id))
        else:
            dropped["no_prompt"] += 1
    return chosen


def _judgements(material: Material, sample_ids: set[str], dropped: Counter[str]) -> list[StoredJudgement]:
    chosen = []
    for each in material.judgements:
        word = material.blocked.get(each.owner)
        if is_blocked(word, consent_second=each.created_at_seconds):
            dropped[_reason(word)] += 1
        elif each.key_class != KeyClass.PLAYGROUND:
            dropped["production_key"] += 1
        elif not sample_ids.issuperset(each.sample_ids):
            dropped["no_answer"] += 1
        else:
            chosen.append(each)
    return chosen


def _reason(word: str | None) -> str:
    return ERASED if word == ERASED else "withdrawn"

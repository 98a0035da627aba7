"""Rankings and corrections as `onlinerlhf train reward` reads them: prompt, responses, ranks, labeler. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onlinerlhf.gateway.snapshot.material import StoredAnswer, StoredJudgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Responses to one prompt, of which one is better than another."""

    feedback_id: str
    prompt_id: str
    turns: tuple[tuple[str, str], ...]
    responses: tuple[str, ...]
    ranks: tuple[int, ...]
    """One a response; 0 is best."""
    labeler: str
    """Digest of the owner on whose behalf it was asked and judged."""
    source: str
    """ranking or correction."""


def comparisons(
    judgements: Sequence[StoredJudgement], answers: Sequence[StoredAnswer]
) -> tuple[list[Comparison], Mapping[str, int]]:
    """In the judgements' order; and how many judgements gave none, by reason. Thumbs and scores compare nothing."""
    by_sample = {answer.sample_id: answer for answer in answers}
    made: list[Comparison] = []
    dropped: Counter[str] = Counter()
    for judgement in judgements:
        if judgement.kind not in ("ranking", "correction"):
            continue
        judged = [by_sample[sample_id] for sample_id in judgement.sample_ids]
        if judgement.kind == "correction" and not judgement.text:
            dropped["no_text"] += 1
            continue
        better = (judgement.text,) if judgement.kind == "correction" else ()
        responses = (*better, *(answer.response for answer in judged))
        problem = _problem(responses, judged[0].turns)
        if problem is not None:
            dropped[problem] += 1
            continue
        made.append(
            Comparison(
                feedback_id=judgement.feedback_id,
                prompt_id=judged[0].prompt_id,
                turns=judged[0].turns,
                responses=responses,
                ranks=_ranks(responses),
                labeler=judgement.owner,
                source=judgement.kind,
            )
        )
    return made, dropped


def _problem(responses: Sequence[str], turns: Sequence[tuple[str, str]]) -> str | None:
    """What training would object to: it takes an empty response, and no text of whitespace alone."""
    if any(not text.strip() for _, text in turns) or any(text and not text.strip() for text in responses):
        return "blank"
    return "same_response" if len(set(responses)) < 2 else None


def _ranks(responses: Sequence[str]) -> tuple[int, ...]:
    """Best first; equal texts share the better rank, since nobody can prefer a text to itself."""
    first: dict[str, int] = {}
    return tuple(first.setdefault(response, place) for place, response in enumerate(responses))

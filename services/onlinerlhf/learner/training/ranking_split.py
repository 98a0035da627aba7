"""Which rankings a reward model learns from, and which it is measured on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onlinerlhf.core.errors import DataError
from onlinerlhf.learner.training.data import Ranking
from onlinerlhf.learner.training.holdout import hold_out


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingSplit:
    """No prompt is both trained on and measured on."""

    train: list[Ranking]
    new_prompts: list[Ranking]
    """By labelers whose other rankings are trained on."""
    new_labelers: list[Ranking]
    """By labelers none of whose rankings are trained on."""
    num_set_aside: int
    """Rankings used for neither: a held-out labeler ranked the same prompt."""

    @property
    def held_out(self) -> list[Ranking]:
        """Everything to measure on."""
        return [*self.new_prompts, *self.new_labelers]


def usable(rankings: Sequence[Ranking]) -> list[Ranking]:
    """Rankings that prefer one response to another, less the responses that were not ranked."""
    return [_ranked_only(ranking) for ranking in rankings if ranking.has_pairs]


def split_rankings(rankings: Sequence[Ranking], *, labelers: Sequence[str], share: float, seed: int) -> RankingSplit:
    """Sets aside what `labelers` ranked, and a share of the other prompts. DataError where too little is left."""
    absent = sorted(set(labelers) - {ranking.labeler for ranking in rankings})
    if absent:
        raise DataError(f"no ranking is by the held-out labeler {absent[0]!r}; rows name theirs in the field labeler")
    new_labelers = [ranking for ranking in rankings if ranking.labeler in labelers]
    others = [ranking for ranking in rankings if ranking.labeler not in labelers]
    if len({_prompt(ranking) for ranking in others}) < 2:
        whose = " by labelers that are not held out" if labelers else ""
        raise DataError(f"training needs rankings{whose} of at least 2 different prompts, one of them to measure on")
    train, new_prompts = hold_out(others, _prompt, share=share, seed=seed)
    measured = {_prompt(ranking) for ranking in new_labelers}
    kept = [ranking for ranking in train if _prompt(ranking) not in measured]
    if not kept:
        raise DataError("held-out labelers ranked every prompt, so nothing is left to train on; hold out fewer of them")
    return RankingSplit(
        train=kept, new_prompts=new_prompts, new_labelers=new_labelers, num_set_aside=len(train) - len(kept)
    )


def _prompt(ranking: Ranking) -> str:
    return str(ranking.prompt)


def _ranked_only(ranking: Ranking) -> Ranking:
    places = [place for place, rank in enumerate(ranking.ranks) if rank >= 0]
    return replace(
        ranking,
        responses=[ranking.responses[place] for place in places],
        ranks=[ranking.ranks[place] for place in places],
    )

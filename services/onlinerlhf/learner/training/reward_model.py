"""Reward model training (Ouyang et al. 2022, section 3.5): from a policy and people's rankings to one score a response.

All pairs of a ranking are one batch element and each response is forwarded once, so a ranking of 9 costs 9 passes and
teaches 36 pairs, and no response is overfitted by being seen in 8 batches.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from onlinerlhf.algorithms.preference import preference_loss, ranking_pairs
from onlinerlhf.learner.training.config import TrainingConfig
from onlinerlhf.learner.training.data import Example, Ranking
from onlinerlhf.learner.training.loop import Outcome, fit
from onlinerlhf.learner.training.objective import Objective, mean_loss, shuffled
from onlinerlhf.learner.training.optimizers import adamw
from onlinerlhf.learner.training.progress import Reporter
from onlinerlhf.learner.training.run import RunDirectory
from onlinerlhf.learner.training.scoring import sequence_scores
from onlinerlhf.models.packed import pack, packed_scores
from onlinerlhf.models.policy import load_policy, prepared
from onlinerlhf.models.scalar import score_head

Optimizers = Callable[[PreTrainedModel, TrainingConfig], Sequence[torch.optim.Optimizer]]


def reward_model_from(path: Path, *, seed: int) -> PreTrainedModel:
    """A policy with its output layer replaced by one that gives a single score, near 0 at first."""
    policy = load_policy(path)
    config = type(policy.config)(**policy.config.to_dict())
    config.architectures, config.num_labels, config.score_offset = None, 1, 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        model.base_model.load_state_dict(policy.base_model.state_dict())
        torch.nn.init.normal_(score_head(model).weight, std=1.0 / (model.config.hidden_size + 1) ** 0.5)
    return prepared(model)


def train_on_rankings(
    model: PreTrainedModel,
    rankings: Sequence[Ranking],
    config: TrainingConfig,
    *,
    progress: Reporter,
    optimizers: Optimizers = adamw,
    run: RunDirectory | None = None,
    held_out: Sequence[Ranking] = (),
) -> Outcome:
    """Trains on rankings, each of which prefers one response to another; after an epoch measures those held out."""
    objective = ranking_objective(model)

    def evaluate(_: int) -> dict[str, float]:
        numbers = mean_loss(model, held_out, objective, micro_batch_tokens=config.micro_batch_tokens)
        return {f"held_out_{name}": number for name, number in numbers.items()}

    return fit(
        model,
        shuffled(rankings, batch_size=config.batch_size, seed=config.seed),
        objective,
        config,
        optimizers=optimizers,
        on_epoch=evaluate if held_out else None,
        run=run,
        progress=progress,
        name="reward model",
    )


def ranking_objective(model: PreTrainedModel) -> Objective[Ranking]:
    """-log sigmoid(r_w - r_l) in nats, mean over the pairs of a ranking, then over rankings. Ties are no pairs."""

    def loss(rankings: Sequence[Ranking]) -> tuple[Tensor, dict[str, float]]:
        ranks = _padded([torch.tensor(ranking.ranks) for ranking in rankings], filling=-1)
        scores = _padded(scores_of(model, rankings), filling=0.0)
        mean, stats = preference_loss(scores, ranking_pairs(ranks.to(scores.device)))
        return mean * len(rankings), {"pair_accuracy": stats.pair_accuracy * len(rankings)}

    return Objective(num_tokens=_num_tokens, weight=lambda _: 1.0, loss=loss)


def scores_of(model: PreTrainedModel, rankings: Sequence[Ranking]) -> list[Tensor]:
    """The scores of each ranking's responses, in one pass. Equal responses to a prompt are one sequence."""
    sequences: list[list[int]] = []
    places: list[list[int]] = []
    for ranking in rankings:
        texts = _different(ranking)
        first = len(sequences)
        sequences += [ranking.prompt + list(text) for text in texts]
        places.append([first + texts[tuple(response)] for response in ranking.responses])
    scores = packed_scores(model, pack(sequences, device=model.device))
    return [scores[indices] for indices in places]


def _different(ranking: Ranking) -> dict[tuple[int, ...], int]:
    """Each different response, and its number."""
    return {text: place for place, text in enumerate(dict.fromkeys(map(tuple, ranking.responses)))}


def _num_tokens(ranking: Ranking) -> int:
    return sum(len(ranking.prompt) + len(text) for text in _different(ranking))


def _padded(rows: Sequence[Tensor], *, filling: float) -> Tensor:
    """[N, K] of the longest row."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=filling)


@torch.no_grad()
def centre(model: PreTrainedModel, demonstrations: Sequence[Example], *, micro_batch_tokens: int) -> float:
    """Sets `score_offset` so that these demonstrations score 0 on average, and returns it.

    The loss sees only differences of scores, so their level is arbitrary until then.
    """
    if not demonstrations:
        raise ValueError("there are no demonstrations to centre scores on")
    model.config.score_offset = 0.0
    sequences = [example.prompt + example.response for example in demonstrations]
    scores = sequence_scores(model, sequences, max_tokens=micro_batch_tokens)
    model.config.score_offset = float(scores.double().mean())
    return float(model.config.score_offset)

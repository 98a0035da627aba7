"""The objective a second time, written from its formulas alone, to hold the package's answers against.

It shares nothing with what it checks: plain Python floats, no tensors, no masks. A batch is a list of rows, and a row
holds the tokens of one response and nothing else, so rows differ in length. Losses come with their gradients, derived
by hand. All logarithms are natural (nats).
"""

from dataclasses import dataclass
from math import exp, fsum, log, log1p, sqrt

Rows = list[list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A loss and what goes with it."""

    loss: float
    gradient: Rows
    """By the first argument of the function that returned this."""
    clipped: float
    """Share of tokens where clipping decides."""
    moved: float = 0.0
    """Mean of (log ratio)^2 / 2."""


def flat(rows: Rows) -> list[float]:
    """Every token of every row."""
    return [x for row in rows for x in row]


def kl(logprobs: Rows, ref_logprobs: Rows) -> tuple[Rows, Rows, Rows]:
    """k1, k2 and k3, token by token, from the probabilities' ratio r = p_ref / p."""
    k1: Rows = []
    k2: Rows = []
    k3: Rows = []
    for row, ref_row in zip(logprobs, ref_logprobs, strict=True):
        ratios = [exp(ref) / exp(own) for own, ref in zip(row, ref_row, strict=True)]
        k1.append([-log(r) for r in ratios])
        k2.append([log(r) ** 2 / 2 for r in ratios])
        k3.append([(r - 1) - log(r) for r in ratios])
    return k1, k2, k3


def token_rewards(kl_rows: Rows, scores: list[float], *, kl_coef: float) -> Rows:
    """-kl_coef k_t, and the score at the end."""
    rewards = [[-kl_coef * k for k in row] for row in kl_rows]
    for row, score in zip(rewards, scores, strict=True):
        if row:
            row[-1] += score
    return rewards


def gae(rewards: Rows, values: Rows, *, gamma: float, lambda_: float) -> tuple[Rows, Rows]:
    """Advantages and returns by the sum over all later temporal-difference errors, no recursion."""
    advantages: Rows = []
    returns: Rows = []
    for row_rewards, row_values in zip(rewards, values, strict=True):
        end = len(row_rewards)
        after = [*row_values[1:], 0.0]
        errors = [row_rewards[t] + gamma * after[t] - row_values[t] for t in range(end)]
        row = [fsum((gamma * lambda_) ** (u - t) * errors[u] for u in range(t, end)) for t in range(end)]
        advantages.append(row)
        returns.append([a + v for a, v in zip(row, row_values, strict=True)])
    return advantages, returns


def whiten(rows: Rows, *, shift_mean: bool, epsilon: float = 1e-8) -> Rows:
    """Variance 1 over all tokens; their mean becomes 0, or stays."""
    tokens = flat(rows)
    mean = fsum(tokens) / len(tokens)
    deviation = sqrt(fsum((x - mean) ** 2 for x in tokens) / len(tokens) + epsilon)
    return [[(x - mean) / deviation + (0.0 if shift_mean else mean) for x in row] for row in rows]


def missing_eos(
    scores: list[float], is_finished: list[bool], *, replace_with: float | None, penalty: float
) -> list[float]:
    """One of the two, for the unfinished."""
    result = []
    for score, finished in zip(scores, is_finished, strict=True):
        if finished:
            result.append(score)
        elif replace_with is not None:
            result.append(replace_with)
        else:
            result.append(score - penalty)
    return result


def importance(old: Rows, behaviour: Rows, *, max_weight: float) -> tuple[Rows, float, float, float]:
    """Truncated weights; their mean; the largest before truncation; the share that was truncated."""
    raw = [[exp(a) / exp(b) for a, b in zip(r, s, strict=True)] for r, s in zip(old, behaviour, strict=True)]
    weights = [[max_weight if w > max_weight else w for w in row] for row in raw]
    count = len(flat(raw))
    num_truncated = len([w for w in flat(raw) if w > max_weight])
    return weights, fsum(flat(weights)) / count, max(flat(raw)), num_truncated / count


def policy_loss(
    logprobs: Rows, old: Rows, advantages: Rows, weights: Rows, *, clip_range: float, num_tokens: int
) -> Loss:
    """A good token is worth at most 1 + eps times its advantage, a bad one costs at least 1 - eps times it."""
    losses, moves, gradient, num_clipped = [], [], [], 0
    for row in zip(logprobs, old, advantages, weights, strict=True):
        slopes = []
        for own, before, advantage, weight in zip(*row, strict=True):
            ratio = exp(own) / exp(before)
            if advantage > 0:
                is_clipped, bound = ratio > 1 + clip_range, 1 + clip_range
            else:
                is_clipped, bound = advantage < 0 and ratio < 1 - clip_range, 1 - clip_range
            losses.append(-weight * advantage * (bound if is_clipped else ratio))
            slopes.append(0.0 if is_clipped else -weight * advantage * ratio / num_tokens)
            moves.append((own - before) ** 2 / 2)
            num_clipped += is_clipped
        gradient.append(slopes)
    return Loss(
        loss=fsum(losses) / num_tokens,
        gradient=gradient,
        clipped=num_clipped / num_tokens,
        moved=fsum(moves) / num_tokens,
    )


def value_loss(values: Rows, old: Rows, returns: Rows, *, clip_range: float, num_tokens: int) -> Loss:
    """Half the larger squared error of the value and of the value held within the range of the old one."""
    losses, gradient, num_clipped = [], [], 0
    for row in zip(values, old, returns, strict=True):
        slopes = []
        for value, before, target in zip(*row, strict=True):
            held = min(max(value, before - clip_range), before + clip_range)
            error, held_error = value - target, held - target
            is_clipped = abs(held_error) > abs(error)
            losses.append((held_error if is_clipped else error) ** 2 / 2)
            # A value that is held does not move with the parameters.
            slopes.append(0.0 if is_clipped else error / num_tokens)
            num_clipped += is_clipped
        gradient.append(slopes)
    return Loss(loss=fsum(losses) / num_tokens, gradient=gradient, clipped=num_clipped / num_tokens)


def pair_loss(scores: Rows, ranks: list[list[int]]) -> tuple[float, Rows, float]:
    """Loss, gradient by the scores, and share of pairs in the right order; each averaged over prompts."""
    losses, accuracies, gradient = [], [], []
    for row, row_ranks in zip(scores, ranks, strict=True):
        ranked = [k for k in range(len(row)) if row_ranks[k] >= 0]
        pairs = [(w, k) for w in ranked for k in ranked if row_ranks[w] < row_ranks[k]]
        slopes = [0.0] * len(row)
        for winner, loser in pairs:
            wrong = 1 / (1 + exp(row[winner] - row[loser]))  # 1 - sigmoid(gap)
            slopes[winner] -= wrong / len(pairs) / len(scores)
            slopes[loser] += wrong / len(pairs) / len(scores)
        losses.append(fsum(log1p(exp(row[k] - row[w])) for w, k in pairs) / len(pairs))
        accuracies.append(sum(row[w] > row[k] for w, k in pairs) / len(pairs))
        gradient.append(slopes)
    return fsum(losses) / len(scores), gradient, fsum(accuracies) / len(scores)


def pretraining_loss(logprobs: list[float], *, coef: float, num_tokens: int) -> float:
    """coef times the mean surprise of the mix; the same slope for every token."""
    return coef * fsum(-x for x in logprobs) / num_tokens


def rloo(rewards: list[float], groups: list[int]) -> list[float]:
    """Each reward less the mean of the others' in its group."""
    result = []
    for i, reward in enumerate(rewards):
        others = [rewards[j] for j in range(len(rewards)) if groups[j] == groups[i] and j != i]
        result.append(reward - fsum(others) / len(others))
    return result


def grpo(rewards: list[float], groups: list[int], *, epsilon: float = 1e-4) -> list[float]:
    """Each reward in sample standard deviations of its group from the group's mean."""
    result = []
    for i, reward in enumerate(rewards):
        members = [rewards[j] for j in range(len(rewards)) if groups[j] == groups[i]]
        mean = fsum(members) / len(members)
        deviation = sqrt(fsum((x - mean) ** 2 for x in members) / (len(members) - 1))
        result.append((reward - mean) / (deviation + epsilon))
    return result


def log_softmax(logits: list[float]) -> list[float]:
    """Log-probabilities of one state."""
    total = fsum(exp(x) for x in logits)
    return [x - log(total) for x in logits]


def table_gradient(table: Rows, places: list[tuple[int, int]], slopes: list[float]) -> Rows:
    """Of a loss by the logits of each state, given its slope by the log-probability at each (state, token) drawn.

    d log p(token | state) / d logit(state, v) = [v = token] - p(v | state)
    """
    probabilities = [[exp(x) for x in log_softmax(logits)] for logits in table]
    gradient = [[0.0] * len(logits) for logits in table]
    for (state, token), slope in zip(places, slopes, strict=True):
        for v, p in enumerate(probabilities[state]):
            gradient[state][v] += slope * ((v == token) - p)
    return gradient

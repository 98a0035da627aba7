"""A sample on its way through the pipeline: prompt, then rollouts, then scores.

pool -> [prompts] -> [rollouts] -> [scored] -> trained
             any of them        -> dropped{reason}
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from onlinerlhf.core.errors import MalformedRecord


class Stage(StrEnum):
    """Where a pending sample waits. All but the pool are Redis streams."""

    POOL = "pool"
    PROMPTS = "prompts"
    ROLLOUTS = "rollouts"
    SCORED = "scored"


class Outcome(StrEnum):
    """The two ways a sample ends."""

    TRAINED = "trained"
    DROPPED = "dropped"


class DropReason(StrEnum):
    """Why an admitted sample was not trained."""

    STALE = "stale"
    """Sampled by a policy version further behind the learner than the staleness bound."""
    DEAD_LETTER = "dead_letter"
    """Its processing failed as often as the delivery limit allows."""
    MALFORMED = "malformed"
    """Its record could not be decoded, so no retry can help."""
    WITHDRAWN = "withdrawn"
    """Its owner withdrew consent."""
    ERASED = "erased"
    """Its owner was erased."""
    EXPIRED = "expired"
    """It waited longer than data are kept."""
    DISPLACED = "displaced"
    """Another prompt took its place: a longer turn of the same chat, or one that its owner's cap prefers."""


class FinishReason(StrEnum):
    """How a response ended. Never inferred from its length."""

    EOS = "eos"
    """The policy ended it; the end-of-sequence token is its last token."""
    LENGTH = "length"
    """Cut at max_tokens."""
    STOP = "stop"
    """Cut at a stop string that a user asked for. Never in training rollouts."""


class UseCase(StrEnum):
    """What a prompt asks for (Ouyang et al. 2022, table 1)."""

    GENERATION = "generation"
    OPEN_QA = "open_qa"
    CLOSED_QA = "closed_qa"
    BRAINSTORMING = "brainstorming"
    CHAT = "chat"
    REWRITE = "rewrite"
    SUMMARIZATION = "summarization"
    CLASSIFICATION = "classification"
    EXTRACT = "extract"
    OTHER = "other"


PLAYGROUND = "playground"
"""The one class of API keys whose prompts may be learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentProof:
    """Why a prompt may be learned from. No trainable prompt is without one."""

    key_class: str
    notice_version: str
    shown_at_seconds: float
    """When the owner was shown the notice, since 1970-01-01 UTC."""

    def __post_init__(self) -> None:
        if self.key_class != PLAYGROUND:
            raise MalformedRecord("a consent proof of a key that is not of the playground class")
        if not self.notice_version or not (math.isfinite(self.shown_at_seconds) and self.shown_at_seconds > 0):
            raise MalformedRecord("a consent proof without notice or time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """An admitted prompt: one pass (epoch) over one prompt of one user."""

    sample_id: str
    prompt_id: str
    """The admission that this sample repeats; equal for every epoch of one prompt."""
    owner: str
    """Keyed digest of organisation and user: whose it is, without saying who."""
    tenant: str
    """Keyed digest of the organisation, or of the owner where there is none."""
    consent: ConsentProof
    text: str
    token_ids: tuple[int, ...]
    """The rendered prompt as the policy reads it; never tokenised again."""
    epoch: int
    admitted_at_seconds: float
    """Since 1970-01-01 UTC."""
    use_case: UseCase = UseCase.OTHER
    use_case_source: str = "none"
    """client, rules or none."""
    traceparent: str = ""
    """W3C trace context of the request that brought it."""
    pii_kinds: tuple[str, ...] = ()
    """What was found in it and, by policy, replaced by placeholders or only noted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSpec:
    """How responses were drawn. Learning from anything but temperature 1 and top_p 1 needs these numbers."""

    num_responses: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSpan:
    """`num_tokens` consecutive response tokens sampled by one policy version."""

    version: int
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A sampled response with its evidence."""

    token_ids: tuple[int, ...]
    behaviour_logprobs: tuple[float, ...]
    """log pi_behaviour of each token, nats, recorded by the sampler."""
    version_spans: tuple[VersionSpan, ...]
    finish_reason: FinishReason

    def __post_init__(self) -> None:
        num_tokens = len(self.token_ids)
        if num_tokens == 0:
            raise MalformedRecord("a rollout has no tokens")
        if len(self.behaviour_logprobs) != num_tokens:
            raise MalformedRecord(f"{num_tokens} tokens but {len(self.behaviour_logprobs)} behaviour logprobs")
        if sum(span.num_tokens for span in self.version_spans) != num_tokens:
            raise MalformedRecord(f"the version spans do not cover the {num_tokens} tokens")
        if not all(math.isfinite(x) and x <= 1e-3 for x in self.behaviour_logprobs):
            raise MalformedRecord("a behaviour logprob is positive or not finite")

    @property
    def oldest_version(self) -> int:
        """The oldest policy version that sampled any of the tokens; staleness is counted from it."""
        return min(span.version for span in self.version_spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """A sample's responses."""

    prompt: Prompt
    sampling: SamplingSpec
    rollouts: tuple[Rollout, ...]
    worker_id: str

    def __post_init__(self) -> None:
        if not self.rollouts:
            raise MalformedRecord("a rollout group has no rollouts")

    @property
    def oldest_version(self) -> int:
        """The oldest policy version behind any token of the group."""
        return min(rollout.oldest_version for rollout in self.rollouts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroup:
    """A sample's responses with one reward-model score each, in the same order."""

    group: RolloutGroup
    scores: tuple[float, ...]
    reward_model_version: str

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.group.rollouts):
            raise MalformedRecord(f"{len(self.group.rollouts)} rollouts but {len(self.scores)} scores")
        if not all(math.isfinite(score) for score in self.scores):
            raise MalformedRecord("a score is not finite")
        if not self.reward_model_version:
            raise MalformedRecord("scores without the reward-model version that gave them")

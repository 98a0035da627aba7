"""The bodies of responses: OpenAI's shapes, and what is ours in them (sample_id, policy_version)."""

from typing import Literal, NotRequired

# The standard library's own has no schema before Python 3.12.
from typing_extensions import TypedDict

FinishWord = Literal["stop", "length"]


class ErrorObject(TypedDict):
    """What was wrong: never with a text that was sent."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(TypedDict):
    """Every answer that is not 2xx."""

    error: ErrorObject


class Usage(TypedDict):
    """Tokens used."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TopLogprob(TypedDict):
    """One of the likeliest tokens."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TypedDict):
    """A sampled token; `bytes` is null where it is a part of a character."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """Of every sampled token, the one that ended the answer included."""

    content: list[TokenLogprob]
    refusal: None


class AssistantMessage(TypedDict):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(TypedDict):
    """One answer."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishWord
    sample_id: str
    policy_version: int


class ChatCompletion(TypedDict):
    """Answers to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class Delta(TypedDict):
    """What is new."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]


class ChatChunkChoice(TypedDict):
    """The next piece of one answer; the last one has finish_reason and policy_version."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: FinishWord | None
    sample_id: str
    policy_version: NotRequired[int]


class ChatChunk(TypedDict):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: NotRequired[str]
    choices: list[ChatChunkChoice]
    usage: NotRequired[Usage | None]


class CompletionLogprobs(TypedDict):
    """Of the prompt's tokens, where echoed, and every sampled token. The first token of a prompt has none."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(TypedDict):
    """One continuation; in a stream the last piece has finish_reason and policy_version."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishWord | None
    sample_id: str
    policy_version: NotRequired[int]


class Completion(TypedDict):
    """Continuations of all prompts, n a prompt; in a stream also each event."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: NotRequired[str]
    choices: list[CompletionChoice]
    usage: NotRequired[Usage | None]


class ModelObject(TypedDict):
    """A model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    """All models."""

    object: Literal["list"]
    data: list[ModelObject]


class FeedbackObject(TypedDict):
    """Feedback is stored."""

    id: str
    object: Literal["feedback"]
    replayed: bool


class HealthObject(TypedDict):
    """Whether requests are served."""

    status: Literal["ok", "unavailable"]

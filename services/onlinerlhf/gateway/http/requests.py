"""The bodies of requests."""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from onlinerlhf.gateway.http.strictness import ANYTHING, UNSUPPORTED, StrictModel

MAX_PROMPTS: Final = 64
"""Of one completions request."""
MAX_CHOICES: Final = 128
"""Of one completions request: prompts times n."""

_SAMPLING: Final[dict[str, tuple[Any, ...]]] = {
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "metadata": (ANYTHING,),
    "presence_penalty": (None, 0),
    "prompt_cache_key": (ANYTHING,),
    "prompt_cache_retention": (ANYTHING,),
    "service_tier": (ANYTHING,),
    "store": (None, False),
}


def utf8(text: str) -> bytes:
    """What is no text is left for the desk to refuse: JSON can spell halves of characters, which UTF-8 cannot."""
    return text.encode("utf-8", "surrogatepass")


def _encodable(text: str) -> str:
    """Stops go to the rollout workers as they are."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _refused("stop", "holds half a character")
    return text


def _refused(param: str, message: str, *, kind: str = "invalid") -> PydanticCustomError:
    return PydanticCustomError(kind, "{message}", {"param": param, "message": message})


Stop = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_encodable)]
Word = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x20-\x7e]+$")]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
SampleId = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z_-]+$")]
UseCaseWord = Literal[
    "generation",
    "open_qa",
    "closed_qa",
    "brainstorming",
    "chat",
    "rewrite",
    "summarization",
    "classification",
    "extract",
    "other",
]


class ConsentFields(StrictModel):
    """Proof that the user allows learning from the prompt."""

    notice_version: Word = Field(description="A notice that the gateway knows.")
    shown_at: float = Field(
        ge=0, le=1e11, allow_inf_nan=False, description="When the user was shown it, in seconds since 1970-01-01 UTC."
    )


class StreamOptions(StrictModel):
    """What a stream holds beside the answer."""

    tolerated: ClassVar[dict[str, tuple[Any, ...]]] = {"include_obfuscation": (None, False)}

    include_usage: bool | None = Field(default=None, description="A last chunk with the usage.")


class SamplingFields(StrictModel):
    """What both kinds of completions take."""

    tolerated: ClassVar[dict[str, tuple[Any, ...]]] = _SAMPLING

    model: str = Field(min_length=1, max_length=256, description="As /v1/models lists it.")
    max_tokens: int | None = Field(default=None, ge=0, lt=2**31, description="Null: the gateway's default.")
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES, description="Answers to each prompt.")
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63, description="Repeatable from one policy version.")
    stop: Stop | Annotated[list[Stop], Field(max_length=4, fail_fast=True)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Word | None = Field(default=None, description="Whose prompt it is. Null: the one user named `default`.")
    safety_identifier: Word | None = Field(default=None, description="Stands for `user` where that is null.")
    consent: ConsentFields | None = Field(default=None, description="Null: answered, not learned from.")
    use_case: UseCaseWord | None = None

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> "SamplingFields":
        if self.stream_options is not None and not self.stream:
            raise _refused("stream_options", "only with stream")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """However they were written."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class TextPart(StrictModel):
    """A part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(StrictModel):
    """One turn."""

    tolerated: ClassVar[dict[str, tuple[Any, ...]]] = {
        "annotations": (None, []),
        "audio": (None,),
        "function_call": (None,),
        "name": (None,),
        "refusal": (None,),
        "tool_call_id": (None,),
        "tool_calls": (None, []),
    }

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=1_024, fail_fast=True)]

    @property
    def raw(self) -> bytes:
        """Text of all parts."""
        return utf8(self.content if isinstance(self.content, str) else "".join(part.text for part in self.content))


class ChatRequest(SamplingFields):
    """Answer a conversation."""

    tolerated: ClassVar[dict[str, tuple[Any, ...]]] = _SAMPLING | {
        "audio": (None,),
        "function_call": (None, "none", "auto"),
        "functions": (None, []),
        "modalities": (None, ["text"]),
        "parallel_tool_calls": (ANYTHING,),
        "prediction": (None,),
        "reasoning_effort": (None, "none"),
        "response_format": (None, {"type": "text"}),
        "tool_choice": (None, "none", "auto"),
        "tools": (None, []),
        "verbosity": (None, "medium"),
        "web_search_options": (None,),
    }

    messages: Annotated[list[ChatMessage], Field(fail_fast=True)] = Field(
        min_length=1, max_length=1_024, description="The last one is the user's."
    )
    max_tokens: int | None = Field(default=None, ge=1, lt=2**31, description="Null: the gateway's default.")
    max_completion_tokens: int | None = Field(
        default=None, ge=1, lt=2**31, description="Counts before max_tokens. Null: the gateway's default."
    )
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)

    @model_validator(mode="after")
    def _top_of_what(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise _refused("top_logprobs", "only with logprobs")
        return self


class CompletionRequest(SamplingFields):
    """Go on from raw text or tokens, without the chat template. Never learned from."""

    tolerated: ClassVar[dict[str, tuple[Any, ...]]] = _SAMPLING | {"suffix": (None, "")}

    prompt: (
        str
        | TokenIds
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
    )
    best_of: int | None = Field(default=None, ge=1, le=MAX_CHOICES, description="Only what n is.")
    echo: bool | None = Field(default=None, description="The prompt comes back before each answer.")
    logprobs: int | None = Field(
        default=None,
        ge=0,
        le=20,
        description="So many likeliest tokens at each position; with echo, of the prompt too.",
    )
    max_tokens: int | None = Field(
        default=None, ge=0, lt=2**31, description="Null: the gateway's default. 0 only with echo."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "CompletionRequest":
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise _refused("best_of", "only what n is", kind=UNSUPPORTED)
        if self.max_tokens == 0 and not self.echo:
            raise _refused("max_tokens", "0 only with echo")
        if len(self.prompts) * (self.n or 1) > MAX_CHOICES:
            raise _refused("n", f"prompts times n is at most {MAX_CHOICES}")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """However they were written."""
        match self.prompt:
            case str() as text:
                return [text]
            case [int(), *_] as token_ids:
                return [[each for each in token_ids if isinstance(each, int)]]
            case several:
                return [each for each in several if not isinstance(each, int)]

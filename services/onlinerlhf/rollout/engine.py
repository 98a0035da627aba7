"""vLLM's AsyncLLM, and nothing of vLLM beyond this file (and weight_transfer.py, plugin.py, inside its processes).

Which version sampled a token is decided inside the engine process: it stamps every step's outputs with the label set by
`finish_weight_update(weight_version=...)`. `pause(keep)` is acknowledged only when no step is left to run, the label is
set between that and the resume, and no step runs in between; so the stamp is exact, to the token, for every request in
flight, however late its outputs are read here.

Log-probabilities are always `processed_logprobs`: of the distribution the token was drawn from, after temperature and
top-p. At temperature 1 and top-p 1 they are the model's own; with any other spec raw ones would leave the temperature
and log(kept mass) in every importance ratio. At temperature 0 they are the model's own too: vLLM takes a greedy request
at temperature 1 and top-p 1 through the sampler, alone or in a batch with others, and then picks the likeliest token.
A prompt's are the model's own whatever the spec.
"""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from vllm import AsyncEngineArgs, SamplingParams
from vllm.config import WeightTransferConfig
from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import tokens_input
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import output_processor
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.engine.logprobs import LogprobsProcessor

from onlinerlhf.core.errors import InvalidInput, StartupError, Unavailable, WaitTimeout
from onlinerlhf.core.samples import Rollout, SamplingSpec
from onlinerlhf.rollout import metrics, plugin
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.rollout.evidence import Piece, piece_from, rollout_from
from onlinerlhf.rollout.usage import Usage

log = logging.getLogger(__name__)

_WARM_UP_TOKENS = 4


class Lane(IntEnum):
    """vLLM's priority: lower is scheduled first."""

    USER = 0
    TRAINING = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a user may ask for beyond a SamplingSpec. Training has none."""

    seed: int | None = None
    stop: tuple[str, ...] = ()
    """The response ends before the first of these in its text. The tokens that make it up are still reported."""
    num_top_logprobs: int = 0
    with_prompt_logprobs: bool = False


class EngineLost(Unavailable):
    """The engine process died, or took weights halfway. Nothing it holds can be used; the service must end."""


class IdLogprobs(LogprobsProcessor):
    """Log-probabilities by token id. vLLM's own decodes every candidate too, on this event loop, and nobody here reads
    that: a prompt of 480 tokens with the 20 likeliest at each held up all other requests for 124 ms, without for 13."""

    @classmethod
    def from_new_request(cls, tokenizer: Any, request: Any) -> LogprobsProcessor:
        """Without the tokenizer, which nothing but the decoding needs."""
        del tokenizer
        return super().from_new_request(None, request)


class Engine:
    """Samples token ids from token ids, in two lanes, and takes verified weights between two steps."""

    def __init__(self, config: RolloutConfig, *, usage: Usage, clock: Callable[[], float] = time.monotonic) -> None:
        self.version = 0
        """The label: the newest version applied. 0: only the model directory's own weights, which serve nobody."""
        self.max_model_len = 0
        """Most tokens of a prompt with its response; known once started."""
        self._config = config
        self.usage = usage
        self._clock = clock
        self._llm: Any = None
        self._open = asyncio.Event()
        self._lost = ""

    async def start(self) -> None:
        """Load the model directory, start vLLM's processes and run one batch: the first is ten times slower."""
        try:
            # Not on the event loop: it blocks until the engine process has loaded the model.
            self._llm = await asyncio.to_thread(AsyncLLM.from_engine_args, _engine_args(self._config))
            async with asyncio.timeout(self._config.start_timeout_seconds):
                await self._warm_up()
        except TimeoutError as error:
            raise StartupError(
                f"vLLM did not finish its first batch in {self._config.start_timeout_seconds:g} s"
            ) from error
        except (EngineDeadError, RuntimeError, ValueError, OSError, ExceptionGroup) as error:
            raise StartupError(f"vLLM cannot start on {self._config.model_dir}: {_first_line(error)}") from error
        self.max_model_len = self._llm.model_config.max_model_len
        # What was imported lives for ever: full collections need not walk it while tokens come in.
        gc.collect()
        gc.freeze()
        self._open.set()

    async def close(self) -> None:
        """End vLLM's processes. They have nothing to save, so they are not given long to say goodbye."""
        llm, self._llm = self._llm, None
        if llm is None:
            return
        self._lost = self._lost or "the engine is closed"
        if llm.output_handler is not None:
            # Or it would report as an error that the engine has gone.
            llm.output_handler.cancel()
        await asyncio.to_thread(llm.shutdown, timeout=1.0)
        # It has left the closing of its sockets to this loop, and never closes their context.
        await asyncio.sleep(0)
        llm.engine_core.resources.ctx.destroy(linger=0)

    def trouble(self) -> str:
        """Why the engine is lost: its process died, or it was left with half a version. Empty: it is not."""
        if not self._lost and self._llm is not None and self._llm.errored:
            self._lost = "the vLLM engine process died"
        return self._lost

    def check(self) -> None:
        """Raises EngineLost when it is."""
        if trouble := self.trouble():
            raise EngineLost(trouble)

    async def sample(
        self, prompt_token_ids: Sequence[int], spec: SamplingSpec, *, request_id: str, lane: Lane = Lane.TRAINING
    ) -> tuple[Rollout, ...]:
        """`spec.num_responses` rollouts with their evidence; all or an error."""
        final: RequestOutput | None = None
        with self.usage.request():
            try:
                async with (
                    asyncio.timeout(self._config.sample_timeout_seconds),
                    aclosing(self._outputs(prompt_token_ids, _final_params(spec), request_id, lane)) as outputs,
                ):
                    async for output in outputs:
                        final = output
            except TimeoutError as error:
                raise WaitTimeout(f"no response in {self._config.sample_timeout_seconds:g} s of sampling") from error
            if final is None or len(final.outputs) != spec.num_responses:
                raise Unavailable("the engine gave fewer responses than asked for")
            rollouts = tuple(rollout_from(output) for output in final.outputs)
            self._count(sum(len(rollout.token_ids) for rollout in rollouts), lane)
        return rollouts

    async def stream(
        self, prompt_token_ids: Sequence[int], spec: SamplingSpec, *, request_id: str, wishes: Wishes
    ) -> AsyncGenerator[Piece, None]:
        """One response for a user, piece by piece, ahead of training. Closing the iterator aborts it in the engine."""
        params = _params(spec, kind=RequestOutputKind.DELTA, wishes=wishes)
        with self.usage.request():
            async with aclosing(self._outputs(prompt_token_ids, params, request_id, Lane.USER)) as outputs:
                async for output in outputs:
                    piece = piece_from(output, num_top_logprobs=wishes.num_top_logprobs)
                    self._count(len(piece.token_ids), Lane.USER)
                    yield piece

    async def apply(self, path: Path, version: int) -> float:
        """Switch to a staged, verified version. Requests in flight keep their KV cache and go on.

        Returns the seconds between asking for the pause and the resume. Any failure, a cancellation too, loses the
        engine: layers may hold either version.
        """
        self.check()
        self._open.clear()
        started = self._clock()
        try:
            await self._switch(path, version)
        except BaseException:
            self._lost = f"applying version {version} did not finish"
            raise
        self.version = version
        self.usage.start_clock()
        self._open.set()
        return self._clock() - started

    async def _switch(self, path: Path, version: int) -> None:
        async with asyncio.timeout(self._config.apply_timeout_seconds):
            # AsyncLLM.pause_generation is this call and 20 ms of sleep that it does not need.
            await self._llm.engine_core.pause_scheduler_async(mode="keep", clear_cache=False)
            await self._llm.start_weight_update()
            await self._llm.update_weights(WeightTransferUpdateRequest(update_info={"path": str(path)}))
            await self._llm.finish_weight_update(weight_version=str(version))
            await self._llm.resume_generation()

    async def _outputs(
        self, prompt_token_ids: Sequence[int], params: SamplingParams, request_id: str, lane: Lane
    ) -> AsyncGenerator[RequestOutput, None]:
        """A request's outputs. Nothing is submitted while weights change, so its cache salt names the right version."""
        async with asyncio.timeout(self._config.apply_timeout_seconds):
            await self._open.wait()
        self.check()
        # KV blocks of one version are never a prefix of another's.
        prompt = tokens_input(list(prompt_token_ids), cache_salt=f"v{self.version}")
        try:
            async with aclosing(self._llm.generate(prompt, params, request_id, priority=int(lane))) as outputs:
                async for output in outputs:
                    yield output
        except VLLMClientError as error:
            raise InvalidInput(
                f"the engine refuses a prompt of {len(prompt_token_ids)} tokens", reason="unsampleable"
            ) from error
        except (EngineDeadError, EngineGenerateError) as error:
            self.check()
            raise Unavailable("the engine failed on a request") from error

    def _count(self, num_tokens: int, lane: Lane) -> None:
        self.usage.tokens(num_tokens)
        metrics.TOKENS.labels(lane=lane.name.lower()).inc(num_tokens)

    async def _warm_up(self) -> None:
        params = _params(SamplingSpec(num_responses=1, max_tokens=_WARM_UP_TOKENS), kind=RequestOutputKind.FINAL_ONLY)
        prompts = [tokens_input([1 + index % 7] * 16) for index in range(min(32, self._config.max_concurrent_samples))]

        async def one(index: int, prompt: Any) -> None:
            async for _ in self._llm.generate(prompt, params, f"warm-up-{index}"):
                pass

        async with asyncio.TaskGroup() as group:
            for index, prompt in enumerate(prompts):
                group.create_task(one(index, prompt), name=f"warm-up-{index}")


def _engine_args(config: RolloutConfig) -> AsyncEngineArgs:
    plugin.register()
    output_processor.LogprobsProcessor = IdLogprobs
    logging.getLogger("vllm").setLevel(logging.WARNING)
    return AsyncEngineArgs(
        model=str(config.model_dir),
        dtype=config.dtype,
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_sequences,
        kv_cache_memory_bytes=config.kv_cache_bytes,
        gpu_memory_utilization=config.gpu_memory_utilization,
        enforce_eager=config.enforce_eager,
        enable_prefix_caching=config.prefix_caching,
        seed=config.seed,
        scheduling_policy="priority",
        logprobs_mode="processed_logprobs",
        # A model directory's own sampling defaults must not change what a spec says; its stop tokens still count.
        generation_config="auto",
        weight_transfer_config=WeightTransferConfig(backend=plugin.BACKEND),
        disable_log_stats=True,
    )


@lru_cache(maxsize=64)
def _final_params(spec: SamplingSpec) -> SamplingParams:
    """One object a spec: building and checking it costs more than a step's share of a request."""
    return _params(spec, kind=RequestOutputKind.FINAL_ONLY)


def _params(spec: SamplingSpec, *, kind: RequestOutputKind, wishes: Wishes | None = None) -> SamplingParams:
    """`wishes` are a user's, who also gets text; None: training."""
    asked = wishes or Wishes()
    return SamplingParams(
        n=spec.num_responses,
        temperature=spec.temperature,
        top_p=spec.top_p,
        max_tokens=spec.max_tokens,
        stop_token_ids=list(spec.stop_token_ids),
        stop=list(asked.stop),
        seed=asked.seed,
        logprobs=asked.num_top_logprobs,
        prompt_logprobs=asked.num_top_logprobs if asked.with_prompt_logprobs else None,
        flat_logprobs=True,
        detokenize=wishes is not None,
        output_kind=kind,
        skip_clone=True,
    )


def _first_line(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return _first_line(error.exceptions[0])
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

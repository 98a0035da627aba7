"""A rollout room without Redis: real vLLM, a real WeightService and a real RolloutService, on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from safetensors.numpy import load_file

from e2e.rollout.weight_server import Tensors, WeightServer
from onlinerlhf.core.samples import Rollout, SamplingSpec
from onlinerlhf.learner.bootstrap.tiny import tiny_models
from onlinerlhf.models.policy import load_policy
from onlinerlhf.rollout import environment
from onlinerlhf.rollout.admission import Admission
from onlinerlhf.rollout.app import model_shapes
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.rollout.learner_source import LearnerSource
from onlinerlhf.rollout.staging import Staging
from onlinerlhf.rollout.updater import Updater
from onlinerlhf.rollout.usage import Usage
from onlinerlhf.runtime import channels
from onlinerlhf.runtime.health import Health
from onlinerlhf.v1 import rollout_pb2_grpc
from padded_passes import token_logprobs

SPEC = SamplingSpec(num_responses=1, max_tokens=32)
PROMPT = (5, 6, 7, 8, 9, 10)


@dataclass
class Room:
    """The parts, and what a test needs to judge them."""

    engine: Any
    updater: Updater
    staging: Staging
    learner: WeightServer
    model_dir: Path
    stub: Any = None
    sleeps: list[float] = field(default_factory=list)
    numbers: int = 0

    def initial(self) -> Tensors:
        tensors: Tensors = load_file(self.model_dir / "model.safetensors")
        return tensors

    async def sample(self, prompt: tuple[int, ...] = PROMPT, spec: SamplingSpec = SPEC) -> Rollout:
        self.numbers += 1
        rollouts: tuple[Rollout, ...] = await self.engine.sample(prompt, spec, request_id=f"test-{self.numbers}")
        return rollouts[0]

    async def fresh_error(self, tensors: Tensors, prompt: tuple[int, ...] = PROMPT) -> float:
        """Largest difference, in nats, of a fresh request's logprobs and the weights' own forward pass."""
        rollout = await self.sample(prompt)
        assert rollout.version_spans[-1].version == self.engine.version
        assert len(rollout.version_spans) == 1
        return float(np.abs(self.errors(tensors, prompt, rollout)).max())

    def errors(
        self, tensors: Tensors, prompt: tuple[int, ...], rollout: Rollout, *, temperature: float = 1.0
    ) -> np.ndarray:
        """Recorded minus recomputed logprob of each response token, nats."""
        model = load_policy(self.model_dir)
        model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()}, strict=False)
        model.tie_weights()
        ids = torch.tensor([[*prompt, *rollout.token_ids]])
        with torch.no_grad():
            recomputed = token_logprobs(model, ids, torch.ones_like(ids), temperature=temperature)[0, len(prompt) - 1 :]
        errors: np.ndarray = np.asarray(rollout.behaviour_logprobs) - recomputed.numpy()
        return errors


def moved(tensors: Tensors, seed: int, *, scale: float = 0.05, only: Callable[[str], bool] = lambda _: True) -> Tensors:
    """A version whose named tensors differ a lot from their parent's."""
    generator = np.random.default_rng(seed)
    return {
        name: value + scale * generator.normal(size=value.shape).astype(np.float32) if only(name) else value
        for name, value in tensors.items()
    }


async def eventually(condition: Callable[[], bool], *, seconds: float) -> None:
    """Until the condition holds; fails after `seconds`."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"did not come true in {seconds:g} s")


@asynccontextmanager
async def open_room(directory: Path, *, tied: bool) -> AsyncIterator[Room]:
    await asyncio.to_thread(tiny_models, directory / "models", tie_word_embeddings=tied, seed=0)
    learner = WeightServer()
    await learner.start()
    config = RolloutConfig(
        model_dir=directory / "models" / "sft",
        learner_target=learner.target,
        staging_dir=directory / "staging",
        max_concurrent_samples=64,
        max_user_requests=4,
        max_model_len=512,
        manifest_wait_seconds=0.2,
        kv_cache_bytes=256 * 1024**2,
    )
    environment.prepare(config)
    from onlinerlhf.rollout.engine import Engine
    from onlinerlhf.rollout.service import RolloutServicer

    usage, health = Usage(), Health("rollout")
    engine = Engine(config, usage=usage)
    channel = channels.open_channel(config.learner_target)
    sleeps: list[float] = []

    async def no_sleep(seconds: float) -> None:
        sleeps.append(seconds)

    source = LearnerSource(channel, fetch_timeout_seconds=30)
    staging = Staging(source, config.staging_dir, expected_shapes=model_shapes(config.model_dir), sleep=no_sleep)
    staging.clear()
    updater = Updater(source, staging, engine, health, manifest_wait_seconds=0.2, sleep=no_sleep)
    admission = Admission(updater, max_versions_behind=1)
    server = grpc.aio.server()
    servicer = RolloutServicer(engine, updater, usage, config, refusal=admission.refusal)
    rollout_pb2_grpc.add_RolloutServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    room = Room(engine, updater, staging, learner, config.model_dir, sleeps=sleeps)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as user_channel:
            room.stub = rollout_pb2_grpc.RolloutServiceStub(user_channel)
            await engine.start()
            room.learner.publish(room.initial())
            assert await updater.update_once()
            yield room
    finally:
        await server.stop(0)
        await channel.close()
        await learner.stop()
        await engine.close()

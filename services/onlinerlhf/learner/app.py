"""Composition root of the learner."""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import torch
from transformers.utils.logging import disable_progress_bar

from onlinerlhf.core.errors import StartupError, Unavailable
from onlinerlhf.learner.checkpoint import Progress
from onlinerlhf.learner.config import LearnerConfig
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.learner.publisher import Publisher
from onlinerlhf.learner.service import LearnerServicer
from onlinerlhf.learner.status import Status
from onlinerlhf.learner.versions import VersionStore
from onlinerlhf.learner.weight_service import WeightServicer
from onlinerlhf.learner.worker import LearnerWorker
from onlinerlhf.models.policy import load_policy
from onlinerlhf.models.scalar import value_model_from_reward
from onlinerlhf.runtime import config as configs
from onlinerlhf.runtime import logs, redis, serving
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.v1 import learner_pb2, learner_pb2_grpc, weights_pb2, weights_pb2_grpc


def build_ppo(config: LearnerConfig) -> PPO:
    """Models as they start: the policy, its frozen reference, and a value network that starts as the reward model."""
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    try:
        policy = load_policy(config.policy_dir)
        reference = load_policy(config.reference_dir or config.policy_dir)
        value = value_model_from_reward(config.reward_dir)
    except (OSError, ValueError) as error:
        where = f"policy {config.policy_dir}, reward model {config.reward_dir}"
        raise StartupError(f"cannot load the models ({where}): {error}") from error
    if reference.config.vocab_size != policy.config.vocab_size or value.config.vocab_size != policy.config.vocab_size:
        raise StartupError("policy, reference and reward model differ in their vocabularies' sizes")
    for model in (policy, reference, value):
        model.to(config.device)
    return PPO(policy=policy, reference=reference, value=value, config=config)


@contextmanager
def sole_owner(output_dir: Path) -> Iterator[None]:
    """One learner an output directory. The lock goes with the process, however that ends."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        lock = (output_dir / "lock").open("w")
    except OSError as error:
        raise StartupError(f"cannot use {output_dir}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartupError(f"another learner works in {output_dir}") from None
        yield


async def run() -> None:
    """Read the settings, serve and learn until told to stop."""
    run_config, config = configs.load("learner", LearnerConfig)
    logs.setup("learner", level=run_config.log_level)
    disable_progress_bar()
    health = Health("learner")
    health.set("policy", ok=False, reason="starting")
    dtype: torch.dtype = getattr(torch, config.publish_dtype)
    publisher = Publisher(VersionStore(config.output_dir / "versions", dtype=dtype, keep=config.keep_versions))
    status = Status(batch_size=config.batch_size)
    client = redis.connect(run_config)
    worker = LearnerWorker(
        config=config,
        build=partial(build_ppo, config),
        redis=client,
        keys=RunKeys(run_config.id),
        publisher=publisher,
        health=health,
        status=status,
    )

    async def checkpoint() -> Progress:
        if worker.saver is None:
            raise Unavailable("the learner is starting, or starting again")
        return await worker.saver.requested()

    def register(server: grpc.aio.Server) -> Sequence[str]:
        weights_pb2_grpc.add_WeightServiceServicer_to_server(WeightServicer(publisher), server)
        learner_pb2_grpc.add_LearnerServiceServicer_to_server(LearnerServicer(status, checkpoint), server)
        return [
            weights_pb2.DESCRIPTOR.services_by_name["WeightService"].full_name,
            learner_pb2.DESCRIPTOR.services_by_name["LearnerService"].full_name,
        ]

    with sole_owner(config.output_dir):
        try:
            await serving.run_service(
                "learner",
                config,
                health=health,
                register=register,
                background={"worker": worker.run, "offers": publisher.close_at},
            )
        finally:
            await client.aclose()

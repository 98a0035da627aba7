"""Composition root of the learner."""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
from transformers.utils.logging import disable_progress_bar

from onlinerlhf.core.errors import StartupError, Unavailable
from onlinerlhf.learner.build import build_ppo
from onlinerlhf.learner.checkpoint import Progress
from onlinerlhf.learner.config import LearnerConfig
from onlinerlhf.learner.followers import follow, leading
from onlinerlhf.learner.lines import open_lines
from onlinerlhf.learner.ranks import Ranks
from onlinerlhf.learner.service import LearnerServicer
from onlinerlhf.learner.sharding import meeting
from onlinerlhf.learner.status import Status
from onlinerlhf.learner.weight_service import WeightServicer
from onlinerlhf.learner.worker import LearnerWorker
from onlinerlhf.runtime import config as configs
from onlinerlhf.runtime import logs, redis, serving, tracing
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.v1 import learner_pb2, learner_pb2_grpc, weights_pb2, weights_pb2_grpc


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
    """Read the settings, serve and learn until told to stop. Under torchrun rank 0 does so, and the others follow."""
    run_config, config = configs.load("learner", LearnerConfig)
    logs.setup("learner", level=run_config.log_level)
    tracing.setup("learner", run_id=run_config.id)
    disable_progress_bar()
    with meeting(config) as (ranks, store):
        if store is None:
            await _serve(run_config, config, ranks)
        elif ranks.rank == 0:
            with leading(ranks, store) as leader:
                await _serve(run_config, config, leader)
        else:
            logs.setup(f"learner rank {ranks.rank}", level=run_config.log_level)
            follow(ranks, store, partial(build_ppo, config, ranks))


async def _serve(run_config: RunConfig, config: LearnerConfig, ranks: Ranks) -> None:
    health = Health("learner")
    health.set("policy", ok=False, reason="starting")
    lines = open_lines(config)
    status = Status(batch_size=config.batch_size)
    client = redis.connect(run_config)
    worker = LearnerWorker(
        config=config,
        build=partial(build_ppo, config, ranks),
        redis=client,
        keys=RunKeys(run_config.id),
        lines=lines,
        health=health,
        status=status,
    )

    async def checkpoint() -> Progress:
        if worker.saver is None:
            raise Unavailable(f"the learner saves nothing now: it is {status.phase}")
        return await worker.saver.requested()

    def register(server: grpc.aio.Server) -> Sequence[str]:
        weights_pb2_grpc.add_WeightServiceServicer_to_server(WeightServicer(lines), server)
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
                background={"worker": worker.run, "offers": lines.close_at},
            )
        finally:
            await client.aclose()

"""Composition root of the rollout room.

engine ──started──► weights (pull and apply the current version) ──version applied──► work ([prompts] -> [rollouts])
   └ process died, or an update failed halfway: the service ends non-zero and whoever supervises it starts it afresh
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import grpc
from redis.asyncio import Redis

from onlinerlhf.core.errors import StartupError
from onlinerlhf.core.samples import Stage
from onlinerlhf.rollout import environment, metrics, staged_file
from onlinerlhf.rollout.admission import Admission, cordon_shown, show_cordon
from onlinerlhf.rollout.config import RolloutConfig
from onlinerlhf.rollout.learner_source import LearnerSource
from onlinerlhf.rollout.lifecycle import EngineKeeper
from onlinerlhf.rollout.staging import Staging
from onlinerlhf.rollout.updater import Updater
from onlinerlhf.rollout.usage import Usage
from onlinerlhf.rollout.worker import RolloutWorker, Sampler
from onlinerlhf.runtime import channels, logs, redis, serving, tracing
from onlinerlhf.runtime import config as configs
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.health import Health
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.streams import Consumer, Streams
from onlinerlhf.v1 import rollout_pb2, rollout_pb2_grpc


async def run() -> None:
    """Read the settings, compose the room, serve and work until told to stop."""
    run_config, config = configs.load("rollout", RolloutConfig)
    logs.setup("rollout", level=run_config.log_level)
    tracing.setup("rollout", run_id=run_config.id)
    await compose(run_config, config)


async def compose(run_config: RunConfig, config: RolloutConfig) -> None:
    """The room from its settings."""
    environment.prepare(config)
    # These import vLLM, which reads the environment as it is imported.
    from onlinerlhf.rollout.engine import Engine
    from onlinerlhf.rollout.service import RolloutServicer

    health = Health("rollout", learning_only=("redis", "weight_updates", "work"))
    usage = Usage()
    engine = Engine(config, usage=usage)
    keeper = EngineKeeper(engine, health)
    client = redis.connect(run_config)
    channel = channels.open_channel(
        config.learner_target, tls=config.client_tls(), max_message_bytes=config.max_message_bytes
    )
    source = LearnerSource(channel, fetch_timeout_seconds=config.fetch_timeout_seconds, line=config.weights_line)
    staging = Staging(source, config.staging_dir, expected_shapes=model_shapes(config.model_dir))
    updater = Updater(source, staging, engine, health, manifest_wait_seconds=config.manifest_wait_seconds)
    admission = Admission(updater, max_versions_behind=config.max_versions_behind, is_draining=lambda: health.draining)
    worker = _worker(config, client, RunKeys(run_config.id), engine, health, refusal=admission.refusal)
    metrics.IN_FLIGHT.set_function(lambda: usage.num_in_flight)
    metrics.IDLE_SHARE.set_function(lambda: usage.idle_share)

    def register(server: grpc.aio.Server) -> Sequence[str]:
        servicer = RolloutServicer(
            engine, updater, usage, config, refusal=lambda version: cordon_shown(health) or admission.refusal(version)
        )
        rollout_pb2_grpc.add_RolloutServiceServicer_to_server(servicer, server)
        return [rollout_pb2.DESCRIPTOR.services_by_name["RolloutService"].full_name]

    try:
        await serving.run_service(
            "rollout",
            config,
            health=health,
            register=register,
            background={
                "engine_process": keeper.run,
                "weight_updates": keeper.once_started(updater.run),
                "work": keeper.once_started(worker.run),
            },
        )
    finally:
        await engine.close()
        await channel.close()
        await client.aclose()


def _worker(
    config: RolloutConfig,
    client: Redis,
    keys: RunKeys,
    engine: Sampler,
    health: Health,
    *,
    refusal: Callable[[int], str],
) -> RolloutWorker:
    """The loop on the run's streams."""
    patience = redis.Patience(health)
    consumer = Consumer(
        client,
        keys,
        Stage.PROMPTS,
        name=config.worker_id,
        patience=patience,
        lease_seconds=config.lease_seconds,
        delivery_limit=config.delivery_limit,
    )
    streams = Streams(client, keys, patience=patience)
    return RolloutWorker(consumer, streams, engine, config, refusal=refusal, tell_cordoned=partial(show_cordon, health))


def model_shapes(model_dir: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that the directory's model needs. Raises StartupError."""
    try:
        files = sorted(model_dir.glob("*.safetensors"))
        config = json.loads((model_dir / "config.json").read_text())
        shapes = {name: shape for file in files for name, shape in staged_file.read_shapes(file).items()}
    except (OSError, ValueError) as error:
        raise StartupError(f"cannot read the model directory {model_dir}: {error}") from error
    if not shapes:
        raise StartupError(f"{model_dir} has no .safetensors file")
    if config.get("tie_word_embeddings", False):
        # Some checkpoints store the shared weight a second time.
        shapes.pop("lm_head.weight", None)
    return shapes

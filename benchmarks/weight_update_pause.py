"""Seconds for which a weight update stops generation, with 64 requests in flight.

From the request to pause until the engine has resumed: the end of the step in progress, loading, repacking. Fetching,
checksums and assembly happen before, while the engine generates.
"""

import asyncio
import shutil
import statistics
import tempfile
from pathlib import Path

from claims import Claim
from rollout_engine import MAX_TOKENS, make_model, make_prompts, settings

from onlinerlhf.core.samples import SamplingSpec
from onlinerlhf.rollout import environment
from onlinerlhf.rollout.config import RolloutConfig

NUM_UPDATES = 12
GOAL_SECONDS = 0.1


def main() -> list[Claim]:
    """The median of a dozen updates."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        config = settings(make_model(directory), directory)
        environment.prepare(config)
        pauses = asyncio.run(_measure(config, directory))
    value = statistics.median(pauses)
    return [Claim(name="weight_update_pause", value=value, unit="s", goal="<0.1", ok=value < GOAL_SECONDS)]


async def _measure(config: RolloutConfig, directory: Path) -> list[float]:
    from onlinerlhf.rollout.engine import Engine
    from onlinerlhf.rollout.usage import Usage

    engine = Engine(config, usage=Usage())
    staged = directory / "staged.safetensors"
    shutil.copy(config.model_dir / "model.safetensors", staged)
    spec = SamplingSpec(num_responses=1, max_tokens=4 * MAX_TOKENS)
    stop = asyncio.Event()

    async def keep_busy(number: int, prompt: tuple[int, ...]) -> None:
        turn = 0
        while not stop.is_set():
            await engine.sample(prompt, spec, request_id=f"{number}-{turn}")
            turn += 1

    try:
        await engine.start()
        await engine.apply(staged, 1)
        pauses = []
        async with asyncio.TaskGroup() as group:
            for number, prompt in enumerate(make_prompts(config.max_concurrent_samples)):
                group.create_task(keep_busy(number, prompt), name=f"busy-{number}")
            for version in range(2, 2 + NUM_UPDATES):
                await asyncio.sleep(0.5)
                pauses.append(await engine.apply(staged, version))
            stop.set()
        return pauses
    finally:
        await engine.close()


if __name__ == "__main__":
    for claim in main():
        print(claim)

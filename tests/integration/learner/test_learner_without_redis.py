from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from integration.learner.learning import Source, learner_config, learning
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.runtime import redis
from onlinerlhf.runtime.config import RunConfig
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from redis_servers import RedisServer
from unit.learner.tiny import tiny_ppo


async def test_redis_killed_in_the_middle_of_a_step_is_waited_for_and_nothing_is_trained_twice(
    new_redis_server: Callable[..., RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_redis_server()
    client = redis.connect(RunConfig(id="outage", redis_url=SecretStr(server.url)))
    keys = RunKeys("outage")
    ids = [f"p{number}.0" for number in range(8)]
    await Source(client, keys).put_scored(ids)
    step = PPO.step
    killed: list[bool] = []

    def step_without_redis(ppo: PPO, rollouts: object) -> object:
        if not killed:
            killed.append(True)
            server.kill()
        return step(ppo, rollouts)  # type: ignore[arg-type]

    monkeypatch.setattr(PPO, "step", step_without_redis)
    async with learning(client, keys, learner_config(tmp_path), tiny_ppo) as learner:
        await learner.until(lambda: any(part.name == "redis" and not part.ok for part in learner.health.components()))
        assert learner.status.step == 0
        server.start()
        await learner.until(lambda: learner.status.checkpoint_step == 2)
        await learner.until(learner.health.ready)
    ledger = Ledger(client, keys)
    assert sorted(await ledger.states()) == ids
    counts = await ledger.audit()
    assert (counts.trained, counts.imbalance) == (8, 0)
    assert counts == await ledger.counts()
    await client.aclose()

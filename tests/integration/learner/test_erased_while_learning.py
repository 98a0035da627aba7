"""Users who are erased or withdraw consent while a learner holds their samples, steps on them, or is dead."""

import threading
from collections.abc import Collection
from pathlib import Path

import pytest
from redis.asyncio import Redis

from integration.learner.learning import learner_config, learning
from integration.owned_samples import ANN, BOB, HASH_KEY, OwnedSamples, owned_prompt
from onlinerlhf.core.samples import FinishReason, Rollout, RolloutGroup, SamplingSpec, ScoredGroup, Stage, VersionSpan
from onlinerlhf.gateway.access.identity import HashKey
from onlinerlhf.gateway.rights.erasure import Erasure
from onlinerlhf.learner.ppo import PPO
from onlinerlhf.runtime import rights, wire
from onlinerlhf.runtime.keys import RunKeys
from onlinerlhf.runtime.ledger import Ledger
from onlinerlhf.runtime.redis import Patience, command
from onlinerlhf.runtime.streams import Streams
from unit.learner.tiny import tiny_ppo


@pytest.fixture
def erasure(client: Redis, keys: RunKeys, patience: Patience) -> Erasure:
    """Of this run."""
    return Erasure(client, keys, HashKey(client, keys, HASH_KEY), patience)


class Scored:
    """Puts scored samples in."""

    def __init__(self, client: Redis, keys: RunKeys) -> None:
        self._samples = OwnedSamples(client, keys)

    async def put(self, *sample_ids: str) -> None:
        """Those of Ann's begin with a."""
        for sample_id in sample_ids:
            owner = ANN if sample_id.startswith("a") else BOB
            await self._samples.put(sample_id, owner, Stage.SCORED, payload=_payload(sample_id, owner))


@pytest.fixture
def scored(client: Redis, keys: RunKeys, streams: Streams) -> Scored:
    """Of this run."""
    return Scored(client, keys)


def _payload(sample_id: str, owner: str) -> bytes:
    rollout = Rollout(
        token_ids=(7, 2),
        behaviour_logprobs=(-4.0, -3.0),
        version_spans=(VersionSpan(version=1, num_tokens=2),),
        finish_reason=FinishReason.EOS,
    )
    group = RolloutGroup(
        prompt=owned_prompt(sample_id, owner),
        sampling=SamplingSpec(num_responses=1, max_tokens=8),
        rollouts=(rollout,),
        worker_id="worker",
    )
    return wire.dump_scored(ScoredGroup(group=group, scores=(0.5,), reward_model_version="rm"))


class SlowStep:
    """A learner whose steps wait to be allowed; the first few fail then."""

    def __init__(self, *, num_failures: int = 0) -> None:
        self._num_failures = num_failures
        self.allowed = threading.Event()
        self.begun = threading.Event()
        self.num_rollouts: list[int] = []

    def build(self) -> PPO:
        ppo = tiny_ppo()
        step = ppo.step

        def slow(rollouts: Collection[object]) -> object:
            self.num_rollouts.append(len(rollouts))
            self.begun.set()
            assert self.allowed.wait(20)
            if len(self.num_rollouts) <= self._num_failures:
                raise RuntimeError("no memory")
            return step(rollouts)  # type: ignore[arg-type]

        ppo.step = slow  # type: ignore[method-assign, assignment]
        return ppo


async def test_erasing_a_user_in_the_middle_of_a_run_names_every_version_and_the_ledger_balances(
    client: Redis, keys: RunKeys, scored: Scored, erasure: Erasure, ledger: Ledger, streams: Streams, tmp_path: Path
) -> None:
    slow = SlowStep()
    slow.allowed.set()
    async with learning(client, keys, learner_config(tmp_path), slow.build) as learner:
        await scored.put("a1", "b1", "b2", "b3")
        await learner.until(lambda: learner.status.checkpoint_step == 1)
        slow.allowed.clear()
        slow.begun.clear()
        await scored.put("a2", "b4", "b5", "b6", "a3")
        await learner.until(slow.begun.is_set)
        receipt = await erasure.erase("acme", "ann")
        assert receipt.policy_versions == (2,)
        # a2 is in the step; of a3 the learner may know already or not yet.
        assert receipt.num_samples_in_training in (1, 2)
        assert receipt.num_samples_dropped == 2
        verification = await erasure.verify("acme", "ann")
        assert (verification.num_left, verification.policy_versions) == ({}, (2,))
        slow.allowed.set()
        await learner.until(lambda: learner.status.checkpoint_step == 2)
        await scored.put("b7", "b8", "b9", "b10")
        await learner.until(lambda: learner.status.checkpoint_step == 3)
    verification = await erasure.verify("acme", "ann")
    assert (verification.num_left, verification.policy_versions) == ({}, (2, 3))
    states = await ledger.states()
    assert (states["a1"], states["a2"], states["a3"]) == ("trained:2", "dropped:erased", "dropped:erased")
    assert all(state.startswith("trained:") for sample, state in states.items() if sample.startswith("b"))
    counts = await ledger.counts()
    assert (counts.admitted, counts.trained, counts.dropped, counts.imbalance) == (13, 11, {"erased": 2}, 0)
    assert counts == await ledger.audit()
    assert await streams.backlog(Stage.SCORED) == 0
    assert slow.num_rollouts == [4, 4, 4]


async def test_what_the_learner_holds_of_an_erased_user_is_in_no_step_and_others_fill_the_batch(
    client: Redis, keys: RunKeys, scored: Scored, erasure: Erasure, ledger: Ledger, tmp_path: Path
) -> None:
    await scored.put("a1", "b1", "b2")
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.num_collected == 3)
        receipt = await erasure.erase("acme", "ann")
        assert (receipt.num_samples_in_training, receipt.num_samples_dropped) == (1, 1)
        await scored.put("b3")
        await learner.until(lambda: learner.status.num_collected == 3)
        assert learner.status.step == 0
        await scored.put("b4", "b5")
        await learner.until(lambda: learner.status.checkpoint_step == 1)
        assert learner.status.counters["trained_rollouts"] == 4
    assert (await erasure.verify("acme", "ann")).policy_versions == ()
    assert await ledger.states() == {
        "a1": "dropped:erased",
        "b1": "trained:2",
        "b2": "trained:2",
        "b3": "trained:2",
        "b4": "trained:2",
        "b5": "scored",
    }
    assert await command(client, "EXISTS", rights.in_training(keys)) == 0


async def test_consent_withdrawn_before_a_step_keeps_the_sample_out_of_it_and_within_one_comes_too_late(
    client: Redis, keys: RunKeys, scored: Scored, erasure: Erasure, ledger: Ledger, tmp_path: Path
) -> None:
    slow = SlowStep()
    await scored.put("a1", "b1", "b2", "b3", "a2")
    async with learning(client, keys, learner_config(tmp_path), slow.build) as learner:
        await learner.until(slow.begun.is_set)
        await erasure.withdraw(ANN)
        slow.allowed.set()
        await learner.until(lambda: learner.status.checkpoint_step == 1)
        await scored.put("b4", "b5", "b6", "b7")
        await learner.until(lambda: learner.status.checkpoint_step == 2)
    states = await ledger.states()
    assert (states["a1"], states["a2"]) == ("trained:2", "dropped:withdrawn")
    assert {states[f"b{number}"] for number in range(4, 8)} == {"trained:3"}
    assert (await ledger.counts()).imbalance == 0
    assert await ledger.counts() == await ledger.audit()


async def test_a_batch_of_nothing_but_erased_samples_is_no_step(
    client: Redis, keys: RunKeys, scored: Scored, erasure: Erasure, ledger: Ledger, tmp_path: Path
) -> None:
    await scored.put("a1", "a2", "a3")
    config = learner_config(tmp_path, max_wait_seconds=0.5)
    async with learning(client, keys, config) as learner:
        await learner.until(lambda: learner.status.num_collected == 3)
        await erasure.erase("acme", "ann")
        await learner.until(lambda: learner.status.num_collected == 0)
        await scored.put("b1")
        await learner.until(lambda: learner.status.checkpoint_step == 1)
        assert learner.status.counters["trained_rollouts"] == 1
    assert (await ledger.counts()).dropped == {"erased": 3}


async def test_an_erasure_between_checkpoint_and_finish_is_told_the_version_by_the_next_learner(
    client: Redis,
    keys: RunKeys,
    scored: Scored,
    erasure: Erasure,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await scored.put("a1", "b1", "b2", "b3")

    async def die_after_the_checkpoint(_: object, samples: Collection[object]) -> int:
        if samples:
            raise ConnectionAbortedError("the process is gone")
        return 0

    with monkeypatch.context() as patched:
        patched.setattr("onlinerlhf.learner.saver.Saver._ack", die_after_the_checkpoint)
        with pytest.raises(ExceptionGroup):
            async with learning(client, keys, learner_config(tmp_path)) as learner:
                await learner.until(lambda: learner.status.checkpoint_step == 1)
    receipt = await erasure.erase("acme", "ann")
    assert (receipt.policy_versions, receipt.num_samples_in_training) == ((), 1)
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.since is not None)
        assert learner.status.step == 1
    verification = await erasure.verify("acme", "ann")
    assert (verification.num_left, verification.policy_versions) == ({}, (2,))
    assert await ledger.states() == {"a1": "dropped:erased", **dict.fromkeys(("b1", "b2", "b3"), "trained:2")}
    assert (await ledger.counts()).imbalance == 0
    assert await command(client, "EXISTS", rights.in_training(keys)) == 0


async def test_a_step_lost_with_its_learner_is_named_nowhere_and_its_erased_sample_never_comes_back(
    client: Redis,
    keys: RunKeys,
    scored: Scored,
    erasure: Erasure,
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await scored.put("a1", "b1", "b2", "b3")

    async def die_before_the_checkpoint(saver: object, ppo: PPO) -> bool:
        if ppo.num_steps:
            raise ConnectionAbortedError("the process is gone")
        return True

    with monkeypatch.context() as patched:
        patched.setattr("onlinerlhf.learner.saver.Saver.save", die_before_the_checkpoint)
        with pytest.raises(ExceptionGroup):
            async with learning(client, keys, learner_config(tmp_path)) as learner:
                await learner.until(lambda: learner.status.step == 1 and learner.worker.saver is None)
    assert (await erasure.erase("acme", "ann")).num_samples_in_training == 1
    await scored.put("b4")
    async with learning(client, keys, learner_config(tmp_path)) as learner:
        await learner.until(lambda: learner.status.checkpoint_step == 1)
        assert learner.status.counters["trained_rollouts"] == 4
    assert (await ledger.state("a1"), (await ledger.counts()).trained) == ("dropped:erased", 4)
    assert (await erasure.verify("acme", "ann")).policy_versions == ()
    assert await command(client, "EXISTS", rights.in_training(keys)) == 0


async def test_a_failed_step_with_an_erased_sample_leaves_nothing_of_it(
    client: Redis, keys: RunKeys, scored: Scored, erasure: Erasure, ledger: Ledger, streams: Streams, tmp_path: Path
) -> None:
    slow = SlowStep(num_failures=1)
    await scored.put("a1", "b1", "b2", "b3")
    config = learner_config(tmp_path, lease_seconds=1)
    async with learning(client, keys, config, slow.build) as learner:
        await learner.until(slow.begun.is_set)
        await erasure.erase("acme", "ann")
        slow.allowed.set()
        await learner.until(lambda: learner.status.last_error != "")
        await scored.put("b4")
        await learner.until(lambda: learner.status.checkpoint_step == 1)
    assert await ledger.state("a1") == "dropped:erased"
    assert (await erasure.verify("acme", "ann")).num_left == {}
    assert (await ledger.counts()).imbalance == 0
    assert await streams.dead_letters(Stage.SCORED, 10) == []

"""How the processes of one learner find each other, and how rank 0 tells the others what to do."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import Store

from onlinerlhf.core.errors import ConfigError, StartupError
from onlinerlhf.learner import orders
from onlinerlhf.learner.attempts import this_attempt
from onlinerlhf.learner.followers import leading
from onlinerlhf.learner.orders import Orders
from onlinerlhf.learner.ranks import Ranks
from onlinerlhf.learner.recipe_config import RecipeConfig
from onlinerlhf.learner.sharding import meeting
from onlinerlhf.learner.tasks import Build


@pytest.fixture
def store() -> TCPStore:
    """As torchrun keeps one."""
    return _server()


def test_orders_arrive_in_their_order_and_those_all_have_taken_are_forgotten(store: TCPStore) -> None:
    leader, follower = Orders(store), Orders(store)
    before = store.num_keys()
    for number in range(20):
        leader.give(f"build {number}", is_collective=False)
    assert [follower.next() for _ in range(20)] == [f"build {number}" for number in range(20)]
    for number in range(50):
        leader.give(f"learn {number}", is_collective=True)
        assert follower.next() == f"learn {number}"
    assert store.num_keys() - before == 1


def test_a_follower_waits_while_there_are_signs_of_life_and_ends_without(
    store: TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "_BEAT_SECONDS", 0.05)
    monkeypatch.setattr(orders, "MAX_SILENCE_AT_END_SECONDS", 0.3)
    leader, follower = Orders(store), Orders(store)
    ended: list[float] = []

    def is_ending() -> bool:
        # Asked every 20 ms: the order comes after three times as long as silence is borne.
        ended.append(0.0)
        if len(ended) == 45:
            leader.give("learn", is_collective=True)
        return True

    with leader.alive():
        assert follower.next(is_ending=is_ending) == "learn"
    with pytest.raises(StartupError, match="rank 0 has given no sign of life for 0 s"):
        follower.next(is_ending=lambda: True)


def test_a_follower_whose_store_is_gone_ends() -> None:
    server = _server()
    follower = Orders(_client(server.port))
    del server
    with pytest.raises(StartupError, match="rank 0 or torchrun is gone"):
        follower.next()


def test_the_leader_lets_the_others_go_whatever_ends_it(store: TCPStore) -> None:
    follower = Orders(store)

    def lead() -> None:
        with leading(Ranks(size=2), store) as leader:
            leader.announce(Build())
            raise ConfigError("cannot go on")

    with pytest.raises(ConfigError):
        lead()
    assert [json.loads(follower.next())["task"] for _ in range(2)] == ["build", "stop"]


def test_ranks_that_do_not_meet_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    server = _server()
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": server.port}.items():
        monkeypatch.setenv(name, str(value))
    config = RecipeConfig.model_validate(
        {"policy_dir": "unused", "reward_dir": "unused", "collective_timeout_seconds": 0.5}
    )
    with pytest.raises(StartupError, match="did not all come up: rank 1 of 2 waits for rank 0"), meeting(config):
        pass


def test_the_processes_of_an_attempt_share_what_no_earlier_attempt_wrote(store: TCPStore) -> None:
    first = _attempt(store.port, size=3)
    for part in first:
        part.set("address", "of somebody who is gone")
    second = _attempt(store.port, size=3)
    assert not any(part.check(["address"]) for part in second)
    second[2].set("address", "here")
    assert [bytes(part.get("address")) for part in second] == [b"here"] * 3


def test_what_the_dead_said_is_not_taken_for_the_living(store: TCPStore) -> None:
    """A follower and a leader that came, each alone, before the attempt in which all do."""
    for rank in (1, 0):
        with pytest.raises(StartupError, match="did not all come up"):
            this_attempt(_client(store.port), rank=rank, size=2, seconds=0.1)
    parts = _attempt(store.port, size=2)
    parts[0].set("word", "heard")
    assert bytes(parts[1].get("word")) == b"heard"


def _attempt(port: int, *, size: int) -> list[Store]:
    with ThreadPoolExecutor(size) as pool:
        coming = [pool.submit(this_attempt, _client(port), rank=rank, size=size, seconds=10) for rank in range(size)]
        return [arrival.result(timeout=20) for arrival in coming]


def _server() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=10))


def _client(port: int) -> TCPStore:
    return TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=5))

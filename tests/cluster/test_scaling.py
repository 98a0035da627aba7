"""The pool grows with its backlog and goes back; an operator's size and pause overrule the signals."""

from cluster.platform import Platform, eventually, last_json


def desired(platform: Platform) -> int:
    return int(platform.pool().get("status", {}).get("desiredReplicas") or 0)


def ready(platform: Platform) -> int:
    return int(platform.pool().get("status", {}).get("readyReplicas") or 0)


def test_the_pool_grows_with_its_backlog_and_returns_to_its_minimum(platform: Platform) -> None:
    platform.patch_pool({"replicas": None, "paused": False})
    eventually(lambda: desired(platform) == 1, what="the pool at its minimum", seconds=600)
    num_sent = len(platform.sent)

    def grown() -> bool:
        # More keeps coming, so that the backlog outlasts the start of a pod.
        platform.in_client({"prompts": 100, "tag": f"burst{len(platform.sent)}"})
        return desired(platform) >= 2

    def served() -> bool:
        grown()
        return ready(platform) >= 2

    eventually(grown, what="the scaler to want two replicas", seconds=300, every=1)
    assert len(platform.sent) > num_sent
    eventually(served, what="two ready workers", seconds=900, every=10)
    eventually(lambda: desired(platform) == 1 == ready(platform), what="the pool back at one", seconds=1_800, every=5)
    assert platform.ledger()["imbalance"] == 0


def test_a_fixed_size_and_a_pause_are_respected(platform: Platform) -> None:
    try:
        ran = platform.k8s("scale", "2", "--timeout", "900")
        assert ran.code == 0, ran.output
        assert ready(platform) == 2
        assert platform.k8s("pause").code == 0
        assert platform.k8s("scale", "1", "--no-wait").code == 0
        pool = last_json(platform.k8s("status", "--json").output)["pools"][0]
        assert pool["is_paused"] and pool["current"] == 2
        assert platform.k8s("resume").code == 0
        eventually(lambda: ready(platform) == 1, what="one replica after the pause", seconds=600)
    finally:
        platform.patch_pool({"replicas": None, "paused": False})


def test_an_unknown_pool_is_answered_with_those_there_are(platform: Platform) -> None:
    ran = platform.k8s("scale", "2", "--pool", "nope")
    assert ran.code == 1 and "there are: default" in ran.output

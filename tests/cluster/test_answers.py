"""Prompts are answered through the gateway's Service, by gRPC and by HTTP, and become training data."""

from cluster.platform import Platform, eventually


def test_prompts_are_answered_through_the_service(platform: Platform) -> None:
    service = platform.service("gateway")
    found = platform.in_client({"answers": 20, "tag": "answers", "http": f"http://{service}:8000"})
    assert [each for each in found["answers"] if "error" in each] == []
    assert all(each["tokens"] > 0 and each["version"] >= 1 for each in found["answers"])
    assert isinstance(found["http"], str)


def test_prompts_offered_with_consent_reach_the_learner_or_are_accounted_for(platform: Platform) -> None:
    found = platform.in_client({"prompts": 50, "tag": "offered"})
    assert len(found["samples"]) >= 40, found["refused"]

    def sampled() -> bool:
        states = platform.ledger(found["samples"])["states"].values()
        # Held-out prompts have no state: they are not part of the run.
        known = [state for state in states if state is not None]
        return bool(known) and all(state not in ("pool", "prompts") for state in known)

    eventually(sampled, what="all prompts to be sampled", seconds=600, every=5)
    ledger = platform.ledger()
    assert ledger["imbalance"] == 0

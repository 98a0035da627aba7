from onlinerlhf.gateway.requests.samples import SampleState, parse_state


def test_a_pending_state_is_its_own_name() -> None:
    assert parse_state("rollouts") == SampleState(state="rollouts")


def test_a_trained_state_carries_its_version() -> None:
    assert parse_state("trained:7") == SampleState(state="trained", trained_version=7)
    assert parse_state("trained") == SampleState(state="trained")


def test_a_dropped_state_carries_its_reason() -> None:
    assert parse_state("dropped:dead_letter") == SampleState(state="dropped", drop_reason="dead_letter")

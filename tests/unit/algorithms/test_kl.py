import pytest

from onlinerlhf.algorithms.kl import adapted_kl_coef


@pytest.mark.parametrize("target", [0.0, -1.0])
def test_a_kl_target_that_cannot_be_reached_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="above 0 nats per sequence"):
        adapted_kl_coef(kl_coef=0.02, kl_per_sequence_nats=1.0, target_nats_per_sequence=target)

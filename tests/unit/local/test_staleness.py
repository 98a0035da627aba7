"""How far sampling may run ahead follows from what the learner takes."""

from onlinerlhf.local.staleness import samples_ahead


def test_three_batches_may_wait_for_a_learner_that_takes_samples_four_versions_old() -> None:
    assert samples_ahead({"learner": {"batch_size": 32, "max_staleness": 4}}) == 96
    assert samples_ahead({"learner": {"batch_size": 32, "max_staleness": 4}, "rollout": {"num_responses": 2}}) == 48


def test_one_batch_may_always_wait() -> None:
    assert samples_ahead({"learner": {"batch_size": 32, "max_staleness": 0}}) == 32


def test_samples_that_wait_for_their_checkpoint_need_room_too() -> None:
    assert samples_ahead({"learner": {"batch_size": 32, "max_staleness": 4, "checkpoint_every": 3}}) == 160


def test_without_settings_the_defaults_count() -> None:
    assert samples_ahead({}) == 3 * 512


def test_what_is_no_number_is_left_to_the_room_that_reads_it() -> None:
    assert samples_ahead({"learner": {"batch_size": "many", "max_staleness": 4}}) == 3 * 512

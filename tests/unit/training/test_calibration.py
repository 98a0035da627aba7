"""Accuracy and calibration by hand. sigmoid(0.2) = 0.549834, sigmoid(1) = 0.731059, sigmoid(4) = 0.982014."""

import math
from pathlib import Path

import pytest

from onlinerlhf.learner.training.calibration import JudgedPair, accuracy, calibration, draw_calibration


def pair(gap: float, weight: float = 1.0) -> JudgedPair:
    return JudgedPair(gap=gap, weight=weight)


def test_a_pair_falls_into_the_bin_of_the_models_confidence_whoever_is_right() -> None:
    measured = calibration([pair(0.2), pair(-1.0), pair(4.0)])

    assert [each.num_pairs for each in measured.bins] == [1, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert (measured.bins[4].low, measured.bins[4].high) == (0.7, 0.75)
    assert measured.bins[4].predicted == pytest.approx(0.731059, abs=1e-6)
    assert measured.bins[4].observed == 0.0
    assert measured.bins[9].observed == 1.0


def test_the_expected_error_is_the_mean_distance_over_pairs() -> None:
    # Sure of 0.731059 in four pairs and right in three: |0.731059 - 0.75|; sure of 0.982014 and wrong in one.
    measured = calibration([*[pair(1.0)] * 3, pair(-1.0), pair(-4.0)])

    assert measured.expected_error == pytest.approx(0.8 * 0.018941 + 0.2 * 0.982014, abs=1e-6)


def test_a_model_that_is_right_as_often_as_it_says_has_no_error() -> None:
    # log 3: sure of 3/4.
    assert calibration([*[pair(math.log(3))] * 3, pair(-math.log(3))]).expected_error == pytest.approx(0.0, abs=1e-12)


def test_pairs_weigh_so_that_every_ranking_counts_once() -> None:
    # Three pairs of one ranking, all right; one pair of another, wrong: half and half.
    measured = calibration([*[pair(1.0, 1 / 3)] * 3, pair(-1.0)])

    assert measured.bins[4].observed == pytest.approx(0.5)
    assert measured.bins[4].share == pytest.approx(1.0)
    assert measured.expected_error == pytest.approx(0.231059, abs=1e-6)


def test_equal_scores_are_no_agreement_and_no_confidence() -> None:
    measured = calibration([pair(0.0)])

    assert measured.bins[0].predicted == 0.5
    assert measured.bins[0].observed == 0.0


def test_accuracy_averages_over_rankings_not_pairs() -> None:
    # 2 of 3 and 0 of 1.
    measured = accuracy([[pair(1.0), pair(2.0), pair(-1.0)], [pair(-1.0)]])

    assert (measured.rankings, measured.pairs) == (2, 4)
    assert measured.accuracy == pytest.approx(1 / 3)


def test_the_interval_is_wilsons() -> None:
    # 80 of 100: (0.8 + 0.019207) / 1.038415 = 0.788901; 1.959964 sqrt(0.0016 + 0.000096) / 1.038415 = 0.077731.
    measured = accuracy([[pair(1.0)]] * 80 + [[pair(-1.0)]] * 20)

    assert measured.low == pytest.approx(0.711170, abs=1e-4)
    assert measured.high == pytest.approx(0.866632, abs=1e-4)


def test_a_perfect_score_on_few_rankings_is_not_certain() -> None:
    measured = accuracy([[pair(1.0)]] * 4)

    assert measured.high == pytest.approx(1.0)
    assert measured.low == pytest.approx(0.5101, abs=1e-4)


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        calibration([])
    with pytest.raises(ValueError, match="no rankings"):
        accuracy([])


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    draw_calibration(calibration([pair(0.2), pair(-1.0)]), tmp_path / "calibration.png")

    assert (tmp_path / "calibration.png").read_bytes()[:4] == b"\x89PNG"

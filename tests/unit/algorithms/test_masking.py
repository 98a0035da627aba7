import torch

from onlinerlhf.algorithms.masking import masked_max, masked_mean, masked_row_sum, masked_sum, masked_var, masked_whiten

X = torch.tensor([[1.0, 2.0, torch.nan], [6.0, torch.inf, -torch.inf]])
MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_a_mean_weighs_every_marked_token_the_same_whatever_its_row() -> None:
    assert masked_sum(X, MASK).item() == 9.0
    assert masked_mean(X, MASK).item() == 3.0
    assert masked_row_sum(X, MASK).tolist() == [3.0, 6.0]
    assert masked_max(X, MASK).item() == 6.0


def test_the_variance_is_divided_by_the_count() -> None:
    # (4 + 1 + 9) / 3
    assert torch.isclose(masked_var(X, MASK), torch.tensor(14.0 / 3))


def test_whitened_tokens_have_mean_0_and_variance_1_and_masked_ones_are_0() -> None:
    whitened = masked_whiten(X, MASK)
    std = (14.0 / 3) ** 0.5
    torch.testing.assert_close(whitened, torch.tensor([[-2 / std, -1 / std, 0.0], [3 / std, 0.0, 0.0]]))


def test_masked_entries_have_no_influence_on_whitening() -> None:
    changed = torch.where(MASK, X, 1e6)
    assert torch.equal(masked_whiten(X, MASK), masked_whiten(changed, MASK))


def test_whitening_equal_tokens_gives_zeros_not_nan() -> None:
    assert masked_whiten(torch.full((1, 3), 0.5), torch.ones(1, 3, dtype=torch.bool)).tolist() == [[0.0, 0.0, 0.0]]

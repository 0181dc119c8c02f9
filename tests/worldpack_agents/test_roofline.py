"""Counted operations and bytes of calls whose counts are known."""

import torch
import torch.nn.functional as F

from worldpack_agents.roofline import operations, traffic


def test_a_product_counts_its_operations_and_its_three_matrices() -> None:
    a, b = torch.ones(4, 8), torch.ones(8, 2)
    assert operations(lambda: a @ b) == 2 * 4 * 8 * 2
    assert traffic(lambda: a @ b) == 4 * (32 + 16 + 8)


def test_attention_is_counted_as_well() -> None:
    q = torch.ones(1, 1, 16, 8)
    assert operations(lambda: F.scaled_dot_product_attention(q, q, q)) == 2 * (2 * 16 * 16 * 8), "scores, and their product with the values"


def test_views_move_nothing_and_copies_do() -> None:
    x = torch.ones(6, 10)
    assert traffic(lambda: x.reshape(10, 6)[2:].T) == 0
    assert traffic(lambda: x.T.contiguous()) == 2 * 240
    assert traffic(lambda: x.add_(1.0)) == 2 * 240, "read and written in place"

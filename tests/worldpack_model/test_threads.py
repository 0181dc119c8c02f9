"""A batch in parts: every row comes back in its place, whatever the number of threads."""

import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch

from worldpack_model.threads import LEAST_ROWS, WORTH_A_THREAD, in_parts


class Pair(NamedTuple):
    a: torch.Tensor
    b: tuple[torch.Tensor, ...]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("count", "parts"), [(1, 1), (2 * LEAST_ROWS - 1, 1), (2 * LEAST_ROWS, 2), (19, 4), (64, 4)])
def test_rows_are_shared_out_and_keep_their_order(count: int, parts: int) -> None:
    x = torch.arange(count, dtype=torch.float32, requires_grad=True)
    seen: list[tuple[int, int, bool]] = []

    def work(pair: Pair, none: tuple[()]) -> tuple[torch.Tensor, ...]:
        assert none == ()
        seen.append((len(pair.a), torch.get_num_threads(), torch.is_grad_enabled()))
        return pair.a + pair.b[0], pair.a.long()

    total, whole = in_parts(work, (Pair(x, (10 * x.detach(),)), ()), size=1)
    assert torch.equal(total, 11 * x)
    assert torch.equal(whole, x.long())
    assert sorted(n for n, _, _ in seen) == sorted(len(part) for part in torch.arange(count).tensor_split(parts))
    assert all(one == 1 and not grad for _, one, grad in seen), "short operations get one thread each, and no gradients"
    assert not total.requires_grad
    assert torch.get_num_threads() == 4, "the caller's setting stays"


@pytest.mark.usefixtures("threads")
def test_long_operations_get_threads_of_their_own() -> None:
    seen = []

    def work(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen.append(torch.get_num_threads())
        return (x,)

    in_parts(work, (torch.zeros(1),), size=3 * WORTH_A_THREAD)
    in_parts(work, (torch.zeros(2 * LEAST_ROWS),), size=WORTH_A_THREAD)
    assert seen == [3, 2, 2]


@pytest.mark.usefixtures("threads")
def test_an_error_in_a_part_is_the_callers() -> None:
    def work(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if float(x[0]) == 0:
            raise FloatingPointError("first part")
        return (x,)

    with pytest.raises(FloatingPointError, match="first part"):
        in_parts(work, (torch.arange(2.0 * LEAST_ROWS),), size=1)
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("threads")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_workers_of_its_own() -> None:
    x = torch.arange(4.0 * LEAST_ROWS)
    in_parts(lambda y: (y,), (x,), size=1)  # the parent's pool runs
    assert any(t.name.startswith("worldpack") for t in threading.enumerate())
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        same = torch.equal(in_parts(lambda y: (y + 1,), (x,), size=1)[0], x + 1)
        os.write(write, b"1" if same else b"0")
        os._exit(0)
    assert os.read(read, 1) == b"1"
    os.waitpid(child, 0)

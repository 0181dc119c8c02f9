"""A batch in parts, one thread each.

On a processor a batch of imagined frames is many short operations. Two threads inside each of them wait for each other more than they help; two
threads with half of the batch each do not (``worldpack bench speed``).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import torch

LEAST_ROWS = 4
"""Rows of a part, at least: with fewer the operations are too short for threads that share one interpreter."""
WORTH_A_THREAD = 1 << 17
"""Numbers in the activations of one layer for which a thread within an operation pays."""


def in_parts(work: Callable[..., tuple[torch.Tensor, ...]], arguments: tuple[Any, ...], size: int) -> tuple[torch.Tensor, ...]:
    """``work(*arguments)`` without gradients, on a processor with its rows shared out among threads.

    Args:
        work: maps tensors, or tuples of them, of B rows to tensors of B rows, each row from its own row alone.
        arguments: of ``work``.
        size: numbers in the activations of a layer for one row; decides whether operations get threads of their own as well.

    Returns:
        What ``work`` gives. Parts change the shapes of the products within, so results may differ in their last bits from those of one thread.
    """
    first = _first(arguments)
    with torch.no_grad():
        if first.device.type != "cpu":
            return work(*arguments)
        threads = torch.get_num_threads()
        cuts = _cuts(len(first), threads)
        parts = len(cuts) - 1
        within = max(1, min(threads // parts, len(first) // parts * size // WORTH_A_THREAD))
        pieces = [rows_of(arguments, slice(a, b)) for a, b in itertools.pairwise(cuts)]
        # the last part is this thread's own
        others = [_pool(os.getpid(), threads).submit(_with_threads, within, work, piece) for piece in pieces[:-1]]
        try:
            last = _with_threads(within, work, pieces[-1])
            done = [*(other.result() for other in others), last]
        finally:
            wait(others)
            # torch keeps the setting by thread, and the last one set for threads that are new to it: so after the others, and here
            torch.set_num_threads(threads)
        return done[0] if parts == 1 else tuple(torch.cat(column) for column in zip(*done, strict=True))


def part_sizes(count: int) -> set[int]:
    """How many rows the parts have that :func:`in_parts` makes of ``count`` on a processor, with as many threads as now."""
    return {b - a for a, b in itertools.pairwise(_cuts(count, torch.get_num_threads()))}


def _cuts(count: int, threads: int) -> list[int]:
    parts = max(1, min(threads, count // LEAST_ROWS))
    return [count * i // parts for i in range(parts + 1)]


def _with_threads(threads: int, work: Callable[..., tuple[torch.Tensor, ...]], arguments: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
    """``work(*arguments)`` with so many threads within the operations of the calling thread."""
    torch.set_num_threads(threads)
    with torch.no_grad():
        return work(*arguments)


def rows_of(value: Any, part: slice | torch.Tensor) -> Any:
    """The same rows of every tensor of a nest of tuples, named or not."""
    some = (entry[part] if isinstance(entry, torch.Tensor) else rows_of(entry, part) for entry in value)
    return type(value)(*some) if hasattr(value, "_fields") else tuple(some)


def _first(value: Any) -> torch.Tensor:
    """The first tensor of a nest of tuples."""
    return value if isinstance(value, torch.Tensor) else _first(value[0])


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Workers of this ``process``: a forked one has none of its parent's threads."""
    return ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="worldpack")

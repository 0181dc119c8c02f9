"""What a machine could do at best, and how near a prediction comes: the roofline model (Williams, Waterman & Patterson 2009, CACM 52(4)).

A computation that does ``I`` operations for each byte it moves can run at ``min(matrix rate, I * memory rate)`` at most. Bytes are counted operation
by operation, everything read and written once, as if nothing stayed in a cache; where caches help, a point can lie above the slope.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from worldpack_model import WorldPack


def operations(call: Callable[[], object]) -> int:
    """Floating-point operations of ``call``.

    On one thread, since the counter sees its own thread alone, and without fused attention, which it does not know on a processor.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            call()
    finally:
        torch.set_num_threads(threads)
    total: int = counter.get_total_flops()
    return total


def traffic(call: Callable[[], object]) -> int:
    """Bytes that the operations of ``call`` read and write, on one thread; views move nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _Traffic() as counter:
            call()
    finally:
        torch.set_num_threads(threads)
    total: int = counter.bytes
    return total


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the sizes of what every operation reads and writes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        read = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        written = [t for t in tree_flatten(result)[0] if isinstance(t, torch.Tensor)]
        stores = {t.untyped_storage().data_ptr() for t in read}
        in_place = any(argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments)
        is_view = not in_place and bool(written) and all(t.untyped_storage().data_ptr() in stores for t in written)
        if not is_view:
            self.bytes += sum(t.numel() * t.element_size() for t in (*read, *written))
        return result


def matrix_rate(model: WorldPack, *, repeats: int = 30) -> float:
    """Multiplications and additions per second of a product of 2048 x 2048 matrices in the model's precision: what its device can do at best."""
    a, b = (torch.ones((2048, 2048), dtype=torch.bfloat16 if model.bf16 else torch.float32, device=model.device) for _ in range(2))
    return 2 * 2048**3 / median_seconds(_waiting(lambda: a @ b, model.device), repeats)


def memory_rate(device: torch.device, *, megabytes: int = 256, repeats: int = 10) -> float:
    """Bytes per second, read and written, of a copy that fits no cache."""
    source = torch.ones(megabytes * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / median_seconds(_waiting(lambda: target.copy_(source), device), repeats)


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median of ``repeats`` runs of ``call``, after two to warm up."""
    times = []
    for _ in range(repeats + 2):  # the first two warm up
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return float(np.median(times[2:]))


def _waiting(call: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """``call``, which ends when the device has done it."""

    def whole() -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return whole


def draw(report: dict[str, Any], path: Path) -> None:
    """Draws the roofline of a ``worldpack bench speed`` report as a PNG: the two roofs, and a point for each number of slots and evaluations."""
    from matplotlib.figure import Figure

    peak, slope = report["matrix_gflops_per_second"], report["memory_gigabytes_per_second"]
    rows = report["rows"]
    intensity = np.array([r["gflops_per_env_step"] / r["gigabytes_per_env_step"] for r in rows])
    reached = np.array([r["gflops_per_env_step"] * r["env_steps_per_second"] for r in rows])
    line = np.geomspace(min(0.3, intensity.min() / 2), max(4 * peak / slope, 2 * intensity.max()), 100)
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.loglog(line, np.minimum(peak, line * slope), color="0.3", linewidth=1.5)
    axes.annotate(f"matrix products {peak:,.0f} GF/s, {report['precision']}", (line[-1], peak), ha="right", va="bottom", fontsize=8)
    axes.annotate(f"memory {slope:.0f} GB/s", (line[6], line[6] * slope), ha="left", va="top", fontsize=8)
    kinds = sorted({(r.get("compiled", False), r["evaluations"]) for r in rows})
    for (compiled, evaluations), marker in zip(kinds, "osD^vP", strict=False):
        chosen = [i for i, r in enumerate(rows) if (r.get("compiled", False), r["evaluations"]) == (compiled, evaluations)]
        label = f"{evaluations} evaluation{'s' if evaluations > 1 else ''} a step{', compiled' if compiled else ''}"
        axes.loglog(intensity[chosen], reached[chosen], marker, label=label)
        for i in chosen:
            axes.annotate(f" {rows[i]['slots']}", (intensity[i], reached[i]), fontsize=8, va="center")
    axes.set(xlabel="operations for each byte moved", ylabel="GF/s in whole env steps", ylim=(None, 2.5 * peak))
    axes.set_title("numbers beside points are slots", fontsize=9)
    axes.grid(alpha=0.3, which="both", linewidth=0.4)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)

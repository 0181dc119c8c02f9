"""Whether torch can compile here."""

from __future__ import annotations

from functools import cache

import torch


@cache
def check_compiler(device: torch.device) -> None:
    """Compiles a trifle for ``device``, some seconds the first time.

    Raises:
        RuntimeError: if that fails; says what is missing.
    """
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # torch has a class for each cause, most of them private
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise RuntimeError(
            f"torch.compile does not work here ({reason}); it needs a C++ compiler such as g++ (Debian: apt-get install g++). "
            "Leave compile out to go without."
        ) from error

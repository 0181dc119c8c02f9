"""How torch compiles what is called in every step, and whether it can here."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch


def compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """``function``, compiled for one shape of its arguments at a time, at its first call.

    On a processor the code is called from C++ alone: Python's lock is let go, and threads that have a part of the batch each do not wait for each
    other (``torch.compile``'s usual code for processors holds it).
    """
    return torch.compile(function, dynamic=False, options={"cpp_wrapper": True} if device.type == "cpu" else {})


@cache
def check_compiler(device: torch.device) -> None:
    """Compiles a trifle for ``device``: some seconds, more the first time on a machine.

    Raises:
        RuntimeError: if that fails; says what is missing.
    """
    try:
        compiled(lambda x: x.sin() + 1, device)(torch.zeros(8, device=device))
    except Exception as error:  # torch has a class for each cause, most of them private
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise RuntimeError(
            f"torch.compile does not work here ({reason}); it needs a C++ compiler such as g++ (Debian: apt-get install g++). "
            "Leave compile out to go without."
        ) from error

"""Numbers too small for their type's usual form, which processors are slow with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def no_denormals() -> Iterator[None]:
    """Take numbers for 0 that are below the normal range, 1e-38 in single precision.

    Kernels of far points are full of them, and with them a factorisation takes ten times as long.
    It is a mode of the processor, of the thread that asks for it, and is given back at the end.
    """
    before = _flushes()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushes() -> bool:
    """Tell whether that is so already."""
    return not bool(torch.full((1,), 1e-39).mul(2).view(torch.int32).any())

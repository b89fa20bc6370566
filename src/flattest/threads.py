"""One thread for many small products: several would mostly wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread, and give the others back at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    # The C library's allocator keeps freed blocks for the next ones only up to the largest size it
    # has seen freed, 32 MB at most; the pages of all others come zeroed from the system each time,
    # which takes as long as to factorise matrices of some hundred rows.
    torch.empty(31 * 2**20, dtype=torch.uint8)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)

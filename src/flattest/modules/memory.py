"""How much memory work takes, by watching the tensors that it allocates.

`peak` runs a function and returns the most bytes that the tensors allocated meanwhile held
together: on the CPU by following every storage from its first operation to its end, on a GPU by the
allocator's own account. A `Line` through two such peaks tells how many samples fit.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from flattest.modules.trees import leaves

_MARGIN = 1.1  # what operations hold inside, such as copies in another layout, is not seen


class _Storages(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        for leaf in leaves((args, kwargs)):
            self._note(leaf, new=False)  # if it is not known, it was there before
        result = operation(*args, **(kwargs or {}))
        for leaf in leaves(result):
            self._note(leaf, new=True)
        return result

    def _note(self, leaf: Any, *, new: bool) -> None:
        if not isinstance(leaf, torch.Tensor) or leaf.layout != torch.strided:
            return
        storage = leaf.untyped_storage()
        key, size = storage._cdata, storage.nbytes() if new else 0
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def peak(work: Callable[[], Any], device: torch.device) -> int:
    """Return the most bytes that the tensors which a function allocates held together.

    Parameters
    ----------
    work : callable
        The function.
    device : torch.device
        Where it works.

    Returns
    -------
    int
        The bytes.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.memory import peak
    >>> peak(lambda: (torch.ones(1000, 1000) + 1).sum(), torch.device("cpu"))
    8000000
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _Storages() as storages:
        work()
    return storages.peak


class Line(NamedTuple):
    """Bytes as a function of the number of samples worked on together.

    Parameters
    ----------
    fixed, slope : float
        Whatever their number is, and for each.

    Examples
    --------
    >>> from flattest.modules.memory import Line
    >>> line = Line.through((1, 3), (200, 400))
    >>> line, line.samples(1200)
    (Line(fixed=100.0, slope=100.0), 9)
    """

    fixed: float
    slope: float

    @classmethod
    def through(cls, sizes: Sequence[int], peaks: Sequence[int]) -> Line:
        """Draw the line through one or two numbers of samples, in ascending order."""
        rise = (peaks[-1] - peaks[0]) / max(1, sizes[-1] - sizes[0])
        slope = max(rise, 1.0) if len(sizes) > 1 else peaks[0] / sizes[0]
        return cls(max(peaks[0] - sizes[0] * slope, 0.0), slope)

    def samples(self, memory: int) -> int:
        """Return how many samples fit into memory: at least one, else ValueError."""
        one = _MARGIN * (self.fixed + self.slope)
        if one > memory:
            raise ValueError(
                f"memory is {memory / 1e6:,.1f} MB, but one sample takes about "
                f"{math.ceil(one / 1e5) / 10:,.1f} MB beside the model; give more, or measure "
                "fewer parameters."
            )
        return int((memory / _MARGIN - self.fixed) / self.slope)

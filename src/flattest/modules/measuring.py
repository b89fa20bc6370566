"""The measurement of any module: arguments checked, the module guarded, batch after batch summed.

`summation` says what is done for each batch; see `flattest.modules` for the parts.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

from torch import nn

from flattest.flatness import Flatness
from flattest.modules.calls import Call, recorded
from flattest.modules.data import Kind, is_one_batch, read_batches, read_whole_batches
from flattest.modules.guards import measuring, refuse_training_mode
from flattest.modules.losses import Loss
from flattest.modules.outputs import Output
from flattest.modules.parameters import choose, kind_of, unwrap
from flattest.modules.settings import check_settings
from flattest.modules.summation import Summation
from flattest.modules.watching import Stopped, watching
from flattest.validation import check_random_state


def measure(
    model: nn.Module,
    X: Any,
    y: Any = None,
    *,
    loss: Any = "mse",
    output: Any = None,
    parameters: Any = None,
    batch_size: int | None = None,
    memory: int | str | None = None,
    mode: str = "auto",
    rtol: float | int = 0.01,
    residual: str = "auto",
    panel: bool = False,
    largest_eigenvalue: str | None = None,
    random_state: Any = None,
    verbose: bool | int = False,
) -> Flatness:
    """Measure the flatness of any module: the general function for what is no two-layer network.

    Parameters
    ----------
    model : torch.nn.Module
        The module.
    X, y, loss, output, parameters, batch_size, memory, mode, rtol, residual, panel
        As for :func:`flattest.measure`.
    largest_eigenvalue, random_state, verbose
        Likewise.

    Returns
    -------
    Flatness
        The measurements.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value, or the module cannot be measured.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            "model must be a torch.nn.Module, such as a flattest.TwoLayerNet, not "
            f"{type(model).__name__}."
        )
    settings = check_settings(
        loss=loss,
        output=output,
        batch_size=batch_size,
        memory=memory,
        mode=mode,
        residual=residual,
        rtol=rtol,
        panel=panel,
        largest_eigenvalue=largest_eigenvalue,
    )
    module = unwrap(model)
    kind = kind_of(module)
    refuse_training_mode(module)
    original = next(p.dtype for p in module.parameters() if p.is_floating_point())
    if kind.converted:
        module = copy.deepcopy(module).float()
    measured = choose(module, parameters)
    rng = check_random_state(random_state)
    single = is_one_batch(X, y)
    with (
        watching(X, single, verbose=bool(verbose)) as watch,
        measuring(module, measured),
    ):
        summation = Summation(module, measured, settings, rng, watch)
        try:
            for call in _calls(module, X, y, kind, settings.loss, settings.output):
                summation.add(call)
        except Stopped:
            if summation.is_empty:
                raise KeyboardInterrupt from None
        results = summation.results()
    if results.partial:
        warnings.warn(
            f"Interrupted: the figures are those of the first {results.n_samples:,} samples.",
            stacklevel=3,
        )
    n_everything = sum(p.numel() for p in module.parameters() if p.is_floating_point())
    return results.tabulate(n_everything, kind, original)


def _calls(
    module: nn.Module, X: Any, y: Any, kind: Kind, loss: Loss, output: Output
) -> Iterator[Call]:
    if loss.takes_model:
        for whole in read_whole_batches(X, y, kind):
            yield recorded(module, loss, whole, output)
    else:
        for batch in read_batches(X, y, kind):
            yield Call(module, batch, output)

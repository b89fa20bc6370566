"""The measurement of any module: arguments checked, the module guarded, batch after batch summed.

`summation` says what is done for each batch; see `flattest.modules` for the parts.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import nn

from flattest.flatness import Flatness
from flattest.modules.calls import Call, recorded
from flattest.modules.curvature import output_hessian
from flattest.modules.data import Batch, Kind, is_one_batch, read_batches, read_whole_batches
from flattest.modules.group_minimum import GroupSums
from flattest.modules.guards import measuring, refuse_training_mode
from flattest.modules.loss_sum import LossSum
from flattest.modules.losses import Loss
from flattest.modules.orbit_minimum import Position, on_orbit
from flattest.modules.output_hessian import OutputHessian
from flattest.modules.outputs import Output
from flattest.modules.parameters import choose, kind_of, unwrap
from flattest.modules.part import Part
from flattest.modules.results import Results
from flattest.modules.settings import Settings, check_settings
from flattest.modules.summation import Summation
from flattest.modules.symmetry.finding import symmetries as find_symmetries
from flattest.modules.symmetry.result import Symmetries
from flattest.modules.watching import Stopped, watching
from flattest.validation import check_random_state

_AT_ONCE = 256
"""Samples of a batch that are evaluated together where only the loss is asked for."""
SYMMETRIES, PARAMETRISATIONS = ("none", "scales", "all"), ("keep", "fold")


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
    symmetry: str = "none",
    batch_norm: str = "keep",
) -> Flatness:
    """Measure the flatness of any module: the general function for what is no two-layer network.

    Parameters
    ----------
    model : torch.nn.Module
        The module.
    X, y, loss, output, parameters, batch_size, memory, mode, rtol, residual, panel
        As for :func:`flattest.measure`.
    largest_eigenvalue, random_state, verbose, symmetry, batch_norm
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
    return measure_on_orbit(
        model,
        X,
        y,
        parameters=parameters,
        random_state=random_state,
        verbose=verbose,
        symmetry=symmetry,
        batch_norm=batch_norm,
        loss=loss,
        output=output,
        batch_size=batch_size,
        memory=memory,
        mode=mode,
        residual=residual,
        rtol=rtol,
        panel=panel,
        largest_eigenvalue=largest_eigenvalue,
    ).flatness


class Measurement(NamedTuple):
    """A measurement, with what it takes to go to the minimum on the orbit.

    Parameters
    ----------
    flatness : Flatness
        The figures.
    original : torch.nn.Module
        The caller's module without wrapper.
    module : torch.nn.Module
        What was measured: that, or a copy of it with folded normalisation, or in float32 in place
        of a half precision.
    symmetries : Symmetries or None
        Its symmetries, if they were asked for.
    position : Position or None
        Where the minimum is.
    example : Batch or None
        The first batch, if symmetries were asked for.
    """

    flatness: Flatness
    original: nn.Module
    module: nn.Module
    symmetries: Symmetries | None
    position: Position | None
    example: Batch | None


def measure_on_orbit(
    model: nn.Module,
    X: Any,
    y: Any = None,
    *,
    parameters: Any = None,
    random_state: Any = None,
    verbose: bool | int = False,
    symmetry: str = "none",
    batch_norm: str = "keep",
    **options: Any,
) -> Measurement:
    """Do what `measure` does, and return what it took.

    Parameters
    ----------
    model, X, y, parameters, random_state, verbose, symmetry, batch_norm
        As for :func:`flattest.measure`.
    **options
        The options that :func:`flattest.modules.settings.check_settings` checks.

    Returns
    -------
    Measurement
        The figures, the symmetries, and where the minimum is.

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
    settings = check_settings(**options)
    _check_orbit(symmetry, batch_norm)
    original = module = unwrap(model)
    kind = kind_of(module)
    refuse_training_mode(module)
    dtype = next(p.dtype for p in module.parameters() if p.is_floating_point())
    if kind.converted:
        module = copy.deepcopy(module).float()
    measured = choose(module, parameters)
    rng = check_random_state(random_state)
    symmetries, example = None, None
    with watching(X, is_one_batch(X, y), verbose=bool(verbose)) as watch:
        batches = _batches(X, y, kind, settings.loss)
        first = next(batches)
        if symmetry != "none":
            with measuring(module, measured):
                example = _call(module, first, settings).batch
            symmetries = find_symmetries(
                module, example, output=settings.output, batch_norm=batch_norm
            )
            if symmetries.module is not module:  # normalisation was folded on a copy
                module = symmetries.module
                measured = choose(module, parameters)
        with measuring(module, measured):
            summation = Summation(module, measured, settings, rng, watch)
            groups = None
            if symmetry == "all" and symmetries is not None:
                groups = GroupSums(symmetries, module, hessian_of(settings.loss.name))
                summation.observers.append(groups.add)
            try:
                for whole in itertools.chain([first], batches):
                    call = _call(module, whole, settings)
                    summation.add(call)
            except Stopped:
                if summation.is_empty:
                    raise KeyboardInterrupt from None
            results = summation.results()
    if watch.asked:
        _warn_of_interruption(results, settings)
    n_everything = sum(p.numel() for p in module.parameters() if p.is_floating_point())
    flatness, position = results.tabulate(n_everything, kind, dtype), None
    if symmetries is not None and not (groups and results.partial):
        flatness, position = on_orbit(flatness, symmetries, groups, results.norm, dtype)
    return Measurement(flatness, original, module, symmetries, position, example)


def _check_orbit(symmetry: str, batch_norm: str) -> None:
    if symmetry not in SYMMETRIES:
        allowed = ", ".join(map(repr, SYMMETRIES))
        raise ValueError(f"symmetry must be one of {allowed}, not {symmetry!r}.")
    if batch_norm not in PARAMETRISATIONS:
        # Along the affine freedom, squared gradients of gains are no exponentials of scales.
        only = "; 'affine' is for symmetries only" if batch_norm == "affine" else ""
        raise ValueError(f"batch_norm must be 'keep' or 'fold', not {batch_norm!r}{only}.")


def _warn_of_interruption(results: Results, settings: Settings) -> None:
    if results.partial:
        warnings.warn(
            f"Interrupted: the figures are those of the first {results.n_samples:,} samples.",
            stacklevel=5,
        )
    elif settings.largest_eigenvalue is not None:
        warnings.warn("Interrupted: the largest eigenvalue may be missing.", stacklevel=5)


def first_batch(module: nn.Module, X: Any, y: Any = None) -> Batch:
    """Return the first batch of data, as an example of what a module is called with.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    X, y : object
        The data, as for :func:`flattest.measure`.

    Returns
    -------
    Batch
        The batch.
    """
    return next(read_batches(X, y, kind_of(unwrap(module))))


def mean_loss(
    model: nn.Module, X: Any, y: Any = None, *, loss: Any = "mse", output: Output = None
) -> float:
    """Return the loss over all batches, weighed as `measure` weighs it, and nothing else.

    Parameters
    ----------
    model, X, y, loss, output
        As for :func:`flattest.measure`.

    Returns
    -------
    float
        The loss.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.measuring import mean_loss
    >>> layer = torch.nn.Linear(1, 1)
    >>> _ = torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
    >>> mean_loss(layer, torch.zeros(3, 1), torch.ones(3, 1))
    1.0
    """
    settings, module = check_settings(loss=loss, output=output), unwrap(model)
    refuse_training_mode(module)
    total = LossSum(module, settings.loss, settings.output)
    for batch in _batches(X, y, kind_of(module), settings.loss):
        call = _call(module, batch, settings)
        total.count(total.on(call, min(call.n_samples, _AT_ONCE)), call.n_samples)
    return total.mean


def hessian_of(loss: str) -> Callable[[Part], OutputHessian]:
    """Return a function from a part of the loss to the Hessian in its logits.

    Parameters
    ----------
    loss : str
        What to call the loss in messages.

    Returns
    -------
    callable
        The function.
    """
    return lambda part: output_hessian(part.evaluate, part.logits, loss)


def _batches(X: Any, y: Any, kind: Kind, loss: Loss) -> Iterator[Any]:
    return read_whole_batches(X, y, kind) if loss.takes_model else read_batches(X, y, kind)


def _call(module: nn.Module, batch: Any, settings: Settings) -> Call:
    """Call the module on a batch; where the loss calls it, see how."""
    if settings.loss.takes_model:
        return recorded(module, settings.loss, batch, settings.output)
    return Call(module, batch, settings.output)

"""Weights rounded to integers of few bits, as a copy of the module in its own dtype.

What comes out computes what a quantised network computes, up to the dtype's rounding: every weight
is a multiple of a step, which is one per tensor or one per output channel.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flattest.modules.guards import refuse_training_mode
from flattest.modules.parameters import kind_of, unwrap
from flattest.modules.symmetry.example import read_example
from flattest.quantisation.bit_allocation import BitAllocation
from flattest.validation import check_positive_int

MOST_BITS = 16
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def rounded(
    weight: Float[Tensor, "..."],
    bits: int,
    *,
    per_channel: bool = False,
    affine: bool = False,
    axis: int = 0,
) -> Float[Tensor, "..."]:
    r"""Round a tensor to integers of so many bits times a step.

    Symmetric rounding has the step :math:`\max |W| / (2^{b-1} - 1)` and keeps zero. Affine rounding
    has the step :math:`(\max W - \min W) / (2^b - 1)`, with the range widened to hold zero, and an
    integer offset.

    Parameters
    ----------
    weight : Tensor
        The tensor.
    bits : int
        The number b of bits, at least 2.
    per_channel : bool
        Whether each slice along `axis` has a step of its own.
    affine : bool
        Whether the range need not be symmetric.
    axis : int
        The dimension of the output channels.

    Returns
    -------
    Tensor
        The rounded values, in the same dtype.

    Examples
    --------
    >>> import torch
    >>> from flattest.quantisation.rounding import rounded
    >>> rounded(torch.tensor([-3.0, 0.6, 1.4, 2.0]), 3)
    tensor([-3.,  1.,  1.,  2.])
    """
    values = weight.detach().double()
    over = [d for d in range(values.ndim) if d != axis] if per_channel else list(range(values.ndim))
    if not values.numel():
        return weight.clone()
    high = values.amax(over, keepdim=True) if over else values
    low = values.amin(over, keepdim=True) if over else values
    if affine:
        high, low = high.clamp(min=0), low.clamp(max=0)
        step = _step(high - low, 2**bits - 1)
        offset = (-low / step).round()
        integers = ((values / step).round() + offset).clamp(0, 2**bits - 1)
        return ((integers - offset) * step).to(weight.dtype)
    largest = 2 ** (bits - 1) - 1
    step = _step(torch.maximum(high, -low), largest)
    return ((values / step).round().clamp(-largest, largest) * step).to(weight.dtype)


def _step(width: Tensor, integers: int) -> Tensor:
    return torch.where(width > 0, width / integers, 1.0)


def quantise(
    module: nn.Module,
    bits: Any,
    *,
    per_channel: bool | None = None,
    affine: bool | None = None,
    correct_bias: Any = None,
) -> nn.Module:
    """Return a copy of a module with rounded weights.

    Rounded are all floating-point parameters with two dimensions or more; biases and gains stay.

    Parameters
    ----------
    module : torch.nn.Module
        The module; it is not modified.
    bits : int or mapping of str to int
        The bits of all weights, or of those that are named; others stay as they are. What
        :func:`flattest.allocate_bits` returns is such a mapping.
    per_channel : bool
        Whether each output channel has a step of its own: the first dimension of a weight, the
        second of transposed convolutions. By default as the bits were chosen for, where they are
        an allocation, and False else.
    affine : bool
        Whether ranges need not be symmetric; by default likewise.
    correct_bias : Tensor, array_like, dict or tuple, optional
        Example inputs. The mean outputs of each linear layer, convolution and batch normalisation
        with a bias on these are made those of the module as it was, layer by layer from the front,
        by changing the bias (Nagel et al. 2019).

    Returns
    -------
    torch.nn.Module
        Of the same class, with the same names and dtypes.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type or value, or a name is no weight of the module.

    References
    ----------
    M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight
    Equalization and Bias Correction", ICCV 2019.

    Examples
    --------
    >>> import torch, flattest as ft
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.constant_(layer.weight, 0.3)
    >>> ft.quantise(layer, 8).weight
    Parameter containing:
    tensor([[0.3000, 0.3000]], requires_grad=True)
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, not {type(module).__name__}.")
    original = unwrap(module)
    kind_of(original)
    result = copy.deepcopy(original)
    chosen = check_bits(original, bits)
    if isinstance(bits, BitAllocation):
        per_channel = bits.per_channel if per_channel is None else per_channel
        affine = bits.affine if affine is None else affine
    axes = channel_axes(result)
    parameters = dict(result.named_parameters())
    with torch.no_grad():
        for name, number in chosen.items():
            parameter = parameters[name]
            parameter.copy_(
                rounded(
                    parameter,
                    number,
                    per_channel=bool(per_channel),
                    affine=bool(affine),
                    axis=axes.get(name, 0),
                )
            )
    if correct_bias is not None:
        _correct_biases(original, result, correct_bias)
    return result


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that rounding is for.

    Parameters
    ----------
    module : torch.nn.Module
        The module.

    Returns
    -------
    dict of str to Tensor
        All floating-point parameters with two dimensions or more, by name.
    """
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.ndim >= 2 and parameter.is_floating_point()
    }


def check_bits(module: nn.Module, bits: Any) -> dict[str, int]:
    """Return the bits of each weight that is to be rounded.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    bits : int or mapping of str to int
        For all weights, or some.

    Returns
    -------
    dict of str to int
        By name.

    Raises
    ------
    TypeError, ValueError
        If a number is none of bits, or a name none of a weight.
    """
    weights = weights_of(module)
    if not isinstance(bits, Mapping):
        bits = dict.fromkeys(weights, bits)
    for name, number in bits.items():
        if name not in weights:
            raise ValueError(
                f"bits names {name!r}, which is no weight of the module with two dimensions or "
                "more."
            )
        if check_positive_int(number, f"bits of {name}", minimum=2) > MOST_BITS:
            raise ValueError(f"bits of {name} must be at most {MOST_BITS}, not {number}.")
    return {name: int(number) for name, number in bits.items()}


def channel_axes(module: nn.Module) -> dict[str, int]:
    """Return the dimension of output channels where it is not the first.

    Parameters
    ----------
    module : torch.nn.Module
        The module.

    Returns
    -------
    dict of str to int
        By the name of the weight.
    """
    return {
        f"{name}.weight" if name else "weight": 1
        for name, part in module.named_modules()
        if isinstance(part, _TRANSPOSED)
    }


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CORRECTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED, *_NORMS)


def _correct_biases(original: nn.Module, result: nn.Module, example: Any) -> None:
    """Shift biases, one layer after the other in the order in which they run."""
    refuse_training_mode(original)
    batch = read_example(kind_of(original), example, "correct_bias")
    expected: dict[str, Tensor] = {}

    def note(name: str, layer: Any, outputs: Tensor) -> None:
        expected[name] = _means(layer, outputs)

    def correct(name: str, layer: Any, outputs: Tensor) -> Tensor:
        # What follows sees the corrected outputs already, so that one pass is enough.
        shift = expected[name] - _means(layer, outputs)
        layer.bias += shift.to(layer.bias)
        return outputs + shift.to(outputs).reshape(-1, *(1,) * _n_spatial(layer, outputs))

    for module, at_outputs in ((original, note), (result, correct)):
        _run(module, batch, at_outputs)


def _run(module: nn.Module, batch: Any, at_outputs: Callable[[str, Any, Tensor], Any]) -> None:
    """Run a module, and see or replace the first outputs of each layer with a bias."""
    seen: set[str] = set()
    handles = []
    for name, part in module.named_modules():
        if not isinstance(part, _CORRECTED) or part.bias is None:
            continue

        def hook(part: nn.Module, inputs: Any, outputs: Tensor, name: str = name) -> Any:
            if name in seen:  # a layer that is called several times has one bias
                return None
            seen.add(name)
            return at_outputs(name, part, outputs)

        handles.append(part.register_forward_hook(hook))
    args, kwargs = batch.inputs()
    try:
        with torch.no_grad():
            module(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()


def _n_spatial(layer: Any, outputs: Tensor) -> int:
    """Return the number of dimensions that follow the channels of a layer's outputs."""
    if isinstance(layer, _NORMS):
        return outputs.ndim - 2
    return len(getattr(layer, "kernel_size", ()))


def _means(layer: Any, outputs: Tensor) -> Tensor:
    """Return the mean outputs of a layer's channels."""
    values = outputs.detach().double().movedim(outputs.ndim - 1 - _n_spatial(layer, outputs), -1)
    return values.reshape(-1, values.shape[-1]).mean(dim=0)

"""The Hessian of a loss in the logits, taken from the loss itself.

No loss is coded here. Products with the loss's own Hessian, by double backward, tell which form it
has, whatever the loss is and whatever its options are; a form is taken only where such a product
with a random vector confirms it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.modules.output_hessian import (
    Blocks,
    Diagonal,
    OutputHessian,
    Softmax,
    by_position,
    from_position,
)

_TOLERANCE = 1e-9  # of samples or positions that are to be independent
_SAME = 1e-12  # of products of a form that is to be the right one


def output_hessian(
    loss: Callable[[Tensor], Tensor], logits: Float[Tensor, "n *outputs"], name: str
) -> OutputHessian:
    """Find the form of a loss's Hessian in the logits, and take it apart.

    Parameters
    ----------
    loss : callable
        The scalar loss of the logits of a whole batch.
    logits : Tensor
        The logits, in float64, samples first.
    name : str
        The loss, for messages.

    Returns
    -------
    OutputHessian
        Its columns.

    Raises
    ------
    ValueError
        If the loss is no sum over samples, or cannot be differentiated twice.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.curvature import output_hessian
    >>> logits = torch.zeros(2, 3, dtype=torch.float64)
    >>> entropy = torch.nn.CrossEntropyLoss()
    >>> hessian = output_hessian(lambda z: entropy(z, torch.tensor([0, 1])), logits, "entropy")
    >>> type(hessian).__name__, hessian.n_columns
    ('Softmax', 2)
    """
    product = products(loss, logits, name)
    generator = torch.Generator().manual_seed(0)

    def draw() -> Tensor:  # in float32, which is several times as fast
        return torch.randn(logits.shape, generator=generator).to(logits)

    _refuse_coupled_samples(product, logits, name)
    probe = draw()
    answer = product(probe)
    ones = product(torch.ones_like(logits))
    if _same(answer, ones * probe):
        return Diagonal(ones)
    axes = sorted({1, logits.ndim - 1})
    for axis in axes:
        factors = _softmax_factors(loss, logits, axis, name, draw)
        if factors is not None:
            rebuilt = _apply_softmax(logits, axis, factors, probe)
            # Where the net is certain, products are differences of terms of the factors' size.
            rounding = 100 * torch.finfo(logits.dtype).eps * float(factors.abs().max())
            if _same(answer, rebuilt, rounding):
                return Softmax(logits, axis, factors)
    for axis in axes if logits.ndim > 2 else ():
        if _positions_decouple(product, logits, axis, generator):
            return Blocks(logits.shape, axis, _blocks(product, logits, axis))
    return Blocks(logits.shape, None, _blocks(product, logits.flatten(1), 1, logits.shape))


def products(
    loss: Callable[[Tensor], Tensor], logits: Tensor, name: str
) -> Callable[[Tensor], Tensor]:
    """Return the product of the loss's Hessian in the logits with a vector.

    Parameters
    ----------
    loss : callable
        The scalar loss of the logits.
    logits : Tensor
        Where.
    name : str
        The loss, for messages.

    Returns
    -------
    callable
        From a vector of the logits' shape to one of the same shape.

    Raises
    ------
    ValueError
        If the loss cannot be differentiated twice, or its derivatives are not finite.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.curvature import products
    >>> product = products(lambda z: (z**3).sum(), torch.tensor([2.0]), "cube")
    >>> product(torch.tensor([1.0]))
    tensor([12.])
    """
    leaf = logits.detach().requires_grad_()
    try:
        value = loss(leaf)
        if not value.requires_grad:
            raise ValueError(f"The loss {name} does not depend on the model's outputs.")
        gradient = torch.autograd.grad(value, leaf, create_graph=True)[0]
    except RuntimeError as error:
        raise ValueError(f"The loss {name} cannot be differentiated: {error}") from error
    if not torch.isfinite(gradient).all():
        raise ValueError(f"The gradient of the loss {name} contains NaN or infinity.")

    def product(vector: Tensor) -> Tensor:
        if not gradient.requires_grad:  # linear in the logits
            return torch.zeros_like(logits)
        try:
            result = torch.autograd.grad(
                gradient, leaf, vector, retain_graph=True, materialize_grads=True
            )[0]
        except RuntimeError as error:
            raise ValueError(f"The loss {name} cannot be differentiated twice: {error}") from error
        if not torch.isfinite(result).all():
            raise ValueError(f"The second derivative of the loss {name} is not finite.")
        return result.clone()  # zeros may be immutable

    return product


def _refuse_coupled_samples(product: Callable[[Tensor], Tensor], logits: Tensor, name: str) -> None:
    """Refuse a loss whose gradient for one sample depends on the outputs for another."""
    generator = torch.Generator().manual_seed(1)
    n = len(logits)
    for _ in range(2 if n > 1 else 0):
        chosen = torch.randperm(n, generator=generator)[: n // 2].to(logits.device)
        vector = torch.zeros_like(logits)
        vector[chosen] = torch.randn(
            (len(chosen), *logits.shape[1:]), generator=generator, dtype=torch.float64
        ).to(logits)
        answer = product(vector)
        inside = answer[chosen].abs().max()
        answer[chosen] = 0
        if answer.abs().max() > _TOLERANCE * inside:
            raise ValueError(
                f"The loss {name} is no sum over samples: the outputs for one sample enter the "
                "loss of another, so no Gauss-Newton matrix is defined sample by sample."
            )


def _softmax_factors(
    loss: Callable[[Tensor], Tensor],
    logits: Tensor,
    axis: int,
    name: str,
    draw: Callable[[], Tensor],
) -> Tensor | None:
    """Return the multiples of ``diag(p) - p p^T`` that the loss has at all logits, if it has.

    They are read off at random logits, where no probability is near 0 or 1, and have to be the same
    at others.
    """
    if logits.ndim < 2 or logits.shape[axis] < 2:
        return None
    found: list[Tensor] = []
    for _ in range(2):
        elsewhere, vector = draw(), draw()
        answer = products(loss, elsewhere, name)(vector)
        ideal = by_position(_apply_softmax(elsewhere, axis, None, vector), axis)
        shown = by_position(answer, axis)
        factors = (shown * ideal).sum(dim=-1) / (ideal * ideal).sum(dim=-1)
        if not _same(answer, _apply_softmax(elsewhere, axis, factors, vector)):
            return None
        found.append(factors)
    return found[0] if _same(found[0], found[1]) else None


def _apply_softmax(logits: Tensor, axis: int, factors: Tensor | None, vector: Tensor) -> Tensor:
    p = by_position(torch.softmax(logits, dim=axis), axis)
    v = by_position(vector, axis)
    result = p * v - p * (p * v).sum(dim=-1, keepdim=True)
    if factors is not None:
        result = result * factors[..., None]
    return from_position(result, axis, logits.shape)


def _positions_decouple(
    product: Callable[[Tensor], Tensor], logits: Tensor, axis: int, generator: torch.Generator
) -> bool:
    """Tell whether no position along the other axes enters the gradient at another."""
    shape = by_position(logits, axis).shape
    for _ in range(2):
        chosen = torch.rand(shape[:2], generator=generator)[..., None].to(logits.device) < 0.5
        vector = torch.randn(shape, generator=generator, dtype=torch.float64).to(logits)
        answer = by_position(
            product(from_position(torch.where(chosen, vector, 0), axis, logits.shape)), axis
        )
        if torch.where(chosen, 0, answer).abs().max() > _TOLERANCE * answer.abs().max():
            return False
    return True


def _blocks(
    product: Callable[[Tensor], Tensor],
    logits: Tensor,
    axis: int,
    shape: torch.Size | None = None,
) -> Tensor:
    """Return the blocks of the Hessian, row by row for all positions and samples at once."""
    shape = logits.shape if shape is None else shape
    n, positions, k = by_position(logits, axis).shape
    rows = []
    for index in range(k):
        vector = logits.new_zeros(n, positions, k)
        vector[..., index] = 1
        answer = product(from_position(vector, axis, logits.shape).reshape(shape))
        rows.append(by_position(answer.reshape(logits.shape), axis))
    return torch.stack(rows, dim=-2)


def _same(one: Tensor, other: Tensor, rounding: float = 0.0) -> bool:
    allowed = _SAME * torch.maximum(one.abs().max(), other.abs().max()) + rounding
    return bool((one - other).abs().max() <= allowed)

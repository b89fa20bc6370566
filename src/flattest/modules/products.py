"""Products with the Jacobian and the Hessians of a module, by reverse mode alone.

Forward mode would need the parameters replaced by dual numbers inside the module, which breaks
where a tensor has two names; pulling a dummy cotangent back twice needs nothing but the graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def jacobian_product(
    outputs: Float[Tensor, "n *outputs"], parameters: Sequence[Tensor], vectors: Sequence[Tensor]
) -> Float[Tensor, "n *outputs"]:
    """Return the derivative of the outputs along a direction in the space of the parameters.

    Parameters
    ----------
    outputs : Tensor
        With their graph, which is kept.
    parameters : sequence of Tensor
        The parameters.
    vectors : sequence of Tensor
        The direction, in the parameters' shapes.

    Returns
    -------
    Tensor
        Of the outputs' shape.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.products import jacobian_product
    >>> w = torch.tensor(3.0, requires_grad=True)
    >>> jacobian_product(torch.stack([w**2, 2 * w]), [w], [torch.tensor(1.0)])
    tensor([6., 2.])
    """
    dummy = torch.zeros_like(outputs).requires_grad_()
    pulled = torch.autograd.grad(
        outputs, list(parameters), dummy, create_graph=True, allow_unused=True
    )
    result = _along(pulled, vectors, [dummy])[0]
    return torch.zeros_like(dummy) if result is None else result


def slope_product(
    outputs: Tensor, slopes: Tensor, parameters: Sequence[Tensor], vectors: Sequence[Tensor]
) -> list[Tensor | None]:
    """Return the Hessian of ``<slopes, outputs>`` in the parameters, times a direction.

    Parameters
    ----------
    outputs, slopes : Tensor
        The outputs with their graph, which is kept, and what they are weighed by.
    parameters : sequence of Tensor
        The parameters.
    vectors : sequence of Tensor
        The direction.

    Returns
    -------
    list of Tensor or None
        In the parameters' shapes; None for 0.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.products import slope_product
    >>> w = torch.tensor(3.0, requires_grad=True)
    >>> slope_product(w**3, torch.tensor(1.0), [w], [torch.tensor(2.0)])
    [tensor(36.)]
    """
    first = torch.autograd.grad(
        outputs, list(parameters), slopes, create_graph=True, allow_unused=True
    )
    return _along(first, vectors, parameters)


def _along(
    gradients: Sequence[Tensor | None], vectors: Sequence[Tensor], inputs: Sequence[Tensor]
) -> list[Tensor | None]:
    """Differentiate the scalar product of gradients with a direction."""
    pairs = [
        (gradient, vector)
        for gradient, vector in zip(gradients, vectors, strict=True)
        if gradient is not None and gradient.requires_grad
    ]
    if not pairs:
        return [None] * len(inputs)
    return list(
        torch.autograd.grad(
            [gradient for gradient, _ in pairs],
            list(inputs),
            [vector for _, vector in pairs],
            retain_graph=True,
            allow_unused=True,
        )
    )

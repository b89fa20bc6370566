"""Fewer columns than outputs, exactly, where the last layer is linear and used once.

With ``z = W h + b`` and the Hessian ``H`` of the loss in ``z``, everything below the last layer
sees ``W^T H W``, of the size of ``h``: as many columns suffice, however many outputs there are. The
last layer itself is in closed form: by ``W_ck`` the diagonal is ``H_cc h_k**2``, by ``b_c`` it is
``H_cc``. Where a sample has several positions, such as tokens, this holds for each of them as long
as the loss does not couple them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from flattest.modules.output_hessian import Blocks, OutputHessian
from flattest.modules.squared_gradients.graph import Graph

_VIEWS = ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0")
_PRODUCTS = ("AddmmBackward0", "MmBackward0")


class Head(NamedTuple):
    """A linear last layer.

    Parameters
    ----------
    weight : Tensor of shape (outputs, width)
        Its weight.
    hidden : Tensor of shape (n, ..., width)
        Its inputs, with their graph.
    weight_number, bias_number : int or None
        The numbers of its parameters, if they are measured.
    """

    weight: Float[Tensor, "outputs width"]
    hidden: Float[Tensor, "n *positions width"]
    weight_number: int | None
    bias_number: int | None


def find_head(graph: Graph, parameters: list[Tensor]) -> Head | None:
    """Return the last layer, if it is linear and nothing else uses its parameters.

    Parameters
    ----------
    graph : Graph
        Of the outputs.
    parameters : list of Tensor
        The measured parameters.

    Returns
    -------
    Head or None
        The layer.
    """
    outputs = graph.outputs
    node = _product(outputs)
    if node is None or outputs.ndim < 2:
        return None
    if node.name() == "AddmmBackward0":
        if node._saved_alpha != 1 or node._saved_beta != 1:
            return None
        (bias, _), (below, _), (transposed, _) = node.next_functions
    else:
        bias, ((below, _), (transposed, _)) = None, node.next_functions
    if below is None or transposed is None or transposed.name() != "TBackward0":
        return None
    variables = [
        getattr(child, "variable", None) for child in (transposed.next_functions[0][0], bias)
    ]
    weight = variables[0]
    if weight is None or (bias is not None and variables[1] is None):
        return None
    inputs = hidden(outputs)
    if len(weight) != outputs.shape[-1] or inputs.shape[:-1] != outputs.shape[:-1]:
        return None
    numbers = {id(parameter): number for number, parameter in enumerate(parameters)}
    found = [None if v is None else numbers.get(id(v)) for v in variables]
    uses = graph.uses("near")
    if any(number is not None and len(uses.get(number, [])) != 1 for number in found):
        return None
    return Head(weight.detach(), inputs, found[0], found[1])


def _product(outputs: Tensor) -> Any:
    """Return the node of the matrix product behind outputs and views of them, if there is one."""
    node: Any = outputs.grad_fn
    while node is not None and node.name() in _VIEWS:
        node = node.next_functions[0][0]
    return node if node is not None and node.name() in _PRODUCTS else None


def hidden(outputs: Tensor) -> Tensor:
    """Return the inputs of the last layer, for outputs of a graph that has a head."""
    node = _product(outputs)
    rows = node._saved_mat1 if node.name() == "AddmmBackward0" else node._saved_self
    if outputs.ndim == 2 or len(rows) != math.prod(outputs.shape[:-1]):
        return rows
    return rows.reshape(*outputs.shape[:-1], rows.shape[-1])


def below(head: Head, hessian: OutputHessian, samples: slice) -> Blocks:
    """Return the Hessian of the loss in the inputs of the last layer.

    Parameters
    ----------
    head : Head
        The last layer.
    hessian : OutputHessian
        That in the outputs.
    samples : slice
        Which samples these are.

    Returns
    -------
    Blocks
        One block per sample and position.
    """
    blocks = hessian.through(head.weight, samples)
    shape = head.hidden.shape
    axis = None if len(shape) == 2 else len(shape) - 1
    return Blocks(shape, axis, blocks, quick=True)


def of_head(
    head: Head, hessian: OutputHessian, samples: slice
) -> tuple[Float[Tensor, "outputs width"], Float[Tensor, " outputs"]]:
    """Return the diagonals of the last layer's weight and bias.

    Parameters
    ----------
    head : Head
        The last layer.
    hessian : OutputHessian
        The Hessian in the outputs.
    samples : slice
        Which samples these are.

    Returns
    -------
    weight, bias : Tensor
        Of the shapes of the parameters.
    """
    curvature = hessian.own(samples).flatten(0, 1)
    inputs = head.hidden.detach().flatten(0, -2).double()
    return curvature.mT @ inputs**2, curvature.sum(dim=0)


def relative_of_head(head: Head, inner: Blocks) -> float:
    """Return the relative flatness of the last layer: the sum of ``||h||**2 tr W^T H W``.

    Parameters
    ----------
    head : Head
        The last layer.
    inner : Blocks
        What `below` returned.

    Returns
    -------
    float
        The sum over samples.
    """
    traces = inner.own(slice(None)).sum(dim=-1).flatten()
    norms = (head.hidden.detach().double() ** 2).sum(dim=-1).flatten()
    return float(norms @ traces)


def worthwhile(head: Head | None, hessian: OutputHessian) -> bool:
    """Tell whether the last layer narrows the number of columns down."""
    if head is None or not hessian.along_last:
        return False
    return width(head) < hessian.n_columns


def width(head: Head) -> int:
    """Return the number of columns that suffice below the last layer."""
    return head.hidden[0].numel()

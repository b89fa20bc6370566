r"""Labels through products of matrices, convolutions and look-ups.

A product :math:`\sum_i a_{pi} b_{io}` scales as a whole if all its terms do, so if
:math:`A_{pi} = \alpha_p + \beta_i` and :math:`B_{io} = \gamma_o - \beta_i`; the result has the
label :math:`\alpha_p + \gamma_o`. A weight that is used for the first time takes whatever form
that demands: new variables :math:`\gamma_o`, and no equation at all.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flattest.modules.symmetry.equations import FROZEN
from flattest.modules.symmetry.labels import ANY, Labels, compact, constant_along, core, frozen
from flattest.modules.symmetry.parameters import Raw
from flattest.modules.symmetry.walk import Step, Walk

_ZERO = torch.full((), FROZEN, dtype=torch.int64)


def matmul(walk: Walk, step: Step, a: Any, b: Any) -> Labels:
    """Take the product of two matrices, or of batches of them."""
    if isinstance(b, Raw) and not isinstance(a, Raw):
        return _with_weight(walk, walk.labels(a), b)
    if isinstance(a, Raw) and not isinstance(b, Raw):
        turned = dataclasses.replace(a, view=a.view.transpose(-1, -2))
        return _with_weight(walk, walk.labels(b).transpose(-1, -2), turned).transpose(-1, -2)
    if isinstance(a, Raw) and isinstance(b, Raw):
        # Two weights: the inner scales are free, as those between two layers.
        inner = walk.fresh((*b.shape[:-1], 1))
        walk.forms.bind(b, inner, walk.fresh((*b.shape[:-2], 1, b.shape[-1])))
        return _with_weight(
            walk,
            walk.labels(b).transpose(-1, -2),
            dataclasses.replace(a, view=a.view.transpose(-1, -2)),
        ).transpose(-1, -2)
    return _of_labels(walk, walk.labels(a), walk.labels(b))


def addmm(
    walk: Walk, step: Step, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1
) -> Labels:
    """Add a matrix product to something that broadcasts."""
    product = matmul(walk, step, a, b)
    return product if beta == 0 else add(walk, bias, product)


def vector_product(walk: Walk, step: Step, a: Any, b: Any) -> Labels:
    """Take the product of a matrix or vector and a vector."""
    matrix = unsqueezed(a, 0) if len(a.shape) == 1 else a
    result = matmul(walk, step, matrix, unsqueezed(b, -1)).squeeze(-1)
    return result.squeeze(0) if len(a.shape) == 1 else result


def add(walk: Walk, one: Any, other: Any) -> Labels:
    """Add two values: their labels are equal, and a weight takes those of the other."""
    if isinstance(one, Raw):
        one, other = other, one
    if not isinstance(other, Raw) or isinstance(one, Raw):
        return walk.unify(walk.labels(one), walk.labels(other))
    labels = walk.labels(one)
    shape = torch.broadcast_shapes(labels.shape, other.shape)
    reduced = reduce_to(walk, labels.expand(shape), other)
    missing = reduced == ANY
    if bool(missing.any()):
        # Zeros are added to: there the weight's own scale is the scale of the sum.
        reduced = reduced.clone()
        reduced[missing] = walk.fresh((int(missing.sum()),), other.name)
    walk.forms.bind(other.without_repeats(), reduced, _ZERO)
    return reduced.expand(other.shape).expand(shape)


def reduce_to(walk: Walk, labels: Labels, weight: Raw) -> Labels:
    """Tie labels along the dimensions along which a weight is repeated, to the weight's shape."""
    extra = labels.ndim - len(weight.shape)
    repeated = [
        axis + extra
        for axis, (size, stride) in enumerate(zip(weight.shape, weight.view.stride(), strict=True))
        if labels.shape[axis + extra] > 1 and (size == 1 or stride == 0)
    ]
    tied = walk.tie(labels, [*range(extra), *repeated])
    return tied.reshape(tied.shape[extra:])


def convolution(
    walk: Walk,
    step: Step,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Labels:
    """Convolve: every channel has one scale, wherever it is."""
    labels = walk.labels(x)
    batched = labels if labels.ndim == len(weight.shape) else labels[None]
    channels = known(walk, walk.tie(batched, [0, *range(2, batched.ndim)]).reshape(-1))
    n_in, n_out = len(channels), step.shape[batched.ndim - len(step.shape) + 1]
    name = weight.name if isinstance(weight, Raw) else ""
    out = walk.fresh((n_out,), name)
    per_group = (channels.view(groups, -1), out.view(groups, -1))
    if transposed:
        # The weight is (channels in, channels out of one group, kernel).
        into = channels.view(n_in, 1)
        ends = per_group[1][:, None, :].expand(groups, n_in // groups, -1).reshape(n_in, -1)
        ends = ends if groups > 1 else out.view(1, -1)
    else:
        into = per_group[0][:, None, :].expand(groups, n_out // groups, -1).reshape(n_out, -1)
        into = into if groups > 1 else channels.view(1, -1)
        ends = out.view(n_out, 1)
    kernel = (1,) * (len(weight.shape) - 2)
    into, ends = into.reshape(*into.shape, *kernel), ends.reshape(*ends.shape, *kernel)
    if isinstance(weight, Raw):
        walk.forms.bind(weight, ends, into)
    else:
        demand_sum(walk, ends, (walk.labels(weight), 1.0), (into, 1.0))
    spread = (1, n_out, *(1,) * (len(step.shape) - 2))
    result = out.view(spread if len(step.shape) == len(weight.shape) else (*spread[1:], 1))
    result = result.expand(step.shape)
    if bias is None:
        return result
    shaped = bias
    for _ in kernel:
        shaped = unsqueezed(shaped, -1)
    return add(walk, result, shaped)


def bilinear(walk: Walk, step: Step, *arguments: Any) -> Labels:
    """Sum products of three factors, as `torch.nn.Bilinear` does."""
    factors, expansions, summed = arguments[:3], arguments[3:6], arguments[6]
    spread = []
    for factor, axes in zip(factors, expansions, strict=True):
        for axis in axes:
            factor = unsqueezed(factor, axis)
        spread.append(factor)
    labels = walk.combine(*((walk.labels(factor), 1.0) for factor in spread))
    tied = walk.tie(labels, summed)
    for axis in sorted(summed, reverse=True):
        tied = tied.squeeze(axis)
    return tied.expand(step.shape)


def embedding(walk: Walk, step: Step, weight: Any, indices: Any, *options: Any) -> Labels:
    """Look rows up: each column has one scale in all rows, those not seen here included."""
    if isinstance(weight, Raw):
        form = walk.forms.known(weight)
        width = tuple(weight.shape[1:])
        if form is not None and bool((form[1] == FROZEN).all()):
            rows = compact(form[0].expand(weight.shape))
            if constant_along(rows, 0):
                return rows[0].expand(step.shape)
        columns = walk.fresh((1, *width), weight.name)
        walk.forms.bind(weight, columns, _ZERO)
        return columns[0].expand(step.shape)
    return walk.tie(walk.labels(weight), [0])[0].expand(step.shape)


def embedding_bag(
    walk: Walk,
    step: Step,
    weight: Any,
    indices: Any,
    offsets: Any,
    scale_by_frequency: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Any = None,
    *options: Any,
) -> Any:
    """Look rows up and add, average or compare them."""
    inner = step._replace(shapes=step.shapes[:1])
    result = embedding(walk, inner, weight, indices)
    if per_sample_weights is not None:
        result = walk.combine((result, 1.0), (walk.tie_all(walk.labels(per_sample_weights)), 1.0))
    return (result, *(frozen(shape) for shape in step.shapes[1:]))


def demand_sum(walk: Walk, total: Labels, *terms: tuple[Labels, float]) -> None:
    """Demand that labels are a weighed sum of others, where none is ANY."""
    small = core(total, *(labels for labels, _ in terms))
    rows = torch.stack([labels.reshape(-1) for labels in small], dim=1)
    rows = torch.unique(rows[(rows != ANY).all(dim=1)], dim=0)
    walk.equations.relate(rows.numpy(), (-1.0, *(power for _, power in terms)))


def unsqueezed(value: Any, axis: int) -> Any:
    """Give any value one more dimension, of size 1."""
    if isinstance(value, Raw):
        return dataclasses.replace(value, view=value.view.unsqueeze(axis))
    if isinstance(value, Tensor):
        return value.unsqueeze(axis)
    return dataclasses.replace(value, value=value.value.unsqueeze(axis))


def _with_weight(walk: Walk, x: Labels, weight: Raw) -> Labels:
    """Multiply labels (..., p, i) by a weight (..., i, o) that takes the form it needs."""
    lead = torch.broadcast_shapes(x.shape[:-2], weight.shape[:-2])
    shape = (*lead, x.shape[-2], weight.shape[-1])
    x = x.expand(*lead, *x.shape[-2:])
    # Where the weight is the same for several matrices, these are further rows of one.
    single = weight.without_repeats()
    own = [axis for axis, size in enumerate(single.shape[:-2]) if size > 1]
    shared = [axis for axis in range(len(lead)) if axis not in own]
    order = [*own, *shared, len(lead), len(lead) + 1]
    rows = x.permute(order)
    sizes = [lead[axis] for axis in own]
    small = compact(_flattened(rows, len(own)))
    alpha, into = _split(walk, small)
    into = known(walk, into)
    shaped = [1] * len(lead)
    for axis in own:
        shaped[axis] = lead[axis]
    out = walk.fresh((*(s for s in sizes), weight.shape[-1]), weight.name)
    out = out.view(*shaped, 1, weight.shape[-1])
    sources = into.reshape(*shaped, -1, 1)
    walk.forms.bind(single, out, sources)
    result = out.expand(shape)
    if alpha is None:
        return result
    inverse = [order.index(axis) for axis in range(len(lead))]
    positions = alpha.reshape([*sizes, *(lead[axis] for axis in shared), x.shape[-2]])
    positions = positions.permute([*inverse, len(lead)]).unsqueeze(-1)
    return walk.combine((result, 1.0), (positions.expand(shape), 1.0))


def known(walk: Walk, labels: Labels) -> Labels:
    """Put new variables where labels are ANY: zeros say nothing of a weight that they meet."""
    missing = labels == ANY
    if not bool(missing.any()):
        return labels
    labels = labels.clone()
    labels[missing] = walk.fresh((int(missing.sum()),))
    return labels


def _flattened(rows: Tensor, n_own: int) -> Tensor:
    """Make one dimension of all between the first few and the last."""
    shape = (*rows.shape[:n_own], -1, rows.shape[-1])
    middle = rows.shape[n_own:-1]
    if all(rows.stride(n_own + axis) == 0 or size == 1 for axis, size in enumerate(middle)):
        count = int(np.prod(middle))
        first = rows
        for _ in middle:
            first = first.select(n_own, 0)
        return first.unsqueeze(n_own).expand(*rows.shape[:n_own], count, rows.shape[-1])
    return rows.reshape(shape)


def _split(walk: Walk, x: Labels) -> tuple[Labels | None, Labels]:
    """Write labels (..., p, i) as alpha_p + beta_i; alpha is None where it is zero."""
    if constant_along(x, x.ndim - 2):
        return None, x[..., 0, :]
    if constant_along(x, x.ndim - 1):
        return x[..., 0], torch.full((*x.shape[:-2], x.shape[-1]), FROZEN, dtype=torch.int64)
    lead = x.shape[:-2]
    flat = x.reshape(-1, *x.shape[-2:])
    alphas, betas = [], []
    for matrix in flat:
        rows, inverse = torch.unique(matrix, dim=0, return_inverse=True)
        if len(rows) == 1:
            alphas.append(torch.full((len(matrix),), FROZEN, dtype=torch.int64))
            betas.append(matrix[0])
            continue
        alpha, beta = walk.fresh((len(rows),)), walk.fresh((rows.shape[1],))
        # One of the rows is where alpha is counted from.
        walk.equations.equate(alpha[:1].numpy(), np.zeros(1, dtype=np.int64))
        demand_sum(walk, rows, (alpha[:, None], 1.0), (beta[None], 1.0))
        alphas.append(alpha[inverse])
        betas.append(beta)
    return (
        torch.stack(alphas).view(*lead, -1),
        torch.stack(betas).view(*lead, -1),
    )


def _of_labels(walk: Walk, a: Labels, b: Labels) -> Labels:
    """Multiply labels (..., p, i) and (..., i, o)."""
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*lead, a.shape[-2], b.shape[-1])
    a, b = a.expand(*lead, *a.shape[-2:]), b.expand(*lead, *b.shape[-2:])
    missing = _without_terms(a, b)
    # Matrices at the same place of a batch are mostly alike: one of them speaks for all.
    for axis, size in enumerate(lead):
        if size > 1 and a.stride(axis) == 0 and b.stride(axis) == 0:
            a, b = a.narrow(axis, 0, 1), b.narrow(axis, 0, 1)
    if constant_along(a, a.ndim - 1) and not bool((a[..., 0] == ANY).any()):
        result = walk.combine((a[..., :1], 1.0), (walk.tie(b, [-2]), 1.0))
    elif constant_along(b, b.ndim - 2) and not bool((b[..., 0, :] == ANY).any()):
        result = walk.combine((walk.tie(a, [-1]), 1.0), (b[..., :1, :], 1.0))
    else:
        result = _general(walk, a, b)
    result = result.expand(shape)
    return result if missing is None else torch.where(missing, ANY, result)


def _without_terms(a: Labels, b: Labels) -> Tensor | None:
    """Tell where a product has no term that is not zero by construction."""
    if not (bool((core(a)[0] == ANY).any()) or bool((core(b)[0] == ANY).any())):
        return None
    there = torch.matmul((a != ANY).float(), (b != ANY).float()) == 0
    return there if bool(there.any()) else None


def _general(walk: Walk, a: Labels, b: Labels) -> Labels:
    """Demand that A = alpha + beta and B = gamma - beta, matrix by matrix."""
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    lefts = core(a)[0].expand(*lead, *core(a)[0].shape[-2:])
    rights = core(b)[0].expand(*lead, *core(b)[0].shape[-2:])
    flat_a = lefts.reshape(-1, *lefts.shape[-2:])
    flat_b = rights.reshape(-1, *rights.shape[-2:])
    both = torch.cat([flat_a.flatten(1), flat_b.flatten(1)], dim=1)
    _, number = torch.unique(both, dim=0, return_inverse=True)
    results: dict[int, Labels] = {}
    for index, key in enumerate(number.tolist()):
        if key not in results:
            results[key] = _one_product(walk, flat_a[index], flat_b[index])
    stacked = torch.stack([results[key] for key in number.tolist()])
    return stacked.view(*lead, *stacked.shape[-2:])


def _one_product(walk: Walk, a: Labels, b: Labels) -> Labels:
    """Multiply labels (p, i) and (i, o)."""
    width = max(a.shape[1], b.shape[0])
    a, b = a.expand(-1, width), b.expand(width, -1)
    rows, of_row = torch.unique(a, dim=0, return_inverse=True)
    columns, of_column = torch.unique(b, dim=1, return_inverse=True)
    gamma = walk.fresh((columns.shape[1],))
    if len(rows) == 1:
        # alpha is zero and beta are the labels themselves.
        demand_sum(walk, gamma[None], (rows[0][:, None], 1.0), (columns, 1.0))
        return gamma[of_column][None].expand(len(a), -1)
    alpha, beta = walk.fresh((len(rows),)), walk.fresh((width,))
    walk.equations.equate(alpha[:1].numpy(), np.zeros(1, dtype=np.int64))
    demand_sum(walk, rows, (alpha[:, None], 1.0), (beta[None], 1.0))
    demand_sum(walk, columns, (gamma[None], 1.0), (beta[:, None], -1.0))
    return walk.combine((alpha[of_row][:, None], 1.0), (gamma[of_column][None], 1.0))


def addmv(
    walk: Walk, step: Step, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1
) -> Labels:
    """Add a product with a vector to a vector."""
    product = vector_product(walk, step, a, b)
    return product if beta == 0 else add(walk, bias, product)

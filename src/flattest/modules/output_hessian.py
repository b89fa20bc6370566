r"""Signed columns of the Hessian of the loss in the logits, in each of the forms that it can have.

The Gauss-Newton matrix is ``sum_i J_i^T H_i J_i`` over samples, with ``H_i`` the Hessian of the
loss in the logits of sample ``i``. Written as ``H_i = sum_c sigma_c s_c s_c^T`` with signs
``sigma``, its diagonal is a sum of squared gradients of ``s_c^T z_i``: one cotangent per column.

- `Diagonal`, for losses that are sums over single outputs;
- `Softmax`, a multiple of ``diag(p) - p p^T`` per position: its ``C - 1`` columns are a Cholesky
  factor in closed form;
- `Blocks`, one per position along a class axis, or one per sample: eigenvectors.

Which of them a loss has is found out in `flattest.modules.curvature`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

_CACHED = 1 << 17  # entries of differences that stay in the processor's cache
_NEGLIGIBLE = 1e-15  # of the largest eigenvalue: below it a column is rounding


class OutputHessian(ABC):
    """The Hessian of the loss of one batch in its logits.

    Parameters
    ----------
    shape : torch.Size
        The shape of the logits, samples first.
    """

    def __init__(self, shape: torch.Size) -> None:
        self.shape = shape

    @property
    @abstractmethod
    def n_columns(self) -> int:
        """The number of columns per sample."""

    @abstractmethod
    def columns(self, which: range, samples: slice) -> tuple[Tensor, Tensor]:
        """Return some columns of some samples.

        Parameters
        ----------
        which : range
            Which columns.
        samples : slice
            Which samples.

        Returns
        -------
        columns : Tensor of shape (c, n, ...)
            Cotangents of the logits.
        signs : Tensor of shape (c, n)
            1 and -1.
        """

    @abstractmethod
    def weights(self) -> Float[Tensor, "n positions k"]:
        """Return the signed squared norms of components whose sum is the Hessian.

        These need not be the columns: components that are alike are better drawn from.
        """

    @abstractmethod
    def units(
        self, chosen: Int[Tensor, "n positions"], samples: slice
    ) -> Float[Tensor, "n positions k"]:
        """Return one component per position, divided by its norm."""

    @property
    def along_last(self) -> bool:
        """Whether components run along the last axis: positions have blocks of their own."""
        return len(self.shape) > 1 and self._position_axis == len(self.shape) - 1

    def own(self, samples: slice) -> Float[Tensor, "n positions k"]:
        """Return the diagonal, if components run along the last axis."""
        raise NotImplementedError

    def through(
        self, weight: Float[Tensor, "k width"], samples: slice
    ) -> Float[Tensor, "n positions width width"]:
        """Return ``W^T H W`` at each position, if components run along the last axis."""
        raise NotImplementedError

    def spread(self, values: Float[Tensor, "n positions k"], n_samples: int) -> Tensor:
        """Put values by position back into the shape of the logits."""
        shape = torch.Size((n_samples, *self.shape[1:]))
        axis = self._position_axis
        return values.reshape(shape) if axis is None else from_position(values, axis, shape)

    @property
    def _position_axis(self) -> int | None:
        """The axis that components run along; None if that is all of a sample."""
        return 1 if len(self.shape) > 1 else None


class Diagonal(OutputHessian):
    """A loss that is a sum over single outputs: one column for each.

    Parameters
    ----------
    diagonal : Tensor
        The second derivatives, of the shape of the logits.
    """

    def __init__(self, diagonal: Float[Tensor, "n *outputs"]) -> None:
        super().__init__(diagonal.shape)
        self.diagonal = diagonal.flatten(1) if diagonal.ndim > 1 else diagonal[:, None]
        self._used = self.diagonal.abs().amax(dim=0).nonzero()[:, 0]

    @property
    def n_columns(self) -> int:
        """One per output that has a second derivative."""
        return len(self._used)

    def columns(self, which: range, samples: slice) -> tuple[Tensor, Tensor]:
        """Return multiples of unit vectors."""
        outputs = self._used[which.start : which.stop]
        values = self.diagonal[samples][:, outputs].T
        columns = values.new_zeros((*values.shape, self.diagonal.shape[1]))
        columns.scatter_(
            2, outputs[:, None, None].expand(*values.shape, 1), values.abs().sqrt()[..., None]
        )
        return columns.reshape(*values.shape, *self.shape[1:]), _signs(values)

    def weights(self) -> Float[Tensor, "n positions k"]:
        """Return the second derivatives, outputs along axis 1."""
        axis = self._position_axis
        if axis is None:
            return self.diagonal[:, None]
        return by_position(self.diagonal.reshape(self.shape), axis)

    def units(
        self, chosen: Int[Tensor, "n positions"], samples: slice
    ) -> Float[Tensor, "n positions k"]:
        """Return unit vectors."""
        k = self.shape[1] if len(self.shape) > 1 else 1
        return torch.nn.functional.one_hot(chosen, k).to(self.diagonal)

    @property
    def along_last(self) -> bool:
        """True of any axis."""
        return len(self.shape) > 1

    def own(self, samples: slice) -> Float[Tensor, "n positions k"]:
        """Return the second derivatives."""
        diagonal = self.diagonal[samples]
        return diagonal.reshape(len(diagonal), -1, self.shape[-1])

    def through(
        self, weight: Float[Tensor, "k width"], samples: slice
    ) -> Float[Tensor, "n positions width width"]:
        """Return ``W^T H W``."""
        weight = weight.double()
        return (weight.mT * self.own(samples)[..., None, :]) @ weight


class Softmax(OutputHessian):
    """Multiples of ``diag(p) - p p^T``, one block per position.

    Parameters
    ----------
    logits : Tensor
        The logits.
    axis : int
        Along which the probabilities sum to 1.
    factors : Tensor of shape (n, positions)
        The multiples, of any sign.
    """

    def __init__(self, logits: Float[Tensor, "n *outputs"], axis: int, factors: Tensor) -> None:
        super().__init__(logits.shape)
        self._axis, self._factors = axis, factors
        self._probabilities = by_position(torch.softmax(logits, dim=axis), axis)

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor]:
        """The probabilities in descending order, and where they are from."""
        p, order = self._probabilities.sort(dim=-1, descending=True)
        return p, order

    @property
    def _p(self) -> Float[Tensor, "n positions k"]:
        return self._sorted[0]

    @property
    def _order(self) -> Int[Tensor, "n positions k"]:
        return self._sorted[1]

    @cached_property
    def _tails(self) -> Float[Tensor, "n positions k"]:
        return self._p.flip(-1).cumsum(-1).flip(-1)

    @cached_property
    def _rest(self) -> Float[Tensor, "n positions k"]:
        """``1 - p``, without cancellation for the largest p."""
        return self._for_largest(1 - self._probabilities, self._probabilities)

    def _for_largest(self, values: Tensor, terms: Tensor) -> Float[Tensor, "n positions k"]:
        """Put the sum of all other terms in the place of the largest probability."""
        largest = self._probabilities.argmax(dim=-1, keepdim=True)
        others = terms.scatter(-1, largest, 0.0).sum(dim=-1, keepdim=True)
        return values.scatter(-1, largest, others)

    @property
    def n_columns(self) -> int:
        """One less than classes, for each position."""
        _, positions, classes = self._probabilities.shape
        return positions * (classes - 1)

    def columns(self, which: range, samples: slice) -> tuple[Tensor, Tensor]:
        r"""Return columns of the Cholesky factor, with classes in descending order.

        ``L_jj = sqrt(p_j t_{j+1} / t_j)`` and ``L_ij = -p_i / t_{j+1} L_jj`` for ``i > j``, where
        ``t_j`` is the sum of all ``p_i`` with ``i >= j``. Sums of small terms only: finite and
        accurate whatever the logits are.
        """
        columns, signs = [], []
        p, order, tails = self._p[samples], self._order[samples], self._tails[samples]
        n, positions, classes = p.shape
        for index in which:
            position, j = divmod(index, classes - 1)
            row, tail = p[:, position], tails[:, position]
            rest = tail[:, j + 1]
            pivot = (row[:, j] * rest / tail[:, j]).clamp(min=0).nan_to_num(0).sqrt()
            sorted_column = torch.zeros_like(row)
            sorted_column[:, j] = pivot
            share = (row[:, j + 1 :] / rest[:, None]).nan_to_num(0)
            sorted_column[:, j + 1 :] = -share * pivot[:, None]
            factor = self._factors[samples][:, position]
            column = p.new_zeros(n, positions, classes)
            column[:, position].scatter_(
                1, order[:, position], sorted_column * factor.abs().sqrt()[:, None]
            )
            columns.append(from_position(column, self._axis, torch.Size((n, *self.shape[1:]))))
            signs.append(_signs(factor))
        return torch.stack(columns), torch.stack(signs)

    def weights(self) -> Float[Tensor, "n positions k"]:
        """Return those of ``sqrt(p_c) (e_c - p)``, one for each class."""
        return self._factors[..., None] * self._probabilities * self._squared_norms()

    def units(
        self, chosen: Int[Tensor, "n positions"], samples: slice
    ) -> Float[Tensor, "n positions k"]:
        """Return multiples of ``e_c - p``."""
        p = self._probabilities[samples]
        vectors = torch.nn.functional.one_hot(chosen, p.shape[-1]).to(p) - p
        norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        return (vectors / norms).nan_to_num(0)

    def own(self, samples: slice) -> Float[Tensor, "n positions k"]:
        """Return multiples of ``p (1 - p)``."""
        own = self._probabilities[samples] * self._rest[samples]
        return own * self._factors[samples][..., None]

    def through(
        self, weight: Float[Tensor, "k width"], samples: slice
    ) -> Float[Tensor, "n positions width width"]:
        """Return the covariance of the rows of W under p, from their differences.

        The products are formed in the precision of W.
        """
        p = self._probabilities[samples]
        flat = p.flatten(0, 1).to(weight)
        likeliest = flat.argmax(dim=-1)
        step = max(1, _CACHED // weight.numel())
        parts = []
        for chosen, top in zip(flat.split(step), likeliest.split(step), strict=True):
            # From the likeliest row, for then a certain sample leaves no difference of large terms.
            roots = chosen.sqrt()
            apart = (weight - weight[top][:, None]).mul_(roots[..., None])
            mean = roots[:, None] @ apart
            parts.append(apart.mT @ apart - mean.mT @ mean)
        covariance = torch.cat(parts).to(p).reshape(*p.shape[:2], *[weight.shape[1]] * 2)
        return covariance * self._factors[samples][..., None, None]

    def _squared_norms(self) -> Tensor:
        """Return ``||e_c - p||**2``, from terms that do not cancel."""
        squares = self._probabilities**2
        others = (squares.sum(dim=-1, keepdim=True) - squares).clamp(min=0)
        return self._rest**2 + self._for_largest(others, squares)

    @property
    def _position_axis(self) -> int | None:
        return self._axis


class Blocks(OutputHessian):
    """Any symmetric block per position: eigenvectors, or the columns of a Cholesky factor.

    These are of the block scaled to a unit diagonal, so that every entry is accurate relative to
    its own size, and rescaled units get rescaled figures, however far apart their scales are.

    Parameters
    ----------
    shape : torch.Size
        The shape of the logits.
    axis : int or None
        The axis along which a block runs; None for one block per sample.
    blocks : Tensor of shape (n, positions, k, k)
        The blocks.
    quick : bool
        Whether Cholesky factors do, which take a tenth of the time. To draw columns, eigenvectors
        are better.
    """

    def __init__(
        self,
        shape: torch.Size,
        axis: int | None,
        blocks: Float[Tensor, "n positions k k"],
        *,
        quick: bool = False,
    ) -> None:
        super().__init__(shape)
        self._axis = axis
        symmetric = (blocks + blocks.mT) / 2
        sizes = _sizes(symmetric)
        scaled = symmetric / (sizes[..., None] * sizes[..., None, :])
        found: tuple[Tensor, Tensor] = (_cholesky if quick else torch.linalg.eigh)(scaled)
        values, vectors = found
        largest = values.abs().amax()
        values = torch.where(values.abs() > _NEGLIGIBLE * largest, values, 0)
        vectors = sizes[..., None] * vectors
        norms = torch.linalg.vector_norm(vectors, dim=-2)
        self._vectors, self._values = vectors / norms[..., None, :], values * norms**2
        self._used = self._values.abs().amax(dim=0).flatten().nonzero()[:, 0].tolist()

    @property
    def n_columns(self) -> int:
        """One for each eigenvalue that is not zero in all samples."""
        return len(self._used)

    def columns(self, which: range, samples: slice) -> tuple[Tensor, Tensor]:
        """Return eigenvectors times the roots of their eigenvalues."""
        columns, signs = [], []
        values, vectors = self._values[samples], self._vectors[samples]
        n, positions, k = values.shape
        for index in which:
            position, j = divmod(self._used[index], k)
            eigenvalue = values[:, position, j]
            column = values.new_zeros(n, positions, k)
            column[:, position] = vectors[:, position, :, j] * eigenvalue.abs().sqrt()[:, None]
            shape = torch.Size((n, *self.shape[1:]))
            columns.append(
                column.reshape(shape)
                if self._axis is None
                else from_position(column, self._axis, shape)
            )
            signs.append(_signs(eigenvalue))
        return torch.stack(columns), torch.stack(signs)

    def weights(self) -> Float[Tensor, "n positions k"]:
        """Return the eigenvalues."""
        return self._values

    def units(
        self, chosen: Int[Tensor, "n positions"], samples: slice
    ) -> Float[Tensor, "n positions k"]:
        """Return eigenvectors."""
        vectors = self._vectors[samples]
        index = chosen[..., None, None].expand(*vectors.shape[:-1], 1)
        return vectors.gather(-1, index)[..., 0]

    @property
    def along_last(self) -> bool:
        """Not where one block is that of a whole sample with several positions."""
        return super().along_last or (self._axis is None and len(self.shape) == 2)

    def own(self, samples: slice) -> Float[Tensor, "n positions k"]:
        """Return the diagonals of the blocks."""
        values, vectors = self._values[samples], self._vectors[samples]
        return (vectors**2 @ values[..., None])[..., 0]

    def through(
        self, weight: Float[Tensor, "k width"], samples: slice
    ) -> Float[Tensor, "n positions width width"]:
        """Return ``W^T H W``."""
        values, vectors = self._values[samples], self._vectors[samples]
        rows = vectors.mT @ weight.double()
        return (rows * values[..., None]).mT @ rows

    @property
    def _position_axis(self) -> int | None:
        return self._axis


def _sizes(blocks: Float[Tensor, "n positions k k"]) -> Float[Tensor, "n positions k"]:
    """Return the roots of the diagonals, where blocks can be positive semi-definite; else 1."""
    sizes = blocks.diagonal(dim1=-2, dim2=-1).abs().sqrt()
    bounds = sizes[..., None] * sizes[..., None, :]
    definite = (blocks.abs() <= (1 + 1e-6) * bounds).flatten(-2).all(dim=-1, keepdim=True)
    return torch.where(definite & (sizes > 0), sizes, 1)


def _cholesky(
    blocks: Float[Tensor, "n positions k k"],
) -> tuple[Float[Tensor, "n positions k"], Float[Tensor, "n positions k k"]]:
    """Return values and unit vectors with ``H = sum_c values_c v_c v_c^T``."""
    factors, failed = torch.linalg.cholesky_ex(blocks)
    norms = torch.linalg.vector_norm(factors, dim=-2)
    values, vectors = norms**2, factors / norms[..., None, :]
    singular = failed != 0  # or with negative curvature
    if bool(singular.any()):
        values[singular], vectors[singular] = torch.linalg.eigh(blocks[singular])
    return values, vectors


def by_position(values: Tensor, axis: int) -> Float[Tensor, "n positions k"]:
    """Put the class axis last and all other axes but the samples' into one."""
    moved = values.movedim(axis, -1)
    return moved.reshape(len(values), -1, values.shape[axis])


def from_position(values: Tensor, axis: int, shape: torch.Size) -> Tensor:
    """Undo `by_position`."""
    others = [size for position, size in enumerate(shape) if position not in (0, axis)]
    return values.reshape(shape[0], *others, shape[axis]).movedim(-1, axis)


def _signs(values: Tensor) -> Tensor:
    return torch.where(values < 0, -1.0, 1.0).to(values)

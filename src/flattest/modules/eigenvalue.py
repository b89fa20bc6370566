"""The largest eigenvalue of a module's Hessian or Gauss-Newton matrix, by Lanczos' method.

SciPy's `eigsh` (ARPACK) is given products of the matrix with vectors, which go through the data
once each. The residual ``||H v - lambda v||`` of what it returns is computed: a symmetric matrix
has an eigenvalue within that distance. That no larger one was missed is likely, but not proved.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flattest.flatness import Provenance
from flattest.modules.curvature import products
from flattest.modules.part import Part
from flattest.modules.products import jacobian_product, slope_product
from flattest.modules.watching import Watch

_RTOL = 1e-4  # of the eigenvalue, beside which its own meaning is vague
_FEW = 4  # parameters up to which the matrix is built, as ARPACK needs more rows than vectors


class Curvature:
    """The Hessian, or the Gauss-Newton matrix, of the loss of several batches.

    Parameters
    ----------
    parts : list of Part
        The batches.
    parameters : list of Tensor
        The parameters.
    matrix : {"hessian", "gauss_newton"}
        Which of the two.
    norm : float
        What the sum is divided by.
    name : str
        The loss, for messages.
    watch : Watch
        Is asked between micro-batches whether to go on.
    """

    def __init__(
        self,
        parts: list[Part],
        parameters: list[Tensor],
        matrix: str,
        norm: float,
        name: str,
        watch: Watch,
    ) -> None:
        self._watch = watch
        self._parts, self._parameters, self._norm, self._name = parts, parameters, norm, name
        self._whole = matrix == "hessian"
        self.size = sum(p.numel() for p in parameters)
        self.n_products = 0

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """Return the product with a vector."""
        self.n_products += 1
        flat = torch.from_numpy(np.ascontiguousarray(vector.reshape(-1), dtype=np.float64))
        vectors = [
            piece.reshape(p.shape).to(p)
            for piece, p in zip(
                flat.split([p.numel() for p in self._parameters]), self._parameters, strict=True
            )
        ]
        total = [torch.zeros_like(p, dtype=torch.float64) for p in self._parameters]
        for part in self._parts:
            self._add(part, vectors, total)
        return torch.cat([t.flatten() for t in total]).cpu().numpy() / self._norm

    def _add(self, part: Part, vectors: list[Tensor], total: list[Tensor]) -> None:
        product = products(part.evaluate, part.logits, self._name)
        slopes = self._slopes(part) if self._whole else None
        for start in range(0, part.call.n_samples, part.step):
            self._watch.check()
            chosen = slice(start, min(start + part.step, part.call.n_samples))
            outputs, _ = part.call.outputs(chosen)
            along = torch.zeros_like(part.logits)
            along[chosen] = jacobian_product(outputs, self._parameters, vectors).double()
            bent = product(along)[chosen].to(outputs.dtype)
            found: list[Sequence[Tensor | None]] = [
                torch.autograd.grad(
                    outputs, self._parameters, bent, retain_graph=True, allow_unused=True
                )
            ]
            if slopes is not None:
                own = slopes[chosen].to(outputs.dtype)
                found.append(slope_product(outputs, own, self._parameters, vectors))
            for pieces in found:
                for sums, piece in zip(total, pieces, strict=True):
                    if piece is not None:
                        sums += part.weight * piece.detach().double()

    def _slopes(self, part: Part) -> Tensor:
        leaf = part.logits.detach().requires_grad_()
        return torch.autograd.grad(part.evaluate(leaf), leaf)[0]


def largest_eigenvalue(
    curvature: Curvature, matrix: str, rng: np.random.Generator
) -> tuple[float, Provenance]:
    """Return the largest eigenvalue, and how it came about.

    Parameters
    ----------
    curvature : Curvature
        The matrix.
    matrix : {"hessian", "gauss_newton"}
        What it is.
    rng : numpy.random.Generator
        Draws the first vector.

    Returns
    -------
    value : float
        The eigenvalue.
    provenance : Provenance
        With the residual.
    """
    start = rng.standard_normal(curvature.size)
    if curvature.size <= _FEW:
        dense = np.stack([curvature(unit) for unit in np.eye(curvature.size)])
        values, vectors = np.linalg.eigh((dense + dense.T) / 2)
        value, vector = float(values[-1]), vectors[:, -1]
    else:
        value, vector = _lanczos(curvature, start)
    left = float(np.linalg.norm(curvature(vector) - value * vector))
    what = "Hessian" if matrix == "hessian" else "Gauss-Newton matrix"
    why = (
        f"of the {what}, by Lanczos' method in {curvature.n_products} products; "
        f"an eigenvalue lies within {left:.2g} of it"
    )
    return value, Provenance(exact=False, why=why)


def _lanczos(curvature: Curvature, start: np.ndarray) -> tuple[float, np.ndarray]:
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    size = curvature.size
    operator = LinearOperator((size, size), matvec=curvature, dtype=np.float64)
    try:
        values, vectors = eigsh(operator, k=1, which="LA", v0=start, tol=_RTOL)
    except ArpackNoConvergence as error:
        raise ValueError(
            "largest_eigenvalue was not found: Lanczos' method did not converge in "
            f"{curvature.n_products} products; leave it out."
        ) from error
    return float(values[0]), vectors[:, 0]

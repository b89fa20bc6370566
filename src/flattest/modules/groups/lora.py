r"""The flattest factors of a LoRA adapter: the same product, the least trace.

An adapter adds :math:`B A x` to the outputs of a layer, and ``(M A, B M^-1)`` is the same adapter
for every invertible M. For one sample with input ``x`` and cotangent ``c`` of the layer's outputs
the gradients are :math:`B^T c x^T` by A and :math:`c (A x)^T` by B.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flattest.modules.groups.lora_factors import LoraBalance, Moments, balance_factors
from flattest.modules.groups.lora_files import balance_file
from flattest.validation import Argument, Like, check_matrix


def balance_lora(
    A: Any,
    B: Any = None,
    *,
    inputs: Any = None,
    cotangents: Any = None,
    output: str | Path | None = None,
) -> LoraBalance | dict[str, LoraBalance]:
    r"""Balance the two factors of a LoRA adapter, or of all adapters in a PEFT file.

    For n samples of the adapted layer's inputs ``x`` and of the cotangents ``c`` that arrive at its
    outputs, the Gauss-Newton trace by both factors is

    .. math:: \sum_i \| B^T c_i \|^2 \| x_i \|^2 + \| A x_i \|^2 \| c_i \|^2 .

    Among all ``(M A, B M^-1)``, which have one product, its infimum is twice the nuclear norm of a
    product of the QR factors of the stacked gradients, and the factors returned attain it. Without
    samples, as for files, inputs and cotangents are taken to be isotropic: this makes the sum of
    the squared norms, :math:`\|A\|^2 + \|B\|^2`, as small as it can be, which is
    :math:`2 \| B A \|_*`.

    Parameters
    ----------
    A : Tensor or array_like of shape (r, d), or path
        The factor that inputs meet first. Or the ``adapter_model.safetensors`` that PEFT wrote.
    B : Tensor or array_like of shape (m, r), optional
        The other factor; left out for a file.
    inputs : Tensor or array_like of shape (n, d), optional
        Inputs of the adapted layer.
    cotangents : Tensor or array_like of shape (n, m), optional
        The gradients of the loss, or of columns of its output Hessian, by the layer's outputs, row
        by row for the same samples. Given together with `inputs`.
    output : str or Path, optional
        For a file, where the balanced one is written; all other tensors and the metadata are
        copied.

    Returns
    -------
    LoraBalance or dict of str to LoraBalance
        For a file, one for each adapted layer by its name.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value, or a product would change by more than the
        rounding of its dtype.
    FlattestError
        If a file is not what PEFT writes.

    See Also
    --------
    flattest.balance : Finds adapters in a model, and balances them for the model's own loss.

    References
    ----------
    E. J. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.

    Examples
    --------
    >>> import torch, flattest as ft
    >>> A, B = torch.tensor([[8.0, 0.0]]).double(), torch.tensor([[0.5], [0.0]]).double()
    >>> found = ft.balance_lora(A, B)
    >>> found.trace, round(found.minimum, 12), found.A.round(decimals=12).tolist()
    (64.25, 8.0, [[2.0, 0.0]])
    """
    if isinstance(A, (str, Path)):
        for name, value in (("B", B), ("inputs", inputs), ("cotangents", cotangents)):
            if value is not None:
                raise TypeError(f"{name} must be left out when A is a file.")
        if output is None:
            raise TypeError("output is missing: name the file that the balanced adapter goes to.")
        return balance_file(Path(A), Path(output))
    if output is not None:
        raise TypeError("output is for files; two factors are returned.")
    if B is None:
        raise TypeError("B is missing: give both factors of the adapter.")
    first = check_matrix(A, Argument("A", "row"))
    second = check_matrix(
        B, Argument("B", "row"), Like(first.dtype, first.device, whose=", like A")
    )
    if second.shape[1] != first.shape[0]:
        raise ValueError(
            f"B has {second.shape[1]} columns, but A has {first.shape[0]} rows; both numbers are "
            "the rank."
        )
    return balance_factors(first, second, _moments(first, second, inputs, cotangents))


def _moments(A: Tensor, B: Tensor, inputs: Any, cotangents: Any) -> Moments:
    if inputs is None and cotangents is None:
        return Moments(None, None)
    if inputs is None or cotangents is None:
        missing = "inputs" if inputs is None else "cotangents"
        raise TypeError(f"{missing} is missing: give inputs and cotangents, or neither.")
    like = Like(A.dtype, A.device, whose=", like A")
    x = check_matrix(inputs, Argument("inputs"), like).double()
    c = check_matrix(cotangents, Argument("cotangents"), like).double()
    for name, values, width, of in (("inputs", x, A.shape[1], "A"), ("cotangents", c, len(B), "B")):
        if values.shape[1] != width:
            side = "columns" if of == "A" else "rows"
            raise ValueError(f"{name} has {values.shape[1]} columns, but {of} has {width} {side}.")
    if len(x) != len(c):
        raise ValueError(f"cotangents has {len(c)} rows, but inputs has {len(x)}.")
    return Moments(
        torch.linalg.vector_norm(c, dim=1, keepdim=True) * x,
        torch.linalg.vector_norm(x, dim=1, keepdim=True) * c,
    )

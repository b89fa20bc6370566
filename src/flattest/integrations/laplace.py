"""A curvature backend of laplace-torch: the exact diagonal of its Gauss-Newton matrix."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from flattest.errors import require
from flattest.measuring import measure

require("laplace", extra="integrations", purpose="flattest.integrations.laplace")

from laplace.curvature import GGNInterface


class FlattestGGN(GGNInterface):
    r"""The diagonal of the generalised Gauss-Newton matrix, for laplace-torch.

    With the outputs :math:`f_i` of a batch, their Jacobians :math:`J_i` in the parameters, and the
    Hessian :math:`\Lambda_i` of the negative log likelihood in the outputs,

    .. math:: h = \operatorname{diag} \sum_i J_i^T \Lambda_i J_i .

    laplace-torch's own backends form all of :math:`J`, with a row for each sample and output, or
    know a list of layers. This one sums squared gradients over the autograd graph, whatever the
    network is made of. Its memory is that of the diagonal and of as many samples at a time as fit
    into about 100 MB. The diagonal is exact up to rounding.

    Parameters
    ----------
    model : torch.nn.Module
        The network.
    likelihood : {"classification", "regression"}
        The likelihood: categorical, or Gaussian of variance 1.
    last_layer : bool
        Whether only the last layer counts, for which laplace-torch's own formula is as good and is
        used.
    subnetwork_indices : Tensor, optional
        The parameters that count, by their places among all.
    dict_key_x, dict_key_y : str
        What laplace-torch calls inputs and targets in dictionaries.

    See Also
    --------
    flattest.measure : Where the diagonal comes from.

    Notes
    -----
    Predictions with ``pred_type="glm"`` need Jacobians of the new points, which are laplace-torch's
    own, by ``torch.func``; those with ``pred_type="nn"`` do not. For structures other than the
    diagonal, ``hessian_structure="full"`` is laplace-torch's formula, and Kronecker factors
    are refused.

    References
    ----------
    E. Daxberger et al., "Laplace Redux: Effortless Bayesian Deep Learning", NeurIPS 2021.

    Examples
    --------
    >>> import torch
    >>> from laplace import Laplace
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from flattest.integrations.laplace import FlattestGGN
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 3))
    >>> data = TensorDataset(torch.randn(20, 4), torch.randint(0, 3, (20,)))
    >>> la = Laplace(
    ...     model,
    ...     "classification",
    ...     subset_of_weights="all",
    ...     hessian_structure="diag",
    ...     backend=FlattestGGN,
    ... )
    >>> la.fit(DataLoader(data, batch_size=10))
    >>> la.H.shape
    torch.Size([67])
    """

    def __init__(
        self,
        model: nn.Module,
        likelihood: str,
        last_layer: bool = False,
        subnetwork_indices: Any = None,
        dict_key_x: str = "input_ids",
        dict_key_y: str = "labels",
    ) -> None:
        super().__init__(model, likelihood, last_layer, subnetwork_indices, dict_key_x, dict_key_y)

    def diag(
        self, x: Tensor | MutableMapping[str, Any], y: Tensor, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of a batch, and the diagonal.

        Parameters
        ----------
        x : Tensor or mapping
            The inputs.
        y : Tensor
            The targets.
        **kwargs
            What laplace-torch tells other backends; not used.

        Returns
        -------
        loss : Tensor
            The negative log likelihood, up to the constant that laplace-torch leaves out.
        diagonal : Tensor of shape (p,)
            In the order of the parameters that require gradients.
        """
        if self.last_layer:
            return super().diag(x, y, **kwargs)
        options: dict[str, Any] = {
            "parameters": list(self.params_dict),
            "mode": "exact",
            "residual": "none",
        }
        if isinstance(x, MutableMapping):
            found = measure(self.model, [dict(x)], loss=self._loss_of_batch, **options)
        else:
            found = measure(self.model, x, y, loss=self.lossfunc, output=_classes_second, **options)
        entries = found.diagonal()
        diagonal = torch.cat([entries[name].flatten() for name in self.params_dict])
        if self.subnetwork_indices is not None:
            diagonal = diagonal[self.subnetwork_indices]
        dtype = self.params[0].dtype
        loss = torch.tensor(found.loss, dtype=dtype, device=diagonal.device)
        return self.factor * loss, self.factor * diagonal.to(dtype)

    def kron(self, x: Any, y: Tensor, N: int, **kwargs: Any) -> Any:
        """Refuse Kronecker factors.

        Parameters
        ----------
        x, y, N : object
            The batch, and the number of all samples.
        **kwargs
            Options.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            "flattest has no Kronecker factors; use hessian_structure='diag', or laplace-torch's "
            "own CurvlinopsGGN for 'kron'."
        )

    def _loss_of_batch(self, model: Callable[..., Tensor], batch: dict[str, Any]) -> Tensor:
        """Return the loss of a batch that is a dictionary, which laplace-torch hands over whole."""
        return self.lossfunc(_classes_second(model(batch)), batch[self.dict_key_y])


def _classes_second(outputs: Tensor) -> Tensor:
    """Put classes where PyTorch's loss has them; laplace-torch has them last, as of tokens."""
    return outputs if outputs.ndim < 3 else outputs.movedim(-1, 1)

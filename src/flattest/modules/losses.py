"""The loss of a batch as a function of its logits, and what it is divided by.

A `Loss` evaluates the caller's own loss, in float64, and knows the normaliser by which the loss of
a batch is to be weighed among others: the loss of several batches is the sum over them divided by
the sum of the normalisers, never a mean of batch means. For losses whose normaliser is not known
by name it is read off their gradients, see `Normalisers`.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import math
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flattest.modules.trees import map_leaves

_NAMES: dict[str, type[nn.Module]] = {
    "mse": nn.MSELoss,
    "cross_entropy": nn.CrossEntropyLoss,
    "bce_with_logits": nn.BCEWithLogitsLoss,
}
_SUM_OF_PROBABILITIES = 1e-3
"""By how much sums of probabilities may be off, in half precision too."""
_ELEMENTWISE = (
    nn.MSELoss,
    nn.BCEWithLogitsLoss,
    nn.BCELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
)
_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss)
_WHOLE = ("model", "net", "network", "module")


class Loss(NamedTuple):
    """A loss as it is measured.

    Parameters
    ----------
    name : str
        For messages and provenance.
    evaluate : callable
        The scalar loss of (logits, targets), or of (model, batch).
    takes_model : bool
        Which of the two.
    normaliser : callable or None
        What the loss of (logits, targets) was divided by; None where that is not known.

    Examples
    --------
    >>> from flattest.modules.losses import resolve
    >>> resolve("mse").name
    'mse'
    """

    name: str
    evaluate: Callable[[Any, Any], Tensor]
    takes_model: bool
    normaliser: Callable[[Tensor, Any], float] | None


def resolve(loss: Any) -> Loss:
    """Turn the argument `loss` into a `Loss`.

    Parameters
    ----------
    loss : str, torch.nn.Module or callable
        As for :func:`flattest.measure`.

    Returns
    -------
    Loss
        The loss.

    Raises
    ------
    TypeError, ValueError
        If it is none of these, or a loss per sample.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.losses import resolve
    >>> resolve(torch.nn.CrossEntropyLoss(label_smoothing=0.1)).name
    'CrossEntropyLoss'
    """
    if isinstance(loss, str):
        if loss not in _NAMES:
            names, meant = ", ".join(map(repr, _NAMES)), _meant(loss)
            raise ValueError(
                f"loss must be one of {names}, a torch.nn loss or a function of logits and "
                f"targets, not {loss!r}{f'; did you mean {meant!r}?' if meant else '.'}"
            )
        return resolve(_NAMES[loss]())._replace(name=loss)
    if isinstance(loss, type):
        raise TypeError(f"loss is the class {loss.__name__}; make one, as in {loss.__name__}().")
    if isinstance(loss, nn.Module):
        return _of_module(loss)
    if not callable(loss):
        raise TypeError(
            "loss must be a name, a torch.nn loss or a function of logits and targets, not "
            f"{type(loss).__name__}."
        )
    name = getattr(loss, "__name__", type(loss).__name__)
    return Loss(name, loss, _takes_model(loss), None)


def _meant(name: str) -> str | None:
    """Return the loss that a misspelt name, or that of a class of PyTorch, is nearest to."""
    plain = {known.replace("_", ""): known for known in _NAMES}
    written = re.sub(r"[\W_]|loss$", "", name.lower())
    close = difflib.get_close_matches(written, plain, n=1)
    return plain[close[0]] if close else None


def _of_module(loss: nn.Module) -> Loss:
    name = type(loss).__name__
    reduction = getattr(loss, "reduction", "mean")
    if reduction not in ("mean", "sum", "batchmean"):
        raise ValueError(
            f"{name} has reduction={reduction!r}, which gives no single loss; "
            "use reduction='mean' or reduction='sum'."
        )
    module = copy.deepcopy(loss).double()
    for parameter in module.parameters():
        parameter.requires_grad_(False)

    def elementwise(logits: Tensor, targets: Any) -> Tensor:
        return module(logits, aligned(logits, targets, name))

    def classes(logits: Tensor, targets: Any) -> Tensor:
        return module(logits, _classes(logits, targets, name))

    if type(loss) in _ELEMENTWISE:
        evaluate = elementwise
        known = {"mean": lambda z, y: float(z.numel()), "sum": lambda z, y: math.nan}
    elif type(loss) in _CLASSES:
        evaluate = classes
        known = {"mean": lambda z, y: _weight_of(module, z, y), "sum": lambda z, y: math.nan}
    else:
        return Loss(name, module, False, None)
    return Loss(name, evaluate, False, known[reduction])


def aligned(logits: Tensor, targets: Any, name: str) -> Tensor:
    """Give targets the shape of the logits where only dimensions of length 1 differ.

    Parameters
    ----------
    logits : Tensor
        The logits.
    targets : Tensor
        One target per logit.
    name : str
        The loss, for the message.

    Returns
    -------
    Tensor
        The targets, of the logits' shape and dtype.

    Raises
    ------
    TypeError, ValueError
        If there is not one target per logit: nothing is broadcast.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.losses import aligned
    >>> aligned(torch.zeros(2, 1), torch.ones(2), "mse").shape
    torch.Size([2, 1])
    """
    if not isinstance(targets, Tensor):
        raise TypeError(f"{name} takes targets that are a tensor, not {type(targets).__name__}.")

    def without_ones(shape: torch.Size) -> list[int]:
        return [shape[0], *(size for size in shape[1:] if size != 1)]

    if without_ones(logits.shape) != without_ones(targets.shape):
        advice = "" if targets.is_floating_point() else "; classes go with the loss 'cross_entropy'"
        raise ValueError(
            f"y has shape {tuple(targets.shape)}, but the model's outputs have shape "
            f"{tuple(logits.shape)}; {name} takes one target for each output{advice}."
        )
    return targets.reshape(logits.shape).to(logits.dtype)


def _classes(logits: Tensor, targets: Any, name: str) -> Tensor:
    """Check targets that are classes, or probabilities of classes along axis 1."""
    if not isinstance(targets, Tensor):
        raise TypeError(f"{name} takes targets that are a tensor, not {type(targets).__name__}.")
    if logits.ndim < 2:
        raise ValueError(
            f"{name} needs outputs of shape (n, classes, ...), but the model's have shape "
            f"{tuple(logits.shape)}."
        )
    if targets.shape == logits.shape and targets.is_floating_point():
        return targets
    expected = (logits.shape[0], *logits.shape[2:])
    if targets.is_floating_point():
        raise TypeError(
            f"y has a floating-point dtype and shape {tuple(targets.shape)}; {name} takes integer "
            f"classes (y.long()) of shape {expected}, or probabilities of shape "
            f"{tuple(logits.shape)}."
        )
    if targets.ndim == len(expected) + 1 and targets.shape[-1] == 1:
        targets = targets[..., 0]
    if tuple(targets.shape) != expected:
        raise ValueError(
            f"y has shape {tuple(targets.shape)}, but outputs of shape {tuple(logits.shape)} need "
            f"classes of shape {expected}; a loss over the last axis is a function such as "
            "lambda z, y: torch.nn.functional.cross_entropy(z.flatten(0, 1), y.flatten())."
        )
    return targets.long()


def warn_of_probabilities(logits: Tensor, loss: Loss) -> None:
    """Warn where outputs look like probabilities, and the loss makes such of logits by itself.

    Parameters
    ----------
    logits : Tensor of shape (n, classes, ...)
        The outputs, in float64.
    loss : Loss
        The loss.

    Warns
    -----
    UserWarning
        If all outputs are between 0 and 1 and sum to 1 over classes.
    """
    if loss.name not in ("cross_entropy", "CrossEntropyLoss") or logits.ndim < 2:
        return
    sums = logits.sum(1)
    if logits.shape[1] > 1 and bool(
        (logits >= 0).all() and ((sums - 1).abs() < _SUM_OF_PROBABILITIES).all()
    ):
        warnings.warn(
            "The model's outputs are probabilities: they are not negative and sum to 1. Cross-"
            "entropy takes logits, and applies a softmax by itself; leave the model's last softmax "
            "out, or the figures are those of another loss.",
            stacklevel=2,
        )


def _weight_of(module: nn.Module, logits: Tensor, targets: Tensor) -> float:
    """Return what the mean of a loss over classes is divided by."""
    classes = _classes(logits, targets, type(module).__name__)
    if classes.is_floating_point():
        return logits.numel() / logits.shape[1]
    counted = classes[classes != module.ignore_index]
    if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < logits.shape[1]:
        raise ValueError(
            f"y holds classes from {int(counted.min())} to {int(counted.max())}, but the model has "
            f"{logits.shape[1]} outputs."
        )
    if not isinstance(module.weight, Tensor):
        return float(counted.numel())
    return float(module.weight.to(classes.device)[counted].sum())


def in_float64(tree: Any) -> Any:
    """Return the same containers with all floating-point tensors in float64.

    Parameters
    ----------
    tree : object
        Nested containers of tensors.

    Returns
    -------
    object
        The same in float64.
    """
    return map_leaves(
        lambda leaf: (
            leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
        ),
        tree,
    )


def checked_scalar(value: Any, name: str) -> Tensor:
    """Return a loss, or refuse what is no finite number.

    Parameters
    ----------
    value : object
        What the loss returned.
    name : str
        The loss.

    Returns
    -------
    Tensor
        Of no dimension.

    Raises
    ------
    TypeError, ValueError
        If it is no tensor, or more than one number.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"The loss {name} returned {type(value).__name__}, not a tensor.")
    if value.numel() != 1:
        raise ValueError(
            f"The loss {name} returned shape {tuple(value.shape)}, not one number; sum or average "
            "it over samples."
        )
    return value.reshape(())


def refuse_broadcast(
    evaluate: Callable[[Tensor, Any], Tensor], logits: Tensor, targets: Any, name: str
) -> None:
    """Refuse a loss to which it is all the same which target belongs to which sample.

    Outputs of shape (n, 1) and targets of shape (n,) broadcast to all n**2 pairs.

    Parameters
    ----------
    evaluate : callable
        The loss.
    logits : Tensor of shape (n, ...)
        The logits.
    targets : object
        The targets.
    name : str
        The loss, for the message.

    Raises
    ------
    ValueError
        If the loss stays the same when targets are handed round.
    """
    if not isinstance(targets, Tensor) or not targets.is_floating_point() or len(targets) < 2:
        return
    try:
        pairs = math.prod(torch.broadcast_shapes(logits.shape, targets.shape))
    except RuntimeError:
        return
    if pairs <= logits.numel():
        return
    moved = targets.roll(1, 0)
    away = logits + _noise(logits)
    one, other = (float(evaluate(away, values)) for values in (targets, moved))
    if not torch.equal(moved, targets) and abs(one - other) <= 1e-12 * abs(one):
        raise ValueError(
            f"The loss {name} does not notice which target belongs to which sample: outputs of "
            f"shape {tuple(logits.shape)} and targets of shape {tuple(targets.shape)} broadcast; "
            "give both the same shape."
        )


def _takes_model(loss: Callable[..., Any]) -> bool:
    """Tell ``loss(model, batch)`` from ``loss(logits, targets)`` by its first parameter's name."""
    try:
        names = list(inspect.signature(loss).parameters)
    except (TypeError, ValueError):
        return False
    return len(names) == 2 and names[0] in _WHOLE


class Normalisers:
    """Weighs batches by the normaliser of a loss that tells it only by its gradients.

    A loss over samples is either a sum, ``f(S) = sum_i l_i``, or a weighted mean,
    ``f(S) = sum_i w_i l_i / sum_i w_i``. Put together with the first batch, of total weight 1, a
    batch of total weight ``W`` has its gradient multiplied by 1 in the first case and by
    ``W / (1 + W)`` in the second, and the first batch by ``1 / (1 + W)``.

    Parameters
    ----------
    name : str
        The loss, for messages.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.losses import Normalisers
    >>> weights = Normalisers("mean")
    >>> mean = lambda z, y: ((z - y) ** 2).mean()
    >>> one, two = torch.ones(1, 1).double(), torch.ones(2, 1).double()
    >>> weights.weight(mean, one, one), round(weights.weight(mean, two, two), 9)
    (1.0, 2.0)
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._first: tuple[Tensor, Any] | None = None

    def weight(self, evaluate: Callable[[Tensor, Any], Tensor], z: Tensor, y: Any) -> float:
        """Return the weight of a batch relative to the first one; NaN where losses are summed.

        Parameters
        ----------
        evaluate : callable
            The loss of logits and targets.
        z : Tensor
            The batch's logits, in float64.
        y : object
            Its targets, likewise.

        Returns
        -------
        float
            The weight.

        Raises
        ------
        ValueError
            If the loss is neither a sum nor a weighted mean over batches.
        """
        # Away from the fit, where the gradients of some losses vanish.
        z = z.detach() + _noise(z)
        if self._first is None:
            self._first = z, y
            return 1.0
        first_z, first_y = self._first
        together = joined(first_z, z), joined(first_y, y)
        if together[0] is None or (first_y is not None and together[1] is None):
            raise ValueError(
                f"The batches have other shapes, and how {self._name} weighs them cannot be seen; "
                "give it as a torch.nn loss, or one batch."
            )
        of_first, of_batch = (_gradient(evaluate, *part) for part in ((first_z, first_y), (z, y)))
        both = _gradient(evaluate, *together)
        factor_of_first = _factor(both[: len(first_z)], of_first)
        factor = _factor(both[len(first_z) :], of_batch)
        if abs(factor_of_first - 1) < 1e-9 and abs(factor - 1) < 1e-9:
            return math.nan
        if abs(factor_of_first + factor - 1) < 1e-9 and factor_of_first > 0:
            return factor / factor_of_first
        raise ValueError(
            f"The loss {self._name} is neither a sum nor a weighted mean over batches; "
            "give it as a torch.nn loss, or one batch."
        )


def joined(one: Any, two: Any) -> Any:
    """Join two batches along samples; None where that is impossible.

    Parameters
    ----------
    one, two : object
        The same containers of tensors.

    Returns
    -------
    object
        The same containers again, or None.
    """
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        fits = one.ndim > 0 and one.shape[1:] == two.shape[1:]
        return torch.cat([one, two]) if fits else None
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        entries = {key: joined(one[key], two[key]) for key in one}
        return None if any(entry is None for entry in entries.values()) else entries
    if isinstance(one, (tuple, list)) and isinstance(two, (tuple, list)) and len(one) == len(two):
        parts = [joined(a, b) for a, b in zip(one, two, strict=True)]
        return None if any(part is None for part in parts) else type(one)(parts)
    return None


def _noise(z: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z)


def _gradient(evaluate: Callable[[Tensor, Any], Tensor], z: Tensor, y: Any) -> Tensor:
    leaf = z.detach().requires_grad_()
    return torch.autograd.grad(evaluate(leaf, y), leaf)[0]


def _factor(gradient: Tensor, reference: Tensor) -> float:
    """Return the number by which the reference is multiplied; 0 where it is not finite."""
    if not torch.isfinite(reference).all():
        return 0.0
    size = (reference * reference).sum()
    return 0.0 if size == 0 else float((gradient * reference).sum() / size)

r"""The part of a Hessian trace that the Gauss-Newton trace leaves out.

The Hessian of a loss is G + R: the Gauss-Newton matrix, and the Hessian of
:math:`\langle \mathrm{stopgrad}(\partial l/\partial z), z(\theta) \rangle`. The trace of R per
parameter tensor is 0 wherever `linearity` proves that the outputs are piecewise linear in it.
`residual_trace` works on the others only: exactly where that is cheap, else with probes and their
standard error. `residual_graph` finds how a tensor enters the network, `residual_uses` knows what
that is worth, `residual_known` has what needs no probes, `residual_blocks` probes one part of the
parameters and `residual_probing` all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from scipy.special import stdtrit
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from flattest.modules.linearity import Proof, proofs, topological
from flattest.modules.linearity_rules import kind_of
from flattest.modules.residual_probing import Tally, divide, probe
from flattest.validation import check_positive_float, check_positive_int, check_random_state

METHODS = ("auto", "exact", "estimate")
_FUSED_RECURRENT = {"MkldnnRnnLayer", "CudnnRnn", "MiopenRnn"}


class TensorResidual(NamedTuple):
    """The residual trace of one parameter tensor.

    Parameters
    ----------
    value : float
        The trace of its diagonal block of R.
    standard_error : float or None
        None where the value is exact.
    how : str
        How it came about.
    proof : Proof
        What is known of linearity.
    """

    value: float
    standard_error: float | None
    how: str
    proof: Proof


@dataclass(frozen=True)
class ResidualTrace:
    """The trace of R, per parameter tensor and in total.

    Parameters
    ----------
    tensors : dict of str to TensorResidual
        One per name.
    value : float
        Their sum.
    standard_error : float or None
        Of the sum; not the root of the tensors' squared ones, since a layer's weights and biases
        share their probes. None if everything is exact.
    degrees_of_freedom : float
        How well the standard error is known (Welch and Satterthwaite).
    double_backwards : int
        Hessian-vector products taken.
    converged : bool
        Whether the standard error wanted was reached.
    """

    tensors: dict[str, TensorResidual]
    value: float
    standard_error: float | None
    degrees_of_freedom: float = math.inf
    double_backwards: int = 0
    converged: bool = True

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return an interval that holds the value with a given probability.

        Parameters
        ----------
        level : float
            The probability.

        Returns
        -------
        low, high : float
            Student's interval.

        Examples
        --------
        >>> from flattest.modules.residual import ResidualTrace
        >>> low, high = ResidualTrace({}, 1.0, 0.1, degrees_of_freedom=5.0).interval()
        >>> round(low, 3), round(high, 3)
        (0.743, 1.257)
        """
        if not self.standard_error:
            return self.value, self.value
        width = stdtrit(self.degrees_of_freedom, (1 + level) / 2) * self.standard_error
        return self.value - float(width), self.value + float(width)


def residual_trace(
    linearised: Callable[[], tuple[Tensor, Tensor]],
    parameters: Mapping[str, Tensor],
    *,
    method: str = "auto",
    standard_error: float | int | None = None,
    n_probes: int = 8,
    max_probes: int = 64,
    exact_up_to: int = 128,
    random_state: Any = None,
) -> ResidualTrace:
    r"""Return the trace of the residual part of the Hessian, per parameter tensor.

    With :math:`z = f(\theta)` the outputs and :math:`c = \partial L / \partial z` held constant,
    :math:`R = \nabla^2_\theta \langle c, z \rangle`. For a linear layer u = W h + b with one row
    per sample the block's trace is :math:`\sum_n (\|h_n\|^2 + 1)\, \mathrm{tr}\, \nabla^2_{u_n}
    \langle c, z \rangle`: the input side is summed exactly, and signs are drawn per sample and
    unit. A double backward serves a quarter of the layers. Layers with several rows per sample,
    convolutions, embeddings, gains and biases have the like; what is left, such as a weight that
    is used twice, is probed by Hutchinson's estimator in its own entries.

    Parameters
    ----------
    linearised : callable
        Returns the outputs, samples first, with their autograd graph, and c of the same shape. It
        is called with fused attention off, whose second derivative PyTorch lacks, and a second
        time with fused recurrent layers off if there are any. Deterministic: no dropout.
    parameters : mapping of str to Tensor
        The leaf tensors of which the trace is wanted. A tensor under a second name counts once,
        under its first.
    method : {"auto", "exact", "estimate"}
        ``"auto"`` is exact for the smallest layers, as far as `exact_up_to` double backwards go.
        Each is exact where a closed form takes none.
    standard_error : float, optional
        The standard error of the total at which to stop. By default `n_probes` are drawn.
    n_probes : int
        Probes of each group of layers or tensor at the least, two or more; with fewer than seven
        samples, or where samples cannot be told apart, up to eight. Where a few samples have nearly
        all of the variance, as with fitted networks, intervals from four hold too rarely.
    max_probes : int
        Probes of each at the most.
    exact_up_to : int
        See `method`.
    random_state : int, numpy.random.Generator or None
        Where the signs come from.

    Returns
    -------
    ResidualTrace
        Values with standard errors, and how they came about.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument has a wrong value, or the shapes of outputs and c differ.
    NotImplementedError
        If PyTorch lacks the second derivative of an operation.

    Notes
    -----
    At the kink of a piecewise linear function no second derivative exists; autograd's counts, 0.
    Nothing is changed: no gradient is accumulated, and no global random state is used.

    References
    ----------
    Hutchinson, M. F. (1989). A stochastic estimator of the trace of the influence matrix for
    Laplacian smoothing splines. Communications in Statistics, 18(3).

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.residual import residual_trace
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.Softplus())
    >>> _ = torch.nn.init.zeros_(net[0].weight)
    >>> x, c = torch.tensor([[1.0], [2.0]]), torch.ones(2, 1)
    >>> residual = residual_trace(lambda: (net(x), c), dict(net.named_parameters()))
    >>> residual.value, residual.standard_error  # softplus'' (0) = 1/4, times 1 + 4
    (1.25, None)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}.")
    n_probes = check_positive_int(n_probes, "n_probes", minimum=2)
    max_probes = max(n_probes, check_positive_int(max_probes, "max_probes", minimum=2))
    exact_up_to = check_positive_int(exact_up_to, "exact_up_to", minimum=0)
    if standard_error is not None:
        standard_error = check_positive_float(standard_error, "standard_error")
    limit = {"auto": exact_up_to, "exact": math.inf, "estimate": -1}[method]
    rng = check_random_state(random_state)
    with twice_differentiable(linearised) as (outputs, cotangent):
        if outputs.shape != cotangent.shape:
            raise ValueError(
                "linearised must return outputs and their gradient of one shape, but the shapes "
                f"are {tuple(outputs.shape)} and {tuple(cotangent.shape)}."
            )
        known = proofs(outputs, parameters)
        generator = torch.Generator(outputs.device).manual_seed(int(rng.integers(2**63)))
        unproven = {
            name: tensor for name, tensor in unique(parameters).items() if not known[name].linear
        }
        results: dict[str, Tally] = {}
        if unproven:
            with no_second_derivative():
                tallies = divide(outputs, cotangent.detach(), unproven, limit, generator)
                probe(tallies, generator, standard_error, n_probes, max_probes)
            results = {name: tally for tally in tallies for name in tally.names}
        return _report(parameters, known, results, standard_error)


def proved(outputs: Tensor, parameters: Mapping[str, Tensor]) -> ResidualTrace | None:
    """Return the residual trace where it is proved to be 0 in every tensor.

    Parameters
    ----------
    outputs : Tensor
        The outputs, with the autograd graph of a model without fused operations.
    parameters : mapping of str to Tensor
        The leaf tensors.

    Returns
    -------
    ResidualTrace or None
        None where something is left to measure.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.residual import proved
    >>> layer = torch.nn.Linear(1, 1)
    >>> proved(layer(torch.ones(1, 1)), dict(layer.named_parameters())).value
    0.0
    """
    known = proofs(outputs, parameters)
    if not all(proof.linear for proof in known.values()):
        return None
    return _report(parameters, known, {}, None)


def added(parts: Iterable[ResidualTrace]) -> ResidualTrace:
    """Add the traces of parts of a data set, whose losses add up to the loss of the whole.

    Parameters
    ----------
    parts : iterable of ResidualTrace
        One per part, of the same tensors. Their signs must have been drawn independently: from one
        generator as `random_state`, not from one seed.

    Returns
    -------
    ResidualTrace
        Values add up, standard errors by their squares. A tensor is proved where it is in all.

    Raises
    ------
    ValueError
        If there is no part, or the tensors differ.

    Examples
    --------
    >>> from flattest.modules.residual import ResidualTrace, added
    >>> whole = added([ResidualTrace({}, 1.0, 0.3), ResidualTrace({}, 2.0, 0.4)])
    >>> whole.value, whole.standard_error
    (3.0, 0.5)
    """
    parts = list(parts)
    if not parts:
        raise ValueError("parts must hold at least one ResidualTrace.")
    if any(part.tensors.keys() != parts[0].tensors.keys() for part in parts):
        raise ValueError("parts must be of the same tensors; measure all with one mapping.")
    tensors = {}
    for name in parts[0].tensors:
        entries = [part.tensors[name] for part in parts]
        tensors[name] = TensorResidual(
            value=math.fsum(entry.value for entry in entries),
            standard_error=_in_quadrature(entry.standard_error for entry in entries),
            how="; ".join(dict.fromkeys(entry.how for entry in entries)),
            proof=next((e.proof for e in entries if not e.proof.linear), entries[0].proof),
        )
    error = _in_quadrature(part.standard_error for part in parts)
    spread = math.fsum((part.standard_error or 0) ** 4 / part.degrees_of_freedom for part in parts)
    return ResidualTrace(
        tensors=tensors,
        value=math.fsum(part.value for part in parts),
        standard_error=error,
        degrees_of_freedom=error**4 / spread if error and spread else math.inf,
        double_backwards=sum(part.double_backwards for part in parts),
        converged=all(part.converged for part in parts),
    )


def _in_quadrature(errors: Iterable[float | None]) -> float | None:
    """Return the standard error of a sum; None where all is exact."""
    known = [error for error in errors if error is not None]
    return math.hypot(*known) if known else None


def unique(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep each tensor once, under its first name.

    Parameters
    ----------
    parameters : mapping of str to Tensor
        Tensors by name.

    Returns
    -------
    dict of str to Tensor
        Without the later names.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.residual import unique
    >>> one = torch.ones(1)
    >>> list(unique({"a": one, "b": one}))
    ['a']
    """
    first: dict[int, str] = {}
    for name, tensor in parameters.items():
        first.setdefault(id(tensor), name)
    return {name: parameters[name] for name in first.values()}


@contextmanager
def twice_differentiable(
    forward: Callable[[], tuple[Tensor, Tensor]],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run a forward pass so that PyTorch can differentiate it twice; restore settings after.

    Parameters
    ----------
    forward : callable
        Returns the outputs and something else.

    Yields
    ------
    outputs, other : Tensor
        What `forward` returned with attention, and recurrent layers if there are any, in parts.
    """
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        outputs, other = forward()
        if outputs.grad_fn is not None and any(
            kind_of(node) in _FUSED_RECURRENT for node in topological(outputs.grad_fn)
        ):
            with _recurrent_layers_in_parts():
                outputs, other = forward()
        yield outputs, other


@contextmanager
def _recurrent_layers_in_parts() -> Iterator[None]:
    """Turn off the libraries that compute recurrent layers in one piece."""
    backends: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    before = [backend.enabled for backend in backends]
    try:
        for backend in backends:
            backend.enabled = False
        yield
    finally:
        for backend, enabled in zip(backends, before, strict=True):
            backend.enabled = enabled


@contextmanager
def no_second_derivative() -> Iterator[None]:
    """Say in a sentence that an operation has no second derivative: NotImplementedError."""
    try:
        yield
    except RuntimeError as error:
        if "is not implemented" not in str(error) and "not differentiable" not in str(error):
            raise
        raise NotImplementedError(
            f"PyTorch has no second derivative of an operation in the model ({error}); replace "
            "the operation, or leave out the residual part and the largest eigenvalue."
        ) from error


def _report(
    parameters: Mapping[str, Tensor],
    known: Mapping[str, Proof],
    results: Mapping[str, Tally],
    wanted: float | None,
) -> ResidualTrace:
    """Put the tensors' figures and their sum together."""
    first = {id(tensor): name for name, tensor in unique(parameters).items()}
    tensors = {}
    for name, tensor in parameters.items():
        proof = known[name]
        if first[id(tensor)] != name:
            how = f"counted under {first[id(tensor)]}"
            tensors[name] = TensorResidual(0.0, None, how, proof)
        elif proof.linear:
            tensors[name] = TensorResidual(0.0, None, f"proved: {proof.reason}", proof)
        else:
            tally = results[name]
            error = None
            if tally.exact is None:
                error = math.sqrt(float(tally.variances(name).sum()))
            tensors[name] = TensorResidual(tally.value(name), error, tally.how(), proof)
    tallies = list({id(tally): tally for tally in results.values()}.values())
    drawn = [tally for tally in tallies if tally.exact is None]
    total = math.fsum(entry.value for entry in tensors.values())
    variance = math.fsum(float(tally.variances().sum()) for tally in drawn)
    spread = math.fsum(
        float((tally.variances() ** 2).sum()) / (len(tally.draws) - 1) for tally in drawn
    )
    return ResidualTrace(
        tensors=tensors,
        value=total,
        standard_error=math.sqrt(variance) if drawn else None,
        degrees_of_freedom=variance**2 / spread if spread else math.inf,
        double_backwards=sum(tally.cost for tally in tallies),
        converged=wanted is None or variance <= wanted**2,
    )

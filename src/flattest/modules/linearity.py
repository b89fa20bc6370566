r"""Where the Hessian trace is the Gauss-Newton trace: proofs of piecewise linearity.

The Hessian of a loss splits into the Gauss-Newton matrix and the part in which the outputs' own
curvature stands. A parameter tensor in which the outputs are piecewise linear, all others held
fixed, has no such part on its diagonal block, so its share of the Gauss-Newton trace *is* its share
of the Hessian trace. `proofs` reads this off the autograd graph of the outputs; the lines for each
kind of node are in `linearity_rules`. What remains unproven is what `residual` works on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from flattest.modules.linearity_rules import Rule, rule_of

Node = Any  # torch.autograd.graph.Node, whose attributes PyTorch does not declare


class Proof(NamedTuple):
    """Whether the outputs are piecewise linear in a parameter tensor.

    Parameters
    ----------
    linear : bool
        True only where it is proved.
    reason : str
        Why, or what stands in the way.

    Examples
    --------
    >>> from flattest.modules.linearity import Proof
    >>> Proof(True, "every path to the outputs is piecewise linear").linear
    True
    """

    linear: bool
    reason: str


class _State(NamedTuple):
    """Parameters by bits: what a node depends on, and in what of it it is nonlinear."""

    depends: int
    nonlinear: int


_Found = tuple[_State, dict[int, str], str | None]
_NOTHING = _State(0, 0)
_LINEAR = Proof(True, "every path to the outputs is piecewise linear")
_UNUSED = Proof(True, "the outputs do not depend on it")


def proofs(outputs: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Proof]:
    r"""Prove, per parameter tensor, that the outputs are piecewise linear in it.

    Each node of the graph carries two sets: the parameters that it depends on, D, and those in
    which it is nonlinear, N. A (piecewise) linear node joins the sets of its arguments. A product
    adds :math:`D_a \cap D_b` to N, a node that is curved in an argument adds that argument's D, and
    a node of an unknown kind adds all. A parameter outside N of the outputs is proved. Then the
    residual part of its diagonal block of the Hessian,
    :math:`\sum_i (\partial l / \partial z_i)\, \nabla^2 z_i`, vanishes: away from the kinks of
    the pieces, and at them by autograd's convention, which takes second derivatives there as 0.

    Parameters
    ----------
    outputs : Tensor
        The model's outputs, computed with gradients enabled.
    parameters : mapping of str to Tensor
        The leaf tensors that were used, by name. Two names of one tensor get the same answer.

    Returns
    -------
    dict of str to Proof
        One per name, in order. A tensor that is used twice along one path is not linear; one that
        is used twice on parallel paths may be.

    Raises
    ------
    ValueError
        If a parameter is no leaf that requires gradients, or the outputs have no graph.

    Notes
    -----
    The graph is read, never run, and nothing is changed. Functions written in Python
    (`torch.autograd.Function`, reentrant checkpoints among them) can hide parameters: if the graph
    holds one, a tensor that was not reached is not proved either. Hooks that change gradients are
    not looked at: with them, autograd's gradient is not that of the function.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.linearity import proofs
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.GELU(), torch.nn.Linear(3, 1))
    >>> found = proofs(net(torch.ones(4, 2)), dict(net.named_parameters()))
    >>> {name: proof.linear for name, proof in found.items()}
    {'0.weight': False, '0.bias': False, '2.weight': True, '2.bias': True}
    >>> found["0.weight"].reason
    'it passes GELU (GeluBackward0)'
    """
    bits = _bits(parameters)
    if not outputs.requires_grad:
        if not parameters:
            return {}
        raise ValueError("outputs have no autograd graph; compute them with gradients enabled.")
    found = _walk(outputs.grad_fn, bits) if outputs.grad_fn else _leaf(outputs, bits)
    return {name: _proof(bits[id(tensor)], *found) for name, tensor in parameters.items()}


def topological(root: Node) -> Iterator[Node]:
    """Yield every node of a graph once, each after all that its arguments come from.

    Parameters
    ----------
    root : torch.autograd.graph.Node
        The node of the outputs.

    Yields
    ------
    torch.autograd.graph.Node
        The leaves' nodes first, `root` last.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.linearity import topological
    >>> outputs = torch.ones(2, requires_grad=True).exp().sum()
    >>> [node.name() for node in topological(outputs.grad_fn)][1:]
    ['ExpBackward0', 'SumBackward0']
    """
    # Python's handles of nodes are compared by identity, so they are kept until the walk ends.
    seen = {root}
    stack = [(root, iter(_sources(root)))]
    while stack:
        node, remaining = stack[-1]
        for source in remaining:
            if source not in seen:
                seen.add(source)
                stack.append((source, iter(_sources(source))))
                break
        else:
            stack.pop()
            yield node


def curved(root: Node, starts: Mapping[Node, int], covered: Mapping[Node, int]) -> int:
    """Return in which results of nodes some outputs are not proved piecewise linear.

    Parameters
    ----------
    root : torch.autograd.graph.Node
        The node of the outputs.
    starts : mapping of Node to int
        The nodes of which the results are meant, each with a bit of its own.
    covered : mapping of Node to int
        For some nodes, the bits of those results in which their curvature does not count.

    Returns
    -------
    int
        The bits of the others.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.linearity import curved
    >>> first = torch.ones(2, requires_grad=True).exp()
    >>> second = first.exp()
    >>> bits = {first.grad_fn: 1}
    >>> curved(second.sum().grad_fn, bits, {}), curved(second.grad_fn, bits, {second.grad_fn: 1})
    (1, 0)
    """
    states: dict[Node, _State] = {}
    for node in topological(root):
        arguments = [
            _NOTHING if source is None else states[source]
            for source, _ in getattr(node, "next_functions", ())
        ]
        added = _curvature(rule_of(node), arguments) & ~covered.get(node, 0) if arguments else 0
        state = _join(arguments, added)
        states[node] = state._replace(depends=state.depends | starts.get(node, 0))
    return states[root].nonlinear


def _bits(parameters: Mapping[str, Tensor]) -> dict[int, int]:
    """Give each tensor its bit, by identity."""
    bits: dict[int, int] = {}
    for name, tensor in parameters.items():
        if not (tensor.is_leaf and tensor.requires_grad):
            raise ValueError(
                f"parameters[{name!r}] must be a leaf tensor that requires gradients; "
                "pass what the outputs were computed from."
            )
        bits.setdefault(id(tensor), 1 << len(bits))
    return bits


def _leaf(outputs: Tensor, bits: Mapping[int, int]) -> _Found:
    """Return what is known of outputs that are a parameter themselves."""
    return _State(bits.get(id(outputs), 0), 0), {}, None


def _walk(root: Node, bits: Mapping[int, int]) -> _Found:
    """Return the state of the root, the first obstacle per bit, and an opaque node if any."""
    states: dict[Node, _State] = {}
    reasons: dict[int, str] = {}
    opaque = None
    blocked = 0
    for node in topological(root):
        if hasattr(node, "variable"):
            states[node] = _State(bits.get(id(node.variable), 0), 0)
            continue
        arguments = [
            _NOTHING if source is None else states[source] for source, _ in node.next_functions
        ]
        rule = rule_of(node)
        if rule.opaque:
            opaque = opaque or node.name().rsplit("::", 1)[-1]
        added = _curvature(rule, arguments)
        fresh = added & ~blocked
        if fresh:
            blocked |= fresh
            reason = _obstacle(rule, node)
            reasons.update((bit, reason) for bit in bits.values() if bit & fresh)
        states[node] = _join(arguments, added)
    return states[root], reasons, opaque


def _join(arguments: Sequence[_State], added: int) -> _State:
    depends, nonlinear = 0, added
    for argument in arguments:
        depends |= argument.depends
        nonlinear |= argument.nonlinear
    return _State(depends, nonlinear)


def _curvature(rule: Rule, arguments: Sequence[_State]) -> int:
    """Return in which parameters a node is nonlinear beyond what its arguments are."""
    if rule.curved is None:
        return _join(arguments, 0).depends
    added = 0
    for one, other in rule.products:
        if max(one, other) < len(arguments):
            added |= arguments[one].depends & arguments[other].depends
    for position in rule.curved:
        if position < len(arguments):
            added |= arguments[position].depends
    return added


def _obstacle(rule: Rule, node: Node) -> str:
    name = node.name().rsplit("::", 1)[-1]
    if not rule.known:
        return f"it passes {rule.reason}"
    if rule.products:
        return f"both factors of {rule.reason} ({name}) depend on it"
    return f"it passes {rule.reason} ({name})"


def _proof(bit: int, final: _State, reasons: Mapping[int, str], opaque: str | None) -> Proof:
    if final.nonlinear & bit:
        return Proof(False, reasons[bit])
    if final.depends & bit:
        return _LINEAR
    if opaque:
        return Proof(False, f"it was not reached, but {opaque} may hide it")
    return _UNUSED


def _sources(node: Node) -> list[Node]:
    return [source for source, _ in node.next_functions if source is not None]

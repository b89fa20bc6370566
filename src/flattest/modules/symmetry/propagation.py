"""The walk over a module's graph: constants are computed, everything else gets labels."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_map

from flattest.modules.symmetry.elementwise import freezes
from flattest.modules.symmetry.equations import Equations
from flattest.modules.symmetry.labels import frozen
from flattest.modules.symmetry.parameters import Forms, Raw
from flattest.modules.symmetry.rules import GENERIC, RULES, Rule
from flattest.modules.symmetry.tracing import Trace
from flattest.modules.symmetry.walk import Constant, Step, Walk

_RANDOM = torch.Tag.nondeterministic_seeded


@dataclass
class Propagation:
    """What a walk found.

    Parameters
    ----------
    walk : Walk
        Equations and forms of parameters.
    unknown : dict of str to int
        Operations without a rule, and how often they occur.
    values : dict of node to value
        The label, constant or view that each node of the graph has.
    places : dict of node to str
        After which layer each node is.
    order : dict of node to int
        The place of each node in the graph.
    """

    walk: Walk
    unknown: dict[str, int] = field(default_factory=dict)
    values: dict[fx.Node, Any] = field(default_factory=dict)
    places: dict[fx.Node, str] = field(default_factory=dict)
    order: dict[fx.Node, int] = field(default_factory=dict)

    def latest(self, nodes: list[fx.Node]) -> str:
        """Return the layer of the latest of some nodes that has one."""
        placed = [node for node in nodes if self.places.get(node)]
        return self.places[max(placed, key=self.order.__getitem__)] if placed else ""


def propagate(trace: Trace, trainable: set[str], *, affine: bool = False) -> Propagation:
    """Walk the graph from its inputs to its outputs, which are frozen.

    Parameters
    ----------
    trace : Trace
        The graph.
    trainable : set of str
        The parameters that may scale; the others are constants.
    affine : bool
        Whether the input of batch normalisation may scale, and its bias shift.

    Returns
    -------
    Propagation
        All that the operations demand.
    """
    shapes = {name: tuple(p.shape) for name, p in trace.parameters.items() if name in trainable}
    equations = Equations()
    found = Propagation(Walk(equations, Forms(equations, shapes), affine))
    reachable = needed(trace.graph.graph)
    given = _placeholders(trace, trainable)
    found.order = {node: number for number, node in enumerate(trace.graph.graph.nodes)}
    for node in trace.graph.graph.nodes:
        if node.op == "placeholder":
            value, place = given.pop(0)
            shape = shapes_of(node)
            if value is None:
                value = frozen(shape[0]) if shape else frozen(())
            found.values[node], found.places[node] = value, place
        elif node not in reachable:
            continue
        elif node.op == "get_attr":
            found.values[node] = Constant(_attribute(trace.graph, str(node.target)))
            found.places[node] = ""
        elif node.op == "call_function":
            found.places[node] = _place(node, found)
            found.values[node] = _called(node, found, trace.functional)
        elif node.op == "output":
            outputs = tree_map(
                lambda entry: found.values[entry] if isinstance(entry, fx.Node) else entry,
                node.args[0],
            )
            found.walk.freeze(outputs, "the outputs")
    for shift in found.walk.shifts:
        if {shift.gain, shift.bias} & found.walk.forms.reused:
            found.walk.freeze(shift.into, shift.reason)
    return found


def _placeholders(trace: Trace, trainable: set[str]) -> list[tuple[Any, str]]:
    """Return value and layer for every placeholder in order; None for what are data."""
    given: list[tuple[Any, str]] = []
    for name, parameter in trace.parameters.items():
        layer = name.rpartition(".")[0]
        if name in trainable:
            given.append((Raw(name, torch.empty(parameter.shape, device="meta")), layer or name))
        else:
            # Zeros count where there is nothing else, as in a bias that was folded away.
            constant = parameter.detach()
            given.append((Constant(constant, bool(constant.any())), layer or name))
    for buffer in trace.buffers.values():
        given.append((Constant(buffer.detach(), buffer.is_floating_point()), ""))
    count = sum(node.op == "placeholder" for node in trace.graph.graph.nodes)
    return given + [(None, "")] * (count - len(given))


def _called(node: fx.Node, found: Propagation, functional: bool) -> Any:
    """Return what an operation makes of its arguments' labels."""
    args, kwargs = tree_map(
        lambda entry: found.values[entry] if isinstance(entry, fx.Node) else entry,
        (node.args, node.kwargs),
        is_leaf=lambda entry: isinstance(entry, fx.Node),
    )
    if node.target is operator.getitem:
        return args[0][args[1]]
    target: Any = node.target
    leaves: list[Any] = []
    tree_map(leaves.append, (list(args), kwargs), is_leaf=lambda entry: _is_value(entry))
    values = [leaf for leaf in leaves if _is_value(leaf)]
    name = called_name(node)
    random = _RANDOM in getattr(target, "tags", ())
    mutable = getattr(getattr(target, "_schema", None), "is_mutable", False)
    if all(isinstance(value, Constant) for value in values) and not random and functional:
        return _folded(target, args, kwargs, name, values)
    rule = RULES.get(name)
    step = _step(node, found, rule, name)
    if random and not values:
        return found.walk.frozen_results(step)
    args, kwargs = _with_defaults(target, args, kwargs)
    if rule is None or mutable:
        found.unknown[name] = found.unknown.get(name, 0) + 1
        rule = Rule(freezes, f"{name}, which has no rule,")
    step = _step(node, found, rule, name)
    if step.discrete and rule.apply is freezes:
        found.walk.freeze(values, step.reason)
        return found.walk.frozen_results(step)
    if values and all(isinstance(value, Constant) for value in values):
        return found.walk.frozen_results(step)
    return rule.apply(found.walk, step, *args, **kwargs)


def _with_defaults(target: Any, args: Any, kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return all arguments that have a position by position, with their defaults."""
    schema = getattr(target, "_schema", None)
    bound, named = list(args), dict(kwargs)
    for argument in schema.arguments[len(bound) :] if schema is not None else ():
        if argument.kwarg_only:
            break
        if argument.name in named:
            bound.append(named.pop(argument.name))
        elif argument.has_default_value():
            bound.append(argument.default_value)
        else:
            break
    return bound, named


def _folded(target: Any, args: Any, kwargs: Any, name: str, values: list[Constant]) -> Any:
    """Compute what depends on constants only."""
    plain = tree_map(
        lambda entry: entry.value if isinstance(entry, Constant) else entry,
        (args, kwargs),
        is_leaf=lambda entry: isinstance(entry, Constant),
    )
    with torch.no_grad():
        result = target(*plain[0], **plain[1])
    generic = name in GENERIC or any(value.generic for value in values)
    return tree_map(
        lambda entry: Constant(entry, generic) if isinstance(entry, Tensor) else entry, result
    )


def _is_value(entry: Any) -> bool:
    return isinstance(entry, (Constant, Raw, Tensor))


def called_name(node: fx.Node) -> str:
    """Return the name of a node's operation, as in the table of rules."""
    target: Any = node.target
    schema = getattr(target, "_schema", None)
    if schema is None:
        return str(getattr(target, "__name__", target))
    space, _, name = str(schema.name).partition("::")
    short = name.removesuffix("_copy") if name not in RULES else name
    return short if space == "aten" else f"{space}::{name}"


def _step(node: fx.Node, found: Propagation, rule: Rule | None, name: str) -> Step:
    value = node.meta.get("val")
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    discrete = isinstance(first, Tensor) and not (first.is_floating_point() or first.is_complex())
    title = rule.title if rule else name
    return Step(node.target, title, _origin(node, found), shapes_of(node), discrete)


def _origin(node: fx.Node, found: Propagation) -> str:
    """Say after which layer an operation comes: that of its first argument that is no weight."""
    weights = (Raw, Constant)
    return found.latest(
        [a for a in node.all_input_nodes if not isinstance(found.values.get(a), weights)]
    )


def shapes_of(node: fx.Node) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of a node's results."""
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(tuple(entry.shape) if isinstance(entry, Tensor) else () for entry in values)


def _place(node: fx.Node, found: Propagation) -> str:
    """Say which layer a node belongs to, or after which it comes."""
    own = [arg for arg in node.all_input_nodes if isinstance(found.values.get(arg), Raw)]
    if own:
        return found.places[own[0]]
    return found.latest(node.all_input_nodes)


def needed(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes from which the outputs, or numbers that steer Python, can be reached."""
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        steers = node.op == "call_function" and called_name(node) == "_local_scalar_dense"
        if node.op == "output" or steers or node in found:
            found.add(node)
            found.update(node.all_input_nodes)
    return found


def _attribute(module: fx.GraphModule, path: str) -> Tensor:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    assert isinstance(value, Tensor)
    return value.detach()

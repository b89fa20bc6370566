"""Pairs of linear factors: found where they are, complete, and nowhere else."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from architectures import Applied
from scaling_architectures import ALL, heads, rotated
from torch import nn

from flattest.modules.symmetry.coordinate_places import Slot, places
from flattest.modules.symmetry.finding import find
from flattest.modules.symmetry.linear_group import Factor, Kind, LinearGroup
from flattest.modules.symmetry.parameters import Copied
from flattest.modules.symmetry.transforming import random_matrix

L = nn.Linear


def symmetries(module, *inputs):
    return find(module.double().eval(), inputs, None, "keep", ("trace",))


def x_of(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def summary(found):
    return sorted((g.kind.name, g.size, g.translation is not None) for g in found.groups)


def attention(queries, keys, values, n_heads, n_groups, *, between=lambda q: q, causal=False):
    def forward(m, x):
        q, k, v = heads(m.q(x), n_heads), heads(m.k(x), n_groups), heads(m.v(x), n_groups)
        q, k = between(q), between(k)
        grouped = n_heads != n_groups
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)
        return m.o(y.transpose(1, 2).flatten(2)).flatten(1)

    return Applied(forward, q=queries, k=keys, v=values, o=L(8, 3))


CASES = {
    "multi-head": (
        lambda: attention(L(4, 8), L(4, 8), L(4, 8), 2, 2),
        [("GENERAL", 4, False)] * 2 + [("GENERAL", 4, True)] * 2,
    ),
    "causal": (
        lambda: attention(L(4, 8), L(4, 8), L(4, 8), 2, 2, causal=True),
        [("GENERAL", 4, False)] * 2 + [("GENERAL", 4, True)] * 2,
    ),
    "without biases": (
        lambda: attention(*(L(4, 8, bias=False) for _ in range(3)), 2, 2),
        [("GENERAL", 4, False)] * 4,
    ),
    "grouped queries": (
        lambda: attention(L(4, 8), L(4, 4), L(4, 4), 4, 2),
        [("GENERAL", 2, False)] * 2 + [("GENERAL", 2, True)] * 2,
    ),
    "one key for all": (
        lambda: attention(L(4, 8), L(4, 2), L(4, 2), 4, 1),
        [("GENERAL", 2, False), ("GENERAL", 2, True)],
    ),
    "rotary": (
        lambda: attention(L(4, 8), L(4, 8), L(4, 8), 2, 2, between=rotated),
        [("GENERAL", 4, True)] * 2 + [("PAIRED", 4, False)] * 2,
    ),
    "rotary with grouped queries": (
        lambda: attention(L(4, 8), L(4, 4), L(4, 4), 2, 1, between=rotated),
        [("GENERAL", 4, True), ("PAIRED", 4, False)],
    ),
    "normalised": (
        lambda: attention(L(4, 8), L(4, 8), L(4, 8), 2, 2, between=lambda q: F.layer_norm(q, (4,))),
        [("GENERAL", 4, True)] * 2,
    ),
    "rectified queries and keys": (
        lambda: attention(L(4, 8), L(4, 8), L(4, 8), 2, 2, between=F.relu),
        [("GENERAL", 4, True)] * 2,
    ),
    "scaled one by one": (
        lambda: attention(
            L(4, 8), L(4, 8), L(4, 8), 2, 2, between=lambda q: q * torch.arange(1.0, 5.0)
        ),
        [("GENERAL", 4, True)] * 2,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_attention_heads(name):
    make, expected = CASES[name]
    torch.manual_seed(0)
    found = symmetries(make(), x_of(2, 5, 4))
    assert summary(found) == expected
    assert found.largest_change < 1e-12
    assert found.check(x_of(3, 7, 4)) < 1e-12
    # A condition of 1e4 and translations, as a user would apply them.
    rng = np.random.default_rng(0)
    matrices, shifts = {}, {}
    for number, group in enumerate(found.groups):
        matrices[number] = random_matrix(group, rng)
        if group.kind is Kind.GENERAL:
            matrices[number] @= torch.diag(torch.logspace(-2, 2, group.size, dtype=torch.float64))
        if group.translation is not None:
            shifts[number] = torch.from_numpy(rng.standard_normal(group.size))
    changed = found.transformed(matrices=matrices, shifts=shifts)
    with torch.no_grad():
        before, after = found.module(x_of(3, 7, 4)), changed(x_of(3, 7, 4))
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)
    weights = (dict(m.named_parameters()) for m in (found.module, changed))
    old, new = weights
    assert all(not torch.allclose(old[n], new[n]) for n in old if n.startswith("v."))


def low_rank(*layers):
    return nn.Sequential(*layers)


PAIRS = {
    "two linear layers": (low_rank(L(4, 3), L(3, 5)), (4,), [("GENERAL", 3, True)]),
    "without an outer bias": (
        low_rank(L(4, 3), L(3, 5, bias=False)),
        (4,),
        [("GENERAL", 3, False)],
    ),
    "three linear layers": (
        low_rank(L(4, 3), L(3, 2), L(2, 5)),
        (4,),
        [("GENERAL", 2, True), ("GENERAL", 3, True)],
    ),
    "with ReLU between": (low_rank(L(4, 3), nn.ReLU(), L(3, 5)), (4,), []),
    "with layer norm between": (low_rank(L(4, 3), nn.LayerNorm(3), L(3, 5)), (4,), []),
    "convolutions": (
        low_rank(nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1), nn.Flatten()),
        (2, 5, 5),
        [("GENERAL", 3, False)],
    ),
    "convolution and pool": (
        low_rank(nn.Conv1d(2, 3, 2), nn.Flatten(2), nn.Conv1d(3, 2, 1)),
        (2, 5),
        [("GENERAL", 3, False)],
    ),
    "one coordinate": (low_rank(L(4, 1), L(1, 5)), (4,), []),
    "depthwise": (low_rank(nn.Conv1d(2, 3, 2), nn.Conv1d(3, 3, 2, groups=3)), (2, 5), []),
}


@pytest.mark.parametrize("name", PAIRS)
def test_low_rank_pairs(name):
    module, shape, expected = PAIRS[name]
    found = symmetries(module, x_of(3, *shape))
    assert summary(found) == expected


@pytest.mark.parametrize(
    "between",
    [
        lambda p: -p,
        lambda p: p.transpose(1, 2),
        lambda p: torch.diagonal(p, dim1=1, dim2=2)[:, None],
    ],
)
def test_values_are_shifted_only_through_averages(between):
    """What is made of attention's probabilities here sums to something else than one."""

    def forward(m, x):
        return m.o(between((x @ x.transpose(1, 2)).softmax(-1)) @ m.v(x)).flatten(1)

    found = symmetries(Applied(forward, v=L(4, 3), o=L(3, 2)), x_of(2, 5, 4))
    assert summary(found) == [("GENERAL", 3, False)]


def test_adapters_beside_a_frozen_layer():
    def forward(m, x):
        return m.h((m.w(x) + m.b(m.a(x)) * 0.5).relu())

    module = Applied(forward, w=L(4, 5), a=L(4, 2, bias=False), b=L(2, 5, bias=False), h=L(5, 2))
    module.w.requires_grad_(False)
    module.h.requires_grad_(False)
    found = symmetries(module, x_of(3, 4))
    (group,) = found.groups
    assert (group.size, group.translation) == (2, None)
    assert [f.name for f in (*group.forward, *group.backward)] == ["a.weight", "b.weight"]
    assert group.name == "a.weight[0:2] and b.weight[0:2]"
    assert found.frozen["w.weight"] == "it does not require gradients"


def test_halves_that_go_apart_are_not_mixed():
    def forward(m, x):
        first, second = m.a(x).chunk(2, 1)
        return m.b(first) + m.c(second)

    found = symmetries(Applied(forward, a=L(4, 6), b=L(3, 2), c=L(3, 2)), x_of(3, 4))
    assert [g.forward[0].rows.tolist() for g in found.groups] == [[0, 1, 2], [3, 4, 5]]


def test_sources_that_are_joined_are_not_mixed():
    def forward(m, x):
        return m.c(torch.cat([m.a(x[:, :2]), m.b(x[:, 2:])], 1))

    found = symmetries(Applied(forward, a=L(2, 3), b=L(2, 2), c=L(5, 2)), x_of(3, 4))
    assert sorted(g.size for g in found.groups) == [2, 3]


def test_a_weight_that_is_used_twice_belongs_to_no_group():
    def forward(m, x):
        return m.b(m.a(x)) + m.c(F.linear(x.relu(), m.a.weight).relu())

    found = symmetries(Applied(forward, a=L(4, 3), b=L(3, 2), c=L(3, 2)), x_of(3, 4))
    assert found.groups == ()


def tangents(found):
    """Return all directions in which the symmetries move the parameters, as rows."""
    parameters = {n: p.detach() for n, p in found.module.named_parameters()}
    rows = []

    def add(change):
        rows.append(torch.cat([change[name].reshape(-1) for name in parameters]))

    for scale in range(found.n_scales):
        z = np.eye(found.n_scales)[scale]
        add({t.name: t.log_scales(z).expand(t.shape) * parameters[t.name] for t in found.tensors})
    for group in found.groups:
        assert group.kind is Kind.GENERAL
        for i in range(group.size):
            for j in range(group.size):
                unit = torch.zeros(group.size, group.size, dtype=torch.float64)
                unit[i, j] = 1.0
                change = {name: torch.zeros_like(p) for name, p in parameters.items()}
                for factors, move in ((group.forward, unit), (group.backward, -unit.T)):
                    for f in factors:
                        moved = f.read(change[f.name]) + move @ f.read(parameters[f.name])
                        f.write(change[f.name], moved)
                add(change)
        if group.translation is not None:
            for i in range(group.size):
                change = {name: torch.zeros_like(p) for name, p in parameters.items()}
                delta = torch.eye(group.size, dtype=torch.float64)[:, i : i + 1]
                bias = group.translation.bias
                bias.write(change[bias.name], delta)
                for factor, outer in group.translation.shifts:
                    shift = factor.read(parameters[factor.name]).T @ delta
                    outer.write(change[outer.name], outer.read(change[outer.name]) - shift)
                add(change)
    return torch.stack(rows)


@pytest.mark.parametrize(
    "name", ["multi-head", "without biases", "grouped queries", "low rank", "einsum"]
)
def test_the_tangents_are_all_directions_that_no_output_sees(name):
    """Scales, matrices and translations span the null space of the Jacobian over many inputs."""
    torch.manual_seed(0)
    if name == "low rank":
        module = low_rank(L(4, 2), L(2, 3), nn.Tanh(), L(3, 2))
    else:
        module = einsum_attention("hdk", True) if name == "einsum" else CASES[name][0]()
    shape = (40, 4) if name == "low rank" else (40, 6, 4)
    found = symmetries(module, x_of(*shape))
    parameters = dict(found.module.named_parameters())
    outputs = found.module(3 * x_of(*shape)).flatten()
    rows = torch.autograd.grad(
        outputs, list(parameters.values()), torch.eye(len(outputs)).double(), is_grads_batched=True
    )
    jacobian = torch.cat([r.reshape(len(outputs), -1) for r in rows], 1)
    directions = tangents(found)
    assert float((jacobian @ directions.T).abs().max()) < 1e-10 * float(jacobian.abs().max())
    unseen = jacobian.shape[1] - int(torch.linalg.matrix_rank(jacobian, rtol=1e-10))
    # A bias of the keys is added to all scores of a query, which softmax does not see.
    biases = [p for n, p in parameters.items() if n in ("k.bias", "bias_k")]
    key_bias = sum(p.numel() for p in biases)
    assert int(torch.linalg.matrix_rank(directions, rtol=1e-10)) + key_bias == unseen


def test_packed_projections_of_pytorch():
    torch.manual_seed(0)
    module = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    found = symmetries(module, x_of(2, 5, 8))
    assert summary(found) == [("GENERAL", 4, False)] * 2 + [("GENERAL", 4, True)] * 2
    values = next(g for g in found.groups if g.translation is not None)
    assert [(f.name, f.axis, f.rows.tolist()) for f in values.forward] == [
        ("self_attn.in_proj_weight", 0, [16, 17, 18, 19]),
        ("self_attn.in_proj_bias", 0, [16, 17, 18, 19]),
    ]
    assert [(f.name, f.axis, f.rows.tolist()) for f in values.backward] == [
        ("self_attn.out_proj.weight", 1, [0, 1, 2, 3])
    ]


def test_weights_of_heads_as_one_tensor():
    def forward(m, x):
        rows = x.flatten(0, 1).expand(2, -1, -1)
        q, k, v = (torch.bmm(rows, w).unflatten(1, x.shape[:2]) for w in (m.q, m.k, m.v))
        scores = (q @ k.transpose(-1, -2)).softmax(-1)
        return torch.bmm((scores @ v).flatten(1, 2), m.o).sum(0).unflatten(0, x.shape[:2])

    parts = {name: torch.randn(2, 4, 3) for name in "qkv"}
    found = symmetries(Applied(forward, **parts, o=torch.randn(2, 3, 4)), x_of(2, 5, 4))
    assert summary(found) == [("GENERAL", 3, False)] * 4
    first = next(g for g in found.groups if g.backward[0].name == "o")
    assert first.forward[0].at == ((0, 0),)
    assert first.name == "v[0:3, 0] and o[0:3, 0]"


def einsum_attention(layout, biased, n_groups=2):
    """Make attention whose weights keep heads in a dimension of their own."""
    n_heads, width, size = 2, 4, 3

    def forward(m, x):
        def project(name):
            result = torch.einsum(f"btd,{layout}->bthk", x, getattr(m, name))
            return result + getattr(m, "bias_" + name) if biased else result

        q, k, v = (project(name) for name in "qkv")
        if n_groups < n_heads:
            k, v = (each.repeat_interleave(n_heads // n_groups, 2) for each in (k, v))
        scores = torch.einsum("bthk,bshk->bhts", q, k).softmax(-1)
        y = torch.einsum("bhts,bshk->bthk", scores, v)
        y = torch.einsum("bthk,hkd->btd", y, m.o)
        return y + m.bias_o if biased else y

    counts = {"q": n_heads, "k": n_groups, "v": n_groups}
    sizes = {name: {"h": h, "d": width, "k": size} for name, h in counts.items()}
    parts = {n: torch.randn(*(sizes[n][letter] for letter in layout)) for n in counts}
    if biased:
        parts |= {"bias_" + name: torch.randn(h, size) for name, h in counts.items()}
        parts["bias_o"] = torch.randn(width)
    return Applied(forward, **parts, o=torch.randn(n_heads, size, width))


@pytest.mark.parametrize(
    ("layout", "biased", "n_groups"),
    [("hdk", False, 2), ("hdk", True, 2), ("dhk", False, 1), ("khd", True, 1)],
)
def test_heads_in_a_dimension_of_their_own(layout, biased, n_groups):
    torch.manual_seed(0)
    found = symmetries(einsum_attention(layout, biased, n_groups), x_of(2, 5, 4))
    expected = [("GENERAL", 3, False), ("GENERAL", 3, biased)] * n_groups
    assert summary(found) == sorted(expected)
    # Only heads and coordinates scale, which the minimum over groups has to know.
    query = next(tensor for tensor in found.tensors if tensor.name == "q")
    assert query.block_shape == tuple({"h": 2, "d": 1, "k": 3}[letter] for letter in layout)
    rng = np.random.default_rng(0)
    matrices = {n: random_matrix(group, rng) for n, group in enumerate(found.groups)}
    shifts = {
        n: torch.from_numpy(rng.standard_normal(group.size))
        for n, group in enumerate(found.groups)
        if group.translation is not None
    }
    changed = found.transformed(matrices=matrices, shifts=shifts)
    with torch.no_grad():
        before, after = found.module(x_of(3, 7, 4)), changed(x_of(3, 7, 4))
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)
    old, new = (dict(m.named_parameters()) for m in (found.module, changed))
    assert all(not torch.allclose(old[n], new[n]) for n in old)


def test_coordinates_are_placed_by_their_entries():
    shape = (3, 4, 5)
    whole = torch.arange(60).reshape(shape)
    merged = Copied("w", whole.permute(1, 0, 2).reshape(4, 15))
    found = places(merged, 1, shape)
    assert [place.slot for place in found] == [Slot("w", 2, ((0, head),)) for head in range(3)]
    assert [place.which.tolist() for place in found] == np.arange(15).reshape(3, 5).tolist()
    (rows,) = places(merged, 0, shape)
    assert (rows.slot, rows.positions.tolist()) == (Slot("w", 1), [0, 1, 2, 3])
    assert places(Copied("w", merged.view[:, :14]), 0, shape) is None
    assert (
        places(Copied("w", whole.reshape(-1)[torch.arange(60) ^ 1].reshape(4, 15)), 1, shape)
        is None
    )
    mixed = whole.reshape(-1).roll(1).reshape(15, 4)
    assert places(Copied("w", mixed), 1, shape) is None


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_factors_are_read_and_written(axis):
    tensor = x_of(4, 5, 6)
    other = [a for a in range(3) if a != axis]
    factor = Factor("w", axis, torch.tensor([3, 1]), ((other[1], 2),))
    matrix = factor.read(tensor)
    assert matrix.shape == (2, tensor.shape[other[0]])
    chosen = tensor.select(other[1], 2)
    expected = chosen.movedim(axis if axis < other[1] else axis - 1, 0)[[3, 1]]
    torch.testing.assert_close(matrix, expected)
    changed = tensor.clone()
    factor.write(changed, 2 * matrix)
    torch.testing.assert_close(factor.read(changed), 2 * matrix)
    assert int((changed != tensor).sum()) == matrix.numel()


def test_a_translation_has_to_be_allowed():
    weight = torch.eye(2).double()
    group = LinearGroup(
        "pair",
        Kind.GENERAL,
        2,
        (Factor("a", 0, torch.arange(2)),),
        (Factor("b", 1, torch.arange(2)),),
    )
    with pytest.raises(ValueError, match="allows no translation"):
        group.transform({"a": weight, "b": weight}, weight, torch.ones(2))


def test_no_group_where_there_is_a_nonlinearity_everywhere():
    for name in ("LeNet", "residual layers", "gated MLP", "LSTM"):
        module, inputs = ALL[name](2)
        assert symmetries(module, *inputs).groups == ()

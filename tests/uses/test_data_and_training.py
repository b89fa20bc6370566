"""Samples, moves, designs, networks and their training: what is drawn, and what stays as it was."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from flattest.uses.digits import N_TEST, shifted, split
from flattest.uses.fitting import Recipe, fit, scores
from flattest.uses.networks import KINDS, Transformer, initialised, mlp
from flattest.uses.trajectories import point


def test_test_samples_are_never_trained_on_and_a_smaller_set_begins_a_larger_one() -> None:
    large, small = split(1200, 3), split(200, 3)
    assert len(large.X_test) == N_TEST
    torch.testing.assert_close(large.X_test, small.X_test)
    torch.testing.assert_close(large.X[:200], small.X)
    everything = torch.cat([large.X, large.X_test]).flatten(1)
    assert len(everything) == 1797
    assert float(everything.min()) == 0.0
    assert float(everything.max()) == 1.0
    assert not torch.equal(split(200, 4).X, small.X)


@given(st.integers(10, 1200), st.floats(0, 1), st.integers(0, 50))
def test_so_many_labels_are_wrong_and_no_test_label_is(
    n_samples: int, label_noise: float, seed: int
) -> None:
    noisy, clean = split(n_samples, seed, label_noise=label_noise), split(n_samples, seed)
    assert int((noisy.y != clean.y).sum()) == round(label_noise * n_samples)
    assert torch.equal(noisy.y_test, clean.y_test)
    assert 0 <= int(noisy.y.min()) <= int(noisy.y.max()) <= 9


@pytest.mark.parametrize("n_samples", [0, 1201])
def test_more_images_than_there_are_cannot_be_had(n_samples: int) -> None:
    with pytest.raises(ValueError, match="n_samples must be between 1 and 1,200"):
        split(n_samples, 0)


def test_a_moved_image_is_one_of_nine_shifts_and_all_of_them_come_up() -> None:
    image = torch.arange(1.0, 65).reshape(1, 1, 8, 8)
    moved = shifted(image.expand(400, 1, 8, 8), torch.Generator().manual_seed(0))
    wide = torch.nn.functional.pad(image, (1, 1, 1, 1))[0, 0]
    shifts = [wide[row : row + 8, column : column + 8] for row in range(3) for column in range(3)]
    found = [[torch.equal(one[0], shift) for shift in shifts].index(True) for one in moved]
    assert np.bincount(found, minlength=9).min() > 20


@given(st.integers(1, 9), st.integers(0, 100))
def test_a_trajectory_turns_every_factor_once(n_factors: int, seed: int) -> None:
    factors = {f"factor {number}": (number, -number - 1) for number in range(n_factors)}
    points = [point(factors, position, seed) for position in range(n_factors + 1)]
    assert points[0][1] == ""
    assert sorted(turned for _, turned in points[1:]) == sorted(factors)
    for (before, _), (after, turned) in itertools.pairwise(points):
        assert [name for name in factors if before[name] != after[name]] == [turned]
    with pytest.raises(ValueError, match="position must be between 0 and"):
        point(factors, n_factors + 1, seed)


def test_levels_and_orders_are_drawn_evenly() -> None:
    factors = dict.fromkeys("abcd", (0, 1))
    starts = np.array([list(point(factors, 0, seed)[0].values()) for seed in range(400)])
    assert np.abs(starts.mean(0) - 0.5).max() < 0.1
    first = [point(factors, 1, seed)[1] for seed in range(400)]
    assert min(first.count(name) for name in factors) > 60


@pytest.mark.parametrize("kind", KINDS)
def test_networks_have_ten_outputs_and_leave_the_random_state_alone(kind: str) -> None:
    before = torch.random.get_rng_state()
    one, other = (initialised(KINDS[kind].build, 7) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    X = split(3, 0).X.float()
    assert one.eval()(X).shape == (3, 10)
    torch.testing.assert_close(one(X), other.eval()(X))


def test_a_transformer_sees_the_order_of_its_rows_and_attends() -> None:
    net = initialised(lambda: Transformer(8, 2, 2), 0).double().eval()
    X = split(5, 0).X
    assert net(X).shape == (5, 10)
    assert (net(X) - net(X.flip(2))).abs().max() > 1e-4
    with torch.no_grad():
        logits = net(X)
        for block in net.blocks:
            block.query.weight.zero_()
            block.query.bias.zero_()
    assert (net(X) - logits).abs().max() > 1e-6


def test_attention_is_that_of_pytorch() -> None:
    net = initialised(lambda: Transformer(8, 1, 2), 0).double().eval()
    block = net.blocks[0]
    tokens = torch.randn(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    reference = torch.nn.MultiheadAttention(8, 2, batch_first=True).double()
    layers = (block.query, block.key, block.value)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        reference.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        reference.out_proj.weight.copy_(block.out.weight)
        reference.out_proj.bias.copy_(block.out.bias)
        read = block.norm(tokens)
        expected = tokens + reference(read, read, read, need_weights=False)[0]
        expected = expected + block.down(torch.relu(block.up(block.feed_norm(expected))))
        torch.testing.assert_close(block(tokens), expected)


def test_training_stops_when_the_loss_is_low_enough_and_depends_on_seeds_alone() -> None:
    data = split(100, 0)
    recipe = Recipe(learning_rate=1e-2, epochs=20, batch_size=10, moved=True, enough=0.9)
    one, again = (fit(initialised(lambda: mlp(32, 1), 0), data, recipe, 0) for _ in range(2))
    other = fit(initialised(lambda: mlp(32, 1), 0), data, recipe, 1)
    assert 0.1 < scores(one, data.X, data.y).loss <= 0.9
    assert torch.equal(one(data.X), again(data.X))
    assert not torch.equal(one(data.X), other(data.X))
    assert not one.training
    assert all(p.grad is None and p.dtype == torch.float64 for p in one.parameters())

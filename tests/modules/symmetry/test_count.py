"""Free scales are all there are: as many as the gradients show, for over a hundred modules."""

import pytest
import torch
from scaling_architectures import ALL, SCALING
from symmetry_oracles import independent_rank

from flattest.modules.symmetry.finding import find

# Where the gradients show more than the rules find, or cannot show all. Never a wrong symmetry.
EXCEPTIONS = {
    "transposed convolution 3d, dilated": "kernel positions that never overlap are scaled apart",
    "pixel shuffle and upsampling": "strides leave out kernel positions",
    "RMS norm": "an eps of 2e-16 is not seen, and the layer before it is scale-invariant",
    "embedding": "the padding's row is used, but autograd leaves its gradient out",
}


def draws(make):
    """Return a function that draws inputs of a module's kind."""
    _, inputs = make(6)

    def draw(generator):
        drawn = []
        for x in inputs:
            if not x.is_floating_point():
                drawn.append(torch.randint(0, 7, x.shape, generator=generator))
            elif set(x.unique().tolist()) <= {0.0, 1.0}:
                drawn.append(torch.rand(x.shape, generator=generator).round().double())
            else:
                noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
                drawn.append(2 * x + 2 * noise)
        return tuple(drawn)

    return draw


NAMES = [
    # All others of the documentation's list are counted in `make slow`.
    pytest.param(name, marks=() if name in SCALING or number % 4 == 0 else pytest.mark.slow)
    for number, name in enumerate(ALL)
]


@pytest.mark.parametrize("name", NAMES)
def test_free_scales_are_all_diagonal_symmetries(name):
    make = ALL[name]
    module, inputs = make(2)
    found = find(module, inputs, None, "keep", ("trace",))
    assert not found.unknown
    assert found.largest_change < 1e-12
    assert found.check(make(5)[1]) < 1e-10  # on a batch of another size
    if name in SCALING:
        assert found.n_scales == SCALING[name][1]
    rank, unseen = independent_rank(module, draws(make))
    exponents = torch.cat(
        [
            torch.as_tensor(tensor.exponents.toarray())[
                tensor.blocks.expand(tensor.shape).reshape(-1)
            ]
            for tensor in found.tensors
        ]
    )
    assert found.n_scales == 0 or torch.linalg.matrix_rank(exponents) == found.n_scales
    # Scales of what no gradient reaches do not count.
    visible = int(torch.linalg.matrix_rank(exponents[~unseen])) if found.n_scales else 0
    counted = len(exponents) - int(unseen.sum()) - rank
    if name in EXCEPTIONS:
        assert visible != counted
    else:
        assert visible == counted


def test_enough_modules_are_counted():
    assert len(ALL) - len(EXCEPTIONS) >= 80

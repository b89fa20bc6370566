"""How tensors scale: blocks, exponents and factors agree with each other."""

import numpy as np
import pytest
import torch
from scaling_architectures import ALL

from flattest.modules.symmetry.finding import find
from flattest.modules.symmetry.scaled_tensor import ScaledTensor

NAMES = [
    "LeNet",
    "depthwise and pointwise",
    "two factors",
    "transformer encoder layer",
    "weight norm",
]


@pytest.mark.parametrize("name", NAMES)
def test_factors_and_blocks_say_the_same(name):
    module, inputs = ALL[name](2)
    found = find(module, inputs, None, "keep", ("trace",))
    z = np.random.default_rng(0).standard_normal(found.n_scales)
    for tensor in found.tensors:
        logs = tensor.log_scales(z).expand(tensor.shape)
        by_block = torch.as_tensor(tensor.exponents @ z)[tensor.blocks.expand(tensor.shape)]
        torch.testing.assert_close(by_block, logs, rtol=0, atol=1e-14)
        assert tensor.is_frozen == (tensor.exponents.nnz == 0)
        values = torch.rand(tensor.shape, dtype=torch.float64)
        sums = tensor.sums(values)
        assert sums.sum() == pytest.approx(float(values.sum()))
        assert sums @ np.exp(tensor.exponents @ z) == pytest.approx(
            float((values * logs.exp()).sum())
        )


def test_kernels_cost_nothing():
    module, inputs = ALL["LeNet"](2)
    tensor = find(module, inputs, None, "keep", ("trace",)).tensors[2]
    assert tensor.shape == (4, 3, 3, 3)
    assert tensor.block_shape == (4, 3, 1, 1)
    assert tensor.exponents.shape == (12, 12)
    assert repr(tensor) == "ScaledTensor(3.weight, (4, 3, 3, 3), 12 blocks)"


def test_scalars_are_tensors_too():
    from scipy.sparse import csr_matrix

    zero = torch.zeros((), dtype=torch.int64)
    tensor = ScaledTensor("b", (), zero + 1, zero, csr_matrix([[0.0], [2.0]]))
    assert float(tensor.log_scales([0.5])) == 1.0
    assert tensor.sums(torch.tensor(3.0)).tolist() == [3.0]

"""How far beyond the training rows a link is followed."""

import torch

from flattest.regression.limits import Limits
from flattest.regression.variation import Variation


def test_a_link_is_followed_less_along_what_matters_less():
    inputs = torch.tensor([[0.0, 0.0, 1.0], [2.0, 0.0, -1.0], [1.0, 10.0, 0.0]]).double()
    axes = torch.eye(3, dtype=torch.float64)
    values = torch.tensor([4.0, 1.0, 0.0]).double()
    limits = Limits.of(Variation(values, axes, torch.zeros(3).double()), inputs)
    torch.testing.assert_close(limits.low, torch.tensor([-1.5, -3.75, -1.0]).double())
    torch.testing.assert_close(limits.high, torch.tensor([3.5, 13.75, 1.0]).double())
    far = torch.tensor([[99.0, 5.0, -99.0]]).double()
    torch.testing.assert_close(limits(far), torch.tensor([[3.5, 5.0, -1.0]]).double())


def test_a_constant_is_followed_nowhere():
    inputs = torch.tensor([[0.0], [1.0]]).double()
    zero = torch.zeros(1).double()
    limits = Limits.of(Variation(zero, zero[:, None] + 1, zero), inputs)
    torch.testing.assert_close(limits(torch.tensor([[7.0]]).double()), torch.ones(1, 1).double())

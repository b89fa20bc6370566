"""How far beyond the training rows a link is followed."""

import numpy as np

from flattest.regression.prediction.limits import Limits


def test_a_link_is_followed_less_along_what_matters_less():
    inputs = np.array([[0.0, 0.0, 1.0], [2.0, 0.0, -1.0], [1.0, 10.0, 0.0]])
    limits = Limits.of(np.eye(3), np.array([4.0, 1.0, 0.0]), inputs)
    np.testing.assert_allclose(limits.low, [-1.5, -3.75, -1.0])
    np.testing.assert_allclose(limits.high, [3.5, 13.75, 1.0])
    far = np.array([[99.0, 5.0, -99.0]])
    np.testing.assert_allclose(limits(far), [[3.5, 5.0, -1.0]])


def test_a_constant_is_followed_nowhere():
    inputs = np.array([[0.0], [1.0]])
    limits = Limits.of(np.eye(1), np.zeros(1), inputs)
    np.testing.assert_allclose(limits(np.array([[7.0]])), [[1.0]])

"""Regression on a few unknown directions: the path of networks, their rounds, the estimator."""

from flattest.regression.regressor import MultiIndexRegressor

__all__ = ["MultiIndexRegressor"]

"""The world of any PyTorch module: its Gauss-Newton trace, and where that is the Hessian's."""

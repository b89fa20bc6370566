"""Rounding the weights of a module to few bits, and how many each of them gets.

`rounding` rounds tensors and whole modules, with plain PyTorch, and corrects biases. `allocation`
chooses the bits of each weight from its trace and its rounding error, under a budget, and returns
a `bit_allocation`, which `rounding` takes.
"""

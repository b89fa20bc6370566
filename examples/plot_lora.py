"""
Balance a LoRA adapter
======================

A LoRA adapter adds the product :math:`B A` of two thin factors to a weight. Any invertible matrix
can be moved between them: :math:`(M A, B M^{-1})` has the same product and another trace. The
usual start, with :math:`B = 0` and a large :math:`A`, leaves them far from balance.
``balance_lora`` finds the factors of least trace, in closed form.
"""

# %%
# An adapter that was trained
# ---------------------------
#
# The layer is frozen; what has to be learned is a change of rank 4.

import matplotlib.pyplot as plt
import torch

import flattest as ft

torch.manual_seed(0)
n, d, m, rank = 400, 32, 24, 4
weight = torch.randn(m, d).double() / d**0.5
change = torch.randn(m, rank).double() @ torch.randn(rank, d).double() / d
inputs = torch.randn(n, d).double() * torch.linspace(0.2, 2.0, d).double()
targets = inputs @ (weight + change).T

A = (3 * torch.randn(rank, d) / d**0.5).double().requires_grad_()
B = torch.zeros(m, rank, dtype=torch.float64, requires_grad=True)
optimiser = torch.optim.Adam([A, B], lr=0.02)
for _ in range(300):
    optimiser.zero_grad()
    residuals = inputs @ (weight + B @ A).T - targets
    loss = residuals.square().sum(1).mean()
    loss.backward()
    optimiser.step()
print(f"training loss {loss.item():.1e}")

# %%
# Balanced
# --------
#
# The trace depends on the samples: on the inputs, and on the columns of the loss's Hessian in the
# outputs, which for squared errors are the unit vectors. Each sample meets every column once.

with torch.no_grad():
    columns = (2 / n) ** 0.5 * torch.eye(m).double().repeat(n, 1)
    rows = inputs.repeat_interleave(m, 0)
    found = ft.balance_lora(A, B, inputs=rows, cotangents=columns)
print(f"trace {found.trace:.4g}, least trace {found.minimum:.4g}")
print(f"change of the product: {(found.B @ found.A - B @ A).abs().max().item():.0e}")

# %%
# Is that the trace? Autograd's answer, for the parameters A and B of the loss:


def loss_of(A, B):
    return (inputs @ (weight + B @ A).T - targets).square().sum(1).mean()


def trace_by_autograd(A, B):
    total = 0.0
    for position, factor in enumerate((A, B)):

        def alone(x, position=position):
            return loss_of(*[x if i == position else f for i, f in enumerate((A, B))])

        hessian = torch.autograd.functional.hessian(alone, factor.detach())
        total += hessian.reshape(factor.numel(), -1).trace().item()
    return total


before, after = (
    trace_by_autograd(*pair) for pair in ((A.detach(), B.detach()), (found.A, found.B))
)
print(f"before: {before / found.trace - 1:+.0e}, after: {after / found.minimum - 1:+.0e}, relative")

# %%
# What noise does
# ---------------
#
# The trace is what noise of one size on both factors costs: a rise of the loss by half the variance
# times the trace.

sizes = torch.logspace(-3, -1, 9)
rises = {"trained": [], "balanced": []}
for sigma in sizes:
    for name, pair in (("trained", (A.detach(), B.detach())), ("balanced", (found.A, found.B))):
        noisy = [
            loss_of(*(f + sigma * torch.randn(f.shape).double() for f in pair)).item()
            for _ in range(40)
        ]
        rises[name].append(sum(noisy) / len(noisy) - loss_of(*pair).item())

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, values), trace, colour in zip(
    rises.items(), (found.trace, found.minimum), ("#6b6b6b", "#0072B2"), strict=True
):
    ax.plot(sizes, values, "o", color=colour, label=f"{name}: measured")
    ax.plot(sizes, sizes**2 * trace / 2, "-", color=colour, label=f"{name}: half the trace")
ax.set(xscale="log", yscale="log", xlabel="noise on the factors", ylabel="rise of the loss")
ax.set_title("What noise on a LoRA adapter costs, as trained and balanced")
ax.legend(frameon=False)
plt.show()

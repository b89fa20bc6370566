"""
What the symmetries of attention hide
=====================================

Between the queries and keys of an attention head, and between its values and the output
projection, lie nothing but linear maps. Any invertible matrix can be moved there without any
output showing it: many more directions than the scales of a ReLU network. ``symmetry="all"``
finds the least trace over them, a property of the function; the trace itself is a property of how
it is written down.
"""

# %%
# A small transformer
# -------------------
#
# It learns to tell which of two tokens occurs more often.

import matplotlib.pyplot as plt
import torch
from torch import nn

import flattest as ft


class Classifier(nn.Module):
    def __init__(self, width=16, heads=2):
        super().__init__()
        self.heads, self.tokens = heads, nn.Embedding(4, width)
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out, self.head = nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, x):
        x = self.tokens(x)
        n, length, width = x.shape
        q, k, v = (
            f(x).reshape(n, length, self.heads, width // self.heads).transpose(1, 2)
            for f in (self.q, self.k, self.v)
        )
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).reshape(n, length, width))
        return self.head(x.mean(1))


torch.manual_seed(0)
X = torch.randint(0, 4, (160, 9))
y = ((X == 0).sum(1) > (X == 1).sum(1)).long()
net = Classifier().double()
optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
for _ in range(60):
    optimiser.zero_grad()
    loss = nn.functional.cross_entropy(net(X), y)
    loss.backward()
    optimiser.step()
net.eval()
print(f"training loss {loss.item():.3f}")

# %%
# Its symmetries
# --------------

found = ft.symmetries(net, X[:16])
print(found)

# %%
# Twins with the same outputs
# ---------------------------
#
# Each head gets a matrix of its own between values and output projection, another one between
# queries and keys: the identity plus noise of growing size.

heads, width = net.heads, 16
size = width // heads


def twin(noise):
    """Return a network with the same outputs."""
    moved = Classifier().double()
    moved.load_state_dict(net.state_dict())
    with torch.no_grad():
        for head in range(heads):
            rows = slice(head * size, (head + 1) * size)
            M, N = (torch.eye(size) + noise * torch.randn(size, size) for _ in range(2))
            M, N = M.double(), N.double()
            moved.v.weight[rows] = M @ net.v.weight[rows]
            moved.out.weight[:, rows] = net.out.weight[:, rows] @ torch.linalg.inv(M)
            moved.q.weight[rows] = N @ net.q.weight[rows]
            moved.k.weight[rows] = torch.linalg.inv(N).T @ net.k.weight[rows]
    return moved.eval()


def measured(each):
    return ft.measure(each, X, y, loss="cross_entropy", symmetry="all", residual="none")


sizes = [0.0, *[0.1] * 2, *[0.2] * 2, *[0.4] * 2, *[0.8] * 2]
twins = [twin(noise) for noise in sizes]
change = max((each(X) - net(X)).abs().max().item() for each in twins)
print(f"largest change of an output: {change:.0e}")
results = [measured(each) for each in twins]

# %%
# The Gauss-Newton trace and its minimum
# --------------------------------------
#
# The traces of the nine networks are strewn; the minimum over the symmetries is one number.

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(sizes, [r.gauss_newton for r in results], "o", color="#0072B2", label="Gauss-Newton trace")
ax.plot(
    sizes, [r.orbit_minimum for r in results], "D", color="#D55E00", label="minimum over symmetries"
)
ax.set(yscale="log", xlabel="size of the matrices' noise", ylabel="trace")
ax.set_title("Networks with the same outputs: traces, and their minimum")
ax.legend(frameon=False)
plt.show()
minima = [r.orbit_minimum for r in results]
print(f"the minima agree to {max(minima) / min(minima) - 1:.0e}")

"""The backend beside laplace-torch's own, where these work, and where they do not."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

laplace = pytest.importorskip("laplace")

from laplace.curvature import BackPackGGN, CurvlinopsGGN  # noqa: E402

from flattest.integrations.laplace import FlattestGGN  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


class Residual(nn.Module):
    """As ResNets are written: sums and activations in place, a shortcut with a convolution."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.one, self.norm_one = nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6)
        self.two, self.norm_two = nn.Conv2d(6, 6, 3, 1, 1, bias=False), nn.BatchNorm2d(6)
        self.shortcut = nn.Conv2d(4, 6, 1, 2, bias=False)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(6, 3)

    def forward(self, x):
        x = self.relu(self.norm(self.stem(x)))
        out = self.norm_two(self.two(self.relu(self.norm_one(self.one(x)))))
        out += self.shortcut(x)
        return self.head(self.relu(out).mean((2, 3)))


def sequential():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 6), nn.Tanh(), nn.Linear(6, 3)
    )


def made(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = make().double()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
        X = torch.randn(14, 1, 6, 6, dtype=torch.float64)
        return net.eval(), X, torch.randint(0, 3, (14,)), torch.randn(14, 3, dtype=torch.float64)


def diagonal(backend, net, X, y, likelihood):
    la = laplace.Laplace(
        net, likelihood, subset_of_weights="all", hessian_structure="diag", backend=backend
    )
    la.fit(DataLoader(TensorDataset(X, y), 5))
    return la


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("likelihood", ["classification", "regression"])
@pytest.mark.parametrize("theirs", [CurvlinopsGGN, BackPackGGN])
def test_the_diagonal_is_theirs_where_theirs_works(theirs, likelihood, seed):
    net, X, labels, targets = made(sequential, seed)
    y = labels if likelihood == "classification" else targets
    mine = diagonal(FlattestGGN, net, X, y, likelihood)
    right = diagonal(theirs, made(sequential, seed)[0], X, y, likelihood)
    torch.testing.assert_close(mine.H, right.H, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(mine.loss, right.loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(mine.log_marginal_likelihood(), right.log_marginal_likelihood())


@pytest.mark.parametrize("likelihood", ["classification", "regression"])
def test_networks_with_sums_in_place(likelihood):
    net, X, labels, targets = made(Residual)
    y = labels if likelihood == "classification" else targets
    mine = diagonal(FlattestGGN, net, X, y, likelihood)
    right = diagonal(CurvlinopsGGN, net, X, y, likelihood)  # all Jacobians at once
    torch.testing.assert_close(mine.H, right.H, rtol=1e-9, atol=1e-12)
    with pytest.raises(Exception):  # noqa: B017, PT011 - whichever way it fails
        diagonal(BackPackGGN, made(Residual)[0], X, y, likelihood)


def test_the_network_comes_back_as_it_was():
    net, X, y, _ = made(Residual)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    FlattestGGN(net, "classification").diag(X, y)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_frozen_parameters_and_subnetworks_are_left_out():
    net, X, y, _ = made(sequential)
    whole = FlattestGGN(net, "classification").diag(X, y)[1]
    chosen = torch.tensor([0, 5, 31, len(whole) - 1])
    part = FlattestGGN(net, "classification", subnetwork_indices=chosen).diag(X, y)[1]
    assert torch.equal(part, whole[chosen])
    net[0].requires_grad_(False)
    rest = FlattestGGN(net, "classification").diag(X, y)[1]
    torch.testing.assert_close(rest, whole[30:])


def test_the_last_layer_and_predictions():
    net, X, y, _ = made(Residual)
    options = {"subset_of_weights": "last_layer", "hessian_structure": "diag"}
    loader = DataLoader(TensorDataset(X, y), 5)
    found = [
        laplace.Laplace(net, "classification", **options, backend=backend)
        for backend in (FlattestGGN, CurvlinopsGGN)
    ]
    for la in found:
        la.fit(loader)
    torch.testing.assert_close(found[0].H, found[1].H)
    la = diagonal(FlattestGGN, net, X, y, "classification")
    for options in ({"pred_type": "glm", "link_approx": "probit"}, {"pred_type": "nn"}):
        options = {"link_approx": "mc"} | options
        torch.testing.assert_close(la(X[:4], **options).sum(1), torch.ones(4).double())


class OfTokens(nn.Module):
    """A network whose inputs are a dictionary, with logits for each token, classes last."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 5)

    def forward(self, batch):
        tokens = batch["input_ids"] if not isinstance(batch, torch.Tensor) else batch
        return self.head(torch.tanh(self.embedding(tokens)))


@pytest.mark.parametrize("as_dictionary", [False, True])
def test_tokens_have_their_classes_last(as_dictionary):
    net = OfTokens().double().eval()
    tokens = torch.randint(0, 9, (6, 3))
    labels = torch.randint(0, 5, (6, 3))
    x = {"input_ids": tokens, "labels": labels} if as_dictionary else tokens
    loss, found = FlattestGGN(net, "classification").diag(x, labels)
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def logits(values):
        return torch.func.functional_call(net, values, (tokens,)).flatten(0, 1)

    jacobian = torch.func.jacrev(logits)(parameters)
    J = torch.cat([j.flatten(2) for j in jacobian.values()], 2)
    p = logits(parameters).softmax(1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    right = torch.einsum("ncp,ncd,ndp->p", J, curvature, J)
    torch.testing.assert_close(found, right)
    expected = nn.functional.cross_entropy(logits(parameters), labels.flatten(), reduction="sum")
    torch.testing.assert_close(loss, expected.detach())


def test_kronecker_factors_are_refused():
    net, X, y, _ = made(sequential)
    with pytest.raises(NotImplementedError, match="hessian_structure='diag'"):
        FlattestGGN(net, "classification").kron(X, y, N=14)

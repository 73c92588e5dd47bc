"""Recorded operations on the tape machine, and repeated in torch, against torch itself."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mfgppl._compiler.lowering import lower
from mfgppl._compiler.operands import Unlowered
from mfgppl._compiler.operations import KNOWN
from mfgppl._compiler.tracing import Untraceable, record, replay
from mfgppl._kernels import bridge

N = 6
INDEX = torch.tensor([4, 0, 0, 5])
TURN = torch.linspace(-1, 1, 3 * 2 * 4 * N, dtype=torch.float64).reshape(3, 2, 4, N)
TABLE = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)


def in_place(x):
    total = torch.zeros(N, dtype=torch.float64)
    total[1:4] = x[:3] ** 2
    total.add_(x)
    total[0] += x[2]
    return total.mul_(2.0)


def written_over(x):
    y = x.clone()
    z = y * 2.0
    y[::2] = 0.5
    return y + z


def grown(x):
    """Return a matrix (12, 12), large enough to be copied as a block."""
    return torch.outer(torch.cat([x, x + 2]), torch.cat([x**2, x**2 + 1])) ** 2 + 0.1


def accumulated(x):
    return torch.zeros(4, dtype=torch.float64).index_put((INDEX[:3] % 4,), x[:3], accumulate=True)


FUNCTIONS = {
    "arithmetic": lambda x: (x + 2.0) * x - x / (x**2 + 1.0) - 3.0 * -x + 1.0 / (2.0 + x**2),
    "sums with a factor": lambda x: torch.add(x, x * x, alpha=-2.5) + torch.sub(x, 1.0, alpha=3),
    "powers": lambda x: (x**2 + 0.1) ** 1.5 + 2.0**x + x**3,
    "exponentials": lambda x: torch.exp(x) + torch.expm1(x) + torch.log(x**2 + 0.1),
    "log1p, sqrt": lambda x: torch.log1p(x**2) + torch.sqrt(x**2 + 1) + torch.rsqrt(x**2 + 1),
    "curves": lambda x: torch.tanh(x) + torch.sigmoid(x) + torch.sin(x) * torch.cos(x) + x.atan(),
    "rectifiers": lambda x: F.relu(x) + F.softplus(x) + F.elu(x) + F.silu(x) + F.leaky_relu(x),
    "gaussian curves": lambda x: torch.erf(x) + F.gelu(x),
    "gamma function": lambda x: torch.lgamma(x**2 + 0.5),
    "softmax of products": lambda x: (
        torch.softmax(TURN @ x, dim=-1)[None].permute(0, 3, 1, 2).contiguous().reshape(-1)
    ),
    "signs": lambda x: torch.abs(x) + torch.sign(x) * 0.5,
    "bounds": lambda x: x.clamp(-0.3, 0.4) + x.clamp(min=0.1) + x.clamp(max=-0.1),
    "extremes": lambda x: torch.maximum(x, -x) + torch.minimum(x, x**2) + x.amax() - x.amin(),
    "choices": lambda x: torch.where(x > 0.1, x**2, -x) + x.masked_fill(x < 0, 3.0),
    "logic": lambda x: ((x > 0) & (x < 0.5) | ~(x >= -1) | (x == 2)).to(torch.float64) * x,
    "comparisons": lambda x: torch.where((x <= 0.2).logical_and(x != 0.3), x, 2 * x),
    "views": lambda x: x.reshape(2, 3).T.flatten() + x.view(3, 2).permute(1, 0).reshape(-1),
    "slices": lambda x: x[1:5:2].sum() + x[-1] * x[0] + x[None, :, None][0, 2:, 0],
    "expansion": lambda x: (x[:, None] * x[None, :3] + TABLE[:, :1].T).sum(0),
    "sums": lambda x: x.reshape(2, 3).sum(0, keepdim=True) + x.reshape(2, 3).mean(1)[:, None],
    "sum of axes": lambda x: (x[:, None, None] * TABLE).sum((0, 2)) + TABLE.sum() * x.sum(),
    "running": lambda x: x.cumsum(0) + x.reshape(2, 3).cumsum(0).reshape(-1),
    "running products": lambda x: (x + 3).cumprod(0) + (x + 4).reshape(3, 2).cumprod(1).view(-1),
    "flips": lambda x: x.flip(0) * x + torch.roll(x, 2),
    "joined": lambda x: torch.cat([x[:2], x * 2, torch.ones(1, dtype=torch.float64)]),
    "joined blocks": lambda x: torch.cat([grown(x), grown(x).T @ grown(x), grown(x) ** 2]).sum(1),
    "joined columns": lambda x: (torch.cat([grown(x), grown(x)[:, :9] * 2], 1) ** 2).sum(0),
    "stacked blocks": lambda x: torch.stack([grown(x), grown(x).T, grown(x) * x[0]], 1).sum(0).T,
    "repeated blocks": lambda x: grown(x).repeat(3, 1, 2).sum((0, 1)) * grown(x).T.repeat(1, 2)[0],
    "long rows": lambda x: (grown(x)[:, None, :] * grown(x)[None, :, :3].mT).log1p().sum((1, 2)),
    "stacked": lambda x: torch.stack([x, x**2], dim=1).reshape(-1),
    "padded": lambda x: F.pad(x, (1, 2)) + F.pad(x, (2, 1), value=1.5),
    "indexed": lambda x: x[INDEX] * x.gather(0, INDEX) + x.index_select(0, INDEX),
    "triangles": lambda x: (x[:, None] * x[None, :]).tril().sum(1) + torch.diag(x).sum(0),
    "softmax": lambda x: F.softmax(x, 0) + F.log_softmax(x.reshape(2, 3), 1).reshape(-1),
    "logsumexp": lambda x: torch.logsumexp(x.reshape(2, 3), 1),
    "matrices": lambda x: (x.reshape(2, 3) @ TABLE).reshape(-1) + 0.0,
    "vectors": lambda x: TABLE.T @ x[:3] + (x[:3] @ x[3:]) + x[3:] @ TABLE,
    "batches": lambda x: torch.bmm(x.reshape(3, 1, 2), TABLE.reshape(3, 2, 2)).ravel(),
    "einsum": lambda x: torch.einsum("ab,bcd->acd", x.view(2, 3), TABLE.view(3, 2, 2)).ravel(),
    "layers": lambda x: F.linear(x.reshape(2, 3), TABLE.T, torch.arange(4.0).double()).reshape(-1),
    "outer products": lambda x: torch.outer(x[:2], x[2:]).reshape(-1),
    "in place": in_place,
    "written over": written_over,
    "accumulated": accumulated,
}  # fmt: skip


def points():
    """Points on both sides of every bound above, and none on one."""
    return np.random.default_rng(0).standard_normal((5, N))


def stages(function):
    """Return a function and its weighted gradient as the stages of a trace."""

    def forward(x, *_):
        return function(x).contiguous().view(-1)

    def pullback(x, weights, found):
        return torch.autograd.grad((found * weights).sum(), x)[0].contiguous()

    return forward, pullback


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_and_gradient(name):
    """Both stages give torch's numbers at points other than the one traced, in any order."""
    forward, pullback = stages(FUNCTIONS[name])
    size = forward(torch.zeros(N, dtype=torch.float64)).numel()
    weights = np.random.default_rng(1).standard_normal(size)
    start = torch.full((N,), 0.7, dtype=torch.float64, requires_grad=True)
    inputs = [start, torch.ones(size, dtype=torch.float64)]
    trace = record([forward, pullback], inputs, KNOWN)
    run, pull = bridge.on_tape(lower(trace))
    for point in points():
        x = torch.tensor(point, requires_grad=True)
        found = forward(x)
        slope = pullback(x, torch.from_numpy(weights), found)
        np.testing.assert_allclose(run(point), found.detach(), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(pull(weights), slope, rtol=1e-11, atol=1e-12)
        again = [torch.from_numpy(point), torch.from_numpy(weights)]
        np.testing.assert_allclose(replay(trace, 0)(*again), found.detach(), rtol=1e-12)
        np.testing.assert_allclose(replay(trace, 1)(*again), slope, rtol=1e-12, atol=1e-14)


def test_not_a_number_and_infinity_pass_through():
    """What overflows or is undefined in torch is so on the tape."""
    forward, _ = stages(lambda x: torch.cat([x.exp(), x.log(), x.clamp(min=0.0), x / x]))
    tape = lower(record([forward], [torch.ones(N, dtype=torch.float64)], KNOWN))
    point = np.array([[800.0, -800.0, np.nan, np.inf, -np.inf, 0.0]])
    expected = forward(torch.from_numpy(point[0]))
    np.testing.assert_array_equal(bridge.each_on_tape(tape, point)[0], expected)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * float(x[0]),
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x[x > 0],
        lambda x: x.nonzero().to(torch.float64),
    ],
)
def test_values_asked_for_are_refused(function):
    """A function whose operations depend on values cannot be recorded."""
    with pytest.raises(Untraceable, match="needs the value of a parameter"):
        record([function], [torch.ones(N, dtype=torch.float64)], KNOWN)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.linalg.solve_triangular(torch.eye(N).double(), x[:, None], upper=True),
        lambda x: torch.div(x, 2.0, rounding_mode="floor"),
        lambda x: x[x.argsort()],
        lambda x: x.var() * x,
lambda x: x[0] * torch.ones(2, 1, 2, 1, 2, 1) + x[1] * torch.ones(1, 2, 1, 2, 1, 2),
    ],
)  # fmt: skip
def test_operations_without_an_instruction_are_left(function):
    """They are named, and the function stays in torch."""
    trace = record([lambda x: function(x).reshape(-1)], [torch.ones(N).double()], KNOWN)
    with pytest.raises(Unlowered):
        lower(trace)


def test_a_logarithm_is_that_of_numpy_for_every_number():
    """From the least number to infinity, below zero, and where there is none."""
    rng = np.random.default_rng(0)
    usual = np.exp(rng.uniform(-745.0, 709.0, 5000))
    least = np.array([0.0, -0.0, 5e-324, 1e-310, 2.0**-1022, 1.0, np.nextafter(1, 2)])
    odd = np.array([-1.0, -np.inf, np.inf, np.nan, -5e-324])
    numbers = np.concatenate([usual, least, odd, np.nextafter(usual, 0.0)])
    inputs = [torch.ones(numbers.size, dtype=torch.float64), torch.ones(numbers.size)]
    trace = record([lambda x, *_: torch.log(x), lambda x, *_: x * 1.0], inputs, KNOWN)
    forward, _ = bridge.on_tape(lower(trace))
    with np.errstate(all="ignore"):
        expected = np.log(numbers)
    # a few units in the last place
    np.testing.assert_allclose(forward(numbers), expected, rtol=1e-15, atol=0)

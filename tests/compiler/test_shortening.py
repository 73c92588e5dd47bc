"""Shortened tapes give what they gave, to the last bit, with fewer instructions."""

import numpy as np
import pytest
import torch

import mfgppl._compiler.lowering as lowering
from mfgppl._compiler.lowering import lower
from mfgppl._compiler.operations import KNOWN
from mfgppl._compiler.shortening import shortened
from mfgppl._compiler.tracing import record
from mfgppl._kernels import tape as machine
from mfgppl._kernels.tape import Op

N = 6


def nested(x):
    """Return rows stacked of rows stacked of numbers."""
    one = torch.stack([x[0] * x[1], x[2]])
    return torch.stack([torch.stack([one, x[:2]]), torch.stack([x[4:], one + 1.0])])


def overwritten(x):
    """Return what was stacked before its parts changed, and those after."""
    y = x * 2.0
    rows = torch.stack([y[:3], y[3:]])
    y.mul_(3.0)
    return torch.stack([rows, y.reshape(2, 3)])


def turned(x):
    """Return a table with its axes turned several times."""
    table = torch.stack([x, x**2])
    return (
        torch.stack([table.T.contiguous(), (table + 1).T.contiguous()])
        .permute(2, 0, 1)
        .contiguous()
    )


def swapped(x):
    """Return halves that change places, in place."""
    y = x * 2.0
    other = torch.cat([y[3:], y[:3]])
    y.copy_(other)
    return torch.cat([y, other])


def summed(x):
    return torch.stack([x[:3], x[3:]]).sum(0) + torch.stack([x[1:3], x[4:]]).amax()


def scattered(x):
    out = torch.stack([x[:2], x[2:4]]).reshape(-1)
    return out.index_add(0, torch.tensor([3, 3, 0]), torch.stack([x[5], x[4], x[0]]))


def long(x):
    return torch.stack([x[None, :] * torch.ones(1000, 1, dtype=torch.float64), x.repeat(1000, 1)])


FUNCTIONS = [nested, overwritten, turned, swapped, summed, scattered, long]


def plain_and_short(stages, monkeypatch):
    """Return the tapes of stages as they are lowered, and shortened."""
    with torch.no_grad():
        trace = record(stages, [torch.linspace(0.1, 0.9, N, dtype=torch.float64)], KNOWN)
        monkeypatch.setattr(lowering, "shortened", lambda tape: tape)
        plain = lower(trace)
    return plain, shortened(plain)


def outputs(tape, points):
    """Return what each stage leaves, run one after the other at each point, in one buffer."""
    buffer, found = tape.buffer.copy(), []
    for point in points:
        buffer[tape.inputs[0]] = point
        for stage, (first, last) in enumerate(zip([0, *tape.ends], tape.ends, strict=False)):
            machine.run(tape.code[first:last], tape.places, buffer)
            found.append(buffer[tape.outputs[stage]].copy())
    return found


POINTS = np.random.default_rng(1).uniform(0.1, 2.0, (3, N))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_one_stage(function, monkeypatch):
    plain, short = plain_and_short([function], monkeypatch)
    for a, b in zip(outputs(plain, POINTS), outputs(short, POINTS), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(short.code) <= len(plain.code)
    with torch.no_grad():
        expected = function(torch.from_numpy(POINTS[0].copy())).reshape(-1).numpy()
    np.testing.assert_allclose(outputs(short, POINTS)[0], expected, rtol=1e-14)


def test_several_stages(monkeypatch):
    """Also one by one, as a flow is followed: a stage reads nothing before its own beginning."""
    stages = [lambda x, *_, f=f: f(x).contiguous().reshape(-1) for f in FUNCTIONS]
    plain, short = plain_and_short(stages, monkeypatch)
    for a, b in zip(outputs(plain, POINTS), outputs(short, POINTS), strict=True):
        np.testing.assert_array_equal(a, b)


def test_chains_of_stacks_are_gathered_once(monkeypatch):
    plain, short = plain_and_short([nested], monkeypatch)
    n_lists = [(tape.code[:, 0] == Op.GATHER).sum() for tape in (plain, short)]
    assert n_lists[1] < n_lists[0]

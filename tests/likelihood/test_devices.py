"""The torch twin runs where its tensors are."""

import numpy as np
import pytest
import scipy.sparse
import torch
from reference import tiny_case

import mfgppl as mfg

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
    ),
]
OPTIONS = [
    {"likelihood": "causal"},
    {"likelihood": "energy"},
    {"likelihood": "energy", "start": "conditional"},
]


def still(x):
    """A reward program whose parameter plays no part here."""
    import pyro
    import pyro.distributions as dist

    return pyro.sample("w", dist.Normal(0.0, 1.0)) * x.density


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_the_twin_follows_the_reward(device, options, sparse):
    """Value and gradient on a device are those of the kernel, and stay on the device."""
    case = tiny_case(4)
    game = case.game
    if sparse:
        T, S, A = game.shape
        tables = game.transition_along(torch.as_tensor(case.panel.mean_field()))
        matrices = [scipy.sparse.csr_array(t.reshape(S * A, S).numpy()) for t in tables]
        game = mfg.MeanFieldGame(
            states=dict(game.space.coordinates),
            actions=game.actions,
            horizon=T,
            transition=matrices if len(matrices) > 1 else matrices[0],
            initial=game.initial,
        )
    likelihood = mfg.TrajectoryModel(game, still, case.panel, **options).law
    value, gradient = likelihood.evaluator()(case.reward)
    leaf = torch.tensor(case.reward, device=device, requires_grad=True)
    twin = likelihood.log_likelihood(leaf)
    slope = torch.autograd.grad(twin, leaf)[0]
    assert twin.device.type == slope.device.type == device
    assert twin.item() == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(slope.cpu(), gradient, rtol=1e-9, atol=1e-11)

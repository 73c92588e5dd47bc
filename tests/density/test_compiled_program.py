"""The compiled density against Pyro's own eager potential, on a gallery of programs."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.mcmc.util import initialize_model
from pyro.nn import PyroModule, PyroSample
from reference import tiny_case

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.reward.program import double_precision


def scalars(x):
    a = pyro.sample("a", dist.Normal(0.3, 2.0))
    b = pyro.sample("b", dist.HalfNormal(1.5))
    return a * (x.action == "a0") + b * x.density


def vector(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    m = pyro.sample("m", dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 0.3))
    return w[0] * (x.action == "a0") + w[1] * x.density + m[0] * x.time * (x.action == "a1")


def plate(x):
    with pyro.plate("states", x.shape[1]):
        bonus = pyro.sample("bonus", dist.Normal(0.0, 1.0))
    return bonus[:, None] * (x.action == "a0")


def hierarchical(x):
    centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
    spread = pyro.sample("spread", dist.HalfCauchy(1.0))
    with pyro.plate("states", x.shape[1]):
        raw = pyro.sample("raw", dist.Normal(0.0, 1.0))
    bonus = pyro.deterministic("bonus", centre + spread * raw)
    return bonus[:, None] * (x.action == "a0")


def centred(x):
    spread = pyro.sample("spread", dist.Gamma(2.0, 1.0))
    with pyro.plate("states", x.shape[1]):
        bonus = pyro.sample("bonus", dist.Normal(0.0, spread))
    return bonus[:, None] * (x.action == "a0")


def constrained(x):
    share = pyro.sample("share", dist.Beta(2.0, 3.0))
    level = pyro.sample("level", dist.Uniform(-1.0, 2.0))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    rate = pyro.sample("rate", dist.Exponential(2.0))
    tail = pyro.sample("tail", dist.StudentT(4.0, 0.0, 1.0))
    curve = share * x.density + torch.tanh(level) * torch.exp(-rate * x.time)
    return curve * scale * (x.action == "a0") + tail * (x.action == "a1")


def simplex(x):
    mix = pyro.sample("mix", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
    return mix[0] * (x.action == "a0") + mix[1] * x.density + mix[2] ** 2 * x.time


def dependent_support(x):
    top = pyro.sample("top", dist.HalfNormal(1.0))
    low = pyro.sample("low", dist.Uniform(-top - 1.0, top))
    return low * (x.action == "a0") + top * x.density


def factored(x):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    pyro.factor("belief", -3.0 * (a - 0.5) ** 2)
    return a * (x.action == "a0")


def indexed(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[2]]).to_event(1))
    order = torch.arange(x.shape[2] - 1, -1, -1)
    return torch.where(x.density > 0.3, w[order], torch.softmax(w, 0))


class Net(PyroModule):
    """A small network of action and density with priors on its weights."""

    def __init__(self):
        super().__init__()
        self.first = PyroModule[torch.nn.Linear](2, 3)
        self.first.weight = PyroSample(dist.Normal(0.0, 1.0).expand([3, 2]).to_event(2))
        self.first.bias = PyroSample(dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        self.last = PyroModule[torch.nn.Linear](3, 1)
        self.last.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
        self.last.bias = PyroSample(dist.Normal(0.0, 1.0).expand([1]).to_event(1))

    def forward(self, x):
        acts = (x.action == "a0").expand(x.shape)
        inputs = torch.stack([acts, x.density.expand(x.shape)], dim=-1)
        return self.last(torch.tanh(self.first(inputs)))[..., 0]


PROGRAMS = [
    scalars, vector, plate, hierarchical, centred, constrained, simplex,
    factored, indexed, Net(),
]  # fmt: skip
# a multivariate normal needs a triangular solve, which stays in torch
PATHS = dict.fromkeys(["scalars", "plate", "centred", "factored"], "linear") | {"vector": "torch"}


def model_of(program, **options):
    """Return a model of a tiny unbalanced panel under a program."""
    case = tiny_case(4, masked=options.pop("masked", False))
    return mfg.TrajectoryModel(case.game, program, case.panel, **options)


def eager_potential(model, density, theta):
    """Return Pyro's own potential and its gradient at the same unconstrained point."""
    with double_precision(), torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, potential, _, _ = initialize_model(model)
        values = dict(
            zip(
                [s.name for s in density.program.sites],
                density.program.split(torch.as_tensor(theta)),
                strict=True,
            )
        )
        values = {k: v.clone().requires_grad_(True) for k, v in values.items()}
        energy = potential(values)
        gradients = torch.autograd.grad(energy, list(values.values()))
    flat = torch.cat([g.reshape(-1) for g in gradients])
    return -energy.item(), -flat.numpy()


@pytest.mark.parametrize("options", [{}, {"likelihood": "energy"}, {"masked": True}], ids=str)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: getattr(p, "__name__", "network"))
def test_compiled_density_equals_the_eager_potential(program, options):
    """Value and gradient agree to rounding at several points, without falling back."""
    density = density_of(model_of(program, **options))
    evaluate = density.evaluator()
    rng = np.random.default_rng(0)
    for scale in (0.3, 1.0, 2.0):
        theta = scale * rng.standard_normal(density.n_dim)
        value, gradient = evaluate(theta)
        expected, slope = eager_potential(density.model, density, theta)
        assert value == pytest.approx(expected, rel=1e-10, abs=1e-10)
        np.testing.assert_allclose(gradient, slope, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: getattr(p, "__name__", "network"))
def test_programs_without_python_branches_compile(program):
    """Every program of the gallery is evaluated without its Python, at the path it deserves."""
    density = density_of(model_of(program))
    assert density.path == PATHS.get(getattr(program, "__name__", ""), "graph")


def test_branch_on_a_parameter_falls_back_with_a_warning():
    """A Python branch on a latent value is said, and evaluated as written."""

    def branching(x):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        return a * (x.action == "a0") if a > 0 else -3.0 * a * x.density * (x.action == "a1")

    with pytest.warns(mfg.exceptions.CompilationWarning, match=r"torch\.where"):
        density = density_of(model_of(branching))
    assert density.path == "eager"
    evaluate = density.evaluator()
    for point in (-1.2, 0.7):
        theta = np.array([point])
        value, gradient = evaluate(theta)
        expected, slope = eager_potential(density.model, density, theta)
        assert value == pytest.approx(expected, abs=1e-10)
        np.testing.assert_allclose(gradient, slope, atol=1e-10)


def test_support_that_depends_on_a_parameter_follows_it():
    """With `low` uniform on (-top - 1, top), the density carries the moving bounds' Jacobian."""
    density = density_of(model_of(dependent_support))
    evaluate = density.evaluator()
    model = density.model
    for theta in np.random.default_rng(2).standard_normal((3, 2)):
        top, share = np.exp(theta[0]), 1 / (1 + np.exp(-theta[1]))
        width = 2 * top + 1
        values = {"top": top, "low": -top - 1 + width * share}
        prior = np.log(2) - 0.5 * np.log(2 * np.pi) - top**2 / 2 - np.log(width)
        jacobian = theta[0] + np.log(width) + np.log(share) + np.log(1 - share)
        tensors = {k: torch.as_tensor(v) for k, v in values.items()}
        reward = density.program.core_at(tensors)
        expected = model.law.log_likelihood(reward).item() + prior + jacobian
        assert evaluate(theta)[0] == pytest.approx(expected, abs=1e-9)


def test_record_gives_constrained_values_deterministics_and_priors():
    """What is recorded at a point equals the distributions' own numbers."""
    density = density_of(model_of(hierarchical))
    theta = np.linspace(-0.5, 0.5, density.n_dim)
    values, deterministics, priors = density.record(theta[None])
    assert values["spread"] == pytest.approx(np.exp(theta[1]))
    np.testing.assert_allclose(deterministics["bonus"][0], theta[0] + np.exp(theta[1]) * theta[2:])
    expected = -0.5 * theta[0] ** 2 - 0.5 * np.log(2 * np.pi)
    assert priors["centre"] == pytest.approx(expected)


def test_free_inverts_the_constraints():
    """Unconstrained values of recorded constrained values are the point they came from."""
    density = density_of(model_of(constrained))
    theta = np.random.default_rng(1).standard_normal(density.n_dim)
    values = {k: v[0] for k, v in density.record(theta[None])[0].items()}
    free = density.program.free(values)
    np.testing.assert_allclose(free, theta, atol=1e-9)


def test_masked_actions_get_no_probability_and_no_gradient():
    """A reward on a forbidden action does not move the density."""
    case = tiny_case(4, masked=True)
    forbidden = torch.as_tensor(~case.game.available.numpy()).double()

    def only_forbidden(x):
        return pyro.sample("w", dist.Normal(0.0, 1.0)) * forbidden

    density = density_of(mfg.TrajectoryModel(case.game, only_forbidden, case.panel))
    evaluate = density.evaluator(prior=0.0, jacobian=0.0)
    low, high = evaluate(np.array([-2.0])), evaluate(np.array([3.0]))
    assert low[0] == pytest.approx(high[0], abs=1e-12)
    assert high[1] == pytest.approx([0.0], abs=1e-12)

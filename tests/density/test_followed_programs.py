"""Rewards with kinks, steps and branches: the compiled density against a plain recursion."""

import math
import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import mfgppl as mfg
from mfgppl._compiler.linearity import is_affine
from mfgppl._compiler.operations import KNOWN
from mfgppl._compiler.tracing import record
from mfgppl.density.of_model import density_of

ROUNDING = 1e-10
PRICE = np.array([40.0, 50.0, 60.0])
TABLES = np.random.default_rng(0).dirichlet(np.ones(3), size=(3, 2))
FAR = {"w": 2.0}, {"w": -1.7}, {"w": 0.4}, {"w": -11.0}, {"w": 25.0}


def game():
    return mfg.MeanFieldGame(
        states={"price": [40, 50, 60]}, actions=["a", "b"], horizon=3,
        initial=np.ones(3) / 3, transition=TABLES,
    )  # fmt: skip


def panel():
    even = np.full((3, 3, 2), 0.5), np.full((3, 3), 1 / 3)
    return mfg.simulate(game(), *even, n_agents=60, random_seed=1)


def by_hand(observed, reward):
    """Return the log likelihood of a reward (S, A), alike at all times, by Bellman's recursion."""
    acted = observed.action >= 0
    counts = np.zeros((3, 3, 2))
    where = observed.time[acted], observed.state[acted], observed.action[acted]
    np.add.at(counts, where, 1.0)
    values, total = np.zeros(3), 0.0
    for t in (2, 1, 0):
        q = reward + (TABLES @ values if t < 2 else 0.0)
        values = q.max(1) + np.log(np.exp(q - q.max(1, keepdims=True)).sum(1))
        total += float((counts[t] * (q - values[:, None])).sum())
    return total


def sampled(program, prior=None):
    """Return a reward of action "a" as a program of the inputs and one parameter."""
    prior = dist.Normal(0.0, 1.0) if prior is None else prior
    return lambda x: program(x, pyro.sample("w", prior)) * (x.action == "a")


# a program of x and w, and the reward of action "a" in the three states by hand
SMOOTH = {
    "linear": (lambda x, w: w * x.price / 50, lambda w: w * PRICE / 50),
    "abs": (lambda x, w: -(x.price - 50 - w).abs() / 10, lambda w: -abs(PRICE - 50 - w) / 10),
    "step": (lambda x, w: 1.0 * (x.price < 50 + w), lambda w: 1.0 * (50 + w > PRICE)),
    "clamp": (lambda x, w: w.clamp(min=-1.0), lambda w: np.full(3, max(w, -1.0))),
    "far kink": (lambda x, w: torch.relu(w - 20) + w, lambda w: np.full(3, max(w - 20, 0) + w)),
    "where": (
        lambda x, w: torch.where(w < -1.5, 0.0 * w, w),
        lambda w: np.full(3, 0.0 if w < -1.5 else w),
    ),
    "floor": (lambda x, w: w // 0.7, lambda w: np.full(3, np.floor(w / 0.7))),
    "sign in place": (
        lambda x, w: torch.zeros(3).index_put((torch.arange(3),), w).sign_()[None, :, None],
        lambda w: np.full(3, np.sign(w)),
    ),
}  # fmt: skip
KNOTS = [-1.6, 1.6, 2.5, 20.0]
LEVELS = [1.0, 2.0, 5.0, 9.0, 3.0]
READ = {
    "float": (
        lambda x, w: 2 * w if float(w.detach()) < -1.5 else w,
        lambda w: np.full(3, 2 * w if w < -1.5 else w),
    ),
    "if": (lambda x, w: w if w > -1.5 else 0.5 * w, lambda w: np.full(3, w if w > -1.5 else w / 2)),
}
for way, read in {
    "numpy": lambda w: w.detach().numpy(),
    "tolist": lambda w: w.detach().tolist(),
    "asarray": lambda w: np.asarray(w.detach()),
    "item": lambda w: w.detach().item(),
    "array of a list": lambda w: np.array([w.detach()])[0],
    "of a copy": lambda w: w.detach().clone().numpy(),
}.items():
    READ[way] = (
        lambda x, w, read=read: LEVELS[int(np.searchsorted(KNOTS, read(w)))] * w * x.price / 500,
        lambda w: LEVELS[int(np.searchsorted(KNOTS, w))] * w * PRICE / 500,
    )


def table(of_a):
    return np.stack([of_a, np.zeros(3)], axis=1)


@pytest.mark.parametrize("name", SMOOTH)
def test_a_curve_is_no_line_however_far_its_kink(name):
    """The log likelihood is the program's own at all parameters, not where it was looked at."""
    program, own = SMOOTH[name]
    observed = panel()
    model = mfg.TrajectoryModel(game(), sampled(program), observed)
    for values in FAR:
        found = float(mfg.log_likelihood(model, values).sum())
        assert found == pytest.approx(by_hand(observed, table(own(values["w"]))), abs=1e-8)
    assert density_of(model).path == {"linear": "linear", "floor": "torch"}.get(name, "graph")


@pytest.mark.parametrize("name", READ)
def test_a_value_that_is_read_is_read_anew(name):
    """A branch on a parameter, however it is read, is taken at each point, with a warning."""
    program, own = READ[name]
    observed = panel()
    model = mfg.TrajectoryModel(game(), sampled(program), observed)
    with pytest.warns(mfg.exceptions.CompilationWarning, match="needs the value of a parameter"):
        density = density_of(model)
    assert density.path == "eager"
    for values in FAR:
        found = float(mfg.log_likelihood(model, values).sum())
        assert found == pytest.approx(by_hand(observed, table(own(values["w"]))), abs=1e-8)


def slopes_differ(model):
    """Return the largest difference of the density's gradient from central differences."""
    density = density_of(model)
    evaluate = density.evaluator(prior=0.0, jacobian=0.0)
    gaps = []
    for theta in np.random.default_rng(3).standard_normal((3, density.n_dim)):
        slope = evaluate(theta)[1].copy()
        for k, step in enumerate(1e-5 * np.eye(density.n_dim)):
            rise = evaluate(theta + step)[0] - evaluate(theta - step)[0]
            gaps.append(abs(rise / 2e-5 - slope[k]) / max(1.0, abs(slope[k])))
    return max(gaps)


@pytest.mark.parametrize("dim", [0, -1])
def test_cumulative_products_have_their_gradient_at_zero(dim):
    """A factor of zero leaves the others' slopes, which no division finds."""
    known = torch.tensor([[0.5, 0.0, 2.0]])

    def program(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3, 3]).to_event(2))
        return ((w * known + 0.1 * w.T * (known > 0)).cumprod(dim).sum(0))[None, :, None] * (
            x.action == "a"
        )

    model = mfg.TrajectoryModel(game(), program, panel())
    assert slopes_differ(model) < 1e-6
    assert density_of(model).path == "graph"


LEAVES = {
    "torch.tensor": lambda a, b: torch.tensor([a, b]),
    "math.exp": lambda a, b: torch.stack([a.new_tensor(math.exp(a)), a.new_tensor(math.exp(b))]),
    "detach": lambda a, b: torch.stack([a.detach(), b.detach()]),
    "data": lambda a, b: torch.stack([a.data, b.data]),
    "item": lambda a, b: torch.stack([torch.as_tensor(a.item()), torch.as_tensor(b.item())]),
    "numpy": lambda a, b: torch.from_numpy(np.stack([a.detach().numpy(), b.detach().numpy()])),
    "tolist": lambda a, b: torch.as_tensor([a.tolist(), b.tolist()]),
    "partly": lambda a, b: torch.stack([a + 0.5 * a.detach(), b + 0.5 * b.detach()]),
    "in a prior": lambda a, b: pyro.sample("c", dist.Normal(a.item() + b.item(), 1.0)),
}  # fmt: skip


@pytest.mark.parametrize("way", LEAVES)
def test_a_lost_gradient_is_refused_by_name(way):
    """Sites that move the reward or a prior out of autograd's sight are named, others are not."""

    def program(x):
        a, b, seen = (pyro.sample(k, dist.Normal(0.0, 1.0)) for k in ("lower", "raise", "margin"))
        return LEAVES[way](a, b).sum() * (x.action == "a") + seen * b * x.price / 50

    with pytest.raises(ValueError, match=r"loses the gradient of 'lower', 'raise', .*torch\.stack"):
        mfg.TrajectoryModel(game(), program, panel())


def test_under_no_grad_and_numpy_of_what_needs_gradients():
    """Values computed without gradients, and arrays of tensors that need them, are refused too."""

    def silent(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with torch.no_grad():
            worth = w.exp()
        return worth * (x.action == "a")

    def loud(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        return float(np.tanh(w.numpy())) * (x.action == "a")

    for program in (silent, loud):
        with pytest.raises(ValueError, match="loses the gradient of 'w'"):
            mfg.TrajectoryModel(game(), program, panel())


def test_detaching_what_cancels_and_sites_without_effect_are_legal():
    """A maximum taken off and put back, a site of priors alone and one of nothing are no faults."""

    def program(x):
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        pyro.sample("idle", dist.Normal(0.0, spread))
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        top = w.max().detach()
        return (top + (w - top).exp().sum().log()) * (x.action == "a")

    model = mfg.TrajectoryModel(game(), program, panel())
    assert list(model.sites) == ["spread", "idle", "w"]
    assert slopes_differ(model) < 1e-6


@pytest.mark.parametrize(
    ("noise", "match"),
    [
        (lambda: torch.rand(()), "another reward"),
        (lambda: np.random.normal(), "another reward"),  # noqa: NPY002
        (lambda: random.random(), "another reward"),
        (lambda: np.random.default_rng().normal(), "another reward"),
        (lambda: 0.0 if random.random() < 0.5 else 1.0, "another reward"),
        (lambda: pyro.factor("dice", torch.rand(())) or 0.0, "another log density of 'dice'"),
    ],
)
def test_chance_in_a_program_is_refused(noise, match):
    """Two runs at the same parameters must agree."""
    with pytest.raises(ValueError, match=match):
        mfg.TrajectoryModel(game(), sampled(lambda x, w: w + noise()), panel())


def test_chance_that_changes_nothing_and_global_seeds():
    """Random numbers that are not used are legal, and building a model draws none of the user's."""

    def program(x, w):
        torch.rand(())
        fixed = torch.rand((), generator=torch.Generator().manual_seed(1))
        return w + fixed

    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    mfg.TrajectoryModel(game(), sampled(program), panel())
    after = torch.rand(()), np.random.rand(), random.random()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    assert after == (torch.rand(()), np.random.rand(), random.random())  # noqa: NPY002


def test_a_random_subsample_is_refused_and_a_whole_plate_is_not():
    """A plate that looks at some of its members at each run is named."""

    def program(size):
        def reward(x):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            with pyro.plate("survey", 4, subsample_size=size) as k:
                pyro.factor("asked", -((w - torch.tensor([0.2, 0.4, 1.0, 3.0])[k]) ** 2))
            return w * (x.action == "a")

        return reward

    with pytest.raises(ValueError, match=r"plate 'survey'.*2 of 4"):
        mfg.TrajectoryModel(game(), program(2), panel())
    assert list(mfg.TrajectoryModel(game(), program(4), panel()).sites) == ["w"]


def test_an_impossible_factor_plays_no_part_in_mle():
    """Where a factor is -inf, or has no slope, the likelihood's maximum is the same as without."""
    plain = mfg.mle(
        mfg.TrajectoryModel(game(), sampled(lambda x, w: w), panel()), progressbar=False
    )

    def ruled_out(x, w):
        pyro.factor("order", torch.log(torch.relu(w - 9.0)))
        return w

    found = mfg.mle(mfg.TrajectoryModel(game(), sampled(ruled_out), panel()), progressbar=False)
    assert found.converged
    assert found.llf == pytest.approx(plain.llf, abs=1e-9)
    assert found.params["w"] == pytest.approx(plain.params["w"], abs=1e-6)
    np.testing.assert_allclose(found.bse, plain.bse, rtol=1e-6)


def test_a_delta_site_is_its_value_and_no_parameter():
    """A known constant written as a site shifts the reward and has no estimate."""

    def program(x, w):
        known = pyro.sample("known", dist.Delta(torch.tensor([0.5, 0.5])).to_event(1))
        return w + known.sum()

    observed = panel()
    model = mfg.TrajectoryModel(game(), sampled(program), observed)
    assert model.parameters == ["w"]
    found = float(mfg.log_likelihood(model, {"w": 0.3}).sum())
    assert found == pytest.approx(by_hand(observed, table(np.full(3, 1.3))), abs=1e-8)


def test_sites_whose_prior_is_a_mixture():
    """The mixture's support is its components', and its density is differentiated."""
    centres, widths, shares = torch.tensor(
        [[-1.0, 2.0], [0.5, 1.0], [0.3, 0.7]], dtype=torch.float64
    )
    prior = dist.MixtureSameFamily(dist.Categorical(shares), dist.Normal(centres, widths))
    density = density_of(mfg.TrajectoryModel(game(), sampled(lambda x, w: w, prior), panel()))
    theta = np.array([0.4])
    value, slope = density.evaluator()(theta)
    bells = (
        np.array([0.3, 0.7])
        * np.exp(-0.5 * ((0.4 - np.array([-1.0, 2.0])) / [0.5, 1.0]) ** 2)
        / (np.array([0.5, 1.0]) * np.sqrt(2 * np.pi))
    )
    likelihood, pull = density.evaluator(prior=0.0)(theta)
    assert value - likelihood == pytest.approx(np.log(bells.sum()), abs=ROUNDING)
    climb = (bells * (np.array([-1.0, 2.0]) - 0.4) / np.array([0.25, 1.0])).sum() / bells.sum()
    assert slope[0] - pull[0] == pytest.approx(climb, abs=1e-9)


def test_an_improper_prior_and_no_program_are_refused_by_name():
    flat = dist.ImproperUniform(dist.constraints.real, (), ())
    with pytest.raises(ValueError, match="'w' has the prior ImproperUniform"):
        mfg.TrajectoryModel(game(), sampled(lambda x, w: w, flat), panel())
    for nothing in (None, 3.0, "price"):
        with pytest.raises(TypeError, match="`reward` must be"):
            mfg.solve_equilibrium(game(), nothing)
        with pytest.raises(TypeError, match="`reward` must be"):
            mfg.TrajectoryModel(game(), nothing, panel())


COUPLED = {
    "reward": (lambda x: torch.as_tensor(np.tanh(x.density.detach().numpy())), None),
    "reward in a list": (lambda x: torch.tensor(x.density.tolist()), None),
    "dynamics": (
        lambda x: x.density,
        lambda mu, t: torch.as_tensor(TABLES) * (1 - mu.detach()[0]) + mu.detach()[0] / 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COUPLED)
def test_a_coupled_model_wants_the_gradient_of_its_flow(name):
    """What the crowd does to reward or dynamics counts where the crowd answers the parameters."""
    crowding, moving = COUPLED[name]
    options = {} if moving is None else {"transition": moving}
    world = game() if moving is None else mfg.MeanFieldGame(
        states={"price": [40, 50, 60]}, actions=["a", "b"], horizon=3,
        initial=np.ones(3) / 3, **options,
    )  # fmt: skip
    reward = sampled(lambda x, w: w * crowding(x))
    observed = panel()
    with pytest.raises(ValueError, match="loses the gradient of the flow"):
        mfg.TrajectoryModel(world, reward, observed, mean_field="equilibrium")
    along = mfg.TrajectoryModel(world, reward, observed)  # the flow stays where it is
    flow = along.mean_field.numpy()
    worth = np.tanh(flow) if name == "reward" else flow
    of_a = [table(0.7 * row) for row in worth]
    assert density_of(along).path == "linear"
    found = density_of(along).rewards(np.array([[0.7]]))[0]
    np.testing.assert_allclose(found, of_a, atol=ROUNDING)


def test_a_flow_that_is_read_is_read_anew_in_equilibrium():
    """A branch on the crowd through NumPy is taken at each flow, not where it was recorded."""
    edge = 0.335  # above the uniform flow's shares, where programs are recorded

    def reward(x):
        jammed = x.density.detach().numpy().max(1, keepdims=True) > edge
        return torch.as_tensor(np.where(jammed, -2.0, -0.3)) * (x.action == "a")

    found = mfg.solve_equilibrium(game(), reward).value
    jammed = found.mean_field.numpy().max(1)[:, None, None] > edge
    assert jammed.tolist() == [[[False]], [[True]], [[True]]]
    expected = np.where(jammed, -2.0, -0.3) * np.array([1.0, 0.0])
    np.testing.assert_allclose(found.reward.numpy(), np.broadcast_to(expected, (3, 3, 2)))


def test_default_scales_want_a_proof_of_linearity():
    """A kink that no draw meets, and a value that is read, are no linear rewards."""
    far = sampled(lambda x, w: w + torch.relu(w - 50.0))
    read = sampled(lambda x, w: w * (1.0 if float(w) < 50 else 2.0))
    for program in (far, read):
        with pytest.raises(ValueError, match="`reward` must be linear in its parameters"):
            mfg.design.default_scales(game(), program)


MATRIX = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(3, 3)
AFFINE = {
    "sums": lambda w: (w + 1.0 - 2 * w.mean()).cumsum(0) - w / 3 + w[[2, 0, 1]],
    "products": lambda w: MATRIX @ w + (MATRIX * w).sum(0) + torch.einsum("ab,b->a", MATRIX, w),
    "places": lambda w: torch.cat([w[:1], torch.stack([w[2], w.sum()]).flip(0)]).roll(1),
    "writes": lambda w: MATRIX[0].index_put((torch.tensor([0, 2, 0]),), w, accumulate=True),
    "choices": lambda w: torch.where(MATRIX[0] > -0.9, w, 3.0).masked_fill(MATRIX[1] == 0, 2.0),
    "shape alone": lambda w: w + torch.ones_like(w.abs()),
}
CURVED = {
    "square": lambda w: w * w,
    "quotient": lambda w: 1.0 / w,
    "rounded": lambda w: torch.div(w, 1e9, rounding_mode="floor"),
    "its own choice": lambda w: torch.where(w > -1e9, w, -w),
    "at most": lambda w: w.clamp(max=1e9),
    "short numbers": lambda w: w.float().double(),
    "written twice": lambda w: (lambda y: y.mul_(w))(w.clone()),
    "rank": lambda w: w.sort().values,
    "a step": lambda w: (w > 0).double(),
    "a view of a curve": lambda w: w.exp().reshape(3, 1)[:, 0],
}


@pytest.mark.parametrize("name", [*AFFINE, *CURVED])
def test_linearity_is_proved_by_operations(name):
    """Each operation is linear in what depends on the inputs, or the whole is not."""
    function = {**AFFINE, **CURVED}[name]
    with torch.no_grad():
        trace = record([function], [torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64)], KNOWN)
    assert is_affine(trace) == (name in AFFINE)

"""Global modes of torch and Pyro: every call gives the same numbers in all of them."""

import contextlib
import functools
import inspect
import multiprocessing
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import games
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta
from pyro.poutine.runtime import _PYRO_STACK

import mfgppl as mfg
from mfgppl._modes import double_precision

QUICK: dict[str, Any] = {"progressbar": False, "random_seed": 3}
CHAIN: dict[str, Any] = {
    "draws": 3, "tune": 6, "max_treedepth": 3, "chains": 1, "cores": 1, "flow_bias": False, **QUICK
}  # fmt: skip


def branching(x):
    """A program that runs as Python, as it branches on a parameter."""
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    effort = pyro.sample("effort", dist.HalfNormal(1.0))
    return -(crowding if crowding > 0 else 0.5 * crowding) * x.density - effort * (
        x.action == "turn"
    )


@contextlib.contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "default device": default_device,
    "device context": lambda: torch.device("meta"),
    "default float64": lambda: default_type(torch.float64),
    "default float16": lambda: default_type(torch.float16),
    "deterministic": deterministic,
    "validation off": lambda: pyro.validation_enabled(False),
    "NumPy raises": lambda: np.errstate(all="raise"),
}


def case(reward=games.avoid_crowds, **options):
    """A game, its panel and its model, all built anew."""
    game = games.two_roads()
    panel = games.played(game, games.avoid_crowds, games.ROADS_TRUTH, 60, 1)
    return game, panel, mfg.TrajectoryModel(game, reward, panel, **options)


def posterior(tree):
    return [v.values for v in tree["posterior"].data_vars.values()]


def sampled(**options):
    return lambda: posterior(mfg.nuts(case()[2], **CHAIN, **options))


def compiled_not():
    return posterior(mfg.nuts(case(branching)[2], **CHAIN))


def coupled():
    return mfg.mle(case(mean_field="equilibrium")[2], svi_steps=0, progressbar=False).params


def fitted():
    game, _, model = case()
    fit = mfg.mle(model, svi_steps=5, progressbar=False)
    tested = mfg.hypotheses.score_test(model, {"crowding": 0.0})
    moved = mfg.hypotheses.delta_method(fit, lambda p: p["crowding"] ** 2)
    known = mfg.identify(game, games.avoid_crowds)
    scales = mfg.design.default_scales(game, {"crowd": "density"})["scale"]
    return [
        fit.params,
        fit.bse,
        tested.statistic,
        moved.estimate,
        known.n_directions,
        scales,
    ]


def approximated():
    model = case()[2]
    laplace = mfg.laplace(model, draws=5, random_seed=1)
    varied = mfg.vi(model, draws=5, max_steps=5, particles=2, random_seed=1)
    return [*posterior(laplace), *posterior(varied)]


def solved():
    game, panel, _ = case()
    options = {"parameters": games.ROADS_TRUTH}
    found = mfg.solve_equilibrium(game, games.avoid_crowds, **options).value
    best = mfg.solve_nash(game, games.avoid_crowds, **options, max_steps=20).value
    social = mfg.equilibrium.social_optimum(game, games.avoid_crowds, **options, max_steps=20).value
    return [
        *found,
        best.policy,
        social.policy,
        mfg.equilibrium.generate_mean_field(game, found.policy),
        mfg.equilibrium.exploitability(game, games.avoid_crowds, found.policy, **options),
        mfg.equilibrium.expected_return(game, games.avoid_crowds, found.policy, **options),
        game.transition_along(found.mean_field),
        panel.mean_field(),
    ]


def swept():
    reward = torch.linspace(0.0, 1.0, 16, dtype=torch.float64, device="cpu").reshape(4, 2, 2)
    game = games.two_roads()
    found = mfg.equilibrium.soft_backward_induction(reward, game.transition)
    flow = mfg.equilibrium.propagate_mean_field(
        found.log_policy.exp(), game.transition, game.initial
    )
    still = mfg.equilibrium.soft_policy_iteration(reward[:1], game.transition, discount=0.9)
    rest = mfg.equilibrium.invariant_mean_field(
        still.log_policy.exp(), game.transition, initial=game.initial
    )
    return [*found, flow, *still, rest]


def earlier():
    game, panel, _ = case()
    reward, steps = games.avoid_crowds, {"max_steps": 3}
    found = [
        mfg.baselines.mfirl(panel, game, reward=reward, **steps),
        mfg.baselines.plirl(panel, game, reward=reward, **steps),
        mfg.baselines.max_causal_entropy(panel, game, reward=reward, **steps),
        mfg.baselines.mfairl(panel, game, reward=reward, n_rounds=2, discriminator_steps=2),
    ]
    cloned = mfg.baselines.behaviour_cloning(panel, game)
    return [cloned.policy, *[f.params for f in found], *[f.policy for f in found]]


CALLS = {
    "point": lambda: fitted_to(case()[2]),
    "fits": fitted,
    "nutpie": sampled(),
    "pyro": sampled(sampler="pyro"),
    "python": compiled_not,
    "coupled": coupled,
    "approximations": approximated,
    "solvers": solved,
    "sweeps": swept,
    "baselines": earlier,
}


def numbers(found: Any) -> list[np.ndarray]:
    """Return what a call gives as arrays, and check that no tensor is of an odd mode."""
    arrays = []
    for value in found if isinstance(found, (list, tuple)) else [found]:
        if isinstance(value, torch.Tensor):
            assert not value.is_inference()
            assert not value.requires_grad
            assert value.device.type == "cpu"
        arrays.append(np.asarray(value, dtype=float))
    return arrays


@contextlib.contextmanager
def all_at_once() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in ("inference_mode", "device context", "default float16", "deterministic"):
            stack.enter_context(MODES[name]())
        stack.enter_context(pyro.validation_enabled(False))
        yield


@functools.cache
def outside(name):
    """Return what a call gives outside of all modes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such short runs deserve warnings
        return numbers(CALLS[name]())


def check_same(name, enter):
    """Assert that a call gives in a mode what it gives outside, bit by bit."""
    right = outside(name)
    with warnings.catch_warnings(), enter():
        warnings.simplefilter("ignore")
        came = CALLS[name]()
    for a, b in zip(numbers(came), right, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", MODES)
def test_a_fit_is_the_same_in_each_mode(mode):
    """Game, panel, model, point and sweeps do not depend on any one mode."""
    check_same("point", MODES[mode])
    check_same("sweeps", MODES[mode])


SLOW = ("coupled", "approximations", "baselines")


@pytest.mark.parametrize("enter", [torch.no_grad, all_at_once], ids=["no_grad", "all at once"])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CALLS]
)
def test_calls_are_the_same_in_all_modes(name, enter):
    """No call depends on them together, or without gradients."""
    check_same(name, enter)


@pytest.mark.parametrize("name", ["inference_mode", "default device", "no_grad"])
def test_what_is_built_in_a_mode_serves_outside(name):
    """A game and a model from within a mode hold no tensors that break later."""
    right = fitted_to(case()[2])
    with MODES[name]():
        model = case()[2]
        pyro.poutine.trace(model).get_trace()
    np.testing.assert_array_equal(fitted_to(model), right)
    tensors = [model.mean_field, model.game.initial, model.game.transition, model.inputs.density]
    numbers(tensors)


def test_a_fit_whose_exponentials_underflow_where_numpy_raises():
    """Choices all but certain: chances too small for a number, which are no caller's error."""

    def far(x):
        w = pyro.sample("w", pyro.distributions.Normal(0.0, 1.0))
        return w * (x.action == "turn") - 800.0 * (x.state == "left") * (x.action == "turn")

    game = games.two_roads()
    panel = games.played(game, far, {"w": 0.5}, 60, 1)
    right = fitted_to(mfg.TrajectoryModel(game, far, panel))
    with np.errstate(all="raise"):
        found = fitted_to(mfg.TrajectoryModel(game, far, panel))
    np.testing.assert_array_equal(found, right)
    assert np.isfinite(right).all()


def fitted_to(model):
    return mfg.mle(model, svi_steps=5, progressbar=False).params


def test_gradients_stay_the_callers():
    """Under `no_grad` a solver returns no graph, without it the derivative, as ever."""
    game = games.two_roads()
    crowding = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    parameters = {"crowding": crowding, "effort": 0.4}
    with torch.no_grad():
        found = mfg.solve_equilibrium(game, games.avoid_crowds, parameters=parameters)
        assert not found.value.mean_field.requires_grad
    found = mfg.solve_equilibrium(game, games.avoid_crowds, parameters=parameters)
    assert found.value.mean_field.requires_grad


@pytest.mark.parametrize("mode", MODES)
def test_a_call_leaves_the_modes_as_they_are(mode):
    """The caller's modes hold after a call, also after one that fails."""

    def now():
        here = torch.get_default_device(), torch.get_default_dtype(), torch.is_grad_enabled()
        checked = pyro.distributions.is_validation_enabled()
        return *here, torch.is_inference_mode_enabled(), checked, np.geterr()

    without = now()
    with MODES[mode]():
        before = now()
        game = games.two_roads()
        mfg.solve_equilibrium(game, games.avoid_crowds, parameters=games.ROADS_TRUTH)
        assert now() == before
        with pytest.raises(ValueError, match="`tolerance`"):
            mfg.solve_equilibrium(game, games.avoid_crowds, tolerance=-1.0)
        assert now() == before
    assert now() == without


def test_pyro_runs_a_model_in_its_own_modes(roads_model):
    """The model under Pyro's handlers in inference mode leaves nothing that breaks a later step."""
    with torch.inference_mode():
        trace = pyro.poutine.trace(roads_model).get_trace()
        assert np.isfinite(float(trace.log_prob_sum()))
    with pyro.get_param_store().scope():
        svi = SVI(roads_model, AutoDelta(roads_model), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        assert np.isfinite(svi.step())


def test_every_public_call_is_a_door():
    """Public functions and constructors run in modes of our own."""
    without = {"load", "save", "period_effects"}  # files alone; a part of programs
    for name in set(mfg.__all__) - without:
        value = getattr(mfg, name)
        if inspect.isfunction(value):
            assert value.__code__.co_name == "checked", name
    for space in ("calibration", "checks", "design", "equilibrium", "flows", "hypotheses"):
        for name in getattr(mfg, space).__all__:
            assert getattr(getattr(mfg, space), name).__code__.co_name == "checked", name
    for value in (mfg.MeanFieldGame, mfg.TrajectoryModel):
        assert value.__init__.__code__.co_name == "checked"
    for name in mfg.baselines.__all__:
        value = getattr(mfg.baselines, name)
        assert not inspect.isfunction(value) or value.__code__.co_name == "checked", name


def test_a_fork_beside_a_thread_in_its_turn():
    """A child of a process whose other thread holds the turn has the modes outside of it."""
    context = multiprocessing.get_context("fork")
    inside, done = threading.Event(), threading.Event()

    def hold():
        with double_precision(), pyro.validation_enabled(False), pyro.poutine.block():
            inside.set()
            done.wait()

    def look(sender):
        seen = torch.get_default_dtype(), pyro.distributions.is_validation_enabled()
        with double_precision():
            sender.send((*map(str, seen), len(_PYRO_STACK)))

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    try:
        receiver, sender = context.Pipe(duplex=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = context.Process(target=look, args=(sender,), daemon=True)
            child.start()
        assert receiver.poll(60), "the child waits for a thread that it does not have"
        assert receiver.recv() == ("torch.float32", "True", 0)
        child.join()
    finally:
        done.set()
        thread.join()

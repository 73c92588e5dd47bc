"""The reference problem of the benchmarks, as arrays for every library and as an mfgppl model.

A crowd of 2,000 agents takes 50 decisions among 5 actions on 20 states, under dense dynamics that
change at each step. The reward adds up random features, one a parameter, and the program has three
sample sites. Only `build` and `model` load mfgppl, so that a peer is timed in a process without it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Exp = Callable[[Any], Any]

FORMS = ("linear", "product", "curved")
PRIOR_SCALE = 1.0
DISCOUNT = 0.95
TEMPERATURE = 1.0
SEED = 20250101


class Size(NamedTuple):
    """Sizes of a problem.

    Attributes
    ----------
    horizon, n_states, n_actions : int
        T, S and A.
    n_parameters : int
        Number of weights, at least 3.
    n_agents : int
        Number of trajectories.
    """

    horizon: int = 50
    n_states: int = 20
    n_actions: int = 5
    n_parameters: int = 5
    n_agents: int = 2000


class Arrays(NamedTuple):
    """A problem as float64 arrays.

    Attributes
    ----------
    features : ndarray, shape (K, T, S, A)
        One feature a parameter.
    transition : ndarray, shape (T-1, S, A, S)
        Dense dynamics by time.
    initial : ndarray, shape (S,)
        Distribution of the first state.
    weights : ndarray, shape (K,)
        The true parameters: slopes, shift, scale.
    state, action : ndarray of int, shape (J, T)
        The simulated panel.
    counts : ndarray, shape (T, S, A)
        How often each action is taken.
    """

    features: np.ndarray
    transition: np.ndarray
    initial: np.ndarray
    weights: np.ndarray
    state: np.ndarray
    action: np.ndarray
    counts: np.ndarray


# %% The same reward in every library


def combine(form: str, plain: Any, shift: Any, scale: Any, bent: Any, last: Any, exp: Exp) -> Any:
    """Return the reward table of the parameters and features of any library.

    `plain` is the sum of slopes times features. `linear` adds `shift * bent + scale * last`;
    `product` weighs `bent` by shift times scale, which is not linear in the parameters; `curved`
    adds `exp(shift * bent)` instead.
    """
    if form == "linear":
        return plain + shift * bent + scale * last
    if form == "product":
        return plain + shift * scale * bent + scale * last
    if form == "curved":
        return plain + exp(shift * bent) + scale * last
    raise ValueError(f"`form` must be one of {FORMS}; got {form!r}.")


def true_reward(arrays: "Arrays", *, form: str = "linear") -> np.ndarray:
    """Return the reward table (T, S, A) at the true parameters."""
    *slopes, shift, scale = arrays.weights
    *plain, bent, last = arrays.features
    return combine(form, np.tensordot(slopes, plain, 1), shift, scale, bent, last, np.exp)


# %% Building, saving and reading it


def build(size: Size, *, form: str = "linear", seed: int = SEED) -> Arrays:
    """Draw a problem and simulate its panel at known weights."""
    import torch

    import mfgppl as mfg

    rng = np.random.default_rng(seed)
    T, S, A, K = size.horizon, size.n_states, size.n_actions, size.n_parameters
    features = rng.standard_normal((K, T, S, A))
    transition = rng.dirichlet(np.ones(S), size=(T - 1, S, A))
    initial = np.full(S, 1.0 / S)
    weights: np.ndarray = np.append(rng.uniform(-0.5, 0.5, K - 1), 0.6)
    blank = Arrays(
        features, transition, initial, weights, *(np.zeros((0, T), int),) * 2, np.zeros((T, S, A))
    )
    game = game_of(blank)
    policy = mfg.equilibrium.soft_backward_induction(
        torch.from_numpy(true_reward(blank, form=form)),
        torch.from_numpy(transition),
        discount=DISCOUNT,
        temperature=TEMPERATURE,
    ).log_policy.exp()
    flow = mfg.equilibrium.propagate_mean_field(policy, torch.from_numpy(transition), game.initial)
    panel = mfg.simulate(game, policy, flow, n_agents=size.n_agents, random_seed=seed)
    return blank._replace(
        state=panel.state.reshape(-1, T),
        action=panel.action.reshape(-1, T),
        counts=panel.counts.actions,
    )


def game_of(arrays: Arrays) -> Any:
    """Return the `MeanFieldGame` of a problem."""
    import mfgppl as mfg

    K, T, S, A = arrays.features.shape
    axes = ("time", "state", "action")
    return mfg.MeanFieldGame(
        states=list(range(S)),
        actions=list(range(A)),
        horizon=T,
        transition=arrays.transition,
        initial=arrays.initial,
        features={f"feature_{k}": (axes, arrays.features[k]) for k in range(K)},
        discount=DISCOUNT,
        temperature=TEMPERATURE,
    )


def model(arrays: Arrays, *, form: str = "linear") -> Any:
    """Return the `TrajectoryModel` of a problem."""
    import pyro
    import pyro.distributions as dist
    import torch

    import mfgppl as mfg

    K, T, _, _ = arrays.features.shape

    def reward(x: mfg.RewardInputs) -> torch.Tensor:
        slopes = pyro.sample("slopes", dist.Normal(0.0, PRIOR_SCALE).expand([K - 2]).to_event(1))
        shift = pyro.sample("shift", dist.Normal(0.0, PRIOR_SCALE))
        scale = pyro.sample("scale", dist.HalfNormal(PRIOR_SCALE))
        *features, bent, last = (getattr(x, f"feature_{k}") for k in range(K))
        plain = sum(slopes[k] * feature for k, feature in enumerate(features))
        return combine(form, plain, shift, scale, bent, last, torch.exp)

    game, n_agents = game_of(arrays), len(arrays.state)
    panel = mfg.Trajectories(
        space=game.space,
        actions=game.actions,
        first_time=0,
        horizon=T,
        agents=np.arange(n_agents),
        offsets=np.arange(n_agents + 1) * T,
        time=np.tile(np.arange(T), n_agents),
        state=arrays.state.ravel(),
        action=arrays.action.ravel(),
    )
    return mfg.TrajectoryModel(game, reward, panel)


def free(weights: np.ndarray) -> np.ndarray:
    """Return unconstrained parameters: the logarithm of the scale, the others as they are."""
    return np.append(weights[:-1], np.log(weights[-1]))


def by_site(theta: np.ndarray) -> dict[str, Any]:
    """Return a flat vector by sample site."""
    return {"slopes": theta[:-2], "shift": theta[-2], "scale": theta[-1]}


def write(arrays: Arrays, path: Path) -> None:
    """Write a problem to a file for another process."""
    np.savez(path, **arrays._asdict())


def read(path: Path) -> Arrays:
    """Read a problem from a file."""
    with np.load(path) as stored:
        return Arrays(**{name: stored[name] for name in Arrays._fields})

"""The trajectory model: rewards as latent variables, an ordinary Pyro model."""

import dataclasses
import functools
import hashlib
from collections.abc import Collection
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from mfgppl._arguments import one_of, strict_keywords
from mfgppl._kernels import bridge
from mfgppl.data.panel import Panel
from mfgppl.data.space import plain_label
from mfgppl.data.trajectories import Trajectories
from mfgppl.equilibrium.fixed_point import solve_equilibrium
from mfgppl.equilibrium.steps import as_steps
from mfgppl.equilibrium.world import uniform_flow
from mfgppl.exceptions import DataError, Fault
from mfgppl.game import MeanFieldGame
from mfgppl.likelihood.causal import CausalLikelihood
from mfgppl.likelihood.coupled import CoupledLikelihood, moves_seen
from mfgppl.likelihood.energy import EnergyLikelihood
from mfgppl.likelihood.stationary import StationaryLikelihood
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import (
    RewardProgram,
    double_precision,
    is_parameter,
    is_subsample,
    reward_table,
)

OBSERVED = ("actions", "moves")  # sites
# these, and what results call their dimensions
TAKEN = (*OBSERVED, "action", "chain", "draw", "feature", "play", "state", "time", "trajectory")
FLOWS = ["empirical", "equilibrium"]  # that have a name

FixedFlow = CausalLikelihood | EnergyLikelihood | StationaryLikelihood
Likelihood = FixedFlow | CoupledLikelihood


class ActionCounts(TorchDistribution):
    """The law of a panel's action counts given the states visited.

    Parameters
    ----------
    likelihood : CausalLikelihood, EnergyLikelihood or StationaryLikelihood
        The law of trajectories.
    reward : Tensor, shape (T, S, A)
        Reward units; -inf where an action is not available.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = dist.constraints.independent(dist.constraints.nonnegative_integer, 3)

    def __init__(self, likelihood: FixedFlow, reward: Tensor) -> None:
        self.likelihood, self.reward = likelihood, reward
        shape = torch.Size(likelihood.counts.actions.shape)
        super().__init__(torch.Size(), shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log likelihood of the counts, nats."""
        if self.likelihood.transition.requires_grad:
            counts = self.likelihood.counts._replace(actions=value.numpy())
            return dataclasses.replace(self.likelihood, counts=counts).log_likelihood(self.reward)
        return bridge.differentiable(self.reward, self.likelihood.evaluator(value.numpy()))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw counts at the states that the panel visits, shape sample_shape + (T, S, A)."""
        policy = torch.as_tensor(self.likelihood.log_policy(self.reward.detach().numpy())).exp()
        return draw_counts(policy, torch.as_tensor(self.likelihood.counts.actions), sample_shape)


def draw_counts(policy: Tensor, counts: Tensor, sample_shape: Any = ()) -> Tensor:
    """Draw action counts with the row totals of `counts` by successive binomials."""
    left = counts.sum(-1).expand(torch.Size(sample_shape) + counts.shape[:-1])
    drawn, share_left = [], torch.ones_like(policy[..., 0])
    for a in range(policy.shape[-1] - 1):
        share = (policy[..., a] / share_left.clamp_min(1e-300)).clamp(0.0, 1.0)
        drawn.append(torch.binomial(left.contiguous(), share.expand(left.shape).contiguous()))
        left = left - drawn[-1]
        share_left = share_left - policy[..., a]
    return torch.stack([*drawn, left], dim=-1)


class TrajectoryModel:
    """The trajectory model of a game, a reward program and a panel, as a Pyro model.

    Calling it runs the reward program, whose sample sites are the latent variables, and observes
    the panel's action counts at the site "actions". The mean field is conditioning data, or the
    equilibrium under the reward itself.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    reward : callable
        A reward program: a Pyro program from `RewardInputs` to what broadcasts to (T, S, A).
    panel : Trajectories or CountedPanel
        The observed panel; its labels are put in the game's order.
    likelihood : {"causal", "energy"}
        The exact law of the actions, or Theorem 4's energy model as printed.
    start : {"marginal", "conditional"}
        For the energy model: one partition function for all who enter at a time, or one a state.
    mean_field : {"empirical", "equilibrium"} or array, shape (T, S), or (T, S, A) in a joint game
        The flow that agents face: the panel's own; that of the entropy-regularised equilibrium
        under the reward itself, solved for at each value of the parameters (the coupled
        likelihood, causal only); or a given one.

    Attributes
    ----------
    mean_field : Tensor
        The flow; for "equilibrium" where its search begins: the panel's own where it is all seen.
    flow_kind : str
        "empirical", "equilibrium" or "given".

    Raises
    ------
    DataError
        If the panel does what the game forbids.
    ValueError
        If sizes, labels or options disagree, or the reward is not finite.

    References
    ----------
    .. [1] Chen, Zhang, Liu and Witbrock (2023), *Adversarial inverse reinforcement learning for
       mean field games*, AAMAS, Theorems 4 and 5.
    """

    @strict_keywords
    def __init__(
        self,
        game: MeanFieldGame,
        reward: RewardProgram,
        panel: Panel,
        *,
        likelihood: str = "causal",
        start: str = "marginal",
        mean_field: Any = "empirical",
    ) -> None:
        if not isinstance(game, MeanFieldGame):
            raise TypeError(f"`game` must be a MeanFieldGame; got {type(game).__name__}.")
        if not callable(reward):
            raise TypeError(f"`reward` must be a Pyro program of x; got {type(reward).__name__}.")
        if not isinstance(panel, Panel):
            raise TypeError(
                f"`panel` must be Trajectories or a CountedPanel; got {type(panel).__name__}. "
                "Read a table with Trajectories.from_frame."
            )
        one_of("likelihood", likelihood, ["causal", "energy"])
        one_of("start", start, ["marginal", "conditional"])
        if likelihood == "energy" and game.discount < 1.0:
            raise ValueError(
                f"the energy likelihood has no form with `discount` below 1 (got "
                f"{game.discount:g}): use likelihood='causal', or a discount of 1."
            )
        self.game, self.reward = game, reward
        panel = panel.recode(game.space, game.actions)
        self.panel = panel.pooled() if game.stationary else panel
        self.likelihood_name, self.start = likelihood, start
        self.flow_kind = mean_field if isinstance(mean_field, str) else "given"
        self.mean_field = self._flow(mean_field)
        self.inputs = RewardInputs(game, self.mean_field)
        self.forbidden = ~game.available
        self.forbids = bool(self.forbidden.any())
        transition = game.transition_along(self.mean_field)
        if self.coupled:
            self._check_coupled(transition)
        moves_elsewhere = self.coupled and game.crowd_moves_dynamics
        _check_moves(self.panel, game, None if moves_elsewhere else transition)
        self.likelihood = self.likelihood_of(self.panel, transition)
        self.observed = torch.as_tensor(self.likelihood.counts.actions)
        self.sites = self._sites()

    def __call__(self) -> Tensor:
        """Run the program and observe the panel; return the reward table (T, S, A).

        Raises
        ------
        ConvergenceError
            If the flow is the equilibrium, and none is found at the parameters drawn.
        """
        with double_precision():
            if isinstance(self.likelihood, CoupledLikelihood):
                return self._in_equilibrium(self.likelihood)
            reward = reward_table(self.reward, self.inputs)
            law = ActionCounts(self.likelihood, self.masked(reward))
            pyro.sample("actions", law, obs=self.observed)
        return reward

    def _in_equilibrium(self, likelihood: CoupledLikelihood) -> Tensor:
        """Draw the parameters, solve for the flow, run the program along it, and observe."""
        latent = functools.partial(is_latent, self.sites)
        with pyro.poutine.block(expose_fn=latent), pyro.poutine.trace() as tracer:
            reward_table(self.reward, self.inputs)
        drawn = {name: tracer.trace.nodes[name]["value"] for name in self.sites}
        found = solve_equilibrium(
            self.game, self.reward, parameters=drawn, mean_field=self.mean_field, throw=True
        ).value
        with pyro.poutine.block(hide_fn=latent), pyro.poutine.condition(data=drawn):
            reward = reward_table(self.reward, RewardInputs(self.game, found.mean_field))
        transition = self.game.transition_along(found.mean_field)
        law = ActionCounts(likelihood.along(transition), self.masked(reward))
        pyro.sample("actions", law, obs=self.observed)
        if likelihood.moves is not None:
            pyro.factor("moves", likelihood.log_moves(transition))
        return reward

    def masked(self, reward: Tensor) -> Tensor:
        """Return a reward with -inf where an action is not available."""
        return reward.masked_fill(self.forbidden, -torch.inf) if self.forbids else reward

    def with_panel(
        self, panel: Panel, *, mean_field: Any = None, game: MeanFieldGame | None = None
    ) -> "TrajectoryModel":
        """Return the model of another panel, along a flow as the constructor takes it.

        By default that panel's own if this model's is, the equilibrium's if this model's is, else
        this model's.
        """
        if mean_field is None:
            mean_field = self.mean_field if self.flow_kind == "given" else self.flow_kind
        return TrajectoryModel(
            self.game if game is None else game,
            self.reward,
            panel,
            likelihood=self.likelihood_name,
            start=self.start,
            mean_field=mean_field,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be computed anew, for a task that travels to another process."""
        return {k: v for k, v in vars(self).items() if not k.startswith("_")}

    @property
    def flow_is_empirical(self) -> bool:
        """Whether the flow is the panel's own."""
        return self.flow_kind == "empirical"

    @property
    def coupled(self) -> bool:
        """Whether the flow is the equilibrium's under the reward itself."""
        return self.flow_kind == "equilibrium"

    @property
    def parameters(self) -> list[str]:
        """Names of the latent sites, in the order of the program."""
        return list(self.sites)

    def fingerprint(self) -> dict[str, str]:
        """Return short hashes of the game and of the data, for the record."""
        game = self.game
        parts = [game.space, game.actions, game.shape, game.discount, game.temperature]
        tables = [*self.likelihood.kernel_tables, game.initial, game.available]
        tables += game.features.values()
        panel, names = self.panel, ""
        data = [*panel.counts, *panel.transition_counts(), self.mean_field.numpy()]
        if isinstance(panel, Trajectories):
            names = repr(panel.labels.tolist())
            data = [panel.time, panel.state, panel.action, panel.offsets, self.mean_field.numpy()]
        return {
            "game": _digest(repr(parts), [np.asarray(t) for t in tables]),
            "data": _digest(names, data),
        }

    def __repr__(self) -> str:
        return f"TrajectoryModel({self.likelihood_name}, {self.game}, {self.panel})"

    def _flow(self, mean_field: Any) -> Tensor:
        T = self.game.shape[0]
        if isinstance(mean_field, str) and mean_field not in FLOWS:
            raise ValueError(
                "`mean_field` must be 'empirical', 'equilibrium' or an array (T, S); got "
                f"{mean_field!r}."
            )
        if self.panel.horizon > T:
            raise ValueError(
                f"the panel has {self.panel.horizon} decision times, more than the horizon {T}."
            )
        if self.flow_is_empirical:
            if self.panel.horizon != T:
                raise ValueError(
                    f"the panel has {self.panel.horizon} decision times and the game a horizon of "
                    f"{T}; make them equal, or pass `mean_field` as an array (T, S)."
                )
            return self._own_flow()
        if self.coupled:
            seen = self.panel.visits[: self.panel.horizon].sum(-1) > 0
            if self.panel.horizon == T and seen.all():
                return self._own_flow()
            return torch.from_numpy(uniform_flow(self.game)).reshape(self.game.flow_shape)
        return self.game.check_flow("mean_field", mean_field)

    def _own_flow(self) -> Tensor:
        """Return the panel's flow."""
        own = self.panel.occupancy() if self.game.joint else self.panel.mean_field()
        return torch.as_tensor(own)

    def _check_coupled(self, transition: Tensor) -> None:
        """Raise where the equilibrium's flow has no likelihood here."""
        if self.likelihood_name != "causal":
            raise ValueError(
                "mean_field='equilibrium' needs likelihood='causal': the equilibrium is one of "
                "agents who act by the causal law."
            )
        if self.game.crowd_moves_dynamics and transition.layout != torch.strided:
            raise ValueError(
                "mean_field='equilibrium' needs a `transition` that returns dense tensors computed "
                "in torch where the crowd moves the dynamics; got scipy sparse matrices."
            )

    def likelihood_of(self, panel: Panel, transition: Tensor) -> Likelihood:
        """Return the law of a panel of this model's game, with the dynamics along its flow."""
        game, counts = self.game, panel.counts_over(self.game.shape[0])
        if self.coupled:
            moved = game.crowd_moves_dynamics
            seen = panel.transition_counts() if moved else None
            moves = None if seen is None else moves_seen(*seen, tuple(transition.shape))
            return CoupledLikelihood(
                transition, counts, game.discount, game.temperature, moves, game.stationary
            )
        if game.stationary:
            return StationaryLikelihood(transition, counts, game.discount, game.temperature)
        if self.likelihood_name == "causal":
            return CausalLikelihood(transition, counts, game.discount, game.temperature)
        entry = self.inputs.mean_field.numpy().copy()
        entry[0] = game.initial.numpy()
        marginal = self.start == "marginal"
        return EnergyLikelihood(transition, counts, entry, marginal, game.temperature)

    def _sites(self) -> dict[str, torch.Size]:
        """Run the program once, with random numbers of its own, and note its latent sites."""
        with double_precision(), torch.random.fork_rng(devices=[]), pyro.poutine.trace() as tracer:
            torch.manual_seed(0)
            reward_table(self.reward, self.inputs)
        sites = {}
        for name, site in tracer.trace.nodes.items():
            if site["type"] == "param":
                raise ValueError(
                    f"the reward program has the `pyro.param` site {name!r}, which has no prior; "
                    "declare it with `pyro.sample` (for a network: PyroModule with PyroSample)."
                )
            if name in TAKEN and site["type"] == "sample":
                raise ValueError(
                    f"a site cannot be called {name!r}: results use the names {', '.join(TAKEN)}."
                )
            if is_parameter(site):
                if getattr(site["fn"].support, "is_discrete", False):
                    raise ValueError(
                        f"the latent site {name!r} is discrete ({type(site['fn']).__name__}); "
                        "reward parameters must be continuous."
                    )
                sites[name] = site["value"].shape
        if not sites:
            raise ValueError(
                "the reward program has no latent site: declare its parameters with `pyro.sample`."
            )
        return sites


def is_latent(names: Collection[str], site: Any) -> bool:
    """Return whether a site is a latent parameter, or says how many there are of one."""
    return site["type"] == "sample" and (site["name"] in names or is_subsample(site))


def _check_moves(panel: Panel, game: MeanFieldGame, transition: Tensor | None) -> None:
    """Raise where the panel takes actions, or steps if their table is known, that are ruled out."""
    faults = []
    forbidden = panel.counts.actions * ~game.available.numpy()
    if forbidden.any():
        examples = tuple(
            f"{_who(panel, t, s, a)}time={t + panel.first_time}, state={panel.space.labels[s]!r}, "
            f"action={panel.actions[a]!r}"
            for t, s, a in np.argwhere(forbidden)[:3]
        )
        remedy = "correct the rows, or `available` in the game"
        what = "action not available in its state"
        faults.append(Fault(what, int(forbidden.sum()), examples, remedy))
    if transition is not None:
        faults += _impossible_steps(panel, game, transition)
    if faults:
        raise DataError(faults)


def _impossible_steps(panel: Panel, game: MeanFieldGame, transition: Tensor) -> list[Fault]:
    """Return the fault of steps that have probability zero, if there are any."""
    steps, n = panel.transition_counts()
    if len(transition) > 1:  # the step after the last decision has no table of its own
        n = n[steps[:, 0] < len(transition)]
        steps = steps[steps[:, 0] < len(transition)]
    along = as_steps(transition.detach(), game.shape[0])
    impossible = (along.probability(torch.as_tensor(steps)) == 0).numpy()
    if not impossible.any():
        return []
    states = panel.space.labels
    examples = tuple(
        f"time={t + panel.first_time}: {states[s]!r} to {states[x]!r} by {panel.actions[a]!r}"
        for t, s, a, x in steps[impossible][:3]
    )
    remedy = "correct the rows, or `transition` in the game"
    what = "step of probability zero under the game"
    return [Fault(what, int(n[impossible].sum()), examples, remedy)]


def _who(panel: Panel, time: int, state: int, action: int) -> str:
    """Name the first agent who does something, if the panel knows."""
    if not isinstance(panel, Trajectories):
        return ""
    found = (panel.time == time) & (panel.state == state) & (panel.action == action)
    return f"agent={plain_label(panel.agents[panel.trajectory[found.argmax()]])!r}, "


def _digest(text: str, arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]

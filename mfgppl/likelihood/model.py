"""The trajectory model: rewards as latent variables, an ordinary Pyro model."""

import copy
import functools
import hashlib
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from mfgppl._arguments import differentiable_door, one_of
from mfgppl._keep import Keeper, kept
from mfgppl._modes import seeded
from mfgppl.data.composition import composition_changes, turnover_message
from mfgppl.data.panel import Panel
from mfgppl.data.trajectories import Trajectories
from mfgppl.equilibrium.admissible import check_moves
from mfgppl.equilibrium.population import Population, check_mixture
from mfgppl.game import MeanFieldGame
from mfgppl.likelihood.action_counts import ActionCounts
from mfgppl.likelihood.coupled import CoupledLikelihood
from mfgppl.likelihood.division import check_client
from mfgppl.likelihood.histories import owner_names
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.law_of_panel import Law, causal_law, energy_law
from mfgppl.likelihood.panels import check_panel, flow_faced
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.nodes import Nodes
from mfgppl.reward.parameters import (
    Program,
    is_latent,
    labelled_entries,
    latent_sites,
)
from mfgppl.reward.program import (
    Drawn,
    RewardProgram,
    answered,
    double_precision,
    nodes_of,
)
from mfgppl.reward.soundness import check_program


class TrajectoryModel(Keeper):
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
        For the energy model: one partition function for all of a type who enter at a time, or one
        a state.
    mean_field : {"empirical", "equilibrium"} or array, shape (T, S), or (T, S, A) in a joint game
        The flow that agents face: the panel's own; that of the entropy-regularised equilibrium
        under the reward itself, solved for at each value of the parameters (the coupled
        likelihood, causal only); or a given one.
    client : distributed.Client, optional
        A Dask client whose workers share the likelihood: agents of unseen kinds, or cells. Each
        holds its part; an evaluation sends parameters out and gets a value and a gradient back. A
        copy that goes to another process has none.

    Attributes
    ----------
    likelihood, start : str
        As given.
    law : CausalLikelihood, EnergyLikelihood, StationaryLikelihood or CoupledLikelihood
        The law of the panel's trajectories, with its counts.
    mean_field : Tensor
        The flow; for "equilibrium" where its search begins: the panel's own where it is all seen.
    flow_kind : str
        "empirical", "equilibrium", or "known" where it was given.
    messages : tuple of str
        What in the panel speaks against its flow, which each fit repeats: agents who leave or
        enter in some states more than in others, if the reward or the dynamics read the flow; of
        a coupled model, that many enter late or end early, as in no closed population.

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

    @differentiable_door
    def __init__(
        self,
        game: MeanFieldGame,
        reward: RewardProgram,
        panel: Panel,
        *,
        likelihood: str = "causal",
        start: str = "marginal",
        mean_field: Any = "empirical",
        client: Any = None,
    ) -> None:
        self._set_up(game, reward, panel, likelihood, start, mean_field, client)
        check_program(reward, self.inputs, coupled=self.coupled)

    def _set_up(
        self,
        game: MeanFieldGame,
        reward: RewardProgram,
        panel: Panel,
        likelihood: str,
        start: str,
        mean_field: Any,
        client: Any,
    ) -> None:
        """Check the arguments and keep them, with what follows from them."""
        if not isinstance(game, MeanFieldGame):
            raise TypeError(f"`game` must be a MeanFieldGame; got {type(game).__name__}.")
        if not callable(reward):
            raise TypeError(f"`reward` must be a Pyro program of x; got {type(reward).__name__}.")
        if not isinstance(panel, Panel):
            raise TypeError(
                f"`panel` must be Trajectories or a CountedPanel; got {type(panel).__name__}. "
                "Read a table with Trajectories.from_frame."
            )
        check_panel(panel, game)
        one_of("likelihood", likelihood, ["causal", "energy"])
        one_of("start", start, ["marginal", "conditional"])
        if likelihood == "energy" and game.discount < 1.0:
            raise ValueError(
                f"the energy likelihood has no form with `discount` below 1 (got "
                f"{game.discount:g}): use likelihood='causal', or a discount of 1."
            )
        if likelihood == "energy" and not game.plain:
            raise ValueError(
                f"the energy likelihood has one law, that of Theorem 4; got {game}: use "
                "likelihood='causal'."
            )
        self.game, self.reward = game, reward
        panel = panel.recode(game.space, game.actions)
        self.panel = panel.pooled() if game.stationary else panel
        self.likelihood, self.start = likelihood, start
        self.flow_kind = mean_field if isinstance(mean_field, str) else "known"
        self.mean_field = flow_faced(self.panel, game, mean_field, likelihood=likelihood)
        names = owner_names(self.panel) if isinstance(self.panel, Trajectories) else None
        energy = likelihood == "energy"
        inputs = RewardInputs(game, self.mean_field, energy=energy, agent_names=names)
        transition = game.transition_along(self.mean_field)
        moves_elsewhere = self.coupled and game.crowd_moves_dynamics
        check_moves(self.panel, game, None if moves_elsewhere else transition)
        sites, nodes = latent_sites(reward, inputs), nodes_of(reward, inputs)
        if self.coupled and nodes is not None:
            check_mixture(game, reward, nodes)
        self._hold(inputs, sites, nodes, transition)
        self.client = client
        if client is not None:
            check_client(client, self.law, samples_agents=self.samples_agents)
        self.messages = self._crowd_messages(panel)

    def _hold(
        self,
        inputs: RewardInputs,
        sites: dict[str, torch.Size],
        nodes: Nodes | None,
        transition: Tensor,
    ) -> None:
        """Keep what the program is along the flow, and the law of the panel there."""
        self.inputs, self.sites, self.nodes = inputs, sites, nodes
        self.forbidden = ~self.game.available
        self.forbids = bool(self.forbidden.any())
        self.law = self.law_of(self.panel, transition)
        self.observed = torch.as_tensor(self.law.counts.actions)

    @classmethod
    def of_program(cls, program: Program, panel: Panel, mean_field: Tensor) -> "TrajectoryModel":
        """Return the model of a program that has been checked, and of a panel along a flow.

        The panel is one that the program's game has drawn.
        """
        model, game = cls.__new__(cls), program.game
        model.game, model.reward, model.mean_field = game, program.reward, mean_field
        model.panel = panel.pooled() if game.stationary else panel
        model.likelihood, model.start, model.flow_kind = "causal", "marginal", "known"
        model.client, model.messages = None, ()
        sites = {site.name: torch.Size(site.shape) for site in program.sites}
        transition = game.transition_along(mean_field)
        model._hold(program.inputs.along(mean_field), sites, program.nodes, transition)
        return model

    def __call__(self) -> Tensor:
        """Run the program and observe the panel; return the reward table (T, S, A).

        With agent-level sites, one for each node, (N, T, S, A).

        Raises
        ------
        ConvergenceError
            If the flow is the equilibrium, and none is found at the parameters drawn.
        """
        with double_precision():
            if self.coupled:
                return self._in_equilibrium()
            assert not isinstance(self.law, CoupledLikelihood)
            answer = answered(self.reward, self.inputs, checked=True)
            reward = answer._replace(reward=self.masked(answer.reward)).core
            pyro.sample("actions", ActionCounts(self.law, reward), obs=self.observed)
        return answer.reward

    def _in_equilibrium(self) -> Tensor:
        """Draw the parameters, solve for the flow, run the program along it, and observe."""
        assert isinstance(self.law, (CoupledLikelihood, KindsLikelihood))
        latent = functools.partial(is_latent, self.sites)
        with pyro.poutine.block(expose_fn=latent), Drawn() as met:
            answered(self.reward, self.inputs, checked=True)
        values = met.values()
        drawn = {name: values[name] for name in self.sites}
        crowd = self.population
        flow = crowd.equilibrium(drawn, self.mean_field, throw=True).value.mean_field
        along = self.inputs.along(crowd.summed(flow))
        with pyro.poutine.block(hide_fn=latent), pyro.poutine.condition(data=drawn):
            answer = answered(self.reward, along, checked=True)
        transition = self.game.transition_along(along.whole_flow)
        reward = answer._replace(reward=self.masked(answer.reward)).core
        counts = ActionCounts(self.law.along(transition), reward)
        pyro.sample("actions", counts, obs=self.observed)
        if self.law.moves is not None:
            pyro.factor("moves", self.law.log_moves(transition))
        return answer.reward

    @property
    def samples_agents(self) -> bool:
        """Whether a coefficient of each agent is a parameter."""
        return self.nodes is not None and any(s.agents is not None for s in self.nodes.sites)

    @property
    @kept
    def population(self) -> Population:
        """The agents, whose crowd is solved for in a coupled model."""
        return Population(self.game, self.reward, self.nodes)

    def masked(self, reward: Tensor) -> Tensor:
        """Return a reward with -inf where an action is not available."""
        return reward.masked_fill(self.forbidden, -torch.inf) if self.forbids else reward

    @differentiable_door
    def with_panel(
        self, panel: Panel, *, mean_field: Any = None, game: MeanFieldGame | None = None
    ) -> "TrajectoryModel":
        """Return the model of another panel, along a flow as the constructor takes it.

        By default that panel's own if this model's is, the equilibrium's if this model's is, else
        this model's.
        """
        if mean_field is None:
            mean_field = self.mean_field if self.flow_kind == "known" else self.flow_kind
        along = self.game if game is None else game
        model = TrajectoryModel.__new__(TrajectoryModel)  # the program has been checked
        same = self.likelihood, self.start, mean_field, self.client
        model._set_up(along, self.reward, panel, *same)
        return model

    def __getstate__(self) -> dict[str, Any]:
        """Leave the client to the process that it belongs to."""
        return super().__getstate__() | {"client": None}

    def without_panel(self) -> "TrajectoryModel":
        """Return what the laws of parts of the panel share: game, flow and reward program."""
        other = copy.copy(self)
        del other.panel, other.law, other.observed
        other.inputs = RewardInputs(self.game, self.mean_field)
        return other

    def uncoupled(self) -> "TrajectoryModel":
        """Return the model of the same panel along the flow where a coupled model's search begins.

        Raises
        ------
        DataError
            If the panel takes steps that the crowd's dynamics rule out along that flow.
        """
        other = copy.copy(self)
        other.client, other.flow_kind, other.messages = self.client, "known", ()
        if self.game.crowd_moves_dynamics:
            check_moves(self.panel, self.game, self.law.transition)
        other.law = other.law_of(self.panel, self.law.transition)
        return other

    def along(self, mean_field: Any) -> "TrajectoryModel":
        """Return the model of the same panel along another flow, as the constructor takes it."""
        return self.with_panel(self.panel, mean_field=mean_field)

    def redrawn(self, panel: Panel) -> "TrajectoryModel":
        """Return the model, along the same flow, of a panel that its own world has drawn.

        The panel is not checked again, and the tables of the dynamics are shared.
        """
        other = copy.copy(self)
        other.client = self.client
        other.panel = panel.pooled() if self.game.stationary else panel
        other.law = self.law_of(other.panel, self.law.transition)
        other.law.share_dynamics(self.law)
        other.observed = torch.as_tensor(other.law.counts.actions)
        return other

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

    @functools.cached_property
    def entries(self) -> dict[str, Any]:
        """Of what the entries of latent sites are, and their labels, where priors say so."""
        return labelled_entries(self.reward, self.inputs)

    def fingerprint(self) -> dict[str, str]:
        """Return short hashes of the game and of the data, for the record."""
        game = self.game
        parts = [game.space, game.actions, game.shape, game.discount, game.temperature]
        if not game.plain:
            by_type = {k: v.tolist() for k, v in game.constants_by_type.items()}
            parts += [game.behaviour, game.lookahead, game.beliefs, by_type]
        tables = [*self.law.kernel_tables, game.initial, game.available]
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
        return f"TrajectoryModel({self.likelihood}, {self.game}, {self.panel})"

    def _crowd_messages(self, panel: Panel) -> tuple[str, ...]:
        """Say how a panel's comings and goings change its flow, if the flow is read."""
        if self.coupled:
            turnover = turnover_message(panel)
            return () if turnover is None or self.game.stationary else (turnover,)
        changes = composition_changes(panel) if self.flow_is_empirical else ()
        return changes if changes and self.reads_flow else ()

    @property
    def reads_flow(self) -> bool:
        """Whether the dynamics, or the reward at parameters drawn, change along another flow."""
        return self.game.crowd_moves_dynamics or self.reward_reads_flow

    @property
    def reward_reads_flow(self) -> bool:
        """Whether the reward, at parameters drawn, changes along another flow."""
        weights = torch.arange(1.0, self.mean_field[0].numel() + 1, dtype=torch.float64)
        other = (weights / weights.sum()).reshape(self.mean_field.shape[1:])
        other = other.expand(self.mean_field.shape)
        try:
            here, there = map(self._table_along, (self.mean_field, other))
        except Exception:  # a program that fails along another flow reads it
            return True
        return not torch.equal(here, there)

    def _table_along(self, mean_field: Tensor) -> Tensor:
        """Return the reward along a flow at the parameters that `_sites` draws."""
        with double_precision(), seeded(0), torch.no_grad():
            return answered(self.reward, self.inputs.along(mean_field), checked=True).core

    def law_of(self, panel: Panel, transition: Tensor) -> Law:
        """Return the law of a panel of this model's game, with the dynamics along its flow."""
        game, nodes, counts = self.game, self.nodes, panel.counts_over(self.game.shape[0])
        if self.likelihood == "causal":
            return causal_law(panel, counts, game, transition, nodes=nodes, coupled=self.coupled)
        flow, by_type = self.mean_field, self.start == "marginal"
        return energy_law(counts, game, transition, flow, nodes=nodes, by_type=by_type)


def _digest(text: str, arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]

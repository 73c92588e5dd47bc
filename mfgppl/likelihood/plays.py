"""Several plays of a game: each has its own crowd, and one reward explains them all."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyro
from pyro.poutine.messenger import Messenger
from torch import Tensor

from mfgppl._arguments import is_a, strict_keywords
from mfgppl.data.panel import Panel
from mfgppl.data.trajectories import Trajectories
from mfgppl.exceptions import DataError
from mfgppl.game import MeanFieldGame
from mfgppl.likelihood.model import TrajectoryModel, is_latent
from mfgppl.reward.in_play import in_play
from mfgppl.reward.program import RewardProgram


class Plays:
    """Several plays of a game, each with its own flow, whose agents share a reward program.

    Airports, cities, days or experimental sessions: the same question, other crowds. What plays
    have in common is a latent site; what differs a site with one entry a play, which `x.play`
    picks: `w[x.play.codes]`, or partially pooled by a hierarchical prior on w. Dependence on the
    crowd is only seen at the flows observed: several plays show it at several.

    `mle`, `map_estimate`, `laplace`, `vi` and `nuts` fit it as they fit a `TrajectoryModel`;
    `plays[label]` is the `TrajectoryModel` of one play with the same latent sites, for everything
    that asks about one crowd: checks, counterfactuals, policies.

    Parameters
    ----------
    game : MeanFieldGame or mapping of label to MeanFieldGame
        The game, or each play's own: other starts, features or dynamics, with the same states,
        actions and horizon.
    reward : callable
        A reward program, with `x.play` among its inputs.
    panels : mapping of label to Trajectories or CountedPanel
        The plays' panels, as of `panel.split("airport")`.
    likelihood, start
        As of `TrajectoryModel`.
    mean_field : {"empirical", "equilibrium"}, or mapping of label to array
        As of `TrajectoryModel`, for each play.

    Attributes
    ----------
    models : dict of label to TrajectoryModel
        The plays.

    Raises
    ------
    DataError
        If a panel does what its game forbids; the message names the play.
    ValueError
        If there are fewer than two plays, labels disagree, or games do not fit together.
    """

    @strict_keywords
    def __init__(
        self,
        game: MeanFieldGame | Mapping[Any, MeanFieldGame],
        reward: RewardProgram,
        panels: Mapping[Any, Panel],
        *,
        likelihood: str = "causal",
        start: str = "marginal",
        mean_field: Any = "empirical",
    ) -> None:
        is_a("panels", panels, Mapping, ' Split a panel by a group: panel.split("airport").')
        labels = list(panels)
        if len(labels) < 2:
            raise ValueError(
                f"`panels` must hold at least two plays; got {labels}. One is a TrajectoryModel."
            )
        if not callable(reward):
            raise TypeError(f"`reward` must be a Pyro program of x; got {type(reward).__name__}.")
        games = _each("game", game, labels)
        flows = _each("mean_field", mean_field, labels)
        self.reward, self.models = reward, {}
        for label, panel in panels.items():
            given = {"likelihood": likelihood, "start": start, "mean_field": flows[label]}
            program = in_play(reward, label, labels)
            try:
                self.models[label] = TrajectoryModel(games[label], program, panel, **given)
            except DataError as error:
                where = [f._replace(what=f"{f.what}, in play {label!r}") for f in error.faults]
                raise DataError(where) from None
            except ValueError as error:
                raise ValueError(f"play {label!r}: {error}") from None
        self._check_alike()

    def __getitem__(self, label: Any) -> TrajectoryModel:
        """Return the model of one play."""
        if label not in self.models:
            raise KeyError(f"no play {label!r}; the plays are {', '.join(map(repr, self.models))}.")
        return self.models[label]

    def __call__(self) -> dict[Any, Tensor]:
        """Run the program in each play with the same parameters; return rewards by play.

        The first play draws the parameters; observed sites are called "play/actions".
        """
        rewards, (first, *others) = {}, self.models
        with _Named(str(first), self.sites), pyro.poutine.trace() as tracer:
            rewards[first] = self.models[first]()
        drawn = {name: tracer.trace.nodes[name]["value"] for name in self.sites}
        for label in others:
            latent = pyro.poutine.block(hide_fn=lambda site: is_latent(self.sites, site))
            with _Named(str(label), self.sites), latent, pyro.poutine.condition(data=drawn):
                rewards[label] = self.models[label]()
        return rewards

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be computed anew, for a task that travels to another process."""
        return {k: v for k, v in vars(self).items() if not k.startswith("_")}

    @property
    def first(self) -> TrajectoryModel:
        """The first play, whose program draws the parameters."""
        return next(iter(self.models.values()))

    @property
    def sites(self) -> dict[str, Any]:
        """Shapes of the latent sites."""
        return self.first.sites

    @property
    def parameters(self) -> list[str]:
        """Names of the latent sites, in the order of the program."""
        return self.first.parameters

    @property
    def coupled(self) -> bool:
        """Whether the flows are the equilibria's under the reward itself."""
        return self.first.coupled

    def __repr__(self) -> str:
        rows = [f"  {label}: {model.panel}" for label, model in self.models.items()]
        return "\n".join([f"Plays({self.first.game})", *rows])

    def _check_alike(self) -> None:
        """Raise unless all plays have the same spaces and latent sites."""
        label, first = next(iter(self.models)), self.first
        for name, model in self.models.items():
            if _spaces(model.game) != _spaces(first.game):
                raise ValueError(
                    "plays must have the same states, actions and horizon; "
                    f"{label!r} has {first.game} and {name!r} has {model.game}."
                )
            if model.sites != first.sites:
                raise ValueError(
                    f"the reward has the latent sites {first.sites} in {label!r} and {model.sites} "
                    f"in {name!r}; declare all in each play, and pick by x.play."
                )


def _spaces(game: MeanFieldGame) -> Any:
    """Return what the games of all plays have in common."""
    return game.shape, game.joint, game.actions, game.space.labels


Model = TrajectoryModel | Plays


def check_model(model: Any) -> None:
    """Raise a `TypeError` unless something is a model that is fitted."""
    if not isinstance(model, (TrajectoryModel, Plays)):
        raise TypeError(f"`model` must be a TrajectoryModel or Plays; got {type(model).__name__}.")


def plays_of(model: Model) -> dict[str, TrajectoryModel]:
    """Return the plays by name; of a single model itself, without one."""
    if isinstance(model, Plays):
        return {str(label): part for label, part in model.models.items()}
    return {"": model}


def clusters_of(model: Model) -> dict[str, np.ndarray]:
    """Return agents and groups (J,) of all trajectories; none where panels are counted only."""
    parts = plays_of(model)
    panels = [p.panel for p in parts.values()]
    rows = [p for p in panels if isinstance(p, Trajectories)]
    if len(rows) < len(panels):
        return {}
    found = {"agent": np.concatenate([p.agents for p in rows])}
    common = [name for name in rows[0].groups if all(name in p.groups for p in rows)]
    found |= {name: np.concatenate([p.groups[name] for p in rows]) for name in common}
    if isinstance(model, Plays):
        lengths = [p.n_trajectories for p in rows]
        found["play"] = np.repeat(np.array(list(parts), dtype=object), lengths)
    return found


def _each(name: str, given: Any, labels: list[Any]) -> dict[Any, Any]:
    """Return an argument by play, where one serves all or a mapping has each."""
    if not isinstance(given, Mapping):
        return dict.fromkeys(labels, given)
    if set(given) != set(labels):
        raise ValueError(f"`{name}` must have the plays {labels}; got {list(given)}.")
    return dict(given)


class _Named(Messenger):
    """Put a play's name before all its sites but the latent ones."""

    def __init__(self, play: str, latent: Collection[str]) -> None:
        super().__init__()
        self.play, self.latent = play, latent

    def _pyro_sample(self, msg: Any) -> None:
        if not is_latent(self.latent, msg):
            msg["name"] = f"{self.play}/{msg['name']}"

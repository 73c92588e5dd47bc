"""What a reward program sees: the game and the crowd as broadcast-ready tensors."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mfgppl._arguments import is_a, suggestion
from mfgppl._meeting import meeting_of
from mfgppl.game import MeanFieldGame
from mfgppl.reward.agents import AgentLevel, FirstState, SiteOptions
from mfgppl.reward.crowd_met import Crowd, note_cells
from mfgppl.reward.named_inputs import named_inputs


class RewardInputs:
    """Inputs of a reward program, one axis each for type, time, state and action.

    The axis of types is left out in games without types, and C below is the number of their
    combinations. State coordinates, types and the game's features are attributes by name. A
    coordinate (or the actions) is compared with its labels, `x.stock == "low"` or `x.price == 3`: a
    number, 1 where it holds and 0 elsewhere. One with numbers as labels is also a tensor of them.
    Each has `codes`, the position of its label, `isin`, 1 for any of several labels, and `each`,
    a prior with one entry per label.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game
        The flow of the whole crowd, over types and states.
    energy : bool
        Whether the reward is that of Theorem 4's trajectories.
    agent_names : tuple of str, optional
        The panel's agents, of whom each may have a coefficient that is sampled.

    Attributes
    ----------
    time : Tensor, shape (1, T, 1, 1)
        0 .. T-1.
    period : Numbers or Labels, shape (1, T, 1, 1)
        What the times are called, as `x.period >= 1980`; in games with labels of times.
    action : Numbers or Labels, shape (1, 1, 1, A)
        The action.
    crowd : Crowd
        Those whom one meets.
    mean_field : Tensor, shape (C, T, S)
        Shares of states among those whom one meets.
    density : Tensor, shape (C, T, S, 1)
        Share of those whom one meets who are in one's own state.
    game : MeanFieldGame
        The game.
    occupancy : Tensor, shape (C, T, S, A)
        In joint games only: share of those whom one meets who are in one's own state and take
        one's own action.
    neighbours : Crowd
        Where agents meet through a network: the same as `crowd`, for what is said of its edges.
    everyone : Crowd
        All agents, whomever one meets.
    agents : AgentLevel
        The context in which sites have one value for each agent, which is not seen.
    first_state : FirstState
        The coordinates of the first state that is seen of an agent, which the shares of kinds may
        read.
    """

    def __init__(
        self,
        game: MeanFieldGame,
        mean_field: Tensor,
        *,
        energy: bool = False,
        agent_names: tuple[str, ...] | None = None,
    ) -> None:
        is_a("game", game, MeanFieldGame)
        is_a("mean_field", mean_field, Tensor, " torch.as_tensor makes one of an array.")
        self.game, self._flow, self._energy = game, mean_field, energy
        self._agent_names = agent_names
        if game.joint:
            self.occupancy = Crowd(game, mean_field).mean_field.reshape(self.shape)
            mean_field = mean_field.sum(-1)
        self._states = mean_field
        self.crowd = Crowd(game, mean_field)
        self.mean_field = self.crowd.mean_field
        self.density = self.mean_field[..., None]
        for name, values in named_inputs(game).items():
            setattr(self, name, values)

    @property
    def neighbours(self) -> Crowd:
        """Those whom one meets on a network: the crowd, with its edges and weights of them."""
        if self.game.meets.network is None:
            raise ValueError(
                "x.neighbours is there where agents meet through a network; declare "
                "MeanFieldGame(meets=mfg.Network(edges))."
            )
        return self.crowd

    @property
    def everyone(self) -> Crowd:
        """All agents, whomever one meets: the crowd of a game with `meets="everyone"`."""
        if not self.game.meets.everyone:
            note_cells()
        return Crowd(self.game, self._states, meeting=meeting_of("everyone", self.game.space))

    @property
    def agents(self) -> AgentLevel:
        """The context of what each agent has for itself: `with x.agents:`."""
        return AgentLevel(SiteOptions(agents=self._agent_names))

    @property
    def first_state(self) -> FirstState:
        """The first state that is seen of an agent, by coordinate."""
        return FirstState(self.game.space.within, len(self.shape))

    def along(self, mean_field: Tensor) -> "RewardInputs":
        """Return the same along another flow."""
        return RewardInputs(
            self.game, mean_field, energy=self._energy, agent_names=self._agent_names
        )

    @property
    def whole_flow(self) -> Tensor:
        """The same, for what is read of it as agents meet it."""
        return self._flow

    @property
    def energy(self) -> bool:
        """Whether the reward is that of Theorem 4's trajectories."""
        return self._energy

    @property
    def flow(self) -> Tensor:
        """The flow of the whole crowd over types and states, (T, S), or (T, S, A) if joint."""
        note_cells()
        return self._flow

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, T, S, A), or (T, S, A) in a game without types."""
        T, S, A = self.game.shape
        C = self.game.n_cells
        return (C, T, S // C, A) if self.game.space.types else (T, S, A)

    def stacked(self, table: Tensor) -> Tensor:
        """Return a table by type (C, T, S, A or 1) as one over pairs of type and state."""
        if not self.game.space.types:
            return table
        T, S, _ = self.game.shape
        return table.transpose(0, 1).reshape(T, S, table.shape[-1])

    def expect(self, quantity: str | Tensor, *, within: str | Sequence[str] = ()) -> Tensor:
        """Return the crowd's mean of a coordinate, a feature or a tensor; see `Crowd.expect`."""
        values = getattr(self, quantity) if isinstance(quantity, str) else quantity
        return self.crowd.expect(values, within=within)

    def share(self, *, within: str | Sequence[str] = (), **labels: Any) -> Tensor:
        """Return the share of the crowd with the given labels; see `Crowd.share`."""
        return self.crowd.share(within=within, **labels)

    def among(self, **labels: Any) -> Crowd:
        """Return the part of the crowd with the given labels; see `Crowd.among`."""
        return self.crowd.among(**labels)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name == "occupancy":
            raise AttributeError(
                "this game's mean field is over states alone; x.occupancy, its distribution over "
                "states and actions, is there with MeanFieldGame(joint=True)."
            )
        if name == "period":
            raise AttributeError(
                f"the game counts its times 0 to {self.game.shape[0] - 1} (x.time) and does not "
                "know what they are called; x.period is there with "
                "MeanFieldGame(horizon=panel.periods)."
            )
        known = [k for k in vars(self) if not k.startswith("_")]
        known += ["expect", "share", "among", "agents", "first_state", "everyone", "neighbours"]
        raise AttributeError(
            f"a reward program has no input x.{name};{suggestion(name, known)} "
            f"inputs: {', '.join(sorted(known))}."
        )

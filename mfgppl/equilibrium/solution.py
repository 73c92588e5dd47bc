"""What a solver found, and whether to believe it."""

from typing import NamedTuple, Protocol, TypeVar

import torch

from mfgppl.equilibrium.images import Evaluation, Image
from mfgppl.equilibrium.linearisation import AnyResponseMap
from mfgppl.equilibrium.response import Equilibrium, in_own_units
from mfgppl.exceptions import ConvergenceError
from mfgppl.game import MeanFieldGame
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.program import double_precision
from mfgppl.reward.valued import outlook


class Solution(NamedTuple):
    """What an iteration found, and whether to believe it.

    Attributes
    ----------
    value : Equilibrium
        The best iterate.
    converged : bool
        Whether the residual is within tolerance.
    residual : float
        What is zero at a solution: of `solve_equilibrium` the largest change of a share under one
        more response, of `solve_nash` the exploitability in reward units, of `social_optimum` the
        largest slope of the objective in reward units.
    n_steps : int
        Steps taken.
    reason : str
        How the iteration went and why it ended.
    """

    value: Equilibrium
    converged: bool
    residual: float
    n_steps: int
    reason: str


class HasEnded(Protocol):
    """What a search returns that says how it ended."""

    @property
    def converged(self) -> bool:
        """Whether the residual is within tolerance."""

    @property
    def reason(self) -> str:
        """How it went and why it ended."""


Ended = TypeVar("Ended", bound=HasEnded)


def as_equilibrium(game: MeanFieldGame, end: Image | Evaluation) -> Equilibrium:
    """Return arrays as an equilibrium's tensors."""
    flow = torch.from_numpy(end.flow.copy()).reshape(game.flow_shape)
    policy, values, reward = (
        torch.from_numpy(v.copy()) for v in (end.policy, end.values, end.reward)
    )
    return Equilibrium(flow, policy, values, reward)


def full_response(response_map: AnyResponseMap, image: Image) -> Equilibrium:
    """Return a soft best response with what agents earn and expect along its flow."""
    game, found = response_map.game, as_equilibrium(response_map.game, image)
    with double_precision(), torch.no_grad():
        own = outlook(response_map.program, RewardInputs(game, found.mean_field))
    return in_own_units(found, own)


def outcome(measure: str, value: float, tolerance: float, n_steps: int, steps: str) -> str:
    """Say how a search ended: what was left of its measure, after so many steps of some kind."""
    side = "within" if value <= tolerance else "above"
    return f"{measure} {value:.1e} {side} {tolerance:.1e} after {n_steps} {steps}"


def ended(solution: Ended, *, throw: bool, what: str, remedy: str) -> Ended:
    """Return a solution, or raise its reason where it has not converged and `throw` says so."""
    if throw and not solution.converged:
        raise ConvergenceError(f"{what} was not reached: {solution.reason}; {remedy}.")
    return solution

"""Maxima of the likelihood without some parts of the panel, along the flow of the rest."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mfgppl.data.trajectories import Trajectories
from mfgppl.density.climb import Objective, whitening
from mfgppl.density.curvature import unit_curvature
from mfgppl.density.of_model import density_of
from mfgppl.estimation.newton import Slopes, climb_from
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.estimation.refits import determined
from mfgppl.estimation.refits_along_flows import Refits
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.panels import flow_of

_Problem = tuple[Slopes, Callable[[np.ndarray], np.ndarray]]  # and what is constrained at a point


ROUNDING = 1e-12  # share of the largest squared score below which there is none
MOST = 0.99  # share of a direction's squared scores in some parts, above which curvature is asked


class LeaveOut:
    """Refits of a model without parts of its panel.

    Counts are sufficient: those of the rest are the panel's less the parts', and so is its flow.

    Parameters
    ----------
    model : TrajectoryModel
        A model whose flow is not solved for.
    fit : PointEstimate
        Its maximum, where the climbs start.
    parts : sequence of ndarray of int
        The trajectories of each part.
    """

    def __init__(
        self, model: TrajectoryModel, fit: PointEstimate, parts: Sequence[np.ndarray]
    ) -> None:
        panel = model.panel
        assert isinstance(panel, Trajectories)
        self.model, self.fit, self.panel, self.parts = model, fit, panel, parts
        self.refits = Refits(model, fit)
        self.directions = whitening(fit.information, fit.sizes)
        self.shares = _shares(fit, parts)
        self.thetas: dict[int, np.ndarray] = {}  # without one part each
        self.horizon = model.game.shape[0]
        split = [panel.subset(part) for part in parts] if self.refits.recorded else []
        self.actions = [part.counts_over(self.horizon).actions for part in split]
        self.visits = [part.visits[: panel.horizon] for part in split]
        self.all_actions = panel.counts_over(self.horizon).actions.astype(float)
        self.all_visits = panel.visits[: panel.horizon].astype(float)

    def __call__(self, *without: int) -> np.ndarray:
        """Return the constrained estimates (P,) without some parts.

        NaN where the rest does not determine what the panel does.

        Raises
        ------
        ValueError
            If they have no maximum nearby, or nobody of the rest is seen at some time.
        """
        height, constrained = (self._recorded if self.refits.recorded else self._anew)(without)
        theta = climb_from(height, self._start(without), self.directions)
        if theta is None:
            theta = climb_from(height, self.fit.theta, self.directions)
        if theta is None:
            raise ValueError("the likelihood without a part has no maximum near the estimate")
        if len(without) == 1:
            self.thetas[without[0]] = theta
        values = constrained(theta)
        shares = np.linalg.eigvalsh(sum(self.shares[part] for part in without))
        if shares.max(initial=0.0) > MOST:
            values = determined(values, height, theta, self.fit)
        return values

    def cross_step(self) -> np.ndarray:
        """Return the Newton step (P,) of the cross-fitted likelihood from the estimate.

        That adds up the likelihood of each part along the flow of the rest, in which no choice
        explains itself. Where the flow hardly moves but by chance, the estimate's bias does not
        fall with the number of agents, leaving agents out does not show it, and this does.
        """
        slope = np.zeros_like(self.fit.theta)
        for part in range(len(self.parts)):
            slope += self._slope_of(part)
        step = self.directions @ (self.directions.T @ slope)
        return np.asarray(self.fit.jacobian @ step)

    def _slope_of(self, part: int) -> np.ndarray:
        """Return the gradient (K,) of a part's log likelihood along the flow of the rest."""
        if self.refits.recorded:
            _, flow = self._rest((part,))
            height: Slopes = self.refits.along(self.actions[part].astype(float), flow)
        else:
            _, flow = self._rest_of_panel((part,))
            own = self.panel.subset(self.parts[part])
            density = density_of(self.model.with_panel(own, mean_field=flow))
            height = Objective(density, 0.0, 0.0)
        return height.value_and_gradient(self.fit.theta)[1]

    def _start(self, without: tuple[int, ...]) -> np.ndarray:
        """Return where to climb from: what the parts move one by one, added up."""
        moves = [self.thetas.get(part, self.fit.theta) - self.fit.theta for part in without]
        return np.asarray(self.fit.theta + np.sum(moves, axis=0))

    def _recorded(self, without: Iterable[int]) -> "_Problem":
        along = self.refits.along(*self._rest(without))
        return along, lambda theta: along.outcome(theta)[0]

    def _rest(self, without: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return action counts (T, S, A) and flow without some parts."""
        game = self.model.game
        actions = self.all_actions - sum(self.actions[part] for part in without)
        visits = self.all_visits - sum(self.visits[part] for part in without)
        if not self.model.flow_is_empirical:
            return actions, self.model.mean_field.numpy()
        weights = actions if game.joint else visits
        totals = weights.reshape(len(weights), -1).sum(1)
        if not totals.all():
            raise ValueError("no agent is left at some time without a part")
        return actions, weights / totals.reshape(-1, *[1] * (weights.ndim - 1))

    def _anew(self, without: Iterable[int]) -> "_Problem":
        rest, flow = self._rest_of_panel(without)
        density = density_of(self.model.with_panel(rest, mean_field=flow))
        return Objective(density, 0.0, 0.0), lambda theta: density.constrained(theta[None])[0]

    def _rest_of_panel(self, without: Iterable[int]) -> tuple[Trajectories, np.ndarray]:
        """Return the panel without some parts, and the flow that it faces."""
        left_out = np.concatenate([self.parts[part] for part in without])
        rest = self.panel.subset(np.setdiff1d(np.arange(self.panel.n_trajectories), left_out))
        if self.model.flow_is_empirical:
            return rest, flow_of(rest, self.model.game)
        return rest, self.model.mean_field.numpy()


def _shares(fit: PointEstimate, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return what each part has of the squared scores of all, by directions with curvature.

    All of a direction without scores: who alone determines a parameter has none at the maximum.
    """
    assert fit.scores is not None
    directions, bends = unit_curvature(fit.information, fit.sizes)
    scores = fit.scores @ directions[:, bends]
    values, vectors = np.linalg.eigh(scores.T @ scores)
    seen = values > ROUNDING * values.max(initial=0.0)
    if not seen.all():
        return [np.eye(len(values))] * len(parts)
    scores = scores @ (vectors / np.sqrt(values))
    return [scores[part].T @ scores[part] for part in parts]

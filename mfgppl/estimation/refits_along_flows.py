"""Refits of a model along many flows: program and dynamics are recorded once for all of them."""

from typing import NamedTuple

import numpy as np

from mfgppl.data.panel import Panel
from mfgppl.data.trajectories import Trajectories
from mfgppl.density.at_equilibrium import compiled_parameters
from mfgppl.density.climb import HeldMaximum, maximise_held, whitening
from mfgppl.density.compiled_program import Compiled
from mfgppl.density.of_model import density_of
from mfgppl.equilibrium.linearisation import response_map_of
from mfgppl.equilibrium.response_map import ResponseMap
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.estimation.refits import climb_near, determined, values_near
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.panels import flow_of


class Refit(NamedTuple):
    """A maximum along a flow.

    Attributes
    ----------
    found : HeldMaximum
        Unconstrained parameters, log likelihood and residual.
    values : ndarray, shape (P,)
        Constrained parameters, NaN where the panel does not determine what the model's does.
    log_policy : ndarray, shape (T, S, A)
        Log probability of each action along the flow.
    """

    found: HeldMaximum
    values: np.ndarray
    log_policy: np.ndarray


class Refits:
    """The causal likelihood of panels along their own or other flows, near a fit.

    Parameters
    ----------
    model : TrajectoryModel
        With a flow that is not solved for; its program's compiled form is used.
    fit : PointEstimate
        Where the climbs start, and their scale.
    """

    def __init__(self, model: TrajectoryModel, fit: PointEstimate) -> None:
        self.model, self.fit = model, fit
        self._directions = whitening(fit.information, fit.sizes)
        self._nothing = np.zeros(len(fit.theta), dtype=bool)
        self._response_map = self._recorded_response_map()

    def __call__(self, panel: Trajectories, flow: np.ndarray | None = None) -> Refit:
        """Maximise the likelihood of a panel along a flow, by default the panel's own."""
        flow = flow_of(panel, self.model.game) if flow is None else np.asarray(flow)
        if self._response_map is None:
            return self._compiled_anew(panel, flow)
        along = self.along(self._counts(panel), flow)
        maximum = maximise_held(along, self.fit.theta, self._nothing, self._directions)
        values, log_policy = along.outcome(maximum.theta)
        return Refit(maximum, determined(values, along, maximum.theta, self.fit), log_policy)

    @property
    def recorded(self) -> bool:
        """Whether program and dynamics are recorded once for all flows."""
        return self._response_map is not None

    def along(self, counts: np.ndarray, flow: np.ndarray) -> "AlongFlow":
        """Return the log likelihood of action counts (T, S, A) along a flow, where recorded."""
        assert self._response_map is not None
        return AlongFlow(self.model, self._response_map, counts, flow)

    def _counts(self, panel: Panel) -> np.ndarray:
        return self.model.law_of(panel, self.model.law.transition).counts.actions

    def _recorded_response_map(self) -> ResponseMap | None:
        """Return a response map with recorded slopes; None where refits compile the model anew."""
        density = density_of(self.model)
        if self.model.nodes is not None:
            return None
        if self.model.game.stationary or _parameters_of(self.model).tape is None:
            return None
        values = self.fit.params.to_numpy(copy=True)
        sites = density.program.by_site(values)
        response_map = response_map_of(self.model.game, self.model.reward, sites)
        if not isinstance(response_map, ResponseMap) or not response_map.recorded:
            return None
        counts, flow = self._counts(self.model.panel), self.model.mean_field.numpy()
        along = AlongFlow(self.model, response_map, counts, flow)
        value, slope = along.value_and_gradient(self.fit.theta)
        other, known = density.evaluator(prior=0.0, jacobian=0.0)(self.fit.theta)
        size = np.where(self.fit.sizes > 0, self.fit.sizes, 1.0)
        same = bool(np.isclose(value, other, rtol=1e-9))
        same = same and np.allclose(slope / size, known / size, atol=1e-6)
        return response_map if same else None

    def _compiled_anew(self, panel: Trajectories, flow: np.ndarray) -> Refit:
        return refit_near(self.model.with_panel(panel, mean_field=flow), self.fit)


def refit_near(model: TrajectoryModel, fit: PointEstimate) -> Refit:
    """Return the maximum of a model near the fit of a like panel."""
    maximum, density = climb_near(model, fit), density_of(model)
    log_policies = density.log_policies(density.constrained(maximum.theta[None]))
    return Refit(maximum, values_near(model, fit, maximum.theta), log_policies[0])


class AlongFlow:
    """The log likelihood of action counts along a flow, by a recorded response map."""

    def __init__(
        self,
        model: TrajectoryModel,
        response_map: ResponseMap,
        counts: np.ndarray,
        flow: np.ndarray,
    ) -> None:
        T, S, A = model.game.shape
        self.forward, self.pullback = _parameters_of(model).stages()
        self.response_map, self.temperature = response_map, model.game.temperature
        self.flow = np.ascontiguousarray(flow.reshape(T, -1))
        self.counts = np.ascontiguousarray(counts, dtype=float)
        self.acted = self.counts > 0
        self.unmoved = np.zeros((len(response_map.arrays.moves.ends) - 1, S, S * A))
        self.still = np.zeros_like(self.flow)

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the log likelihood and its gradient at unconstrained parameters."""
        self.response_map.put(self.forward(theta)[2:].copy())
        image = self.response_map.image(self.flow, self.temperature)
        with np.errstate(divide="ignore"):
            value = float(self.counts[self.acted] @ np.log(image.policy[self.acted]))
        slopes = self.response_map.pull(
            image, self.temperature, counts=self.counts, weights=self.still, moved=self.unmoved
        )
        if slopes is None or not np.isfinite(value):
            return -np.inf, np.zeros_like(theta)
        return value, self.pullback(np.concatenate([[0.0, 0.0], slopes[1]])).copy()

    def outcome(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return constrained parameters and the log policy at unconstrained ones."""
        values = self.forward(theta)[2:].copy()
        self.response_map.put(values)
        with np.errstate(divide="ignore"):
            return values, np.log(self.response_map.image(self.flow, self.temperature).policy)


def _parameters_of(model: TrajectoryModel) -> Compiled:
    """Return a model's program, compiled with its parameters as what it finds."""
    compiled = density_of(model).compiled
    return compiled if compiled.affine is not None else compiled_parameters(model)[1]

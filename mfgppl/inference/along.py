"""Refits of a model along many flows: program and dynamics are recorded once for all of them."""

from typing import NamedTuple

import numpy as np

from mfgppl.data.panel import Panel
from mfgppl.data.trajectories import Trajectories
from mfgppl.equilibrium.world import World
from mfgppl.equilibrium.worlds import world_of
from mfgppl.inference.compiled import Density, density_of
from mfgppl.inference.cross_fit import flow_of
from mfgppl.inference.estimate import PointEstimate
from mfgppl.inference.held import HeldMaximum, maximise_held, whitening
from mfgppl.inference.redrawn import climb_near
from mfgppl.likelihood.model import TrajectoryModel


class Refit(NamedTuple):
    """A maximum along a flow.

    Attributes
    ----------
    found : HeldMaximum
        Unconstrained parameters, log likelihood and residual.
    values : ndarray, shape (P,)
        Constrained parameters.
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
        self._directions = whitening(fit.information)
        self._nothing = np.zeros(len(fit.theta), dtype=bool)
        self._world = self._recorded()

    def __call__(self, panel: Trajectories, flow: np.ndarray | None = None) -> Refit:
        """Maximise the likelihood of a panel along a flow, by default the panel's own."""
        flow = flow_of(self.model, panel) if flow is None else np.asarray(flow)
        if self._world is None:
            return self._compiled_anew(panel, flow)
        along = _Along(self.model, self._world, panel, flow)
        found = maximise_held(along, self.fit.theta, self._nothing, self._directions)
        return Refit(found, *along.outcome(found.theta))

    def _recorded(self) -> World | None:
        """Return a world with recorded slopes; None where refits compile the model anew."""
        density = density_of(self.model)
        assert isinstance(density, Density)
        if self.model.game.stationary or density.compiled.affine is None:
            return None
        values = self.fit.params.to_numpy(copy=True)
        sites = density.program.by_site(values)
        world = world_of(self.model.game, self.model.reward, sites)
        if not isinstance(world, World) or not world.recorded:
            return None
        along = _Along(self.model, world, self.model.panel, self.model.mean_field.numpy())
        value, slope = along.value_and_gradient(self.fit.theta)
        other, known = density.evaluator(prior=0.0, jacobian=0.0)(self.fit.theta)
        same = np.isclose(value, other, rtol=1e-9) and np.allclose(slope, known, atol=1e-6)
        return world if same else None

    def _compiled_anew(self, panel: Trajectories, flow: np.ndarray) -> Refit:
        here = self.model.with_panel(panel, mean_field=flow)
        found, density = climb_near(here, self.fit), density_of(here)
        values = density.constrained(found.theta[None])
        return Refit(found, values[0], density.log_policies(values)[0])


class _Along:
    """The log likelihood of a panel along a flow, in a world that is recorded."""

    def __init__(
        self, model: TrajectoryModel, world: World, panel: Panel, flow: np.ndarray
    ) -> None:
        T, S, A = model.game.shape
        density = density_of(model)
        self.forward, self.pullback = density.compiled.stages()
        self.world, self.heat = world, model.game.temperature
        self.flow = np.ascontiguousarray(flow.reshape(T, -1))
        counts = model.likelihood_of(panel, model.likelihood.transition).counts.actions
        self.counts = np.ascontiguousarray(counts)
        self.acted = self.counts > 0
        self.unmoved = np.zeros((len(world.arrays.moves.ends) - 1, S, S * A))
        self.still = np.zeros_like(self.flow)

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the log likelihood and its gradient at unconstrained parameters."""
        self.world.put(self.forward(theta)[2:].copy())
        image = self.world.image(self.flow, self.heat)
        with np.errstate(divide="ignore"):
            value = float(self.counts[self.acted] @ np.log(image.policy[self.acted]))
        slopes = self.world.pull(
            image, self.heat, counts=self.counts, weights=self.still, moved=self.unmoved
        )
        if slopes is None or not np.isfinite(value):
            return -np.inf, np.zeros_like(theta)
        return value, self.pullback(np.concatenate([[0.0, 0.0], slopes[1]])).copy()

    def outcome(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return constrained parameters and the log policy at unconstrained ones."""
        values = self.forward(theta)[2:].copy()
        self.world.put(values)
        with np.errstate(divide="ignore"):
            return values, np.log(self.world.image(self.flow, self.heat).policy)

"""The coupled likelihood along flows that one Newton step gives, in place of equilibria.

At a point `(theta_k, mu)`, with F the flow that the soft best response to a flow generates,

    U(theta) = mu + (I - F_mu)^-1 (F(theta, mu) - mu)

is where the linearised response puts the crowd. Its derivatives at an equilibrium are those of the
equilibrium itself. With `lambda = (I - F_mu)'^-1 dL/dU`,

    dL(theta, U(theta))/dtheta = L_theta + lambda' F_theta.
"""

import functools

import numpy as np
import pyro
import torch

from mfgppl.density.anchor import Counted
from mfgppl.density.compiled_program import Compiled
from mfgppl.density.sizes import Effects
from mfgppl.equilibrium.flat_flows import Array, as_shares, uniform_flow
from mfgppl.equilibrium.iterations import Budget, find_fixed_point
from mfgppl.equilibrium.linearisation import AnyResponseMap, FlowMap, inverse, response_map_of
from mfgppl.equilibrium.response import soft_response
from mfgppl.equilibrium.response_map import ResponseMap
from mfgppl.exceptions import ConvergenceError
from mfgppl.likelihood.coupled import CoupledLikelihood, log_likelihood_along
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import bind, double_precision, spread_reward

STEP = 1e-4  # of central differences of the gradient, in the units given


class Climbed:
    """What stays the same from one tangent to the next.

    Parameters
    ----------
    model : TrajectoryModel
        With mean_field="equilibrium".
    program : Program
        Its reward program.
    compiled : Compiled
        The program with the parameters as its core and without its prior.
    effects : Effects
        What parameters do to rewards.
    theta : ndarray, shape (K,)
        Unconstrained parameters at which reward and dynamics are recorded.
    """

    def __init__(
        self,
        model: TrajectoryModel,
        program: Program,
        compiled: Compiled,
        effects: Effects,
        theta: Array,
    ) -> None:
        assert isinstance(model.law, CoupledLikelihood)
        self.model, self.law, self.program = model, model.law, program
        self.effects, self.counted = effects, Counted(model.law)
        self._forward, self._pullback = compiled.stages()
        self._moving = self.response_map(self.values(theta))
        self.no_counts = np.zeros(model.game.shape)
        self.no_moves = np.zeros_like(self.counted.moves)
        flow = uniform_flow(model.game)
        self.recorded = self._moving.recorded and self._differentiates(flow)

    def values(self, theta: Array) -> Array:
        """Return constrained parameters (P,)."""
        return self._forward(theta)[2:].copy()

    def gradient(self, slope: Array) -> Array:
        """Return the slope (K,) in unconstrained parameters, once, at the point asked for last."""
        return self._pullback(np.concatenate([[0.0, 0.0], slope])).copy()

    def sizes(self, theta: Array) -> Array:
        """Return the root of the largest information that each parameter can have (K,)."""
        rows = []
        for unit in np.eye(len(self.values(theta))):
            self.values(theta)
            rows.append(self.gradient(unit))
        return self.effects.sizes(np.array(rows))

    def put(self, values: Array) -> ResponseMap:
        """Return the world at constrained parameters (P,), where it is recorded."""
        assert isinstance(self._moving, ResponseMap)
        self._moving.put(values)
        return self._moving

    def response_map(self, values: Array) -> AnyResponseMap:
        """Return a world of its own at constrained parameters (P,)."""
        sites = self.program.by_site(values)
        return response_map_of(self.model.game, self.model.reward, sites)

    def _differentiates(self, flow: Array) -> bool:
        assert isinstance(self._moving, ResponseMap)
        temperature = self.model.game.temperature
        image = self._moving.image(flow, temperature)
        found = self._moving.pull(
            image,
            temperature,
            counts=self.no_counts,
            weights=np.zeros_like(flow),
            moved=self.no_moves,
        )
        return found is not None


class AlongTangent:
    """The log likelihood along `U(theta)` over unconstrained parameters, with two derivatives.

    Parameters
    ----------
    world : Climbed
        Model and program.
    theta : ndarray, shape (K,)
        Unconstrained parameters at which the response is linearised.
    flow : ndarray, shape (T, F)
        The flow at which it is.
    units : ndarray, shape (K,)
        Step of each parameter that is of order one.

    Attributes
    ----------
    residual : float
        Largest difference of a share between the flow and the one that its response generates.

    Raises
    ------
    ValueError
        If reward or dynamics are not defined along the flow.
    """

    def __init__(self, world: Climbed, theta: Array, flow: Array, units: Array) -> None:
        self.world, self.flow, self.units = world, flow, units
        self.temperature = world.model.game.temperature
        self._response_map = world.response_map(world.values(theta))
        with np.errstate(all="ignore"):
            self._image = self._response_map.image(flow, self.temperature)
            self.residual = self._image.residual

    @functools.cached_property
    def _solves(self) -> tuple[FlowMap, FlowMap]:
        return inverse(self._response_map, self._image, self.temperature, often=True)

    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        """Return the log likelihood and its gradient; -inf where it is not finite."""
        with np.errstate(all="ignore"):
            values = self.world.values(theta)
            at = self.by_kernels if self.world.recorded else self.by_autograd
            value, slope = at(values) if np.isfinite(values).all() else (-np.inf, values)
            if not (np.isfinite(value) and np.isfinite(slope).all()):
                return -np.inf, np.zeros_like(theta)
            return value, self.world.gradient(slope)

    def second_derivatives(self, theta: Array) -> Array:
        """Return second derivatives (K, K), by central differences of the gradient."""
        rows = []
        for along in np.diag(STEP * self.units):
            (up, above), (down, below) = (
                self.value_and_gradient(theta + s * along) for s in (1, -1)
            )
            finite = np.isfinite(up) and np.isfinite(down)
            rows.append(
                (above - below) / (2 * along.sum()) if finite else np.full_like(theta, np.nan)
            )
        found = np.array(rows)
        return 0.5 * (found + found.T)

    def sizes(self, theta: Array) -> Array:
        """Return the root of the largest information that each parameter can have (K,)."""
        return self.world.sizes(theta)

    def reached(self, theta: Array) -> Array:
        """Return the flow (T, F) along which parameters are judged."""
        values, world = self.world.values(theta), self.world
        response_map = world.put(values) if world.recorded else world.response_map(values)
        return self._moved(response_map.image(self.flow, self.temperature).generated)

    def answered(self, other: "AlongTangent") -> float:
        """Return the log likelihood at another point, its flow moved by one more step.

        With this point's linear response: it is near that of the equilibrium there.
        """
        generated = other._image.generated
        with np.errstate(all="ignore"):
            flow = other.flow + self._solves[0](generated - other.flow)
            return other.height(flow)

    def height(self, flow: Array) -> float:
        """Return the log likelihood along a flow at this point's parameters, if only as NaN."""
        world, response_map = self.world, self._response_map
        try:
            image = response_map.image(flow, self.temperature)
            if isinstance(response_map, ResponseMap) and response_map.recorded:
                return world.counted.evidence(image, response_map).value
            value = world.counted.actions(image)
            if world.law.moves is not None:
                along = torch.from_numpy(flow.copy()).reshape(world.model.game.flow_shape)
                value += float(world.law.log_moves(world.model.game.transition_along(along)))
        except ValueError:  # along a flow beyond shares
            return -np.inf
        return value

    def settled(self, budget: Budget) -> Array:
        """Return the flow (T, F) nearest to an equilibrium at this point's parameters."""
        return find_fixed_point(
            self._response_map, as_shares(self.flow), self.temperature, budget
        ).image.flow

    def by_kernels(self, values: Array) -> tuple[float, Array]:
        """Return the log likelihood at constrained parameters (P,) and its slope in them."""
        world, response_map = self.world, self.world.put(values)
        here = response_map.image(self.flow, self.temperature)
        there = response_map.image(self._moved(here.generated), self.temperature)
        value, _, moves, _ = world.counted.evidence(there, response_map)
        pull = functools.partial(response_map.pull, temperature=self.temperature)
        found = pull(
            there, counts=world.counted.counts, weights=np.zeros_like(self.flow), moved=moves
        )
        if found is None or not np.isfinite(value):
            return -np.inf, np.zeros_like(values)
        worth = self._solves[1](found[0])
        back = pull(here, counts=world.no_counts, weights=worth, moved=world.no_moves)
        assert back is not None
        return value, found[1] + back[1]

    def by_autograd(self, values: Array) -> tuple[float, Array]:
        """Return the same by autograd: the plain twin, and what runs if nothing is recorded."""
        model, law = self.world.model, self.world.law
        game, shape = model.game, model.game.flow_shape
        at = torch.from_numpy(values.copy()).requires_grad_(True)
        program = bind(model.reward, self.world.program.by_site(at))
        known = torch.from_numpy(self.flow.copy()).reshape(shape)
        try:
            with double_precision(), pyro.validation_enabled(False):
                answer = soft_response(game, program, known, temperature=self.temperature)
                moved = self._moved(answer.mean_field.detach().numpy().reshape(self.flow.shape))
                flow = torch.from_numpy(moved).reshape(shape).requires_grad_(True)
                reward = model.masked(spread_reward(program, RewardInputs(game, flow)))
                value = log_likelihood_along(law, reward, game.transition_along(flow))
                direct, by_flow = torch.autograd.grad(value, [at, flow], allow_unused=True)
                slope = torch.zeros_like(at) if direct is None else direct
                if by_flow is not None and answer.mean_field.requires_grad:
                    worth = self._solves[1](by_flow.numpy().reshape(self.flow.shape))
                    weighed = (answer.mean_field * torch.from_numpy(worth).reshape(shape)).sum()
                    slope = slope + torch.autograd.grad(weighed, at)[0]
        except (ConvergenceError, ValueError):  # along a flow beyond shares
            return -np.inf, np.zeros_like(values)
        return float(value.detach()), slope.numpy()

    def _moved(self, generated: Array) -> Array:
        return self.flow + self._solves[0](generated - self.flow)

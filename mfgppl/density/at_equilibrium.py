"""The density of a coupled model: at each point the equilibrium is solved for, and differentiated.

With `mu(theta)` the flow that its own response F generates, and lambda the worth of a change of it,

    (I - F_mu)' lambda = dL/dmu,      dL/dtheta = L_theta + lambda' F_theta

slopes by one sweep backwards (`ResponseMap.pull`), lambda by another (`Sweeps.weighed`) or by
iteration. The search begins at one anchor, the equilibrium at the posterior's mode, itself reached
from the observed flow, so that the density is a function of
the parameters alone. Where a game has several equilibria, it is that of the one reached from the
anchor. Flows are over the kinds of agents too, where these are not seen: each kind is a type of the
game that is solved, and its start moves with the parameters.
"""

import copy
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import pyro
import torch
from torch import Tensor

from mfgppl._keep import Keeper, kept
from mfgppl._kernels import bridge
from mfgppl._quasi_newton import maximise
from mfgppl.density.anchor import BUDGET, Anchor, Search, by_node, counted, linearise
from mfgppl.density.compiled_program import Compiled, compile_program, weighted_terms
from mfgppl.density.plug_in_mode import plug_in_mode
from mfgppl.density.protocol import TOLERANCE, Certificates
from mfgppl.equilibrium.fixed_point import (
    MAX_STEPS,
    SAME,
    distinct_ends,
    end_of_search,
    solve_equilibrium,
)
from mfgppl.equilibrium.flat_flows import Array, flat_shape, uniform_flow
from mfgppl.equilibrium.images import Image
from mfgppl.equilibrium.iterations import Budget, anderson, find_fixed_point
from mfgppl.equilibrium.linearisation import inverse
from mfgppl.equilibrium.recording import pushed_forward
from mfgppl.equilibrium.response_map import ResponseMap
from mfgppl.exceptions import CompilationWarning, ConvergenceError
from mfgppl.likelihood.coupled import CoupledLikelihood, log_likelihood_along, tables_along
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import double_precision

STEP = 1e-3  # of central differences, in the parameters' units
AROUND = (1, -1, 2, -2)  # steps of those of fourth order
SEARCHES = 20  # for other equilibria at the anchor


@kept
def compiled_parameters(model: TrajectoryModel) -> tuple[Program, Compiled]:
    """Return a coupled model's reward program, and it compiled with its parameters as its core."""
    program = Program(model.reward, model.inputs)
    return program, compile_program(program, coupled=True)


class CoupledDensity(Keeper):
    """The log density of a coupled model over unconstrained parameters.

    Parameters
    ----------
    model : TrajectoryModel
        With mean_field="equilibrium".
    law : CoupledLikelihood or KindsLikelihood
        Its law of trajectories.
    theta : ndarray, shape (K,)
        Unconstrained parameters from which the posterior's mode is sought.
    units : ndarray, shape (K,)
        Step of each that is of order one.
    flow : Tensor, shape (T, S), or (T, S, A) in a joint game, optional
        A flow of all agents together from which the equilibrium at `theta` is reached: the anchor
        is then there. By default it is at the posterior's mode.

    Attributes
    ----------
    n_dim : int
        Number of unconstrained parameters.
    path : str
        "coupled", or "eager" where reward or dynamics cannot be recorded and autograd runs the
        program itself.
    """

    is_native = False

    def __init__(
        self,
        model: TrajectoryModel,
        law: CoupledLikelihood | KindsLikelihood,
        theta: Array,
        units: Array,
        *,
        flow: Tensor | None = None,
    ) -> None:
        self.model, self.law, self.units = model, law, units
        self.population = model.population
        self.program, self.compiled = compiled_parameters(model)
        self.n_dim = self.program.n_dim
        start = model.mean_field if flow is None else flow
        self.anchor = self._anchor(theta, self.population.spread(start))
        self._local = threading.local()  # one search per thread, as it writes to its own arrays
        if flow is None:
            self._move_to_mode()
        recorded = self._search() is not None and self.compiled.tape is not None
        self.path = "coupled" if recorded else "eager"
        if not recorded and not model.game.stationary and self.compiled.tape is not None:
            warnings.warn(
                "the game's reward or dynamics cannot be recorded; each equilibrium is solved and "
                "differentiated by running them as Python, which is slower: compute both in torch, "
                "without branches on values.",
                CompilationWarning,
                stacklevel=4,
            )

    @classmethod
    def of_model(cls, model: TrajectoryModel, *, progressbar: bool = False) -> "CoupledDensity":
        """Return the density of a model that solves for its flow, begun at the plug-in mode."""
        assert isinstance(model.law, (CoupledLikelihood, KindsLikelihood))
        return cls(model, model.law, *plug_in_mode(model, progressbar=progressbar))

    def for_model(self, model: TrajectoryModel) -> "CoupledDensity":
        """Return the density of a model with the same game and program, of another panel."""
        assert isinstance(model.law, (CoupledLikelihood, KindsLikelihood))
        density = copy.copy(self)
        density.model, density.law = model, model.law
        return density

    def start(self, random_seed: int) -> Array:
        """Return the anchor's unconstrained parameters (K,)."""
        return self.anchor.theta

    def native(self, *, prior: float = 1.0, jacobian: float = 1.0) -> None:
        """Return nothing: the search runs in Python."""

    def evaluator(self, *, prior: float = 1.0, jacobian: float = 1.0) -> bridge.Evaluator:
        """Return theta to (log density, gradient), in a workspace of its own.

        Minus infinity where no equilibrium is found. Weights as of `LogDensity.evaluator`.
        """
        compiled = self.compiled
        if not prior and self.program.has_factors:
            compiled = compile_program(self.program, coupled=True, prior=False)
        weights = np.array([prior, jacobian])
        forward, pullback = compiled.stages()
        law = counted(self.law)
        search = self._search()

        def evaluate(theta: Array) -> tuple[float, Array]:
            outputs = forward(theta)
            outside = weighted_terms(weights, outputs)
            values = outputs[2:].copy()
            value, slope = self.by_autograd(values) if search is None else search.climb(law, values)
            if not np.isfinite(value):
                return -np.inf, np.zeros_like(theta)
            gradient = pullback(np.concatenate([weights, slope]))
            return value + outside, gradient

        return evaluate

    def constrained(self, points: Array) -> Array:
        """Return flat constrained parameters (N, P) at unconstrained points (N, n_dim)."""
        forward, _ = self.compiled.stages()
        return np.stack([forward(point)[2:].copy() for point in points])

    def record(self, points: Array) -> list[dict[str, Array]]:
        """Return constrained values, deterministics and log priors by site at points (N, n_dim).

        Deterministics are those along each point's own equilibrium, NaN where there is none.
        """
        flows = [self._summed(image) for image in self.images(self.constrained(points))]
        rows = np.hstack([points, np.reshape(flows, (len(points), -1))])
        return self.compiled.by_group(rows)

    def images(self, values: Array) -> list[Image]:
        """Return the equilibria at flat constrained parameters (N, P), NaN where none is found."""
        search = self._search()
        if search is None:
            return [self._equilibrium_at(row) for row in values]
        images = [search.at(row) for row in values]
        return [self._nothing if image is None else image for image in images]

    def rewards(self, values: Array) -> Array:
        """Return reward tables (N, T, S, A) at flat constrained parameters (N, P).

        With agent-level sites they are all that the law reads, (N, 1, 1, n).
        """
        if isinstance(self.law, KindsLikelihood):
            rows = [np.concatenate([part.ravel() for part in part]) for part in self._each(values)]
            return np.reshape(rows, (len(values), *self.law.core_shape))
        return np.stack([image.reward for image in self.images(values)])

    def log_policies(self, values: Array) -> Array:
        """Return log policies (N, T, S, A) at flat constrained parameters (N, P)."""
        if isinstance(self.law, KindsLikelihood):
            return self.law.log_policy(self.rewards(values))
        return self.tables(values)[0]

    def flows(self, values: Array) -> Array:
        """Return the flows of all agents at flat constrained parameters, as a model takes them."""
        flows = np.stack([self._summed(image) for image in self.images(values)])
        return flows.reshape(len(values), *self.model.game.flow_shape)

    def tables(self, values: Array) -> tuple[Array, ...]:
        """Return the tables (N, ...) whose entries trajectories add up, at values (N, P)."""
        return tuple(np.stack(tables) for tables in zip(*self._each(values), strict=True))

    def _each(self, values: Array) -> list[tuple[Array, ...]]:
        """Return the tables at each point."""
        pairs = zip(values, self.images(values), strict=True)
        return [self.tables_of(image, row) for row, image in pairs]

    def tables_of(self, image: Image, values: Array) -> tuple[Array, ...]:
        """Return the tables along one equilibrium: of kinds, policies and log shares of each."""
        with np.errstate(divide="ignore"):
            tables: tuple[Array, ...] = (np.log(image.policy),)
            if isinstance(self.law, KindsLikelihood):
                shares = self.population.log_shares(self.program.by_site(values))
                tables = by_node(tables[0], self.law.n_nodes), shares.numpy()
            if self.law.moves is None:
                return tables
            return *tables, np.log(self._transition(self._summed(image)).numpy())

    def _summed(self, image: Image) -> Array:
        """Return the flow (T, F) of all agents together."""
        flow = torch.from_numpy(image.flow.copy()).reshape(self.population.game.flow_shape)
        return self.population.summed(flow).numpy().reshape(len(image.flow), -1)

    def heights(self, values: Array) -> Array:
        """Return log likelihoods (N,) at flat constrained parameters (N, P)."""
        search, law = self._search(), counted(self.law)
        if search is None:
            return np.array([self.by_autograd(row)[0] for row in values])
        return np.array([search.climb(law, row)[0] for row in values])

    def second_derivatives(self, theta: Array, *, prior: float, jacobian: float) -> Array:
        """Return second derivatives (K, K): central differences, of fourth order, of the gradient.

        NaN where an equilibrium nearby is not found.
        """
        evaluate = self.evaluator(prior=prior, jacobian=jacobian)

        def slope(point: Array) -> Array:
            value, gradient = evaluate(point)
            return gradient.copy() if np.isfinite(value) else np.full(len(theta), np.nan)

        rows = []
        for along in np.diag(self._steps(theta)):
            four = (slope(theta + k * along) for k in AROUND)
            rows.append(_slope(*four, step=along.sum()))
        hessian = np.array(rows)
        return 0.5 * (hessian + hessian.T)

    def _steps(self, theta: Array) -> Array:
        """Return the steps (K,) of central differences."""
        return STEP * np.maximum(self.units, np.abs(theta))

    def table_slopes(self, theta: Array) -> Iterator[tuple[Array, ...]]:
        """Yield the slopes of the tables in each unconstrained parameter, the flow's among them.

        By central differences of fourth order where equilibria are quickly found; NaN where there
        is none.
        """
        if self._search() is not None:
            steps = np.diag(self._steps(theta))
            points = [theta + k * along for along in steps for k in AROUND]
            values = self.constrained(np.array(points))
            images = self.images(values)
            if all(np.isfinite(image.residual) for image in images):
                tables = [self.tables_of(*pair) for pair in zip(images, values, strict=True)]
                for k, step in enumerate(np.diag(steps)):
                    four = tables[4 * k : 4 * k + 4]
                    slopes = [_slope(*each, step=step) for each in zip(*four, strict=True)]
                    yield tuple(np.where(np.isfinite(slope), slope, 0.0) for slope in slopes)
                return
        yield from self._slopes_by_program(theta)

    def _slopes_by_program(self, theta: Array) -> Iterator[tuple[Array, ...]]:
        """Yield the same by derivatives of the program, which is slower."""
        game, crowd, program = self.model.game, self.population, self.program
        shape, values = crowd.game.flow_shape, self.constrained(theta[None])[0]
        (image,) = self.images(values[None])
        if not np.isfinite(image.residual):
            yield from [self.tables_of(image, values)] * len(theta)
            return
        response_map = crowd.response_map(program.by_site(values))
        along_flow = inverse(response_map, image, game.temperature)[0]
        flow = torch.from_numpy(image.flow.copy()).reshape(shape)

        def generated(free: Tensor) -> Tensor:
            return crowd.response(program.run(program.split(free)).values, flow).mean_field

        def tables(free: Tensor, along: Tensor) -> tuple[Tensor, ...]:
            met = crowd.summed(along)
            core = program.run(program.split(free), mean_field=met).reward
            return tables_along(self.law, core, game.transition_along(met))

        point = torch.from_numpy(theta.copy())
        for along in torch.eye(len(theta), dtype=torch.float64):
            with double_precision(), pyro.validation_enabled(False):
                moved = pushed_forward(generated, point, along).detach().numpy()
                change = torch.from_numpy(along_flow(moved.reshape(image.flow.shape)))
                slopes = torch.func.jvp(tables, (point, flow), (along, change.reshape(shape)))[1]
            yield tuple(slope.nan_to_num(0.0).detach().numpy() for slope in slopes)

    def certificates(self, values: Array) -> Certificates:
        """Look at each point (N, P) for other equilibria, from where the anchor knows to begin."""
        rows, search = [], self._search()
        temperature = self.model.game.temperature
        for row, image in zip(values, self.images(values), strict=True):
            flows = [image.flow] if image.residual <= TOLERANCE else []
            if search is None:
                response_map = self.population.response_map(self.program.by_site(row))
            else:
                response_map = search.put(row)
            for start in self.anchor.others:
                other = anderson(response_map, start, temperature, BUDGET).image
                new = all(np.abs(other.flow - flow).max() > SAME for flow in flows)
                flows += [other.flow] if other.residual <= TOLERANCE and new else []
            rows.append((image.residual, len(flows)))
        residual, n = zip(*rows, strict=True)
        return Certificates(np.array(residual), np.array(n))

    @property
    def _nothing(self) -> Image:
        game = self.population.game
        T, S, A = game.shape
        flow, table = np.full(flat_shape(game), np.nan), np.full((T, S, A), np.nan)
        return Image(flow, flow, table, table, np.full((T, S), np.nan))

    def _transition(self, flow: Array) -> Tensor:
        game = self.model.game
        if np.isnan(flow).any():
            return torch.full(tuple(self.law.transition.shape), torch.nan)
        with double_precision(), torch.no_grad():
            return game.transition_along(torch.from_numpy(flow.copy()).reshape(game.flow_shape))

    def _move_to_mode(self) -> None:
        """Put the anchor at the posterior's mode, along the equilibria between."""
        theta = maximise(self.evaluator(), self.anchor.theta, units=self.units).point
        (image,) = self.images(self.constrained(theta[None]))
        if np.isfinite(image.residual):
            flow = torch.from_numpy(image.flow.copy()).reshape(self.population.game.flow_shape)
            self.anchor = self._anchor(theta, flow)
            self._local = threading.local()

    def _anchor(self, theta: Array, start: Tensor) -> Anchor:
        """Return the equilibrium at a point, reached from a flow."""
        values = self.constrained(theta[None])[0]
        sites = self.program.by_site(values)
        response_map = self.population.response_map(sites)
        game, budget = response_map.game, Budget(TOLERANCE, MAX_STEPS)
        flow = start.numpy().reshape(flat_shape(game)).copy()
        own = end_of_search(response_map, flow, budget).image
        image = own if own.residual <= TOLERANCE else response_map.image(flow, game.temperature)
        known, _ = distinct_ends(response_map, SEARCHES, np.random.default_rng(0), budget)
        others = [
            end.image.flow for end in known if np.abs(end.image.flow - image.flow).max() > SAME
        ]
        others = [uniform_flow(game), *others]
        system, tangent = linearise(response_map, image, values, self.program, self.population)
        return Anchor(theta, values, image.flow, tangent, system, others)

    def _search(self) -> Search | None:
        """Return this thread's search; None where the response map is not recorded."""
        if not hasattr(self._local, "search"):
            self._local.search = self._new_search()
        search: Search | None = self._local.search
        return search

    def _new_search(self) -> Search | None:
        sites = self.program.by_site(self.anchor.values)
        response_map = self.population.response_map(sites)
        if not isinstance(response_map, ResponseMap) or not response_map.recorded:
            return None
        search = Search(response_map, self.anchor)
        return search if search.differentiates() else None

    def _equilibrium_at(self, values: Array) -> Image:
        """Return the equilibrium at a point where the response map is not recorded."""
        response_map = self.population.response_map(self.program.by_site(values))
        temperature = self.model.game.temperature
        image = find_fixed_point(response_map, self.anchor.flow, temperature, BUDGET).image
        return image if image.residual <= TOLERANCE else self._nothing

    def by_autograd(self, values: Array) -> tuple[float, Array]:
        """Return the log likelihood at constrained parameters (P,) and its slope in them.

        By autograd through the solution: the plain twin, and what runs where nothing is recorded.
        """
        game, crowd = self.model.game, self.population
        at = torch.from_numpy(values.copy()).requires_grad_(True)
        start = torch.from_numpy(self.anchor.flow.copy()).reshape(crowd.game.flow_shape)
        sites = self.program.by_site(at)
        with double_precision(), pyro.validation_enabled(False):
            try:
                solution = solve_equilibrium(
                    crowd.at(sites), crowd.reward, parameters=sites, mean_field=start,
                    tolerance=TOLERANCE, max_steps=BUDGET.max_steps, throw=True,
                )  # fmt: skip
            except (ConvergenceError, ValueError):
                return -np.inf, np.zeros_like(values)
            core, flow = solution.value.reward, solution.value.mean_field
            if isinstance(self.law, KindsLikelihood):
                T, _, A = core.shape
                tables = core.reshape(T, self.law.n_nodes, -1, A).transpose(0, 1)
                parts = tables.reshape(-1), crowd.log_shares(sites).reshape(-1)
                core = torch.cat(parts)[None, None]
            transition = game.transition_along(crowd.summed(flow))
            value = log_likelihood_along(self.law, core, transition)
            (slope,) = torch.autograd.grad(value, at)
        return float(value.detach()), slope.numpy()


def _slope(
    ahead: Array, behind: Array, farther: Array, farther_behind: Array, *, step: float
) -> Array:
    """Return the slope of an array by its values `AROUND` a point, with an error of step**4."""
    with np.errstate(invalid="ignore"):
        found: Array = (8 * (ahead - behind) - (farther - farther_behind)) / (12 * step)
    return found

"""The density of a coupled model: at each point the equilibrium is solved for, and differentiated.

With `mu(theta)` the flow that its own response F generates, and lambda the worth of a change of it,

    (I - F_mu)' lambda = dL/dmu,      dL/dtheta = L_theta + lambda' F_theta

both by one sweep backwards (`World.pull`). Steps towards the flow, and towards lambda, use the
factored `I - F_mu` of one anchor, the equilibrium at the posterior's mode, itself reached from the
flow observed. The search begins on the anchor's tangent, so that the density is a function of the
parameters alone, also where a game has several equilibria: it is that of the one which is reached
from the anchor.
"""

import functools
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyro
import scipy.linalg
import scipy.optimize
import scipy.sparse.linalg
import torch
from torch import Tensor

from mfgppl._kernels import bridge
from mfgppl._kernels.dynamics import Dense
from mfgppl.equilibrium.fixed_point import SAME, find_equilibria, solve_equilibrium
from mfgppl.equilibrium.iterations import Budget, anderson, as_shares, settled
from mfgppl.equilibrium.recording import pushed_forward
from mfgppl.equilibrium.response import soft_response
from mfgppl.equilibrium.world import Array, Image, World, flat_shape, uniform_flow
from mfgppl.equilibrium.worlds import LARGEST_SYSTEM, AnyWorld, inverse, world_of
from mfgppl.exceptions import CompilationWarning, ConvergenceError
from mfgppl.inference.compilation import compile_program
from mfgppl.inference.program import Program
from mfgppl.likelihood.coupled import CoupledLikelihood
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reward.program import bind, double_precision

EXACT, TOLERANCE = 1e-13, 1e-11  # residuals that a search aims at, and that it must reach
ACCURATE = 1e-12  # of lambda, relative
MOST_STEPS, SLOWEST = 12, 0.3  # with the anchor's factors alone, before these are but a help
BUDGET = Budget(TOLERANCE, 300)
FARTHEST = 0.5  # change of a share beyond which the anchor's tangent says nothing
STEP = 1e-3  # of central differences of the gradient, in units of each parameter
SEARCHES = 20  # for other equilibria at the anchor


class Anchor(NamedTuple):
    """An equilibrium from which others are sought.

    Attributes
    ----------
    theta : ndarray, shape (K,)
        Unconstrained parameters.
    values : ndarray, shape (P,)
        Constrained parameters.
    flow : ndarray, shape (T, F)
        The flow.
    tangent : ndarray, shape (P, T, F)
        Its slopes in the constrained parameters.
    factors : tuple of ndarray, or None
        LU of `I - F_mu`; None where that is too large, or the world is not recorded.
    others : list of ndarray
        Where else a search may begin: other equilibria, and the crowd that stays where it began.
    """

    theta: Array
    values: Array
    flow: Array
    tangent: Array
    factors: tuple[Array, Array] | None
    others: list[Array]


class Certificates(NamedTuple):
    """What is known of the equilibria at some parameters.

    Attributes
    ----------
    residual : ndarray, shape (N,)
        Largest change of a share under one more response.
    n_equilibria : ndarray of int, shape (N,)
        Distinct ones met from several starts; 0 where none was found.
    """

    residual: Array
    n_equilibria: Array


class CoupledDensity:
    """The log density of a coupled model over unconstrained parameters.

    Parameters
    ----------
    model : TrajectoryModel
        With mean_field="equilibrium".
    theta : ndarray, shape (K,)
        Unconstrained parameters from which the posterior's mode is sought.

    Attributes
    ----------
    n_dim : int
        Number of unconstrained parameters.
    path : str
        "coupled", or "eager" where reward or dynamics cannot be recorded and autograd runs the
        program itself.
    """

    is_native = False

    def __init__(self, model: TrajectoryModel, theta: Array) -> None:
        self.model = model
        self.program = Program(model)
        self.n_dim = self.program.n_dim
        self.compiled = compile_program(self.program, coupled=True)
        self.anchor = self._anchor(theta, model.mean_field)
        self._local = threading.local()  # a search a thread, as it writes to its own arrays
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

    def native(self, *, prior: float = 1.0, jacobian: float = 1.0) -> None:
        """Return nothing: the search runs in Python."""

    def evaluator(self, *, prior: float = 1.0, jacobian: float = 1.0) -> bridge.Evaluator:
        """Return theta to (log density, gradient), in a workspace of its own.

        Minus infinity where no equilibrium is found. Weights as of `Density.evaluator`.
        """
        forward, pullback = self.compiled.stages()
        law = _Law(self.model)
        search = self._search()

        def evaluate(theta: Array) -> tuple[float, Array]:
            found = forward(theta)
            log_prior, log_jacobian = found[:2].tolist()
            values = found[2:].copy()
            value, slope = self.by_autograd(values) if search is None else search.climb(law, values)
            if not np.isfinite(value):
                return -np.inf, np.zeros_like(theta)
            gradient = pullback(np.concatenate([[prior, jacobian], slope]))
            return value + prior * log_prior + jacobian * log_jacobian, gradient

        return evaluate

    def constrained(self, points: Array) -> Array:
        """Return flat constrained parameters (N, P) at unconstrained points (N, n_dim)."""
        forward, _ = self.compiled.stages()
        return np.stack([forward(point)[2:].copy() for point in points])

    def record(self, points: Array) -> list[dict[str, Array]]:
        """Return constrained values, deterministics and log priors by site at points (N, n_dim).

        Deterministics are those along each point's own equilibrium, NaN where there is none.
        """
        flows = [image.flow for image in self.images(self.constrained(points))]
        rows = np.hstack([points, np.reshape(flows, (len(points), -1))])
        return self.compiled.by_group(rows)

    def images(self, values: Array) -> list[Image]:
        """Return the equilibria at flat constrained parameters (N, P), NaN where none is found."""
        search = self._search()
        if search is None:
            return [self._solved(row) for row in values]
        found = [search.at(row) for row in values]
        return [self._nothing if image is None else image for image in found]

    def rewards(self, values: Array) -> Array:
        """Return reward tables (N, T, S, A) at flat constrained parameters (N, P)."""
        return np.stack([image.reward for image in self.images(values)])

    def log_policies(self, values: Array) -> Array:
        """Return log policies (N, T, S, A) at flat constrained parameters (N, P)."""
        return self.tables(values)[0]

    def tables(self, values: Array) -> tuple[Array, ...]:
        """Return the tables (N, ...) whose entries trajectories add up, at values (N, P)."""
        found = [self.tables_of(image) for image in self.images(values)]
        return tuple(np.stack(tables) for tables in zip(*found, strict=True))

    def tables_of(self, image: Image) -> tuple[Array, ...]:
        """Return the tables along one equilibrium."""
        with np.errstate(divide="ignore"):
            if self._likelihood.moves is None:
                return (np.log(image.policy),)
            return np.log(image.policy), np.log(self._transition(image.flow).numpy())

    def heights(self, values: Array) -> Array:
        """Return log likelihoods (N,) at flat constrained parameters (N, P)."""
        search, law = self._search(), _Law(self.model)
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
        for along in np.diag(STEP * np.maximum(1.0, np.abs(theta))):
            near, far = (slope(theta + k * along) - slope(theta - k * along) for k in (1, 2))
            rows.append((8 * near - far) / (12 * along.sum()))
        found = np.array(rows)
        return 0.5 * (found + found.T)

    def table_slopes(self, theta: Array) -> Iterator[tuple[Array, ...]]:
        """Yield the slopes of the tables in each unconstrained parameter, the flow's among them.

        NaN where no equilibrium is found.
        """
        game, program, shape = self.model.game, self.program, self.model.game.flow_shape
        values = self.constrained(theta[None])[0]
        (image,) = self.images(values[None])
        if not np.isfinite(image.residual):
            yield from [self.tables_of(image)] * len(theta)
            return
        world = world_of(game, self.model.reward, program.by_site(values))
        world.image(image.flow, game.temperature)
        along_flow = inverse(world, image, game.temperature)[0]
        flow = torch.from_numpy(image.flow.copy()).reshape(shape)

        def generated(free: Tensor) -> Tensor:
            given = bind(self.model.reward, program.run(program.split(free)).values)
            return soft_response(game, given, flow, temperature=game.temperature).mean_field

        def tables(free: Tensor, along: Tensor) -> tuple[Tensor, ...]:
            reward = program.run(program.split(free), mean_field=along).reward
            return self._likelihood.tables(reward, game.transition_along(along))

        point = torch.from_numpy(theta.copy())
        for along in torch.eye(len(theta), dtype=torch.float64):
            with double_precision(), pyro.validation_enabled(False):
                moved = pushed_forward(generated, point, along).detach().numpy()
                change = torch.from_numpy(along_flow(moved.reshape(image.flow.shape)))
                found = torch.func.jvp(tables, (point, flow), (along, change.reshape(shape)))[1]
            yield tuple(slope.nan_to_num(0.0).detach().numpy() for slope in found)

    def certificates(self, values: Array) -> Certificates:
        """Look at each point (N, P) for other equilibria, from where the anchor knows to begin."""
        game, found, search = self.model.game, [], self._search()
        for row, image in zip(values, self.images(values), strict=True):
            flows = [image.flow] if image.residual <= TOLERANCE else []
            if search is None:
                world = world_of(game, self.model.reward, self.program.by_site(row))
            else:
                world = search.put(row)
            for start in self.anchor.others:
                other = anderson(world, start, game.temperature, BUDGET).image
                new = all(np.abs(other.flow - flow).max() > SAME for flow in flows)
                flows += [other.flow] if other.residual <= TOLERANCE and new else []
            found.append((image.residual, len(flows)))
        residual, n = zip(*found, strict=True)
        return Certificates(np.array(residual), np.array(n))

    def messages(self, found: Certificates) -> list[str]:
        """Return what speaks against the equilibria of draws, or of a point; empty if nothing."""
        n, several = len(found.residual), int((found.n_equilibria > 1).sum())
        none = int((~(found.residual <= TOLERANCE)).sum())
        at = f"at {{}} of {n} draws" if n > 1 else "at the estimate"
        messages = []
        if none:
            messages.append(
                f"no equilibrium is found {at.format(none)}: the fitted game has none that is "
                "reached from the flow observed."
            )
        if several:
            messages.append(
                f"the game has several equilibria {at.format(several)}; the likelihood is that of "
                "the one reached from the flow observed, and intervals do not count that the crowd "
                "may play another."
            )
        return messages

    @property
    def _likelihood(self) -> CoupledLikelihood:
        likelihood = self.model.likelihood
        assert isinstance(likelihood, CoupledLikelihood)
        return likelihood

    @property
    def _nothing(self) -> Image:
        T, S, A = self.model.game.shape
        flow, table = np.full(flat_shape(self.model.game), np.nan), np.full((T, S, A), np.nan)
        return Image(flow, flow, table, table, np.full((T, S), np.nan))

    def _transition(self, flow: Array) -> Tensor:
        game = self.model.game
        if np.isnan(flow).any():
            return torch.full(tuple(self._likelihood.transition.shape), torch.nan)
        with double_precision(), torch.no_grad():
            return game.transition_along(torch.from_numpy(flow.copy()).reshape(game.flow_shape))

    def _move_to_mode(self) -> None:
        """Put the anchor at the posterior's mode, along the equilibria between."""
        theta = climbed(self.evaluator(), self.anchor.theta)
        (image,) = self.images(self.constrained(theta[None]))
        if np.isfinite(image.residual):
            flow = torch.from_numpy(image.flow.copy()).reshape(self.model.game.flow_shape)
            self.anchor = self._anchor(theta, flow)
            self._local = threading.local()

    def _anchor(self, theta: Array, start: Tensor) -> Anchor:
        """Return the equilibrium at a point, reached from a flow."""
        game, model = self.model.game, self.model
        values = self.constrained(theta[None])[0]
        sites = self.program.by_site(values)
        with torch.no_grad():
            solution = solve_equilibrium(
                game, model.reward, parameters=sites, mean_field=start,
                tolerance=TOLERANCE,
            )  # fmt: skip
            known = find_equilibria(
                game, model.reward, parameters=sites, n_starts=SEARCHES, tolerance=TOLERANCE
            ).solutions
        own = solution.value.mean_field if solution.converged else start
        flow = own.numpy().reshape(flat_shape(game)).copy()
        world = world_of(game, model.reward, sites)
        image = world.image(flow, game.temperature)
        others = [s.value.mean_field.numpy().reshape(flow.shape) for s in known]
        others = [uniform_flow(game), *(f for f in others if np.abs(f - flow).max() > SAME)]
        factors, tangent = _linearised(world, image, values, self.program)
        return Anchor(theta, values, flow, tangent, factors, others)

    def _search(self) -> "_Search | None":
        """Return this thread's search; None where the world is not recorded."""
        if not hasattr(self._local, "search"):
            self._local.search = self._new_search()
        search: _Search | None = self._local.search
        return search

    def _new_search(self) -> "_Search | None":
        sites = self.program.by_site(self.anchor.values)
        world = world_of(self.model.game, self.model.reward, sites)
        if not isinstance(world, World) or not world.recorded:
            return None
        search = _Search(world, self.anchor)
        return search if search.differentiates() else None

    def _solved(self, values: Array) -> Image:
        """Return the equilibrium at a point in a world that is not recorded."""
        game = self.model.game
        world = world_of(game, self.model.reward, self.program.by_site(values))
        found = settled(world, self.anchor.flow, game.temperature, BUDGET).image
        return found if found.residual <= TOLERANCE else self._nothing

    def by_autograd(self, values: Array) -> tuple[float, Array]:
        """Return the log likelihood at constrained parameters (P,) and its slope in them.

        By autograd through the solution: the plain twin, and what runs where nothing is recorded.
        """
        game, at = self.model.game, torch.from_numpy(values.copy()).requires_grad_(True)
        start = torch.from_numpy(self.anchor.flow.copy()).reshape(game.flow_shape)
        sites = self.program.by_site(at)
        with double_precision(), pyro.validation_enabled(False):
            try:
                found = solve_equilibrium(
                    game, self.model.reward, parameters=sites, mean_field=start,
                    tolerance=TOLERANCE, max_steps=BUDGET.max_steps, throw=True,
                )  # fmt: skip
            except (ConvergenceError, ValueError):
                return -np.inf, np.zeros_like(values)
            transition = game.transition_along(found.value.mean_field)
            value = self._likelihood.log_likelihood(found.value.reward, transition)
            (slope,) = torch.autograd.grad(value, at)
        return float(value.detach()), slope.numpy()


def climbed(evaluate: bridge.Evaluator, theta: Array) -> Array:
    """Return where a climb by L-BFGS from a point ends; impossible points count as far below."""

    def minus(point: Array) -> tuple[float, Array]:
        with np.errstate(all="ignore"):
            value, slope = evaluate(point)
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return np.inf, np.zeros_like(point)
        return -value, -slope

    return np.asarray(scipy.optimize.minimize(minus, theta, jac=True, method="L-BFGS-B").x)


class _Law:
    """The coupled likelihood's counts as arrays."""

    def __init__(self, model: TrajectoryModel) -> None:
        likelihood = model.likelihood
        assert isinstance(likelihood, CoupledLikelihood)
        _, S, A = model.game.shape
        self.counts = np.ascontiguousarray(likelihood.counts.actions)
        self.moves = np.zeros((0, S, S * A))
        if likelihood.moves is not None:
            rows = likelihood.moves.reshape(-1, S * A, S).numpy()
            self.moves = np.ascontiguousarray(rows.transpose(0, 2, 1))
        self.acted, self.moved = self.counts > 0, self.moves > 0

    def value(self, image: Image, world: World) -> tuple[float, Array]:
        """Return the log likelihood at an equilibrium, and its slope in the moving tables."""
        slope = np.zeros_like(self.moves)
        with np.errstate(divide="ignore"):
            value = float(self.counts[self.acted] @ np.log(image.policy[self.acted]))
            if self.moves.size:
                tables = world.arrays.tables
                assert isinstance(tables, Dense)  # which the model checks
                chance, n = tables.tables[self.moved], self.moves[self.moved]
                value += float(n @ np.log(chance))
                slope[self.moved] = n / chance
        return value, slope


class _Search:
    """Equilibria near an anchor, and what depends on them."""

    def __init__(self, world: World, anchor: Anchor) -> None:
        self.world, self.anchor, self.heat = world, anchor, world.game.temperature
        self._factors = None
        if anchor.factors is not None:
            lower_upper, pivots = anchor.factors
            self._factors = lower_upper, pivots.copy()  # LAPACK's wrapper writes to it meanwhile
        self._still = np.zeros(world.game.shape)
        self._unmoved = np.zeros((len(world.arrays.moves.ends) - 1, *self._table_shape))

    @property
    def _table_shape(self) -> tuple[int, int]:
        _, S, A = self.world.game.shape
        return S, S * A

    def differentiates(self) -> bool:
        """Return whether reward and dynamics have recorded slopes."""
        image = self.world.image(self.anchor.flow, self.heat)
        return self._pull(image, self._still, np.zeros_like(image.flow), self._unmoved) is not None

    def put(self, values: Array) -> World:
        """Return the world at constrained parameters (P,)."""
        self.world.put(values)
        return self.world

    def at(self, values: Array) -> Image | None:
        """Return the equilibrium at constrained parameters (P,), None where none is found."""
        if not np.isfinite(values).all():
            return None
        self.put(values)
        image = self.world.image(self._begin(values), self.heat)
        for _ in range(MOST_STEPS):
            gap, residual = image.generated - image.flow, image.residual
            if not residual > EXACT:
                break
            moved = as_shares(image.flow + self._solve(gap, transposed=False))
            following = self.world.image(moved, self.heat)
            if not following.residual < SLOWEST * residual:
                break
            image = following
        if image.residual <= TOLERANCE:
            return image
        if not np.isfinite(self.world.image(self.anchor.flow, self.heat).residual):
            return None
        start = image.flow if np.isfinite(image.residual) else self.anchor.flow
        solve = functools.partial(self._solve, transposed=False)
        found = anderson(self.world, start, self.heat, BUDGET, precondition=solve).image
        if found.residual <= TOLERANCE:
            return found
        found = settled(self.world, self.anchor.flow, self.heat, BUDGET).image
        return found if found.residual <= TOLERANCE else None

    def climb(self, law: _Law, values: Array) -> tuple[float, Array]:
        """Return the log likelihood at constrained parameters (P,) and its slope in them."""
        image = self.at(values)
        if image is None:
            return -np.inf, np.zeros_like(values)
        value, moved = law.value(image, self.world)
        nothing = np.zeros_like(image.flow)
        found = self._pull(image, law.counts, nothing, moved)
        if found is None or not np.isfinite(value) or not np.isfinite(found[0]).all():
            return -np.inf, np.zeros_like(values)
        worth = self._worth(image, found[0])
        if worth is None:
            return -np.inf, np.zeros_like(values)
        _, slope = self._pull(image, law.counts, worth, moved) or found
        return value, slope

    def _begin(self, values: Array) -> Array:
        """Return the flow on the anchor's tangent, the anchor's own where that leads far away."""
        change = np.tensordot(values - self.anchor.values, self.anchor.tangent, 1)
        if not np.abs(change).max() <= FARTHEST:
            return self.anchor.flow
        return as_shares(self.anchor.flow + change)

    def _worth(self, image: Image, slope: Array) -> Array | None:
        """Return lambda: by the anchor's factors, or those at the equilibrium itself."""
        worth = self._solve(slope, transposed=True)
        scale = ACCURATE * max(float(np.abs(slope).max()), 1e-300)
        last = np.inf
        for _ in range(MOST_STEPS):
            pulled = self._pull(image, self._still, worth, self._unmoved)
            assert pulled is not None
            left = slope - worth + pulled[0]
            size = float(np.abs(left).max())
            if size <= scale:
                return worth
            if not size < SLOWEST * last:
                break
            last = size
            worth = worth + self._solve(left, transposed=True)
        found = self._by_krylov(image, slope)
        if found is not None:
            return found
        try:
            return inverse(self.world, image, self.heat)[1](slope)
        except ConvergenceError:  # where equilibria meet
            return None

    def _by_krylov(self, image: Image, slope: Array) -> Array | None:
        """Return lambda by GMRES, with the anchor's factors to help; None where it is slow."""
        shape = slope.shape

        def residual(v: Array) -> Array:
            found = self._pull(image, self._still, v.reshape(shape), self._unmoved)
            assert found is not None
            return np.asarray(v - found[0].ravel())

        def near_inverse(v: Array) -> Array:
            return self._solve(v, transposed=True)

        system, help_ = (
            scipy.sparse.linalg.LinearOperator((slope.size, slope.size), matvec=f, dtype=float)
            for f in (residual, near_inverse)
        )
        found, failed = scipy.sparse.linalg.gmres(
            system, slope.ravel(), rtol=ACCURATE, atol=0.0, restart=30, maxiter=2, M=help_
        )
        return None if failed else np.asarray(found).reshape(shape)

    def _solve(self, change: Array, *, transposed: bool) -> Array:
        """Return what closes a gap at the anchor; the gap itself where its factors are not kept."""
        if self._factors is None:
            return change
        found, _ = scipy.linalg.lapack.dgetrs(*self._factors, change.ravel(), trans=int(transposed))
        return np.asarray(found).reshape(change.shape)

    def _pull(
        self, image: Image, counts: Array, weights: Array, moved: Array
    ) -> tuple[Array, Array] | None:
        return self.world.pull(image, self.heat, counts=counts, weights=weights, moved=moved)


def _linearised(
    world: AnyWorld, image: Image, values: Array, program: Program
) -> tuple[tuple[Array, Array] | None, Array]:
    """Return the factors of `I - F_mu` at a flow, and the flow's slopes in the parameters."""
    game, size = world.game, image.flow.size
    rows = world.jacobian(image, game.temperature) if size <= LARGEST_SYSTEM else None
    if rows is None:
        return None, np.zeros((len(values), *image.flow.shape))
    lower_upper, pivots, _ = scipy.linalg.lapack.dgetrf(np.eye(size) - rows.T)
    flow = torch.from_numpy(image.flow.copy()).reshape(game.flow_shape)

    def generated(flat: Tensor) -> Tensor:
        given = bind(program.model.reward, program.by_site(flat))
        return soft_response(game, given, flow, temperature=game.temperature).mean_field

    tangent = []
    for along in torch.eye(len(values), dtype=torch.float64):
        with double_precision(), pyro.validation_enabled(False), torch.no_grad():
            moved = pushed_forward(generated, torch.from_numpy(values.copy()), along).numpy()
        found, _ = scipy.linalg.lapack.dgetrs(lower_upper, pivots, moved.ravel())
        tangent.append(np.nan_to_num(found).reshape(image.flow.shape))
    return (lower_upper, pivots), np.array(tangent)

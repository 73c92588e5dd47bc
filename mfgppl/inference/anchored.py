"""Equilibria near an anchor: a search from it, and the worth of a change of the flow.

Steps use the factored `I - F_mu` of the anchor; where they are slow the factors but help iterations
that need none, and where these fail the solvers of `solve_equilibrium` take over.
"""

import functools
from typing import NamedTuple

import numpy as np
import pyro
import scipy.linalg
import scipy.sparse.linalg
import torch
from torch import Tensor

from mfgppl._kernels.dynamics import Dense
from mfgppl.equilibrium.iterations import Budget, anderson, as_shares, settled
from mfgppl.equilibrium.recording import pushed_forward
from mfgppl.equilibrium.response import soft_response
from mfgppl.equilibrium.world import Array, Image, World
from mfgppl.equilibrium.worlds import LARGEST_SYSTEM, AnyWorld, inverse
from mfgppl.exceptions import ConvergenceError
from mfgppl.inference.program import Program
from mfgppl.likelihood.coupled import CoupledLikelihood
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reward.program import bind, double_precision

EXACT, TOLERANCE = 1e-13, 1e-11  # residuals that a search aims at, and that it must reach
ACCURATE = 1e-12  # of lambda, relative
MOST_STEPS, SLOWEST = 12, 0.3  # with the anchor's factors alone, before these are but a help
BUDGET = Budget(TOLERANCE, 300)
FARTHEST = 0.5  # change of a share beyond which the anchor's tangent says nothing


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


class Law:
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


class Search:
    """Equilibria near an anchor, and what depends on them."""

    def __init__(self, world: World, anchor: Anchor) -> None:
        self.world, self.anchor, self.heat = world, anchor, world.game.temperature
        self._factors = None
        if anchor.factors is not None:
            lower_upper, pivots = anchor.factors
            self._factors = lower_upper, pivots.copy()  # LAPACK's wrapper writes to it meanwhile
        self._still = np.zeros(world.game.shape)
        _, S, A = world.game.shape
        self._unmoved = np.zeros((len(world.arrays.moves.ends) - 1, S, S * A))

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

    def climb(self, law: Law, values: Array) -> tuple[float, Array]:
        """Return the log likelihood at constrained parameters (P,) and its slope in them."""
        image = self.at(values)
        if image is None:
            return -np.inf, np.zeros_like(values)
        if law.moves.size:  # the search may have left the tables along a flow beside it
            image = self.world.image(image.flow, self.heat)
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


def linearised(
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

"""Equilibria near an anchor: a search from it, and the worth of a change of the flow.

Steps use the factored `I - F_mu` of the anchor; where they are slow the factors but help iterations
that need none, and where these fail the solvers of `solve_equilibrium` take over.
"""

from typing import NamedTuple

import numpy as np
import pyro
import scipy.linalg
import scipy.sparse.linalg
import torch
from torch import Tensor

from mfgppl._kernels import bridge, crowd
from mfgppl._kernels.dynamics import Dense
from mfgppl.density.expansion import Expansion, continued
from mfgppl.density.protocol import TOLERANCE
from mfgppl.equilibrium.iterations import Budget, anderson, as_shares, find_fixed_point
from mfgppl.equilibrium.linearisation import AnyResponseMap, factored, inverse, solved
from mfgppl.equilibrium.population import Population
from mfgppl.equilibrium.recording import pushed_forward
from mfgppl.equilibrium.response_map import Array, Image, ResponseMap
from mfgppl.exceptions import ConvergenceError
from mfgppl.likelihood.coupled import CoupledLikelihood
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import double_precision

EXACT = 1e-13  # residual that a search aims at; it must reach `TOLERANCE`
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
        LU of `I - F_mu`, over what agents read of the flow where that is less; None where that is
        too large, or the response map is not recorded.
    others : list of ndarray
        Where else a search may begin: other equilibria, and the crowd that stays where it began.
    expansion : Expansion or None
        What is known around it to the next order.
    """

    theta: Array
    values: Array
    flow: Array
    tangent: Array
    factors: tuple[Array, Array] | None
    others: list[Array]
    expansion: Expansion | None = None


class Evidence(NamedTuple):
    """What a panel says at an equilibrium.

    Attributes
    ----------
    value : float
        The log likelihood.
    counts : ndarray, shape (T, S, A)
        Its slope in the log policy.
    moved : ndarray, shape (n, B, S, S * A)
        Its slope in the moving tables, laid out as the kernels' tables.
    shared : ndarray, shape (N, S), or None
        Its slope in the log shares of kinds, where there are any.
    """

    value: float
    counts: Array
    moved: Array
    shared: Array | None


class Counted:
    """The coupled likelihood's counts as arrays, those of moves laid out as the kernels' tables."""

    def __init__(self, law: CoupledLikelihood) -> None:
        self.counts = np.ascontiguousarray(law.counts.actions)
        self.moves = _moves_of(law)
        self.acted, self.moved = self.counts > 0, self.moves > 0

    def evidence(self, image: Image, response_map: ResponseMap) -> Evidence:
        """Return what the panel says at an equilibrium."""
        value, slope = _of_moves(self.moves, self.moved, response_map)
        return Evidence(value + self.actions(image), self.counts, slope, None)

    def actions(self, image: Image) -> float:
        """Return the log likelihood of the actions."""
        with np.errstate(divide="ignore"):
            return float(self.counts[self.acted] @ np.log(image.policy[self.acted]))


class CountedByKind:
    """The same where the kinds of agents are not seen: counts are expected, given the kinds."""

    def __init__(self, law: KindsLikelihood) -> None:
        assert isinstance(law.one, CoupledLikelihood)
        self.law, self.moves = law, _moves_of(law.one, law.n_nodes)
        self.moved = self.moves > 0

    def evidence(self, image: Image, response_map: ResponseMap) -> Evidence:
        """Return what the panel says at an equilibrium."""
        law, start = self.law, response_map.moving_start
        assert start is not None
        value, slope = _of_moves(self.moves, self.moved, response_map)
        N, T, S, A = law.shape
        with np.errstate(divide="ignore"):
            log_policies = np.log(by_node(image.policy, N))
        found = law.posterior_of(log_policies, start.log_shares(response_map.values))
        counts, first = law.expected_counts(found.share)
        stacked = np.ascontiguousarray(counts.transpose(1, 0, 2, 3).reshape(T, N * S, A))
        value += float(law.histories.weight @ found.log_likelihood)
        return Evidence(value, stacked, slope, first)


def counted(law: CoupledLikelihood | KindsLikelihood) -> Counted | CountedByKind:
    """Return a coupled law's counts as arrays."""
    return Counted(law) if isinstance(law, CoupledLikelihood) else CountedByKind(law)


def by_node(table: Array, n_nodes: int) -> Array:
    """Return a table over stacked states of all nodes (T, N * S, A) as one by node (N, T, S, A)."""
    T, _, A = table.shape
    return table.reshape(T, n_nodes, -1, A).swapaxes(0, 1)


def _moves_of(law: CoupledLikelihood, n_nodes: int = 1) -> Array:
    """Return the counts of moves laid out as the kernels' tables, those of the first node's cells.

    Where each cell has a table of its own, all nodes move alike, and these stand for the others'.
    """
    if law.moves is None:
        return np.zeros((0, 1, 0, 0))
    tables, seen = law.kernel_tables, law.moves
    assert isinstance(tables, Dense)  # which the model checks
    by_cell = bridge.by_next_state(seen if seen.ndim == 5 else seen[:, None])
    n_blocks = tables.tables.shape[1]
    n_blocks *= n_nodes if n_blocks > 1 else 1
    laid_out = np.zeros((len(by_cell), n_blocks, *tables.tables.shape[2:]))
    for c, b in enumerate(tables.block):  # cells that share a table add up
        laid_out[:, b] += by_cell[:, c]
    return laid_out


def _of_moves(moves: Array, moved: Array, response_map: ResponseMap) -> tuple[float, Array]:
    """Return the log likelihood of moves along the tables as they are, and its slope in these."""
    slope = np.zeros_like(moves)
    if not moves.size:
        return 0.0, slope
    tables = response_map.arrays.tables
    assert isinstance(tables, Dense)  # which the model checks
    chance, n = tables.tables[moved], moves[moved]
    slope[moved] = n / chance
    with np.errstate(divide="ignore"):
        return float(n @ np.log(chance)), slope


class Search:
    """Equilibria near an anchor, and what depends on them."""

    def __init__(self, response_map: ResponseMap, anchor: Anchor) -> None:
        self.response_map, self.anchor, self.temperature = (
            response_map,
            anchor,
            response_map.game.temperature,
        )
        self._factors: tuple[Array, Array] | None = None
        self._drift: Array | None = None
        if anchor.factors is not None:
            lower_upper, pivots = anchor.factors
            self._factors = lower_upper, pivots.copy()  # LAPACK's wrapper writes to it meanwhile
        self._still = np.zeros(response_map.game.shape)
        self._unmoved = crowd.no_moves(response_map.arrays)

    def differentiates(self) -> bool:
        """Return whether reward and dynamics have recorded slopes."""
        image = self.response_map.image(self.anchor.flow, self.temperature)
        return self._pull(image, self._still, np.zeros_like(image.flow), self._unmoved) is not None

    def put(self, values: Array) -> ResponseMap:
        """Return the response map at constrained parameters (P,)."""
        self.response_map.put(values)
        return self.response_map

    def at(self, values: Array) -> Image | None:
        """Return the equilibrium at constrained parameters (P,), None where none is found."""
        if not np.isfinite(values).all():
            return None
        expansion = self.anchor.expansion
        found = self._from(values, expansion)
        if found is None and expansion is not None:  # which foresees nothing there
            found = self._from(values, None)
        return found

    def _from(self, values: Array, expansion: Expansion | None) -> Image | None:
        """Return the same, from where an expansion, or else the tangent, foresees it."""
        self.put(values)
        image = self.response_map.image(self._begin(values, expansion), self.temperature)
        residual = image.residual
        for _ in range(MOST_STEPS):
            if not residual > EXACT:
                break
            moved = as_shares(image.flow + self._closed(image.generated - image.flow))
            following = self.response_map.image(moved, self.temperature)
            left = following.residual
            if not left < SLOWEST * residual:
                break
            image, residual = following, left
        if residual <= TOLERANCE:
            return image
        if not np.isfinite(self.response_map.image(self.anchor.flow, self.temperature).residual):
            return None
        start = image.flow if np.isfinite(image.residual) else self.anchor.flow
        end = anderson(
            self.response_map, start, self.temperature, BUDGET, precondition=self._closed
        ).image
        if end.residual <= TOLERANCE:
            return end
        end = find_fixed_point(self.response_map, self.anchor.flow, self.temperature, BUDGET).image
        return end if end.residual <= TOLERANCE else None

    def climb(self, law: Counted | CountedByKind, values: Array) -> tuple[float, Array]:
        """Return the log likelihood at constrained parameters (P,) and its slope in them."""
        image = self.at(values)
        if image is None:
            return -np.inf, np.zeros_like(values)
        if law.moves.size:  # the search may have left the tables along a flow beside it
            image = self.response_map.image(image.flow, self.temperature)
        found = law.evidence(image, self.response_map)
        slopes = self._pulled(image, found, np.zeros_like(image.flow))
        if slopes is None or not np.isfinite(found.value) or not np.isfinite(slopes[0]).all():
            return -np.inf, np.zeros_like(values)
        worth = self._worth(image, slopes[0])
        if worth is None:
            return -np.inf, np.zeros_like(values)
        _, slope = self._pulled(image, found, worth) or slopes
        return found.value, slope

    def _begin(self, values: Array, expansion: Expansion | None) -> Array:
        """Return the flow that the anchor foresees, its own where that leads far away."""
        along = values - self.anchor.values
        change = np.tensordot(along, self.anchor.tangent, 1)
        self._drift = None
        if not np.abs(change).max() <= FARTHEST:
            return self.anchor.flow
        if expansion is not None:
            change, self._drift = expansion.curved(along, change), expansion.drift(along)
        return as_shares(self.anchor.flow + change)

    def _worth(self, image: Image, slope: Array) -> Array | None:
        """Return lambda: by the anchor's factors, or those at the equilibrium itself.

        Agents answer what they read of the flow, `F(mu) = G(L mu)`, so that
        `lambda = slope + L' y` with `y = G_z' (slope + L' y)`.
        """
        scale = ACCURATE * max(float(np.abs(slope).max()), 1e-300)
        y, last = self._first(slope), np.inf
        for _ in range(MOST_STEPS):
            worth = slope + self._lifted(y)
            left = self._returned(image, worth) - y
            size = float(np.abs(left).max())
            if size <= scale:
                return worth
            if not size < SLOWEST * last:
                break
            last = size
            y = y + self._nearly(left)
        solution = self._by_krylov(image, slope)
        if solution is not None:
            return solution
        try:
            return inverse(self.response_map, image, self.temperature)[1](slope)
        except ConvergenceError:  # where equilibria meet
            return None

    def _by_krylov(self, image: Image, slope: Array) -> Array | None:
        """Return lambda by GMRES, with the anchor's factors to help; None where it is slow."""
        right = self._returned(image, slope)
        shape = right.shape

        def residual(v: Array) -> Array:
            y = v.reshape(shape)
            return np.asarray((y - self._returned(image, self._lifted(y))).ravel())

        def near_inverse(v: Array) -> Array:  # which must be linear
            return self._solved(v, transposed=True)

        system, help_ = (
            scipy.sparse.linalg.LinearOperator((right.size, right.size), matvec=f, dtype=float)
            for f in (residual, near_inverse)
        )
        solution, failed = scipy.sparse.linalg.gmres(
            system, right.ravel(), rtol=ACCURATE, atol=0.0, restart=30, maxiter=2, M=help_
        )
        return None if failed else slope + self._lifted(np.asarray(solution).reshape(shape))

    def _first(self, slope: Array) -> Array:
        """Return the y at which a search for lambda begins: at the anchor's own, where known."""
        exposures = self.response_map.exposures
        if exposures is not None:
            return np.zeros_like(exposures.spread_transposed(slope))
        return self._nearly(slope) - slope

    def _returned(self, image: Image, weights: Array) -> Array:
        """Return the weights of what is read of a flow that what it generates has: `G_z'`."""
        pulled = self._pull(image, self._still, np.ascontiguousarray(weights), self._unmoved)
        assert pulled is not None
        exposures = self.response_map.exposures
        return pulled[0] if exposures is None else exposures.spread_transposed(pulled[0])

    def _lifted(self, y: Array) -> Array:
        """Return weights of the flow from those of what is read of it: `L'`."""
        exposures = self.response_map.exposures
        return y if exposures is None else exposures.sums_transposed(y)

    def _nearly(self, weights: Array) -> Array:
        """Return the solution of the transposed system, nearly; itself without factors."""
        flat = weights.ravel()
        if self._drift is not None:
            flat = continued(flat, self._drift.T)
        return self._solved(flat, transposed=True).reshape(weights.shape)

    def _closed(self, gap: Array) -> Array:
        """Return what closes a gap, nearly; the gap itself where no factors are kept.

        By what is read of it: the rest of each cell follows one response later.
        """
        exposures = self.response_map.exposures
        if exposures is not None and self._factors is not None:
            sums = exposures.sums(gap)
            closed = self._solved(sums.ravel(), transposed=False).reshape(sums.shape)
            return gap + exposures.spread(closed - sums)
        flat = self._solved(gap.ravel(), transposed=False)
        if self._drift is not None:
            flat = continued(flat, self._drift)
        return flat.reshape(gap.shape)

    def _solved(self, right: Array, *, transposed: bool) -> Array:
        """Return the solution of the anchor's system; the right side where it is not kept."""
        if self._factors is None:
            return right
        return solved(self._factors, right, transposed=transposed)

    def _pulled(self, image: Image, found: Evidence, worth: Array) -> tuple[Array, Array] | None:
        """Return slopes of what the panel says, and of the flow at its worth."""
        return self.response_map.pull(
            image, self.temperature, counts=found.counts, weights=worth, moved=found.moved,
            shared=found.shared,
        )  # fmt: skip

    def _pull(
        self, image: Image, counts: Array, weights: Array, moved: Array
    ) -> tuple[Array, Array] | None:
        return self.response_map.pull(
            image, self.temperature, counts=counts, weights=weights, moved=moved
        )


def linearise(
    response_map: AnyResponseMap,
    image: Image,
    values: Array,
    program: Program,
    population: Population,
) -> tuple[tuple[Array, Array] | None, Array]:
    """Return the factors of `I - F_mu` at a flow, and the flow's slopes in the parameters."""
    game = response_map.game
    factors, solve = factored(response_map, image, game.temperature)
    if factors is None:
        return None, np.zeros((len(values), *image.flow.shape))
    flow = torch.from_numpy(image.flow.copy()).reshape(game.flow_shape)

    def generated(flat: Tensor) -> Tensor:
        return population.response(program.by_site(flat), flow).mean_field

    tangent = []
    for along in torch.eye(len(values), dtype=torch.float64):
        with double_precision(), pyro.validation_enabled(False), torch.no_grad():
            moved = pushed_forward(generated, torch.from_numpy(values.copy()), along).numpy()
        tangent.append(np.nan_to_num(solve(moved.reshape(image.flow.shape))))
    return factors, np.array(tangent)

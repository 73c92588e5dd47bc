"""Equilibria near an anchor: a search from it, and the worth of a change of the flow.

Steps are Newton's, by `I - F_mu` at the flow where sweeps over time solve it, else at the anchor;
where they are slow it but preconditions Anderson's iteration, and where that fails the solvers of
`solve_equilibrium` take over.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyro
import scipy.sparse.linalg
import torch
from torch import Tensor

from mfgppl._kernels import bridge, crowd
from mfgppl._kernels.dynamics import Dense
from mfgppl.density.protocol import TOLERANCE
from mfgppl.equilibrium.flat_flows import Array, as_shares
from mfgppl.equilibrium.images import Image
from mfgppl.equilibrium.iterations import Budget, anderson, find_fixed_point
from mfgppl.equilibrium.linearisation import AnyResponseMap, System, inverse, system_at
from mfgppl.equilibrium.population import Population
from mfgppl.equilibrium.recording import pushed_forward
from mfgppl.equilibrium.response_map import ResponseMap
from mfgppl.equilibrium.sweeps_over_time import Sweeps
from mfgppl.exceptions import ConvergenceError
from mfgppl.likelihood.coupled import CoupledLikelihood
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import double_precision

EXACT = 1e-13  # residual that a search aims at; it must reach `TOLERANCE`
ACCURATE = 1e-12  # of lambda, relative
MOST_STEPS, SLOWEST = 12, 0.3  # of each search; slower ones, without sweeps, are given up
NEAR, QUICK = 1e-9, 0.01  # residual, and of a step to the last, up to which a system serves on
FAR, NEARER, MOST_ANSWERS = 0.03, 0.75, 3  # residuals that plain responses lessen first
CLOSE = 1e-4  # residual of a step to the last, up to which its system serves for lambda
BUDGET = Budget(TOLERANCE, 300)
SMALL_STEP = 1e-5  # of central differences in a parameter, relative
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
    system : System or None
        `(I - F_mu)^-1`, or that of what is read of the flow; None where that is too large or
        singular, or the response map is not recorded.
    others : list of ndarray
        Where else a search may begin: other equilibria, and the crowd that stays where it began.
    """

    theta: Array
    values: Array
    flow: Array
    tangent: Array
    system: System | None
    others: list[Array]


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
        self._acted = np.flatnonzero(self.counts)
        self._n_acted = self.counts.ravel()[self._acted]
        self._moved = np.flatnonzero(self.moves)

    def evidence(self, image: Image, response_map: ResponseMap) -> Evidence:
        """Return what the panel says at an equilibrium."""
        value, slope = _of_moves(self.moves, self._moved, response_map)
        return Evidence(value + self.actions(image), self.counts, slope, None)

    def actions(self, image: Image) -> float:
        """Return the log likelihood of the actions."""
        with np.errstate(divide="ignore"):
            return float(self._n_acted @ np.log(image.policy.take(self._acted)))


class CountedByKind:
    """The same where the kinds of agents are not seen: counts are expected, given the kinds."""

    def __init__(self, law: KindsLikelihood) -> None:
        assert isinstance(law.one, CoupledLikelihood)
        self.law, self.moves = law, _moves_of(law.one, law.n_nodes)
        self._moved = np.flatnonzero(self.moves)

    def evidence(self, image: Image, response_map: ResponseMap) -> Evidence:
        """Return what the panel says at an equilibrium."""
        law, start = self.law, response_map.moving_start
        assert start is not None
        value, slope = _of_moves(self.moves, self._moved, response_map)
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
    """Return the log likelihood of moves along the tables as they are, and its slope in these.

    `moved` are the places of moves that were seen.
    """
    if not moves.size:
        return 0.0, moves
    tables = response_map.arrays.tables
    assert isinstance(tables, Dense)  # which the model checks
    chance, n, slope = tables.tables.take(moved), moves.take(moved), np.zeros_like(moves)
    slope.ravel()[moved] = n / chance
    with np.errstate(divide="ignore"):
        return float(n @ np.log(chance)), slope


class Search:
    """Equilibria near an anchor, and what depends on them."""

    def __init__(self, response_map: ResponseMap, anchor: Anchor) -> None:
        self.response_map, self.anchor = response_map, anchor
        self.temperature = response_map.game.temperature
        self._system = anchor.system  # at the flow that was searched for last, or near it
        self._room: Sweeps | None = None  # of systems, one after the other
        self._pace = 0.0  # residual of its last step, relative to the one before
        self._tangent = anchor.tangent.reshape(len(anchor.values), -1)
        self._still = np.zeros(response_map.game.shape)
        self._unmoved = crowd.no_moves(response_map.arrays)
        start = response_map.moving_start
        self._unshared = None if start is None else np.zeros(response_map.arrays.initial.shape)

    def differentiates(self) -> bool:
        """Return whether reward and dynamics have recorded slopes."""
        image = self.response_map.image(self.anchor.flow, self.temperature)
        return self._pull(image, np.zeros_like(image.flow)) is not None

    def put(self, values: Array) -> ResponseMap:
        """Return the response map at constrained parameters (P,)."""
        self.response_map.put(values)
        return self.response_map

    def at(self, values: Array) -> Image | None:
        """Return the equilibrium at constrained parameters (P,), None where none is found."""
        if not np.isfinite(values).all():
            return None
        self.put(values)
        image = self._by_newton(self.response_map.image(self._begin(values), self.temperature))
        if image.residual <= TOLERANCE:
            return image
        if not np.isfinite(self.response_map.image(self.anchor.flow, self.temperature).residual):
            return None
        start = image.flow if np.isfinite(image.residual) else self.anchor.flow
        help_ = None if self._system is None else self._system.closed
        end = anderson(self.response_map, start, self.temperature, BUDGET, precondition=help_).image
        if end.residual <= TOLERANCE:
            return end
        end = find_fixed_point(self.response_map, self.anchor.flow, self.temperature, BUDGET).image
        return end if end.residual <= TOLERANCE else None

    def climb(self, law: Counted | CountedByKind, values: Array) -> tuple[float, Array]:
        """Return the log likelihood at constrained parameters (P,) and its slope in them."""
        image = self.at(values)
        if image is None:
            return -np.inf, np.zeros_like(values)
        self.response_map.put_tables(image.flow)  # the search may have left them along another
        found = law.evidence(image, self.response_map)
        direct = self.response_map.pull(
            image, self.temperature, counts=found.counts, weights=np.zeros_like(image.flow),
            moved=found.moved, shared=found.shared,
        )  # fmt: skip
        if direct is None or not np.isfinite(found.value) or not np.isfinite(direct[0]).all():
            return -np.inf, np.zeros_like(values)
        through_flow = self._through_flow(image, direct[0])
        if through_flow is None:
            return -np.inf, np.zeros_like(values)
        return found.value, direct[1] + through_flow

    def _begin(self, values: Array) -> Array:
        """Return the flow that the anchor foresees, its own where that leads far away."""
        flow, change = self.anchor.flow, (values - self.anchor.values) @ self._tangent
        if not np.abs(change).max() <= FARTHEST:
            return flow
        return as_shares(flow + change.reshape(flow.shape))

    def _by_newton(self, image: Image) -> Image:
        """Return the last response of Newton's steps.

        The system of a step serves on as long as it brings the flow much nearer. Where there is no
        other than the anchor's, steps end when they are slow.
        """
        self._system, self._pace = self.anchor.system, 0.0
        image = self._answered(image)
        residual, pace, swept = image.residual, np.inf, False
        for _ in range(MOST_STEPS):
            if not residual > EXACT:
                break
            if residual > NEAR and pace > QUICK:
                swept = self._refresh(image)
            gap = image.generated - image.flow
            moved = image.flow + (gap if self._system is None else self._system.closed(gap))
            following = self.response_map.image(as_shares(moved), self.temperature)
            left = following.residual
            pace = self._pace = left / residual
            if not (pace < SLOWEST or (swept and np.isfinite(left))):
                break
            image, residual = following, left
        return image

    def _answered(self, image: Image) -> Image:
        """Return a response to responses, as long as these bring a flow that is far off nearer."""
        for _ in range(MOST_ANSWERS):
            if not image.residual > FAR:
                break
            following = self.response_map.image(image.generated, self.temperature)
            if not following.residual < NEARER * image.residual:
                break
            image = following
        return image

    def _refresh(self, image: Image) -> bool:
        """Take the system at a response, where sweeps solve it."""
        sweeps = self.response_map.sweeps(image, self.temperature, self._room)
        if sweeps is None:
            return False
        self._system, self._room, self._pace = sweeps, sweeps, 0.0
        return True

    def _through_flow(self, image: Image, slope: Array) -> Array | None:
        """Return the slope in the parameters (P,) through the flow, given the slope in the flow.

        It is that of the flow generated, weighed by lambda: `lambda = slope + F_mu' lambda`.
        """
        if self._pace > CLOSE:
            self._refresh(image)
        scale = ACCURATE * max(float(np.abs(slope).max()), 1e-300)
        system, last = self._system, np.inf
        worth = slope if system is None else system.start(slope)
        for _ in range(MOST_STEPS):
            returned, through = self._pulled(image, worth)
            left = slope + returned - worth
            size = float(np.abs(left).max())
            if size <= scale:
                return through
            if not size < SLOWEST * last:
                break
            last = size
            worth = worth + (left if system is None else system.weighed(left))
        solution = self._by_krylov(image, slope)
        if solution is None:
            try:
                solution = inverse(self.response_map, image, self.temperature)[1](slope)
            except ConvergenceError:  # where equilibria meet
                return None
        return self._pulled(image, solution)[1]

    def _by_krylov(self, image: Image, slope: Array) -> Array | None:
        """Return lambda by GMRES, with the system to help; None where it is slow.

        What it adds to the slope lies in the range of `F_mu'`.
        """
        right = self._pulled(image, slope)[0]
        shape, system = right.shape, self._system

        def residual(v: Array) -> Array:
            y = v.reshape(shape)
            return np.asarray((y - self._pulled(image, y)[0]).ravel())

        def near_inverse(v: Array) -> Array:  # which must be linear
            return v if system is None else system.weighed(v.reshape(shape)).ravel()

        whole, help_ = (
            scipy.sparse.linalg.LinearOperator((right.size, right.size), matvec=f, dtype=float)
            for f in (residual, near_inverse)
        )
        solution, failed = scipy.sparse.linalg.gmres(
            whole, right.ravel(), rtol=ACCURATE, atol=0.0, restart=30, maxiter=2, M=help_
        )
        return None if failed else slope + np.asarray(solution).reshape(shape)

    def _pulled(self, image: Image, weights: Array) -> tuple[Array, Array]:
        """Return slopes of the flow generated, weighed, in the flow and in the parameters."""
        pulled = self._pull(image, weights)
        assert pulled is not None
        return pulled

    def _pull(self, image: Image, weights: Array) -> tuple[Array, Array] | None:
        return self.response_map.pull(
            image, self.temperature, counts=self._still, weights=np.ascontiguousarray(weights),
            moved=self._unmoved, shared=self._unshared,
        )  # fmt: skip


def linearise(
    response_map: AnyResponseMap,
    image: Image,
    values: Array,
    program: Program,
    population: Population,
) -> tuple[System | None, Array]:
    """Return the system at a flow, and the flow's slopes in the parameters."""
    game = response_map.game
    system = system_at(response_map, image, game.temperature)
    if system is None:
        return None, np.zeros((len(values), *image.flow.shape))
    if isinstance(response_map, ResponseMap) and response_map.recorded:
        changes = _by_differences(response_map, image, values)
    else:
        changes = _by_program(program, population, image, values)
    return system, np.array([np.nan_to_num(system.closed(change)) for change in changes])


def _by_differences(response_map: ResponseMap, image: Image, values: Array) -> Iterator[Array]:
    """Yield the slopes of what a flow generates in each parameter."""
    temperature = response_map.game.temperature
    for along in np.diag(SMALL_STEP * np.maximum(np.abs(values), 1.0)):
        ends = []
        for side in (1.0, -1.0):
            response_map.put(values + side * along)
            ends.append(response_map.image(image.flow, temperature).generated)
        yield (ends[0] - ends[1]) / (2 * along.sum())
    response_map.put(values)


def _by_program(
    program: Program, population: Population, image: Image, values: Array
) -> Iterator[Array]:
    """Yield the same by derivatives of the program, where nothing is recorded."""
    flow = torch.from_numpy(image.flow.copy()).reshape(population.game.flow_shape)

    def generated(flat: Tensor) -> Tensor:
        return population.response(program.by_site(flat), flow).mean_field

    for along in torch.eye(len(values), dtype=torch.float64):
        with double_precision(), pyro.validation_enabled(False), torch.no_grad():
            moved = pushed_forward(generated, torch.from_numpy(values.copy()), along).numpy()
        yield moved.reshape(image.flow.shape)

"""Iterations towards a flow that its own soft best response generates.

Each takes a response map, a flow, a temperature and what it may spend, and returns the best
`Image` met with the number of responses computed. Flows stay distributions at each time.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.linalg

from mfgppl.equilibrium.flat_flows import Array, as_shares
from mfgppl.equilibrium.images import Image
from mfgppl.equilibrium.linearisation import AnyResponseMap, bordered_move, newton_move
from mfgppl.exceptions import ConvergenceError

MEMORY = 8  # flows that an accelerated step looks back on
PATIENCE = 25  # steps without halving the residual after which an iteration gives up
LONGEST = 40  # responses that a path spends at one temperature
SHORTEST = 2.0**-7  # share of a Newton step below which it gives up
HOTTEST = 2.0**12  # times the aim: where a path of temperatures may begin
FINEST = 1.01  # ratio of neighbouring temperatures below which a path is followed by its length
SHORTEST_MOVE, LONGEST_MOVE = 1e-7, 1.0  # along a path, in shares and logs of the temperature
PATH = "a path of temperatures"
STRAIGHT = 0.9  # cosine between a move and the path's direction below which it is shortened


class Budget(NamedTuple):
    """What an iteration aims at and may spend.

    Attributes
    ----------
    tolerance : float
        Residual that counts as none.
    max_steps : int
        Responses to compute at most.
    """

    tolerance: float
    max_steps: int


class Found(NamedTuple):
    """Where an iteration ended.

    Attributes
    ----------
    image : Image
        The best flow met, with its response.
    n_steps : int
        Responses computed.
    how : str
        By what, in words.
    """

    image: Image
    n_steps: int
    how: str


Iteration = Callable[[AnyResponseMap, Array, float, Budget], Found]


def damped_iteration(
    response_map: AnyResponseMap,
    flow: Array,
    temperature: float,
    budget: Budget,
    *,
    damping: float | None = None,
    patience: int | None = None,
) -> Found:
    """Move a share of the way to what the flow's response generates.

    Without a given `damping` the share starts at one, is halved where the residual grows and
    recovers slowly where it falls. Gives up after `patience` steps without halving the residual.
    """
    share = 1.0 if damping is None else damping
    best = image = response_map.image(flow, temperature)
    halved_at, halved = 0, best.residual
    for step in range(1, budget.max_steps + 1):
        if best.residual <= halved / 2:
            halved_at, halved = step, best.residual
        stalled = patience is not None and step - halved_at > patience
        if best.residual <= budget.tolerance or step == budget.max_steps or stalled:
            return Found(best, step, "damped iteration")
        following = response_map.image(flow + share * (image.generated - flow), temperature)
        if damping is None:
            grew = following.residual > image.residual
            share = max(share / 2, 1e-4) if grew else min(share * 1.1, 1.0)
        flow, image = following.flow, following
        best = image if image.residual < best.residual else best
    return Found(best, budget.max_steps, "damped iteration")


def anderson(
    response_map: AnyResponseMap,
    flow: Array,
    temperature: float,
    budget: Budget,
    *,
    precondition: Callable[[Array], Array] | None = None,
) -> Found:
    """Extrapolate from the last flows to where their residuals would cancel.

    Gives up after some steps without halving the residual. A map of gaps (T, F) near the inverse
    of what they are of the flow's error makes steps longer.

    References
    ----------
    .. [1] Walker and Ni (2011), *Anderson acceleration for fixed-point iterations*, SIAM J.
       Numer. Anal. 49, 1715-1735.
    """

    def gap_of(image: Image) -> Array:
        gap = image.generated - image.flow
        return (gap if precondition is None else precondition(gap)).ravel()

    best = image = response_map.image(flow, temperature)
    flows, gaps = [flow.ravel()], [gap_of(image)]
    halved_at, halved = 0, best.residual
    for step in range(1, budget.max_steps + 1):
        stalled = step - halved_at > PATIENCE
        if best.residual <= budget.tolerance or step == budget.max_steps or stalled:
            return Found(best, step, "Anderson acceleration")
        following = _extrapolate(flows, gaps).reshape(flow.shape)
        image = response_map.image(as_shares(following), temperature)
        flows.append(image.flow.ravel())
        gaps.append(gap_of(image))
        flows, gaps = flows[-MEMORY - 1 :], gaps[-MEMORY - 1 :]
        if image.residual > 10 * best.residual:  # lost: start again from the best
            flows, gaps = [best.flow.ravel()], [gap_of(best)]
        if image.residual < best.residual:
            best = image
        if best.residual <= halved / 2:
            halved_at, halved = step, best.residual
    return Found(best, budget.max_steps, "Anderson acceleration")


def _extrapolate(flows: list[Array], gaps: list[Array]) -> Array:
    """Return the flow where a combination of the last residuals is smallest, moved by it."""
    if len(flows) == 1:
        return np.asarray(flows[0] + gaps[0])
    moves, changes = np.diff(np.stack(flows, 1)), np.diff(np.stack(gaps, 1))
    weights = scipy.linalg.lstsq(changes, gaps[-1], cond=1e-12, check_finite=False)[0]
    return np.asarray(flows[-1] + gaps[-1] - (moves + changes) @ weights)


def newton(response_map: AnyResponseMap, flow: Array, temperature: float, budget: Budget) -> Found:
    """Solve the linearised equation for the flow, and shorten steps that do not help.

    References
    ----------
    .. [1] Kelley (2003), *Solving nonlinear equations with Newton's method*, SIAM.
    """
    image, step = response_map.image(flow, temperature), 1
    while image.residual > budget.tolerance and step < budget.max_steps:
        try:
            move = newton_move(response_map, image, temperature)
        except (np.linalg.LinAlgError, ConvergenceError):
            break
        following, tried = _longest_improvement(
            response_map, image, move, temperature, budget.max_steps - step
        )
        step += tried
        if following is None:
            break
        image = following
    return Found(image, step, "Newton's method")


def _longest_improvement(
    response_map: AnyResponseMap, image: Image, move: Array, temperature: float, most: int
) -> tuple[Image | None, int]:
    """Return the image at the longest share of a move that lessens the gap, and how many tried."""
    if not np.isfinite(move).all():
        return None, 0
    size, share, tried = np.linalg.norm(image.generated - image.flow), 1.0, 0
    while share >= SHORTEST and tried < most:
        following = response_map.image(as_shares(image.flow + share * move), temperature)
        tried += 1
        if np.linalg.norm(following.generated - following.flow) < (1 - 0.1 * share) * size:
            return following, tried
        share /= 2
    return None, tried


def find_fixed_point(
    response_map: AnyResponseMap, flow: Array, temperature: float, budget: Budget
) -> Found:
    """Accelerate; where that stalls go on damped, then by Newton's method."""
    methods: list[Iteration] = [
        anderson,
        functools.partial(damped_iteration, patience=PATIENCE),
        newton,
    ]
    end, n_steps, how = None, 0, []
    for iterate in methods:
        start = flow if end is None else end.image.flow
        left = Budget(budget.tolerance, budget.max_steps - n_steps)
        end = iterate(response_map, start, temperature, left)
        n_steps += end.n_steps
        how.append(end.how)
        if end.image.residual <= budget.tolerance or n_steps >= budget.max_steps:
            break
    assert end is not None
    return Found(end.image, n_steps, ", then ".join(how))


class Point(NamedTuple):
    """A point of a path of solutions, or a move along it.

    Attributes
    ----------
    flow : ndarray, shape (T, F)
        The flow.
    log_temperature : float
        Logarithm of the temperature.
    """

    flow: Array
    log_temperature: float

    def minus(self, other: "Point") -> "Point":
        """Return the move from another point to this one."""
        return Point(self.flow - other.flow, self.log_temperature - other.log_temperature)

    def plus(self, along: "Point", length: float) -> "Point":
        """Return the point a length along a move."""
        return Point(
            self.flow + length * along.flow, self.log_temperature + length * along.log_temperature
        )

    def dot(self, other: "Point") -> float:
        """Return the inner product of two moves."""
        return float(np.vdot(self.flow, other.flow) + self.log_temperature * other.log_temperature)

    def distance(self, other: "Point") -> float:
        """Return the length of the move from another."""
        move = self.minus(other)
        return float(np.sqrt(move.dot(move)))


def follow_temperatures(
    response_map: AnyResponseMap, flow: Array, temperature: float, budget: Budget, *, hottest: float
) -> Iterator[tuple[float, Found]]:
    """Yield solutions along falling temperatures, each begun at what the last ones point to.

    Where the path turns, so that no solution lies near at the next lower temperature, it is
    followed around the turn. Ends at `temperature`, or where nothing leads on.
    """
    end = find_fixed_point(response_map, flow, hottest, budget)
    spent, ratio, coldest = end.n_steps, 4.0, hottest
    yield hottest, Found(end.image, spent, PATH)
    if end.image.residual > budget.tolerance:
        return
    known = [Point(end.image.flow, np.log(hottest))]
    while coldest > temperature and spent < budget.max_steps:
        following = max(coldest / ratio, temperature)
        guess = _secant_flow(known, following)
        left = min(LONGEST, budget.max_steps - spent)
        end = newton(response_map, guess, following, Budget(budget.tolerance, left))
        spent += end.n_steps
        if end.image.residual <= budget.tolerance:
            ratio = min(ratio * ratio, 4.0) if end.n_steps <= 4 else ratio
            coldest, known = following, [*known[-1:], Point(end.image.flow, np.log(following))]
            yield coldest, Found(end.image, spent, PATH)
            continue
        ratio = np.sqrt(ratio)
        if ratio > FINEST:
            continue
        for point, image, n_steps in _around(response_map, known, budget):
            spent += n_steps
            known = [*known[-1:], point]
            yield float(np.exp(point.log_temperature)), Found(image, spent, PATH)
            if spent >= budget.max_steps or np.exp(point.log_temperature) < coldest / FINEST:
                break
        if not np.exp(known[-1].log_temperature) < coldest:
            return
        coldest, ratio = float(np.exp(known[-1].log_temperature)), FINEST**2


def _secant_flow(known: list[Point], temperature: float) -> Array:
    """Return the flow on the line through the last two points, linear in the temperature."""
    last = known[-1]
    if len(known) == 1:
        return last.flow
    now, before = np.exp(last.log_temperature), np.exp(known[0].log_temperature)
    return as_shares(last.flow + (temperature - now) / (now - before) * (last.flow - known[0].flow))


def _around(
    response_map: AnyResponseMap, known: list[Point], budget: Budget
) -> Iterator[tuple[Point, Image, int]]:
    """Yield points of a path of solutions by its length, which may turn in temperature.

    References
    ----------
    .. [1] Allgower and Georg (2003), *Introduction to numerical continuation methods*, SIAM.
    """
    before, last = known
    length, spent = before.distance(last), 0
    image = response_map.image(last.flow, float(np.exp(last.log_temperature)))
    try:
        along = _tangent(response_map, image, last.log_temperature, last.minus(before))
    except np.linalg.LinAlgError:
        return
    while length > SHORTEST_MOVE:
        following, n_steps = _correction(response_map, last, along, length, budget.tolerance)
        spent += n_steps
        if following is None:
            length /= 2
            continue
        image, log_temperature = following
        last = Point(image.flow, log_temperature)
        with contextlib.suppress(np.linalg.LinAlgError):
            along = _tangent(response_map, image, log_temperature, along)
        length = min(length * (2.0 if n_steps <= 4 else 1.0), LONGEST_MOVE)
        yield last, image, spent
        spent = 0


def _tangent(
    response_map: AnyResponseMap, image: Image, log_temperature: float, along: Point
) -> Point:
    """Return the direction of the path at a solution, of length one, onwards from `along`."""
    flow, slope = bordered_move(
        response_map,
        image,
        log_temperature,
        (along.flow, along.log_temperature),
        gap=np.zeros_like(image.flow),
        off=1.0,
    )
    size = np.hypot(np.linalg.norm(flow), slope)
    return Point(flow / size, slope / size)


def _correction(
    response_map: AnyResponseMap, last: Point, along: Point, length: float, tolerance: float
) -> tuple[tuple[Image, float] | None, int]:
    """Return the solution on the plane across the path at a distance, None if none is near."""
    point = last.plus(along, length)
    for n_steps in range(1, 10):
        image = response_map.image(as_shares(point.flow), float(np.exp(point.log_temperature)))
        moved = Point(image.flow, point.log_temperature).minus(last)
        if image.residual <= tolerance:
            straight = moved.dot(along) > STRAIGHT * np.sqrt(moved.dot(moved))
            return ((image, point.log_temperature) if straight else None), n_steps
        gap, off = image.generated - image.flow, length - moved.dot(along)
        try:
            flow, log_temperature = bordered_move(
                response_map,
                image,
                point.log_temperature,
                (along.flow, along.log_temperature),
                gap=gap,
                off=off,
            )
        except (np.linalg.LinAlgError, ConvergenceError):
            break
        if not np.hypot(np.linalg.norm(flow), log_temperature) < 10 * LONGEST_MOVE:
            break
        point = Point(image.flow + flow, point.log_temperature + log_temperature)
    return None, n_steps

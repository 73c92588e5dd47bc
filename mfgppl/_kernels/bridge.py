"""Where torch meets numba: kernels with their workspaces, as NumPy functions and with autograd."""

import ctypes
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mfgppl._kernels import density, mixtures, native, stationary, sweeps, tape, threads
from mfgppl._kernels.density import Causal, Kinds, Stationary
from mfgppl._kernels.dynamics import Dense, Sparse, Tables, sliced
from mfgppl._kernels.tape import Tape

# multiply-adds of a decision beside those of its table, and of a sweep that is worth a thread
ACTION_WORK, WORTH_THREADS = 10, 1_500_000
ArrayMap = Callable[[np.ndarray], np.ndarray]
# an array (a reward, or flat parameters) to a log density and its gradient, whose array is reused
Evaluator = Callable[[np.ndarray], tuple[float, np.ndarray]]


def tables_of(transition: Tensor) -> Tables:
    """Return a transition as the arrays that the sweeps read.

    Parameters
    ----------
    transition : Tensor, shape (n, S, A, S) or (n, C, S, A, S)
        Of one cell, dense or sparse COO, or of C. Where cells share their tables, the second axis
        is a view of stride 0.
    """
    transition = transition.detach()
    if transition.layout == torch.strided:
        by_cell = transition if transition.ndim == 5 else transition[:, None]
        C = by_cell.shape[1]
        if by_cell.stride(1) == 0:
            by_cell = by_cell[:, :1]
        block = np.arange(C) if by_cell.shape[1] == C else np.zeros(C, dtype=np.int64)
        return Dense(by_next_state(by_cell), block)
    n, S, A, _ = transition.shape
    entries = transition.coalesce()
    table, state, action, following = entries.indices().numpy()
    row, entry = state * A + action, entries.values().numpy()
    after = sliced(table, row, following, entry, (n, S * A))
    return Sparse(*after, *sliced(table, following, row, entry, (n, S)))


def by_next_state(table: Tensor) -> np.ndarray:
    """Return a table by moves, (n, B, S, A, S), with the next state first, (n, B, S, S * A)."""
    n, B, S, A, _ = table.shape
    rows = table.reshape(n, B, S * A, S).numpy()
    return np.ascontiguousarray(rows.transpose(0, 1, 3, 2))


def kinds_posterior(
    log_policies: np.ndarray, log_weights: np.ndarray, histories: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log likelihood (J,) of each history and the posterior (J, N) of its node.

    Parameters
    ----------
    log_policies, log_weights : ndarray, shape (N, T, S, A) and (N, S)
        Of each node.
    histories : tuple of ndarray
        Entries, offsets, first states, numbers and what is known of each history.
    """
    entry, offsets, start, _, known = histories
    N = len(log_weights)
    logs = np.ascontiguousarray(log_policies.reshape(N, -1).T)
    share, heights = np.empty((start.size, N)), np.empty(start.size)
    mixtures.heights(
        logs, np.ascontiguousarray(log_weights), entry, offsets, start, known, share, heights
    )
    return heights, share


def law_evaluator(law: density.Law) -> Evaluator:
    """Return a reward to its log likelihood and gradient; the gradient's array is reused."""
    if isinstance(law, Causal):
        return _by_parts(law)
    if isinstance(law, Kinds):
        return _by_agents(law)
    if isinstance(law, Stationary):
        return _without_horizon(law)
    tables, constants, *arrays = law
    temperature, n_groups = float(constants[1]), int(constants[2])
    counted, workspace = arrays[:5], arrays[5:]
    return lambda reward: (
        sweeps.energy_value_and_gradient(
            reward, tables, temperature, *counted, n_groups, *workspace
        ),
        law.gradient,
    )


def _by_parts(law: Causal) -> Evaluator:
    """Return the causal likelihood as the sum of its parts, side by side where they are large."""
    tables, constants, *arrays, parts = law
    discount, temperature = float(constants[0]), float(constants[1])
    ranges = list(itertools.pairwise(parts.tolist()))

    def part(first: int, last: int, reward: np.ndarray) -> float:
        value: float = sweeps.causal_value_and_gradient(
            reward, tables, discount, temperature, *arrays, first, last
        )
        return value

    def one_by_one(reward: np.ndarray) -> tuple[float, np.ndarray]:
        return sum(part(*cells, reward) for cells in ranges), law.gradient

    def at_once(reward: np.ndarray) -> tuple[float, np.ndarray]:
        tasks = [functools.partial(part, *cells, reward) for cells in ranges]
        return sum(threads.side_by_side(tasks)), law.gradient

    return at_once if in_threads(law) else one_by_one


class Response(NamedTuple):
    """The policy that answers a reward, and what counts of actions are worth along it.

    Attributes
    ----------
    answer : callable
        A reward (1, S, A) to the log policy (1, S, A).
    pull_back : callable
        Counts (1, S, A) to the gradient of `sum N log pi` in the reward that was answered last.
        The arrays of both are reused.
    """

    answer: ArrayMap
    pull_back: ArrayMap


def stationary_response(law: Stationary) -> Response:
    """Return the response of a game that goes on for ever, in the law's workspace."""
    numbers = float(law.constants[0]), float(law.constants[1])
    policy, logs, gradient = (a.reshape(-1) for a in (law.policy, law.logs, law.gradient))
    made = policy, logs, law.factors, law.anew

    def answer(reward: np.ndarray) -> np.ndarray:
        stationary.answer(reward.reshape(-1), law.tables, *numbers, law.seen, law.of_seen, *made)
        return law.logs

    def pull_back(counts: np.ndarray) -> np.ndarray:
        stationary.pull_back(
            law.tables, *numbers, counts.reshape(-1), law.of_seen, policy, law.factors, law.anew,
            gradient,
        )  # fmt: skip
        return law.gradient

    return Response(answer, pull_back)


def _without_horizon(law: Stationary) -> Evaluator:
    """Return the causal likelihood of a game that goes on for ever."""
    answer, pull_back = stationary_response(law)
    return lambda reward: (sweeps.counted(law.counts, answer(reward)), pull_back(law.counts))


def _by_agents(law: Kinds) -> Evaluator:
    """Return the likelihood of unseen kinds, agents side by side where there are many."""
    numbers = float(law.constants[0]), float(law.constants[1])
    fixed = law.entry, law.offsets, law.start, law.weight, law.known
    policies, gradient = law.policies, law.gradient.reshape(-1)
    size, by_node, n_entries = policies.size, (len(policies), policies.shape[2]), law.logs.size

    def one_by_one(core: np.ndarray) -> tuple[float, np.ndarray]:
        return mixtures.value_and_gradient(
            core.reshape(-1), law.tables, *numbers, *fixed, law.pairs, law.seen, policies,
            law.logs, law.apart, law.posterior, law.counts, gradient,
        ), law.gradient  # fmt: skip

    bounds = np.linspace(0, law.start.size, threads.n_cores() + 1).astype(int).tolist()
    rooms = [(np.empty(law.counts.shape), np.empty(by_node)) for _ in bounds[1:]]

    def at_once(core: np.ndarray) -> tuple[float, np.ndarray]:
        flat = core.reshape(-1)
        rewards, log_weights = flat[:size].reshape(policies.shape), flat[size:].reshape(by_node)
        mixtures.forward(rewards, law.tables, *numbers, policies, law.logs, law.apart)
        mixtures.add_up(law.pairs, n_entries, law.apart)

        def part(first: int, last: int, room: tuple[np.ndarray, np.ndarray]) -> float:
            for array in room:
                array[:] = 0.0
            value: float = mixtures.by_agent(
                law.apart, log_weights, *fixed, law.posterior, *room, first, last
            )
            return value

        ranges = itertools.pairwise(bounds)
        tasks = [functools.partial(part, *r, room) for r, room in zip(ranges, rooms, strict=True)]
        value = sweeps.counted(law.seen, law.logs) + sum(threads.side_by_side(tasks))
        law.counts[:] = np.sum([room[0] for room in rooms], axis=0)
        gradient[size:] = np.sum([room[1] for room in rooms], axis=0).reshape(-1)
        mixtures.share_out(law.pairs, n_entries, law.counts)
        slopes = gradient[:size].reshape(policies.shape)
        mixtures.backward(policies, law.tables, *numbers, law.seen, law.counts, slopes)
        return value, law.gradient

    return at_once if in_threads(law) else one_by_one


def in_threads(law: density.Law) -> bool:
    """Return whether a law falls in parts that are large enough for threads."""
    if isinstance(law, Kinds):
        work = law.entry.size * len(law.policies)
        return work >= WORTH_THREADS and threads.n_cores() > 1
    if not isinstance(law, Causal) or not isinstance(law.tables, Dense) or len(law.parts) < 3:
        return False
    return law.counts.size * (law.tables.tables.shape[2] + ACTION_WORK) >= WORTH_THREADS


def soft_arrays(
    rewards: np.ndarray, tables: Tables, *, discount: float, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return soft values (..., T, S) and log policies (..., T, S, A) of rewards (..., T, S, A)."""
    lead, shape = rewards.shape[:-3], rewards.shape[-3:]
    many = np.ascontiguousarray(rewards).reshape(-1, *shape)
    soft_values, log_policies = np.empty(many.shape[:-1]), np.empty(many.shape)
    sweeps.soft_sweeps(many, tables, discount, temperature, soft_values, log_policies)
    return soft_values.reshape(*lead, *shape[:-1]), log_policies.reshape(rewards.shape)


def stationary_policies(rewards: np.ndarray, law: Stationary) -> np.ndarray:
    """Return the log policies (..., 1, S, A) of rewards without a horizon."""
    many = np.ascontiguousarray(rewards).reshape(-1, law.seen.size)
    logs, numbers = np.empty(many.shape), law.constants[:2].tolist()
    stationary.log_policies(many, law.tables, *numbers, law.seen, law.of_seen, logs)
    return logs.reshape(rewards.shape)


def energy_arrays(
    rewards: np.ndarray, tables: Tables, *, temperature: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return W (..., T, S), `log sum_x P exp W` (..., T, S, A) and the energy law's log policy."""
    lead, shape = rewards.shape[:-3], rewards.shape[-3:]
    many = np.ascontiguousarray(rewards).reshape(-1, *shape)
    log_partition = np.empty(many.shape[:-1])
    log_next, log_policy = np.empty(many.shape), np.empty(many.shape)
    sweeps.energy_sweeps(many, tables, temperature, log_partition, log_next, log_policy)
    return (
        log_partition.reshape(*lead, *shape[:-1]),
        log_next.reshape(rewards.shape),
        log_policy.reshape(rewards.shape),
    )


class _WithGradient(torch.autograd.Function):
    """A value with the gradient that came with it."""

    @staticmethod
    def forward(ctx: Any, point: Tensor, evaluate: Evaluator) -> Tensor:
        with torch.enable_grad():  # which torch turns off here, and a program run as Python needs
            value, gradient = evaluate(np.ascontiguousarray(point.detach().numpy()))
        ctx.save_for_backward(torch.from_numpy(gradient.copy()))
        return torch.tensor(value, dtype=torch.float64, device=point.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return cotangent * gradient, None


def differentiable(point: Tensor, evaluate: Evaluator) -> Tensor:
    """Return a NumPy function's value as a tensor that autograd can differentiate once."""
    return _WithGradient.apply(point, evaluate)


def tape_arrays(program: Tape) -> density.TapeArrays:
    """Return a tape of two stages, from theta and a cotangent, with a buffer of its own."""
    code, places, buffer, inputs, outputs, ends = program
    (theta, cotangent), (found, gradient) = inputs, outputs
    starts = [theta.start, cotangent.start, found.start, gradient.start]
    where = np.array([*starts, found.stop - found.start])
    first, second = code[: ends[0]].copy(), code[ends[0] : ends[1]].copy()
    return density.TapeArrays(first, second, places, buffer.copy(), where)


_C_FUNCTION = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_uint64, *[ctypes.c_void_p] * 4
)  # lets go of the interpreter's lock


class NativeDensity:
    """A log density that runs without Python.

    Parameters
    ----------
    machine : TapeArrays
        Prior, transforms and reward.
    core : Affine or Itself
        How the tape's output is the reward.
    law : Causal or Energy
        The likelihood.
    prior, jacobian : float
        Weights of the log prior and of the log Jacobian.

    Attributes
    ----------
    function
        C function (dim, point, gradient, value, data), which returns 0 if all is finite.
    data : ndarray
        Its last argument.
    """

    def __init__(
        self,
        machine: density.TapeArrays,
        core: density.Core,
        law: density.Law,
        *,
        prior: float,
        jacobian: float,
    ) -> None:
        kinds: Any = type(law), type(law.tables)
        self.function = native.function_for(*kinds)
        self.data, self._alive = native.packed(np.array([prior, jacobian]), machine, core, law)
        self._call = _C_FUNCTION(self.function.address)
        self._value = np.empty(1)
        self._addresses = self._value.ctypes.data, self.data.ctypes.data
        self._stages = None
        if in_threads(law):
            self._stages = _in_stages(machine, core, law, prior=prior, jacobian=jacobian)

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the log density and its gradient."""
        if self._stages is not None:
            return self._stages(theta)
        point, gradient = np.array(theta, dtype=np.float64), np.empty(theta.size)
        self._call(point.size, point.ctypes.data, gradient.ctypes.data, *self._addresses)
        return self._value.item(), gradient

    @property
    def keeper(self) -> Any:
        """C function (dim, n, point, kept, data), which keeps a point as it is."""
        return native.keeper()


def _in_stages(
    machine: density.TapeArrays,
    core: density.Core,
    law: density.Law,
    *,
    prior: float,
    jacobian: float,
) -> Evaluator:
    """Return what `density.log_density` computes, stage by stage, with the law in threads."""
    likelihood, buffer = law_evaluator(law), machine.buffer
    theta_from, cotangent_from, found_from, gradient_from, size = machine.where.tolist()
    found = buffer[found_from : found_from + size]
    cotangent = buffer[cotangent_from : cotangent_from + size]

    def reward() -> np.ndarray:
        if isinstance(core, density.Itself):
            return found[2:].reshape(core.shape)
        sweeps.affine(core.matrix, core.offset, found[2:], core.reward.reshape(-1))
        return core.reward

    def evaluate(theta: np.ndarray) -> tuple[float, np.ndarray]:
        buffer[theta_from : theta_from + theta.size] = theta
        tape.run(machine.forward, machine.places, buffer)
        value, slope = likelihood(reward())
        cotangent[:2] = prior, jacobian
        if isinstance(core, density.Itself):
            cotangent[2:] = slope.reshape(-1)
        else:
            sweeps.affine_pullback(core.matrix, slope.reshape(-1), cotangent[2:])
        tape.run(machine.backward, machine.places, buffer)
        value += sum(w * x for w, x in zip((prior, jacobian), found[:2].tolist(), strict=True) if w)
        return value, buffer[gradient_from : gradient_from + theta.size].copy()

    return evaluate


def on_tape(program: Tape) -> tuple[ArrayMap, ArrayMap]:
    """Return the two stages of a tape as functions of a flat array, in a buffer of their own."""
    code, places, buffer, inputs, outputs, ends = program
    buffer = buffer.copy()
    first, second = code[: ends[0]], code[ends[0] : ends[1]]
    theta, cotangent = (buffer[where] for where in inputs)
    found, gradient = (buffer[where] for where in outputs)

    def forward(point: np.ndarray) -> np.ndarray:
        theta[:] = point
        tape.run(first, places, buffer)
        return found

    def pullback(weights: np.ndarray) -> np.ndarray:
        cotangent[:] = weights
        tape.run(second, places, buffer)
        return gradient

    return forward, pullback


def each_on_tape(program: Tape, points: np.ndarray) -> np.ndarray:
    """Return the output of a tape at each row of points."""
    code, places, buffer, inputs, outputs, ends = program
    results = np.empty((len(points), outputs[0].stop - outputs[0].start))
    where = inputs[0].start, outputs[0].start
    points = np.ascontiguousarray(points)
    tape.run_each(code[: ends[0]], places, buffer.copy(), *where, points, results)
    return results


def add_entries(
    table: np.ndarray, entry: np.ndarray, owner: np.ndarray, sign: float, totals: np.ndarray
) -> None:
    """Add `sign * table[entry]` to the total of each entry's owner, in place."""
    sweeps.add_entries(np.ascontiguousarray(table).reshape(-1), entry, owner, sign, totals)

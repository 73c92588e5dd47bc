"""A whole log density in one compiled call.

Parameters go through the tape to the reward, the reward through the kernel, and its gradient back
through the tape.
"""

from typing import NamedTuple

import numpy as np
from numba.extending import overload

from mfgppl._kernels import caching, mixtures, stationary, sweeps, tape
from mfgppl._kernels.arithmetic import assign
from mfgppl._kernels.dynamics import Tables, is_tuple, jit_options

inner = caching.jit(inner=True, **jit_options)


class TapeArrays(NamedTuple):
    """A tape with a buffer of its own.

    Attributes
    ----------
    forward, backward : ndarray of int64
        Instructions of the two stages.
    places : ndarray of int64
        Lists of the instructions.
    buffer : ndarray
        Constants and workspace.
    where : ndarray of int64, shape (5,)
        Places of theta, cotangents, what is found and the gradient; size of what is found.
    """

    forward: np.ndarray
    backward: np.ndarray
    places: np.ndarray
    buffer: np.ndarray
    where: np.ndarray


class Itself(NamedTuple):
    """The tape finds the reward itself.

    Attributes
    ----------
    shape : ndarray of int64, shape (3,)
        (T, S, A).
    """

    shape: np.ndarray


class Affine(NamedTuple):
    """The tape finds the weights of features.

    Attributes
    ----------
    matrix, offset : ndarray, shape (K, T * S * A) and (T * S * A,)
        The reward is `offset + weights @ matrix`.
    reward : ndarray, shape (T, S, A)
        Workspace.
    """

    matrix: np.ndarray
    offset: np.ndarray
    reward: np.ndarray


class Causal(NamedTuple):
    """Arrays of the causal likelihood and its workspace; see `sweeps`.

    The value is the sum over parts of the cells, which begin where `parts` has it.
    """

    tables: Tables
    constants: np.ndarray
    counts: np.ndarray
    visits: np.ndarray
    soft_values: np.ndarray
    gradient: np.ndarray
    parts: np.ndarray


class Stationary(NamedTuple):
    """Arrays of the causal likelihood without a horizon and its workspace; see `stationary`.

    Counts, policy, its log and the gradient are (1, S, A).
    """

    tables: Tables
    constants: np.ndarray
    counts: np.ndarray
    seen: np.ndarray
    of_seen: np.ndarray
    policy: np.ndarray
    logs: np.ndarray
    factors: np.ndarray
    anew: np.ndarray
    gradient: np.ndarray


class Energy(NamedTuple):
    """Arrays of the energy likelihood and its workspace; see `sweeps`."""

    tables: Tables
    constants: np.ndarray
    counts: np.ndarray
    starts: np.ndarray
    ends_seen: np.ndarray
    ends_unseen: np.ndarray
    entry: np.ndarray
    log_partition: np.ndarray
    log_next: np.ndarray
    log_policy: np.ndarray
    gradient: np.ndarray


class Kinds(NamedTuple):
    """Arrays of the causal likelihood of agents whose kind is not seen, and its workspace.

    See `mixtures.value_and_gradient`; the gradient has the shape (1, 1, n).
    """

    tables: Tables
    constants: np.ndarray
    entry: np.ndarray
    offsets: np.ndarray
    start: np.ndarray
    weight: np.ndarray
    known: np.ndarray
    pairs: np.ndarray
    seen: np.ndarray
    policies: np.ndarray
    logs: np.ndarray
    apart: np.ndarray
    posterior: np.ndarray
    counts: np.ndarray
    gradient: np.ndarray


Core = Itself | Affine
Law = Causal | Stationary | Energy | Kinds


def evaluate(law, reward):
    """Return the log likelihood of a reward and fill `law.gradient`."""


def reward_of(core, found):
    """Return the reward (T, S, A) of what the tape found."""


def slope_of(core, slope, cotangent):
    """Fill the cotangent of what the tape found from the gradient in the reward."""


@overload(evaluate, jit_options=jit_options)
def _evaluate(law, reward):
    if is_tuple(Causal, law):
        return _by_parts
    if is_tuple(Stationary, law):
        return lambda law, reward: stationary.value_and_gradient(
            reward.reshape(reward.size), law.tables, law.constants[0], law.constants[1],
            law.counts.reshape(law.counts.size), law.seen, law.of_seen,
            law.policy.reshape(law.policy.size), law.logs.reshape(law.logs.size), law.factors,
            law.anew, law.gradient.reshape(law.gradient.size),
        )  # fmt: skip
    if is_tuple(Kinds, law):
        return lambda law, reward: mixtures.value_and_gradient(
            reward.reshape(reward.size), law.tables, law.constants[0], law.constants[1], law.entry,
            law.offsets, law.start, law.weight, law.known, law.pairs, law.seen, law.policies,
            law.logs, law.apart, law.posterior, law.counts,
            law.gradient.reshape(law.gradient.size),
        )  # fmt: skip
    return lambda law, reward: sweeps.energy_value_and_gradient(
        reward, law.tables, law.constants[1], law.counts, law.starts, law.ends_seen,
        law.ends_unseen, law.entry, int(law.constants[2]), law.log_partition, law.log_next,
        law.log_policy, law.gradient,
    )  # fmt: skip


def _by_parts(law, reward):
    value = 0.0
    for k in range(law.parts.size - 1):
        value += sweeps.causal_value_and_gradient(
            reward, law.tables, law.constants[0], law.constants[1], law.counts, law.visits,
            law.soft_values, law.gradient, law.parts[k], law.parts[k + 1],
        )  # fmt: skip
    return value


@overload(reward_of, jit_options=jit_options)
def _reward_of(core, found):
    if is_tuple(Affine, core):
        return _by_features
    return lambda core, found: found.reshape((core.shape[0], core.shape[1], core.shape[2]))


def _by_features(core, found):
    sweeps.affine(core.matrix, core.offset, found, core.reward.reshape(core.reward.size))
    return core.reward


@overload(slope_of, jit_options=jit_options)
def _slope_of(core, slope, cotangent):
    if is_tuple(Affine, core):
        return lambda core, slope, cotangent: sweeps.affine_pullback(
            core.matrix, slope.reshape(slope.size), cotangent
        )
    return _copied


def _copied(core, slope, cotangent):
    assign(cotangent, slope.reshape(slope.size))


@inner
def log_density(theta, weights, machine, core, law, gradient):
    """Return a log density, with `weights` of log prior and log Jacobian, and fill its gradient."""
    buffer, where = machine.buffer, machine.where
    assign(buffer[where[0] : where[0] + theta.size], theta)
    tape.run(machine.forward, machine.places, buffer)
    found = buffer[where[2] : where[2] + where[4]]
    value = evaluate(law, reward_of(core, found[2:]))
    cotangent = buffer[where[1] : where[1] + where[4]]
    assign(cotangent[:2], weights)
    slope_of(core, law.gradient, cotangent[2:])
    tape.run(machine.backward, machine.places, buffer)
    assign(gradient, buffer[where[3] : where[3] + theta.size])
    for k in range(2):
        if weights[k] != 0.0:  # what has no weight plays no part, whatever it is
            value += weights[k] * found[k]
    return value

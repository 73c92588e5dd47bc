"""The density of a trajectory model, compiled once to `theta -> (log density, gradient)`.

The reward program is traced once over unconstrained parameters; prior, transforms and reward are
differentiated there, and the likelihood's kernel is called in between. No effect handler runs at
an evaluation.
"""

import copy
import functools
import itertools
import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pyro
import torch
from torch import Tensor

from mfgppl._compiler.forward_mode import load_rules
from mfgppl._keep import Keeper, keep
from mfgppl._kernels import bridge
from mfgppl._kernels.density import Affine, Itself
from mfgppl._progress import stages
from mfgppl.density.compiled_program import Compiled, compile_program, weighted_terms
from mfgppl.density.divided import Divided
from mfgppl.density.protocol import STARTS
from mfgppl.density.sizes import effects_of, idle_at, slope_at
from mfgppl.density.table_changes import table_changes
from mfgppl.likelihood.action_counts import FixedFlow
from mfgppl.likelihood.causal import CausalLikelihood
from mfgppl.likelihood.coupled import CoupledLikelihood
from mfgppl.likelihood.kinds import KindsLikelihood
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.stationary_games import StationaryLikelihood
from mfgppl.reward.parameters import Program, Run
from mfgppl.reward.program import double_precision

STEP = 1e-3  # of differences, as a change of a reward in temperatures at most
SIDES = 2**22  # entries of a table for each parameter up to which all rows are worked out at once
MOST_SLOPES = 2**26  # entries of the reward's slopes that are held at once, 512 MB
STAGES = (
    "reading the reward program",
    "recording the reward program",
    "loading kernels (compiled once in up to a minute, then kept on disk)",
)


class PlugInDensity(Keeper):
    """The log density of a trajectory model over unconstrained parameters.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    law : CausalLikelihood, EnergyLikelihood or StationaryLikelihood
        Its law of trajectories along its flow.

    Attributes
    ----------
    n_dim : int
        Number of unconstrained parameters.
    path : str
        How it is evaluated: "linear" (through a feature matrix), "graph" (compiled operations),
        "torch" (the traced operations) or "eager" (the program itself).
    """

    def __init__(
        self, model: TrajectoryModel, law: FixedFlow, *, progressbar: bool = False
    ) -> None:
        self.model, self.law = model, law
        with stages(len(STAGES), progressbar) as begin:
            begin(STAGES[0])
            self.program = Program(model.reward, model.inputs)
            self.n_dim = self.program.n_dim
            begin(STAGES[1])
            self.compiled = compile_program(self.program)
            self.path = self.compiled.path
            self._without_prior: Compiled | None = None
            begin(STAGES[2])
            self._load()

    @classmethod
    def of_model(cls, model: TrajectoryModel, *, progressbar: bool = False) -> "PlugInDensity":
        """Return the density of a model along a flow that is given."""
        assert not isinstance(model.law, CoupledLikelihood)
        return cls(model, model.law, progressbar=progressbar)

    def for_model(self, model: TrajectoryModel) -> "PlugInDensity":
        """Return the density of a model with the same game, program and flow, of another panel."""
        assert not isinstance(model.law, CoupledLikelihood)
        density = copy.copy(self)
        density.model, density.law = model, model.law
        return density

    def start(self, random_seed: int) -> np.ndarray:
        """Return the median of unconstrained draws from the prior, (K,)."""
        draws = [self.program.draw(random_seed + k) for k in range(STARTS)]
        return np.asarray(np.median(draws, axis=0))

    def certificates(self, values: np.ndarray) -> None:
        """Return nothing: the flow is given, and no equilibrium is solved for."""

    @property
    def is_native(self) -> bool:
        """Whether it runs without Python."""
        return self.model.client is None and not self._in_stages and self.compiled.tape is not None

    @property
    def _in_stages(self) -> bool:
        """Whether the law is evaluated in Python, between the stages."""
        if isinstance(self.law, KindsLikelihood):
            return isinstance(self.law.one, StationaryLikelihood)
        return isinstance(self.law, StationaryLikelihood) and not self.law.is_small

    def _stages_for(self, prior: float) -> Compiled:
        """Return the compiled program; without its prior where that has no weight but a factor.

        A factor may be -inf, or have no slope, where the likelihood is at its highest.
        """
        if prior or not self.program.has_factors:
            return self.compiled
        if self._without_prior is None:
            self._without_prior = compile_program(self.program, prior=False)
        return self._without_prior

    def _load(self) -> None:
        """Call each kernel of a fit once: numba compiles it, or finds it on disk."""
        theta = self.program.draw(1)
        native = self.native()
        _ = self.evaluator()(theta) if native is None else native.keeper
        self.law.log_policy(self.rewards(self.constrained(theta[None])))

    def evaluator(self, *, prior: float = 1.0, jacobian: float = 1.0) -> bridge.Evaluator:
        """Return theta to (log density, gradient), in a workspace of its own.

        Parameters
        ----------
        prior, jacobian : float
            Weights of the log prior and of the log Jacobian: (1, 1) is the unconstrained
            posterior, (1, 0) the constrained one, (0, 0) the log likelihood.
        """
        if self.model.client is not None:
            return self._divided().evaluator(prior=prior, jacobian=jacobian)
        native = self.native(prior=prior, jacobian=jacobian)
        return self._by_stages(prior, jacobian) if native is None else native

    def native(self, *, prior: float = 1.0, jacobian: float = 1.0) -> bridge.NativeDensity | None:
        """Return the same as a density that runs without Python, None where it cannot."""
        compiled, likelihood = self._stages_for(prior), self.law
        if not self.is_native:
            return None
        assert compiled.tape is not None
        law = likelihood.arrays()
        core: Itself | Affine = Itself(np.array(self.law.core_shape))
        if compiled.affine is not None:
            core = Affine(*compiled.affine, np.empty(self.model.game.shape))
        machine = bridge.tape_arrays(compiled.tape)
        return bridge.NativeDensity(machine, core, law, prior=prior, jacobian=jacobian)

    def _divided(self) -> Divided:
        """Return the sum of the parts that the workers of the model's client hold."""
        assert isinstance(self.law, (CausalLikelihood, KindsLikelihood))
        law, make = self.law, functools.partial(PlugInDensity, self.model.without_panel())
        return keep(self, "divided", lambda: Divided(self.model.client, make, law))

    def _by_stages(self, prior: float, jacobian: float) -> bridge.Evaluator:
        """Return it by the stages' Python functions, with the kernel between them."""
        weights = np.array([prior, jacobian])
        forward, pullback = self._stages_for(prior).stages()
        likelihood, affine = self.law.evaluator(), self.compiled.affine
        shape = self.law.core_shape

        def evaluate(theta: np.ndarray) -> tuple[float, np.ndarray]:
            outputs = forward(theta)
            core = outputs[2:]
            reward = core if affine is None else affine.offset + core @ affine.matrix
            value, slope = likelihood(np.ascontiguousarray(reward).reshape(shape))
            slope = slope.ravel() if affine is None else affine.matrix @ slope.ravel()
            gradient = pullback(np.concatenate([weights, slope]))
            return value + weighted_terms(weights, outputs), gradient

        return evaluate

    def rewards(self, values: np.ndarray) -> np.ndarray:
        """Return reward tables (N, T, S, A) at flat constrained parameters (N, K).

        They are -inf where an action is not available. With agent-level sites they are all that
        the law reads, (N, 1, 1, n).
        """
        table, affine = self.compiled.table, self.compiled.affine
        if affine is not None:
            tables = values @ affine.matrix
            tables += affine.offset
        elif table is not None:
            tables = table(values)
        return tables.reshape(len(values), *self.law.core_shape)

    def tables(self, values: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the tables (N, ...) whose entries trajectories add up, at values (N, K)."""
        return self.law.table_arrays(self.rewards(values))

    def log_policies(self, values: np.ndarray) -> np.ndarray:
        """Return log policies (N, T, S, A) at flat constrained parameters (N, K)."""
        return self.law.log_policy(self.rewards(values))

    def flows(self, values: np.ndarray) -> np.ndarray:
        """Return the flows that agents face at flat constrained parameters (N, K), all the same."""
        flow = self.model.mean_field.numpy()
        return np.broadcast_to(flow, (len(values), *flow.shape)).copy()

    def heights(self, values: np.ndarray) -> np.ndarray:
        """Return log likelihoods (N,) at flat constrained parameters (N, K)."""
        evaluate = self.law.evaluator()
        rewards = np.ascontiguousarray(self.rewards(values))
        return np.array([evaluate(reward)[0] for reward in rewards])

    def constrained(self, points: np.ndarray) -> np.ndarray:
        """Return flat constrained parameters (N, K) at unconstrained points (N, n_dim)."""
        return self.program.flat_values(self.compiled.record(points))

    def record(self, points: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Return constrained values, deterministics and log priors by site at points (N, n_dim).

        Each array leads with the points' axis.
        """
        return self.compiled.by_group(points)

    def second_derivatives(self, theta: np.ndarray, *, prior: float, jacobian: float) -> np.ndarray:
        """Return second derivatives (K, K) of the weighted density.

        By the slopes of the policy for the exact law of actions; by differences of the exact
        gradient where kinds are not seen; else from the plain torch twin. What changes no reward
        has none in the likelihood, not even rounding.
        """
        found = self._bend(theta, prior=prior, jacobian=jacobian)
        if not prior and not jacobian:
            idle = idle_at(self, theta)
            found[idle, :] = found[:, idle] = 0.0
        return found

    def _bend(self, theta: np.ndarray, *, prior: float, jacobian: float) -> np.ndarray:
        law, size = self.law, len(theta) * math.prod(self.law.core_shape)
        if isinstance(law, KindsLikelihood):
            return self._differences(theta, prior=prior, jacobian=jacobian)
        if not isinstance(law, (CausalLikelihood, StationaryLikelihood)) or size > MOST_SLOPES:
            return self._twice(
                theta, lambda run: law.log_likelihood(run.reward), prior=prior, jacobian=jacobian
            )
        reward, changes = self._reward_slopes(theta)
        gradient = torch.from_numpy(law.evaluator()(np.ascontiguousarray(reward.numpy()))[1].copy())
        along = list(_together(changes, MOST_SLOPES))
        found = law.bend(reward, gradient, along[0]).numpy() if along else 0.0
        worth = self._worth(reward, gradient)
        return self._twice(theta, worth, prior=prior, jacobian=jacobian) + found

    def _worth(self, reward: Tensor, gradient: Tensor) -> Callable[[Run], Tensor]:
        """Return the reward of a run summed by what it is worth, by its parameters where linear."""
        if self.compiled.affine is not None:
            weights = torch.from_numpy(self.compiled.affine.matrix @ gradient.numpy().ravel())
            return lambda run: weights @ run.flat_values
        never = ~torch.isfinite(reward)
        return lambda run: (run.reward.masked_fill(never, 0.0) * gradient).sum()

    def _twice(
        self,
        theta: np.ndarray,
        function: Callable[[Run], Tensor],
        *,
        prior: float,
        jacobian: float,
    ) -> np.ndarray:
        """Return second derivatives (K, K) of a function of a run and of its weighted prior."""
        program = self.program

        def value(free: Tensor) -> Tensor:
            run = program.at(free)
            parts = ((prior, run.log_prior), (jacobian, run.log_jacobian))
            weighted = [weight * part for weight, part in parts if weight]
            return sum(weighted, function(run))

        point = torch.from_numpy(theta.copy())
        many = self.compiled.affine is None and len(theta) * self.law.counts.actions.size <= SIDES
        with double_precision(), pyro.validation_enabled(False), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            try:
                found = torch.autograd.functional.hessian(value, point, vectorize=many)
            except RuntimeError:  # an operation that torch does not carry for many rows at once
                found = torch.autograd.functional.hessian(value, point)
        return np.asarray(found.numpy())

    def _differences(self, theta: np.ndarray, *, prior: float, jacobian: float) -> np.ndarray:
        """Return differences (K, K) of the gradient, whose error is of fourth order in the step."""
        evaluate = self.evaluator(prior=prior, jacobian=jacobian)
        rows = []
        for k, unit in enumerate(self._steps(theta)):
            step = np.zeros_like(theta)
            step[k] = unit
            far, near = (
                evaluate(theta + n * step)[1].copy() - evaluate(theta - n * step)[1].copy()
                for n in (2, 1)
            )
            rows.append((8 * near - far) / (12 * unit))
        found = np.stack(rows) if rows else np.zeros((0, 0))
        return np.asarray(0.5 * (found + found.T))

    def _steps(self, theta: np.ndarray) -> np.ndarray:
        """Return small steps of the parameters (K,), by what they do to the reward."""
        moves = effects_of(self, theta).moves(slope_at(self.program, theta)[1])
        return np.asarray(STEP / np.maximum(moves, 1.0))

    def table_slopes(self, theta: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield the slopes of the tables in each unconstrained parameter."""
        with double_precision(), pyro.validation_enabled(False):
            reward, changes = self._reward_slopes(theta)
            for slopes in _table_slopes(self.law, reward, changes):
                yield tuple(slope.nan_to_num(0.0).numpy() for slope in slopes)

    def _reward_slopes(self, theta: np.ndarray) -> tuple[Tensor, Iterator[Tensor]]:
        """Return the reward (T, S, A), and its slope in each unconstrained parameter."""
        values, slope = slope_at(self.program, theta)
        if self.compiled.affine is not None:
            tables = (slope.T @ self.compiled.affine.matrix).reshape(-1, *self.model.game.shape)
            return torch.from_numpy(self.rewards(values[None])[0]), iter(torch.from_numpy(tables))
        changes = table_changes(self.program, values, slope.T)
        tables = (torch.from_numpy(change).reshape(self.law.core_shape) for change in changes)
        return torch.from_numpy(self.rewards(values[None])[0]), tables


def _table_slopes(
    law: FixedFlow, reward: Tensor, changes: Iterator[Tensor]
) -> Iterator[tuple[Tensor, ...]]:
    """Yield how a law's tables change as the reward (T, S, A) does, direction by direction."""
    if isinstance(law, (CausalLikelihood, StationaryLikelihood)):
        for along in _together(changes, SIDES):
            yield from ((slope,) for slope in law.table_slopes(reward, along)[0])
        return
    for change in changes:
        if isinstance(law, KindsLikelihood):
            yield law.table_slopes(reward, change)
        else:
            load_rules()
            yield tuple(torch.func.jvp(law.tables, (reward,), (change,))[1])


def _together(changes: Iterator[Tensor], entries: int) -> Iterator[Tensor]:
    """Yield tables in stacks (K, T, S, A) of a number of entries at most, or one by one."""
    for first in changes:
        more = max(entries // max(first.numel(), 1) - 1, 0)
        yield torch.stack([first, *itertools.islice(changes, more)])

"""The density of a trajectory model, compiled once to `theta -> (log density, gradient)`.

The reward program is traced once over unconstrained parameters; prior, transforms and reward are
differentiated there, and the likelihood's kernel is called in between. No effect handler runs at
an evaluation.
"""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import pyro
import torch
from torch import Tensor

from mfgppl._kernels import bridge
from mfgppl._kernels.density import Affine, Itself
from mfgppl.inference.compilation import compile_program
from mfgppl.inference.coupled import CoupledDensity, climbed
from mfgppl.inference.program import Program
from mfgppl.inference.progress import stages
from mfgppl.likelihood.coupled import CoupledLikelihood
from mfgppl.likelihood.model import FixedFlow, TrajectoryModel
from mfgppl.likelihood.plays import Model, Plays
from mfgppl.likelihood.stationary import StationaryLikelihood
from mfgppl.reward.program import double_precision

STAGES = (
    "reading the reward program",
    "recording the reward program",
    "loading kernels (compiled once, then kept on disk)",
)
STARTS = 15  # draws from the prior whose median is where a search starts


class Density:
    """The log density of a trajectory model over unconstrained parameters.

    Parameters
    ----------
    model : TrajectoryModel
        The model.

    Attributes
    ----------
    n_dim : int
        Number of unconstrained parameters.
    path : str
        How it is evaluated: "linear" (through a feature matrix), "graph" (compiled operations),
        "torch" (the traced operations) or "eager" (the program itself).
    """

    def __init__(self, model: TrajectoryModel, *, progressbar: bool = False) -> None:
        self.model = model
        with stages(len(STAGES), progressbar) as begin:
            begin(STAGES[0])
            self.program = Program(model)
            self.n_dim = self.program.n_dim
            begin(STAGES[1])
            self.compiled = compile_program(self.program)
            self.path = self.compiled.path
            begin(STAGES[2])
            self._load()

    @property
    def is_native(self) -> bool:
        """Whether it runs without Python."""
        by_kernel = not isinstance(self.law, StationaryLikelihood)
        return by_kernel and self.compiled.tape is not None

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
        native = self.native(prior=prior, jacobian=jacobian)
        return self._by_stages(prior, jacobian) if native is None else native

    @property
    def law(self) -> FixedFlow:
        """The law of trajectories along the model's flow."""
        likelihood = self.model.likelihood
        assert not isinstance(likelihood, CoupledLikelihood)
        return likelihood

    def native(self, *, prior: float = 1.0, jacobian: float = 1.0) -> bridge.NativeDensity | None:
        """Return the same as a density that runs without Python, None where it cannot."""
        compiled, likelihood = self.compiled, self.law
        if compiled.tape is None or isinstance(likelihood, StationaryLikelihood):
            return None
        law = likelihood.arrays()
        core: Itself | Affine = Itself(np.array(self.model.game.shape))
        if compiled.affine is not None:
            core = Affine(*compiled.affine, np.empty(self.model.game.shape))
        machine = bridge.tape_arrays(compiled.tape)
        return bridge.NativeDensity(machine, core, law, prior=prior, jacobian=jacobian)

    def _by_stages(self, prior: float, jacobian: float) -> bridge.Evaluator:
        """Return it by the stages' Python functions, with the kernel between them."""
        forward, pullback = self.compiled.stages()
        likelihood, affine = self.law.evaluator(), self.compiled.affine
        shape = self.model.game.shape

        def evaluate(theta: np.ndarray) -> tuple[float, np.ndarray]:
            found = forward(theta)
            core = found[2:]
            reward = core if affine is None else affine.offset + core @ affine.matrix
            value, slope = likelihood(np.ascontiguousarray(reward).reshape(shape))
            slope = slope.ravel() if affine is None else affine.matrix @ slope.ravel()
            log_prior, log_jacobian = found[:2].tolist()
            gradient = pullback(np.concatenate([[prior, jacobian], slope]))
            return value + prior * log_prior + jacobian * log_jacobian, gradient

        return evaluate

    def rewards(self, values: np.ndarray) -> np.ndarray:
        """Return reward tables (N, T, S, A) at flat constrained parameters (N, K).

        They are -inf where an action is not available.
        """
        table, affine = self.compiled.table, self.compiled.affine
        if affine is not None:
            tables = values @ affine.matrix
            tables += affine.offset
        elif table is not None:
            tables = table(values)
        return tables.reshape(len(values), *self.model.game.shape)

    def tables(self, values: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the tables (N, ...) whose entries trajectories add up, at values (N, K)."""
        return self.law.table_arrays(self.rewards(values))

    def log_policies(self, values: np.ndarray) -> np.ndarray:
        """Return log policies (N, T, S, A) at flat constrained parameters (N, K)."""
        return self.law.log_policy(self.rewards(values))

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
        """Return second derivatives (K, K) of the weighed density, from the plain torch twin."""
        program, likelihood = self.program, self.law

        def value(free: Tensor) -> Tensor:
            run = program.run(program.split(free))
            weighted = prior * run.log_prior + jacobian * run.log_jacobian
            return likelihood.log_likelihood(run.reward) + weighted

        with double_precision(), pyro.validation_enabled(False):
            hessian = torch.autograd.functional.hessian(value, torch.from_numpy(theta.copy()))
        return hessian.numpy()

    def table_slopes(self, theta: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield the slopes of the tables in each unconstrained parameter."""
        program, likelihood = self.program, self.law

        def tables(free: Tensor) -> tuple[Tensor, ...]:
            return likelihood.tables(program.run(program.split(free)).reward)

        point = torch.from_numpy(theta.copy())
        for along in torch.eye(len(theta), dtype=torch.float64):
            with double_precision(), pyro.validation_enabled(False):
                slopes = torch.func.jvp(tables, (point,), (along,))[1]
            yield tuple(slope.nan_to_num(0.0).numpy() for slope in slopes)


class PlaysDensity:
    """The log density of several plays over the unconstrained parameters that they share.

    The first play's has the prior; the others add their likelihoods.

    Parameters
    ----------
    model : Plays
        The plays.

    Attributes
    ----------
    parts : list of Density or CoupledDensity
        The plays'.
    """

    is_native = False

    def __init__(self, model: Plays, *, progressbar: bool = False) -> None:
        self.model = model
        self.parts = [_of_one(m, progressbar=progressbar) for m in model.models.values()]
        self.program, self.n_dim = self.parts[0].program, self.parts[0].n_dim
        self.path = ", ".join(dict.fromkeys(part.path for part in self.parts))

    def native(self, *, prior: float = 1.0, jacobian: float = 1.0) -> None:
        """Return nothing: the plays are added up in Python."""

    def evaluator(self, *, prior: float = 1.0, jacobian: float = 1.0) -> bridge.Evaluator:
        """Return theta to (log density, gradient); weights as of `Density.evaluator`."""
        first, *others = self.parts
        evaluators = [first.evaluator(prior=prior, jacobian=jacobian)]
        evaluators += [part.evaluator(prior=0.0, jacobian=0.0) for part in others]

        def evaluate(theta: np.ndarray) -> tuple[float, np.ndarray]:
            total, gradient = 0.0, np.zeros(self.n_dim)
            for one in evaluators:
                value, slope = one(theta)
                total += value
                gradient += slope
            return total, gradient

        return evaluate

    def constrained(self, points: np.ndarray) -> np.ndarray:
        """Return flat constrained parameters (N, K) at unconstrained points (N, n_dim)."""
        return self.parts[0].constrained(points)

    def record(self, points: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Return what the first play's program records at points."""
        return self.parts[0].record(points)

    def rewards(self, values: np.ndarray) -> np.ndarray:
        """Return the first play's reward tables (N, T, S, A) at values (N, K)."""
        return self.parts[0].rewards(values)

    def second_derivatives(self, theta: np.ndarray, *, prior: float, jacobian: float) -> np.ndarray:
        """Return second derivatives (K, K) of the weighed density."""
        first, *others = self.parts
        found = first.second_derivatives(theta, prior=prior, jacobian=jacobian)
        for part in others:
            found = found + part.second_derivatives(theta, prior=0.0, jacobian=0.0)
        return found


OneDensity = Density | CoupledDensity  # of a TrajectoryModel
AnyDensity = OneDensity | PlaysDensity


@overload
def density_of(model: TrajectoryModel, *, progressbar: bool = False) -> OneDensity: ...
@overload
def density_of(model: Model, *, progressbar: bool = False) -> AnyDensity: ...
def density_of(model: Model, *, progressbar: bool = False) -> AnyDensity:
    """Return the density of a model, compiled at the first call and kept with the model."""
    if isinstance(model, TrajectoryModel):
        return _of_one(model, progressbar=progressbar)
    kept = vars(model)
    if "_density" not in kept:
        kept["_density"] = PlaysDensity(model, progressbar=progressbar)
    density: PlaysDensity = kept["_density"]
    return density


def _of_one(model: TrajectoryModel, *, progressbar: bool) -> OneDensity:
    kept = vars(model)
    if "_density" not in kept:
        kept["_density"] = (
            CoupledDensity(model, _plug_in_mode(model, progressbar))
            if model.coupled
            else Density(model, progressbar=progressbar)
        )
    density: OneDensity = kept["_density"]
    return density


def parts_of(density: AnyDensity) -> Sequence[OneDensity]:
    """Return the densities of the plays, or the one itself."""
    return density.parts if isinstance(density, PlaysDensity) else [density]


def _plug_in_mode(model: TrajectoryModel, progressbar: bool) -> np.ndarray:
    """Return the posterior's mode (K,) along the flow where a coupled model's search begins."""
    along = model.with_panel(model.panel, mean_field=model.mean_field)
    density = Density(along, progressbar=progressbar)
    start = np.median([density.program.draw(seed) for seed in range(STARTS)], axis=0)
    return climbed(density.evaluator(), start)

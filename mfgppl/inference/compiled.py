"""The density of a trajectory model, compiled once to `theta -> (log density, gradient)`.

The reward program is traced once over unconstrained parameters; prior, transforms and reward are
differentiated there, and the likelihood's kernel is called in between. No effect handler runs at
an evaluation.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from mfgppl.exceptions import CompilationWarning
from mfgppl.inference.lowering import Unlowered, lower
from mfgppl.inference.program import Program, Run
from mfgppl.likelihood.model import TrajectoryModel, double_precision

AGREEMENT = 1e-9  # relative, of compiled against eager values at the points checked
LARGEST_MATRIX = 4_000_000  # entries of a feature matrix worth keeping


class Functions(NamedTuple):
    """Functions of the unconstrained values by site.

    Attributes
    ----------
    forward : callable
        Values to (log prior, log Jacobian, *core). The core is the constrained parameters where
        the reward is affine in them, else the reward.
    pullback : callable
        Values, then cotangents of the same, to the gradient by site.
    record : callable
        Values to constrained values, then deterministics, then log priors by site.
    """

    forward: Callable[..., tuple[Any, ...]]
    pullback: Callable[..., tuple[Any, ...]]
    record: Callable[..., tuple[Any, ...]]

    def each(self, change: Callable[[Any], Any]) -> "Functions":
        """Return the three functions changed alike."""
        return Functions(*map(change, self))


class Affine(NamedTuple):
    """A reward that is affine in the constrained parameters: `offset + weights @ matrix`.

    Attributes
    ----------
    matrix : ndarray, shape (K, T * S * A)
        Its slope, a row a parameter.
    offset : ndarray, shape (T * S * A,)
        Its value at zero, -inf where an action is not available.
    places : list of (start, stop, shape)
        The rows of each site and the shape of its value.
    """

    matrix: np.ndarray
    offset: np.ndarray
    places: list[tuple[int, int, tuple[int, ...]]]

    def reward(self, values: Sequence[Any], weights: np.ndarray, reward: np.ndarray) -> None:
        """Fill the flat weights and reward from the constrained values by site."""
        for (start, stop, _), value in zip(self.places, values, strict=True):
            weights[start:stop] = value if stop == start + 1 else value.ravel()
        np.dot(weights, self.matrix, out=reward)
        np.add(reward, self.offset, out=reward)

    def pull(self, slope: np.ndarray) -> list[Any]:
        """Return the gradient by site of a gradient in the reward."""
        flat = self.matrix @ slope.ravel()
        return [
            flat[start:stop].reshape(shape) if shape else flat[start]
            for start, stop, shape in self.places
        ]


class Compiled(NamedTuple):
    """A reward program ready for fast evaluation.

    Attributes
    ----------
    functions : Functions
        Its functions on floats and arrays. Their core is the constrained parameters where the
        reward is affine in them, else the reward.
    recorded : tuple of list of str
        Names of what `record` returns.
    affine : Affine or None
        The reward, where it is affine in the parameters.
    path : str
        "linear", "graph", "torch" or "eager": how it is evaluated.
    """

    functions: Functions
    recorded: tuple[list[str], list[str], list[str]]
    affine: Affine | None
    path: str


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
        How it is evaluated: "linear" (through a feature matrix), "graph" (NumPy source), "torch"
        (the traced graph) or "eager" (the program itself).
    """

    def __init__(self, model: TrajectoryModel) -> None:
        self.model = model
        self.program = Program(model)
        self.n_dim = self.program.n_dim
        self.compiled = compile_program(self.program)
        self.path = self.compiled.path

    def evaluator(
        self, *, prior: float = 1.0, jacobian: float = 1.0
    ) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """Return theta to (log density, gradient); the gradient's array is reused.

        Parameters
        ----------
        prior, jacobian : float
            Weights of the log prior and of the log Jacobian: (1, 1) is the unconstrained
            posterior, (1, 0) the constrained one, (0, 0) the log likelihood.
        """
        split, sites = self.program.split, self.program.sites
        forward, pullback, _ = self.compiled.functions
        likelihood = self._likelihood()
        gradient = np.empty(self.n_dim)

        def evaluate(theta: np.ndarray) -> tuple[float, np.ndarray]:
            parts = split(theta)
            log_prior, log_jacobian, *core = forward(*parts)
            value, slopes = likelihood(core)
            for site, part in zip(sites, pullback(*parts, prior, jacobian, *slopes), strict=True):
                gradient[site.start : site.stop] = part if site.size == 1 else part.ravel()
            return value + prior * log_prior + jacobian * log_jacobian, gradient

        return evaluate

    def _likelihood(self) -> Callable[[list[Any]], tuple[float, list[Any]]]:
        """Return the core's values to the log likelihood and its gradient in them."""
        evaluate, affine = self.model.likelihood.evaluator(), self.compiled.affine
        if affine is None:

            def of_reward(core: list[Any]) -> tuple[float, list[Any]]:
                value, slope = evaluate(np.ascontiguousarray(core[0]))
                return value, [slope]

            return of_reward
        weights, flat = np.empty(len(affine.matrix)), np.empty(affine.matrix.shape[1])
        table = flat.reshape(self.model.game.shape)

        def of_parameters(core: list[Any]) -> tuple[float, list[Any]]:
            affine.reward(core, weights, flat)
            value, slope = evaluate(table)
            return value, affine.pull(slope)

        return of_parameters

    def reward(self, theta: np.ndarray) -> np.ndarray:
        """Return the reward table at unconstrained parameters, -inf where not available."""
        core = self.compiled.functions.forward(*self.program.split(theta))[2:]
        affine = self.compiled.affine
        if affine is None:
            return np.ascontiguousarray(core[0])
        flat = np.empty(affine.matrix.shape[1])
        affine.reward(core, np.empty(len(affine.matrix)), flat)
        return flat.reshape(self.model.game.shape)

    def record(self, theta: np.ndarray) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return constrained values, deterministics and log priors by site."""
        values = iter(self.compiled.functions.record(*self.program.split(theta)))
        groups = [{name: next(values) for name in names} for names in self.compiled.recorded]
        return groups[0], groups[1], groups[2]


def density_of(model: TrajectoryModel) -> Density:
    """Return the density of a model, compiled at the first call and kept with the model."""
    kept = vars(model)
    if "_density" not in kept:
        kept["_density"] = Density(model)
    density: Density = kept["_density"]
    return density


def compile_program(program: Program) -> Compiled:
    """Trace a program and differentiate it; fall back, with a warning, where that fails."""
    affine = _affine_form(program)
    core = _parameters if affine is not None else _reward
    functions = _functions(program, core)
    parts = program.split(torch.from_numpy(program.draw(1)))
    with double_precision(), torch.no_grad():
        run = program.run(parts)
    recorded = (list(run.values), list(run.deterministics), list(run.site_log_priors))
    cotangents = [torch.ones_like(v) for v in (run.log_prior, run.log_jacobian, *core(run))]
    examples = [tuple(parts), (*parts, *cotangents), tuple(parts)]
    eager = functions.each(_numpy)
    try:
        graphs = Functions(*map(_trace, functions, examples))
    except Exception as error:
        _warn_eager(str(error))
        return Compiled(eager, recorded, affine, "eager")
    try:
        lowered = Functions(*map(_lowered, graphs, examples))
        if _agree(program, eager, lowered):
            return Compiled(lowered, recorded, affine, "graph" if affine is None else "linear")
    except Unlowered:
        pass
    traced = graphs.each(_numpy)
    if _agree(program, eager, traced):
        return Compiled(traced, recorded, affine, "torch")
    _warn_eager("its traced form gives other numbers; it may depend on the values in Python")
    return Compiled(eager, recorded, affine, "eager")


def _warn_eager(reason: str) -> None:
    warnings.warn(
        "the reward program cannot be compiled and runs as Python at each evaluation, which is "
        f"slower; replace Python branches on parameters by torch.where. Reason: {reason[:200]}",
        CompilationWarning,
        stacklevel=4,
    )


def _parameters(run: Run) -> tuple[Tensor, ...]:
    return tuple(run.values.values())


def _reward(run: Run) -> tuple[Tensor, ...]:
    return (run.reward,)


def _functions(program: Program, core: Callable[[Run], tuple[Tensor, ...]]) -> Functions:
    n_sites = len(program.sites)

    def forward(*parts: Tensor) -> tuple[Tensor, ...]:
        run = program.run(parts)
        return run.log_prior, run.log_jacobian, *core(run)

    def pullback(*arguments: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            parts = [p.detach().requires_grad_(True) for p in arguments[:n_sites]]
            pairs = zip(forward(*parts), arguments[n_sites:], strict=True)
            reached = [(o, c.expand_as(o)) for o, c in pairs if o.requires_grad]
            outputs, cotangents = zip(*reached, strict=True)
            gradients = torch.autograd.grad(outputs, parts, cotangents, allow_unused=True)
        return tuple(
            torch.zeros_like(p) if g is None else g for p, g in zip(parts, gradients, strict=True)
        )

    def record(*parts: Tensor) -> tuple[Tensor, ...]:
        run = program.run(parts)
        groups = (run.values, run.deterministics, run.site_log_priors)
        return tuple(v for group in groups for v in group.values())

    return Functions(forward, pullback, record)


def _trace(function: Callable[..., Any], examples: tuple[Tensor, ...]) -> GraphModule:
    """Trace a function of tensors to a graph of core operations."""
    with double_precision(), pyro.validation_enabled(False):
        return make_fx(function, _decompositions())(*examples)


def _lowered(graph: Any, examples: tuple[Tensor, ...]) -> Callable[..., tuple[Any, ...]]:
    """Lower a graph, rewritten without mutation where it mutates."""
    try:
        fast = lower(graph)
    except Unlowered:
        fast = lower(_trace(torch.func.functionalize(graph, remove="mutations"), examples))
    return _safe(fast, _numpy(graph))


@functools.cache
def _decompositions() -> dict[Any, Any]:
    return dict(core_aten_decompositions())


def _numpy(function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """Let a function of tensors take and return floats and arrays."""

    def call(*args: Any) -> tuple[Any, ...]:
        tensors = [torch.as_tensor(a, dtype=torch.float64) for a in args]
        with double_precision(), pyro.validation_enabled(False), torch.no_grad():
            results = function(*tensors)
        return tuple(r.item() if r.ndim == 0 else r.detach().numpy() for r in results)

    return call


def _safe(
    fast: Callable[..., tuple[Any, ...]], exact: Callable[..., tuple[Any, ...]]
) -> Callable[..., tuple[Any, ...]]:
    """Leave to torch the arguments at which Python's floats raise instead of giving inf or NaN."""

    def call(*args: Any) -> tuple[Any, ...]:
        try:
            return fast(*args)
        except (ArithmeticError, ValueError, TypeError):
            return exact(*args)

    return call


def _affine_form(program: Program) -> Affine | None:
    """Return the slope and offset of a reward affine in the parameters, or None."""
    model = program.model
    places, size = [], 0
    for site in program.sites:
        start, size = size, size + int(np.prod(site.shape, dtype=int))
        places.append((start, size, site.shape))
    if size * int(np.prod(model.game.shape)) > LARGEST_MATRIX:
        return None

    def reward_at(flat: np.ndarray) -> np.ndarray:
        values = {
            site.name: torch.as_tensor(flat[start:stop]).reshape(shape)
            for site, (start, stop, shape) in zip(program.sites, places, strict=True)
        }
        with double_precision(), pyro.validation_enabled(False), torch.no_grad():
            return program.reward_at(values).numpy().ravel().copy()

    try:
        offset = reward_at(np.zeros(size))
        matrix = np.stack([reward_at(row) - offset for row in np.eye(size)])
        rng = np.random.default_rng(0)
        for scale in (0.3, 3.0, 30.0):
            point = scale * rng.standard_normal(size)
            expected, predicted = reward_at(point), point @ matrix + offset
            tolerance = 1e-12 * (np.abs(offset) + np.abs(point) @ np.abs(matrix)) + 1e-300
            if not bool((np.abs(expected - predicted) <= tolerance).all()):
                return None
    except Exception:  # a program may fail away from its support; then it is not affine
        return None
    offset[~np.broadcast_to(model.game.available.numpy(), model.game.shape).ravel()] = -np.inf
    return Affine(np.ascontiguousarray(matrix), offset, places)


def _agree(program: Program, eager: Functions, fast: Functions) -> bool:
    """Compare two sets of functions at draws from the prior."""
    rng = np.random.default_rng(1)
    for seed, sign in enumerate((1.0, -1.0, 2.0)):
        parts = program.split(sign * program.draw(seed))
        cotangents = [rng.standard_normal(np.shape(v)) for v in eager.forward(*parts)]
        calls = [parts, (*parts, *cotangents), parts]
        for slow, quick, args in zip(eager, fast, calls, strict=True):
            try:
                results = quick(*args)
            except Exception:  # whatever breaks in a rewritten program, the original is at hand
                return False
            for a, b in zip(slow(*args), results, strict=True):
                if np.shape(a) != np.shape(b):
                    return False
                if not np.allclose(a, b, rtol=AGREEMENT, atol=AGREEMENT, equal_nan=True):
                    return False
    return True

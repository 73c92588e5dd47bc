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
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch.distributions import biject_to
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from mfgppl.exceptions import CompilationWarning
from mfgppl.inference.lowering import Unlowered, lower
from mfgppl.likelihood.model import TrajectoryModel, double_precision
from mfgppl.reward.program import is_parameter, spread_reward

AGREEMENT = 1e-9  # relative, of compiled against eager values at the points checked
LARGEST_MATRIX = 4_000_000  # entries of a feature matrix worth keeping


class Site(NamedTuple):
    """Where a latent site stands in the flat unconstrained vector.

    Attributes
    ----------
    name : str
        The site.
    shape : tuple of int
        Shape of its value.
    free_shape : tuple of int
        Shape of its unconstrained value.
    start, stop : int
        Its place in the flat vector.
    """

    name: str
    shape: tuple[int, ...]
    free_shape: tuple[int, ...]
    start: int
    stop: int


class Run(NamedTuple):
    """What one run of a reward program at unconstrained parameters gives.

    Attributes
    ----------
    log_prior : Tensor
        Log density of the parameters and of factors in the program.
    log_jacobian : Tensor
        Log determinant of the map from unconstrained to constrained parameters.
    values : dict of str to Tensor
        Constrained parameters.
    deterministics : dict of str to Tensor
        What the program records with `pyro.deterministic`.
    site_log_priors : dict of str to Tensor
        Log prior by site.
    reward : Tensor, shape (T, S, A)
        The reward table.
    """

    log_prior: Tensor
    log_jacobian: Tensor
    values: dict[str, Tensor]
    deterministics: dict[str, Tensor]
    site_log_priors: dict[str, Tensor]
    reward: Tensor


class _Substitute(Messenger):
    """Give latent sites their values from a function of the site."""

    def __init__(self, value_of: Callable[[str, Any], Tensor]) -> None:
        super().__init__()
        self.value_of = value_of

    def _pyro_sample(self, msg: Any) -> None:
        if is_parameter(msg):
            msg["value"] = self.value_of(msg["name"], msg["fn"])
            msg["done"] = True


class Program:
    """A model's reward program as functions of one flat vector of unconstrained parameters.

    Parameters
    ----------
    model : TrajectoryModel
        The model.
    """

    def __init__(self, model: TrajectoryModel) -> None:
        self.model = model
        self.sites: list[Site] = []
        self.names: list[str] = []
        start = 0
        for name, (shape, free_shape) in self._shapes().items():
            stop = start + int(np.prod(free_shape, dtype=int))
            self.sites.append(Site(name, shape, free_shape, start, stop))
            self.names += _entry_names(name, free_shape)
            start = stop
        self.n_dim = start

    def run(self, parts: Sequence[Tensor]) -> Run:
        """Run the program at the unconstrained values of its sites."""
        free = {site.name: part for site, part in zip(self.sites, parts, strict=True)}
        jacobian = []

        def value_of(name: str, fn: Any) -> Tensor:
            transform = biject_to(fn.support)
            value = transform(free[name])
            jacobian.append(transform.log_abs_det_jacobian(free[name], value).sum())
            return value

        with pyro.poutine.block(), pyro.poutine.trace() as tracer, _Substitute(value_of):
            reward = spread_reward(self.model.reward, self.model.inputs)
        values, deterministics, priors = {}, {}, {}
        for name, node in tracer.trace.nodes.items():
            if node["type"] != "sample" or type(node["fn"]).__name__ == "_Subsample":
                continue
            if node["infer"].get("_deterministic"):
                deterministics[name] = node["value"]
                continue
            log_prob = pyro.distributions.util.scale_and_mask(
                node["fn"].log_prob(node["value"]), node["scale"], node["mask"]
            )
            priors[name] = log_prob.sum()
            if name in free:
                values[name] = node["value"]
        return Run(
            functools.reduce(torch.add, priors.values()),
            functools.reduce(torch.add, jacobian),
            values,
            deterministics,
            {k: v for k, v in priors.items() if k in values},
            self.model.masked(reward),
        )

    def split(self, theta: Any) -> list[Any]:
        """Return a flat vector (an array or a tensor) as the unconstrained values by site."""
        return [
            theta[s.start : s.stop].reshape(s.free_shape) if s.free_shape else theta[s.start]
            for s in self.sites
        ]

    def entry_names(self) -> list[str]:
        """One name a constrained parameter, site by site."""
        return [name for s in self.sites for name in _entry_names(s.name, s.shape)]

    def reward_at(self, values: dict[str, Tensor]) -> Tensor:
        """Return the reward table at constrained parameters."""
        with pyro.poutine.block(), _Substitute(lambda name, fn: values[name]):
            return spread_reward(self.model.reward, self.model.inputs)

    def free(self, values: dict[str, Any]) -> np.ndarray:
        """Return the flat unconstrained vector of constrained parameters."""
        parts: dict[str, Tensor] = {}

        def value_of(name: str, fn: Any) -> Tensor:
            value = torch.as_tensor(values[name], dtype=torch.float64)
            parts[name] = biject_to(fn.support).inv(value).reshape(-1)
            return value

        with double_precision(), pyro.poutine.block(), _Substitute(value_of):
            spread_reward(self.model.reward, self.model.inputs)
        return torch.cat([parts[s.name] for s in self.sites]).numpy()

    def draw(self, seed: int) -> np.ndarray:
        """Draw unconstrained parameters from the prior."""
        with torch.random.fork_rng(devices=[]), double_precision(), pyro.poutine.trace() as tracer:
            torch.manual_seed(seed)
            with pyro.poutine.block(expose=[s.name for s in self.sites]):
                self.model.reward(self.model.inputs)
        return self.free({s.name: tracer.trace.nodes[s.name]["value"] for s in self.sites})

    def priors(self) -> dict[str, str]:
        """Describe the prior of each site: its family, and its numbers at one draw."""
        with torch.random.fork_rng(devices=[]), double_precision(), pyro.poutine.trace() as tracer:
            torch.manual_seed(0)
            with pyro.poutine.block(expose=[s.name for s in self.sites]):
                self.model.reward(self.model.inputs)
        return {s.name: _described(tracer.trace.nodes[s.name]["fn"]) for s in self.sites}

    def _shapes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        with torch.random.fork_rng(devices=[]), double_precision(), pyro.poutine.trace() as tracer:
            torch.manual_seed(0)
            self.model.reward(self.model.inputs)
        return {
            name: (
                tuple(node["value"].shape),
                tuple(biject_to(node["fn"].support).inverse_shape(node["value"].shape)),
            )
            for name, node in tracer.trace.nodes.items()
            if is_parameter(node)
        }


def _described(fn: Any) -> str:
    """Return a distribution as text: its family and arguments."""
    inner = fn
    while hasattr(inner, "base_dist") and type(inner).__name__ != "HalfNormal":
        if type(inner).__name__ not in ("Independent", "ExpandedDistribution", "MaskedDistribution"):
            break
        inner = inner.base_dist
    shown = []
    for name in inner.arg_constraints:
        value = getattr(inner, name, None)
        if isinstance(value, Tensor):
            value = value.detach()
            same = value.numel() > 0 and bool((value == value.reshape(-1)[0]).all())
            text = f"{value.reshape(-1)[0]:.4g}" if same else "..."
            shown.append(f"{name}={text}")
    shape = tuple(fn.batch_shape + fn.event_shape)
    size = f", shape {shape}" if shape else ""
    return f"{type(inner).__name__}({', '.join(shown)}){size}"


def _entry_names(name: str, shape: tuple[int, ...]) -> list[str]:
    if not shape:
        return [name]
    return [f"{name}[{', '.join(map(str, index))}]" for index in np.ndindex(*shape)]


class Compiled(NamedTuple):
    """Functions of the unconstrained values by site, as floats and arrays.

    Attributes
    ----------
    forward : callable
        Values to (log prior, log Jacobian, *core). The core is the constrained parameters where
        the reward is affine in them, else the reward.
    pullback : callable
        Values, then cotangents of the same, to the gradient by site.
    record : callable
        Values to constrained values, then deterministics, then log priors by site.
    recorded : tuple of list of str
        Names of what `record` returns.
    matrix : ndarray, shape (K, T * S * A), or None
        Slope of an affine reward in the constrained parameters.
    offset : ndarray, shape (T * S * A,), or None
        Its value at zero.
    path : str
        "linear", "graph", "torch" or "eager": how it is evaluated.
    """

    forward: Callable[..., tuple[Any, ...]]
    pullback: Callable[..., tuple[Any, ...]]
    record: Callable[..., tuple[Any, ...]]
    recorded: tuple[list[str], list[str], list[str]]
    matrix: np.ndarray | None
    offset: np.ndarray | None
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
    names : list of str
        One name each.
    path : str
        How it is evaluated: "linear" (through a feature matrix), "graph" (NumPy source), "torch"
        (the traced graph) or "eager" (the program itself).
    """

    def __init__(self, model: TrajectoryModel) -> None:
        self.model = model
        self.program = Program(model)
        self.n_dim, self.names = self.program.n_dim, self.program.names
        self.compiled = compile_program(self.program)
        self.path = self.compiled.path

    def evaluator(
        self, *, prior: float = 1.0, jacobian: float = 1.0
    ) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """Return theta to (log density, gradient), with a workspace of its own.

        Parameters
        ----------
        prior, jacobian : float
            Weights of the log prior and of the log Jacobian: (1, 1) is the unconstrained
            posterior, (1, 0) the constrained one, (0, 0) the log likelihood.
        """
        compiled, likelihood = self.compiled, self.model.likelihood.evaluator()
        split, shape = self.program.split, self.model.game.shape
        free = [(s.start, s.stop) for s in self.program.sites]
        matrix, offset = compiled.matrix, compiled.offset
        gradient = np.empty(self.n_dim)
        if matrix is not None:
            places, weights = self._places(), np.empty(len(matrix))
            reward_flat = np.empty(matrix.shape[1])
            reward_table = reward_flat.reshape(shape)

        def evaluate(theta: np.ndarray) -> tuple[float, np.ndarray]:
            parts = split(theta)
            log_prior, log_jacobian, *core = compiled.forward(*parts)
            if matrix is None:
                value, slope = likelihood(np.ascontiguousarray(core[0]))
                slopes: Sequence[Any] = (slope,)
            else:
                for (start, stop, _), part in zip(places, core, strict=True):
                    weights[start:stop] = part if stop == start + 1 else part.ravel()
                np.dot(weights, matrix, out=reward_flat)
                np.add(reward_flat, offset, out=reward_flat)
                value, slope = likelihood(reward_table)
                flat = matrix @ slope.ravel()
                slopes = [
                    flat[start:stop].reshape(shape) if shape else flat[start]
                    for start, stop, shape in places
                ]
            gradients = compiled.pullback(*parts, prior, jacobian, *slopes)
            for (start, stop), part in zip(free, gradients, strict=True):
                gradient[start:stop] = part if stop == start + 1 else part.ravel()
            return value + prior * log_prior + jacobian * log_jacobian, gradient

        return evaluate

    def reward(self, theta: np.ndarray) -> np.ndarray:
        """Return the reward table at unconstrained parameters, -inf where not available."""
        core = self.compiled.forward(*self.program.split(theta))[2:]
        if self.compiled.matrix is None:
            return np.ascontiguousarray(core[0])
        weights = np.concatenate([np.ravel(part) for part in core])
        flat = weights @ self.compiled.matrix + self.compiled.offset
        return flat.reshape(self.model.game.shape)

    def record(self, theta: np.ndarray) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return constrained values, deterministics and log priors by site."""
        values = iter(self.compiled.record(*self.program.split(theta)))
        groups = [{name: next(values) for name in names} for names in self.compiled.recorded]
        return groups[0], groups[1], groups[2]

    def _places(self) -> list[tuple[int, int, tuple[int, ...]]]:
        """Where each site's constrained value stands among the rows of the feature matrix."""
        places, start = [], 0
        for site in self.program.sites:
            stop = start + int(np.prod(site.shape, dtype=int))
            places.append((start, stop, site.shape))
            start = stop
        return places


def compile_program(program: Program) -> Compiled:
    """Trace a program and differentiate it; fall back, with a warning, where that fails."""
    linear = _linear_form(program)
    core = _parameters if linear is not None else _reward
    matrix, offset = linear if linear is not None else (None, None)
    functions = _functions(program, core)
    parts = program.split(torch.from_numpy(program.draw(1)))
    with double_precision(), torch.no_grad():
        run = program.run(parts)
    recorded = (list(run.values), list(run.deterministics), list(run.site_log_priors))
    cotangents = [torch.ones_like(v) for v in (run.log_prior, run.log_jacobian, *core(run))]
    examples = [tuple(parts), (*parts, *cotangents), tuple(parts)]
    eager = [_numpy(f) for f in functions]
    try:
        graphs = [_trace(f, e) for f, e in zip(functions, examples, strict=True)]
    except Exception as error:
        _warn_eager(str(error))
        return Compiled(*eager, recorded, matrix, offset, "eager")
    try:
        lowered = [_safe(lower(g), _numpy(g)) for g in graphs]
        if _agree(program, eager, lowered):
            path = "graph" if linear is None else "linear"
            return Compiled(*lowered, recorded, matrix, offset, path)
    except Unlowered:
        pass
    traced = [_numpy(g) for g in graphs]
    if _agree(program, eager, traced):
        return Compiled(*traced, recorded, matrix, offset, "torch")
    _warn_eager("its traced form gives other numbers; it may depend on the values in Python")
    return Compiled(*eager, recorded, matrix, offset, "eager")


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


def _functions(
    program: Program, core: Callable[[Run], tuple[Tensor, ...]]
) -> tuple[Callable[..., Any], ...]:
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

    return forward, pullback, record


def _trace(function: Callable[..., Any], examples: tuple[Tensor, ...]) -> GraphModule:
    with double_precision(), pyro.validation_enabled(False):
        return make_fx(function, core_aten_decompositions())(*examples)


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


def _linear_form(program: Program) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the slope and offset of a reward affine in the parameters, or None."""
    model = program.model
    size = sum(int(np.prod(s.shape, dtype=int)) for s in program.sites)
    if size * int(np.prod(model.game.shape)) > LARGEST_MATRIX:
        return None

    def reward_at(flat: np.ndarray) -> np.ndarray:
        values, start = {}, 0
        for site in program.sites:
            stop = start + int(np.prod(site.shape, dtype=int))
            values[site.name] = torch.as_tensor(flat[start:stop]).reshape(site.shape)
            start = stop
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
    except Exception:
        return None
    offset[~np.broadcast_to(model.game.available.numpy(), model.game.shape).ravel()] = -np.inf
    return np.ascontiguousarray(matrix), offset


def _agree(
    program: Program, eager: list[Callable[..., Any]], fast: list[Callable[..., Any]]
) -> bool:
    """Compare two sets of functions at draws from the prior."""
    rng = np.random.default_rng(1)
    for seed, sign in enumerate((1.0, -1.0, 2.0)):
        parts = program.split(sign * program.draw(seed))
        cotangents = [rng.standard_normal(np.shape(v)) for v in eager[0](*parts)]
        calls = [parts, (*parts, *cotangents), parts]
        for slow, quick, args in zip(eager, fast, calls, strict=True):
            for a, b in zip(slow(*args), quick(*args), strict=True):
                if np.shape(a) != np.shape(b):
                    return False
                if not np.allclose(a, b, rtol=AGREEMENT, atol=AGREEMENT, equal_nan=True):
                    return False
    return True

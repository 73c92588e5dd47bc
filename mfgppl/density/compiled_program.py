"""A reward program traced once: prior, transforms and reward as recorded operations.

They are differentiated where they are recorded and run on the tape machine, or in torch where an
operation has no instruction. No effect handler runs at an evaluation.
"""

import functools
import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyro
import torch
from torch import Tensor

from mfgppl._compiler.lowering import lower
from mfgppl._compiler.operands import Unlowered
from mfgppl._compiler.operations import KNOWN
from mfgppl._compiler.tracing import Trace, record, replay
from mfgppl._kernels import bridge
from mfgppl._kernels.tape import Tape
from mfgppl.density.affine_form import Features, affine_form, recorded_table
from mfgppl.exceptions import CompilationWarning
from mfgppl.reward.parameters import Program, Run
from mfgppl.reward.program import double_precision

AGREEMENT = 1e-9  # relative, of compiled against eager values at the points checked
LARGEST_MATRIX = 2**25  # entries of a feature matrix worth keeping, 268 MB
OTHER_NUMBERS = "its traced form gives other numbers; it may depend on the values in Python"

Forward = Callable[[np.ndarray], np.ndarray]
Stages = Callable[[], tuple[Forward, Forward]]
Built = tuple[Stages, Forward, Forward | None, Tape | None]


class Compiled(NamedTuple):
    """A reward program ready for fast evaluation.

    Attributes
    ----------
    stages : callable
        Returns two functions with a workspace of their own. The first takes unconstrained
        parameters to the flat array (log prior, log Jacobian, *core), where the core is the
        constrained parameters if the reward is affine in them, else the reward; the second takes
        cotangents of the same to the gradient at the point where the first was called last. Their
        arrays are reused.
    record : callable
        Points (N, n_dim) to what the program records there, (N, n_recorded).
    table : callable or None
        Flat constrained parameters (N, K) to flat reward tables (N, T * S * A), where the reward
        is not affine.
    recorded : list of (group, name, shape)
        What `record` holds: group 0 constrained values, 1 deterministics, 2 log priors.
    affine : Features or None
        The reward, where it is affine in the parameters.
    path : str
        "linear", "graph", "coupled", "torch" or "eager": how it is evaluated.
    tape : Tape or None
        The stages as a tape, where they run on the machine.
    """

    stages: Stages
    record: Forward
    table: Forward | None
    recorded: list[tuple[int, str, tuple[int, ...]]]
    affine: Features | None
    path: str
    tape: Tape | None = None

    def by_group(self, points: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Return what is recorded at points by group and name, with the points' axis first."""
        flat, groups, start = self.record(points), [{}, {}, {}], 0  # type: ignore[var-annotated]
        for group, name, shape in self.recorded:
            stop = start + math.prod(shape)
            groups[group][name] = flat[:, start:stop].reshape(len(points), *shape)
            start = stop
        return groups


def compile_program(program: Program, *, coupled: bool = False, prior: bool = True) -> Compiled:
    """Trace a program and differentiate it; fall back, with a warning, where that fails.

    Parameters
    ----------
    program : Program
        The program.
    coupled : bool
        Whether the reward is left to who solves for its flow: the core is then the parameters,
        and `record` takes points followed by flat flows, (N, n_dim + T * F).
    prior : bool
        Whether the log prior is computed; else it is zero.
    """
    plain, affine, lost = (None, None, None) if coupled else _recorded_reward(program)
    outcome = _reward if affine is None and not coupled else _parameters
    point = torch.from_numpy(program.draw(1))
    with double_precision(), pyro.validation_enabled(False), torch.no_grad():
        run = program.at(point)
    groups = (run.values, run.deterministics, run.site_log_priors)
    recorded = [(k, name, tuple(v.shape)) for k, g in enumerate(groups) for name, v in g.items()]
    n_core = sum(v.numel() for v in outcome(run))

    def forward(theta: Tensor, *_: Tensor) -> Tensor:
        run = program.at(theta)
        log_prior = run.log_prior if prior else torch.zeros(())
        return _flat([log_prior, run.log_jacobian, *outcome(run)])

    def pullback(theta: Tensor, cotangent: Tensor, outputs: Tensor) -> Tensor:
        # weighing in the open: `grad` given a cotangent would import sympy
        slope = torch.autograd.grad((outputs * cotangent).sum(), theta, allow_unused=True)[0]
        return torch.zeros_like(theta) if slope is None else slope.contiguous()

    def records(at: Tensor) -> Tensor:
        theta, flow = at[: program.n_dim], at[program.n_dim :]
        run = program.at(theta, mean_field=flow if coupled else None)
        return _flat([v for g in (run.values, run.deterministics, run.site_log_priors)
                      for v in g.values()])  # fmt: skip

    eager = _in_eager(forward, pullback)
    by_values = _by_row(program.flat_core) if outcome is _reward else None
    in_eager = Compiled(eager, _by_row(records), by_values, recorded, affine, "eager")
    if lost is not None:
        _warn_eager(lost)
        return in_eager
    try:
        with double_precision(), pyro.validation_enabled(False):
            inputs = [point.clone().requires_grad_(True), torch.ones(2 + n_core)]
            trace = record([forward, pullback], inputs, KNOWN)
            noted = torch.from_numpy(_with_flow(program, point.numpy(), coupled))
            notes = record([records], [noted], KNOWN)
    except Exception as error:  # whatever a program does that cannot be followed
        _warn_eager(str(error))
        return in_eager
    path = "coupled" if coupled else "graph" if affine is None else "linear"
    for build, name in ((_on_tape, path), (_in_torch, "torch")):
        try:
            stages, kept, tables, tape = build(trace, notes, None if affine else plain)
        except Unlowered:
            continue
        fast = Compiled(stages, kept, tables, recorded, affine, name, tape)
        if _agree(program, in_eager, fast, coupled):
            return fast
    _warn_eager(OTHER_NUMBERS)
    return in_eager


def weighted_terms(weights: np.ndarray, terms: np.ndarray) -> float:
    """Return the weighed log prior and log Jacobian; what has no weight plays no part."""
    return sum(float(w * part) for w, part in zip(weights, terms, strict=False) if w)


def _recorded_reward(program: Program) -> tuple[Trace | None, Features | None, str | None]:
    """Return the reward's record, its affine form if it has one, and why there is none."""
    size = sum(math.prod(site.shape) for site in program.sites)
    try:
        trace = recorded_table(program)
    except Exception as error:  # whatever a program does that cannot be followed
        return None, None, str(error)
    if program.nodes is not None or size * math.prod(program.game.shape) > LARGEST_MATRIX:
        return trace, None, None
    affine = affine_form(program, trace)
    if affine is not None and not _repeats(program, affine):
        return None, None, OTHER_NUMBERS
    return trace, affine, None


def _repeats(program: Program, affine: Features) -> bool:
    """Return whether an affine form gives the program's own reward at draws from the prior."""
    for theta in _points(program):
        with double_precision(), pyro.validation_enabled(False), torch.no_grad():
            run = program.at(torch.from_numpy(theta))
        values, reward = (_flat(list(v)).numpy() for v in (_parameters(run), _reward(run)))
        if not _close(reward, affine.offset + values @ affine.matrix):
            return False
    return True


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


def _flat(values: list[Tensor]) -> Tensor:
    return torch.cat([v.reshape(-1) for v in values])


def _on_tape(trace: Trace, notes: Trace, plain: Trace | None) -> Built:
    """Return stages, record and table on the tape machine, and the tape of the stages."""
    tape, noted = lower(trace), lower(notes)
    tabled = None if plain is None else functools.partial(bridge.each_on_tape, lower(plain))
    return (
        lambda: bridge.on_tape(tape),
        functools.partial(bridge.each_on_tape, noted),
        tabled,
        tape,
    )


def _in_torch(trace: Trace, notes: Trace, plain: Trace | None) -> Built:
    """Return the same by repeating the traced operations, without a tape."""
    first, second = replay(trace, 0), replay(trace, 1)

    def stages() -> tuple[Forward, Forward]:
        at: list[Tensor] = []

        def forward(theta: np.ndarray) -> np.ndarray:
            at[:] = [torch.from_numpy(theta.copy())]
            return first(*at).numpy()

        return forward, lambda cotangent: second(*at, torch.from_numpy(cotangent)).numpy()

    tabled = None if plain is None else _by_row(replay(plain, 0))
    return stages, _by_row(replay(notes, 0)), tabled, None


def _in_eager(forward: Callable[..., Tensor], pullback: Callable[..., Tensor]) -> Stages:
    """Return stages that run the program itself."""

    def stages() -> tuple[Forward, Forward]:
        at: list[Tensor] = []

        def run(theta: np.ndarray) -> np.ndarray:
            with double_precision(), pyro.validation_enabled(False):
                point = torch.from_numpy(theta.copy()).requires_grad_(True)
                at[:] = [point, forward(point)]
            return at[1].detach().numpy()

        def pull(cotangent: np.ndarray) -> np.ndarray:
            return pullback(at[0], torch.from_numpy(cotangent), at[1]).numpy()

        return run, pull

    return stages


def _by_row(function: Callable[[Tensor], Tensor]) -> Forward:
    """Let a function of one point take rows of points."""

    def each(points: np.ndarray) -> np.ndarray:
        with double_precision(), pyro.validation_enabled(False), torch.no_grad():
            return np.stack([function(torch.from_numpy(p.copy())).numpy() for p in points])

    return each


def _with_flow(program: Program, theta: np.ndarray, coupled: bool) -> np.ndarray:
    """Return a point as `record` takes it."""
    flow = program.mean_field.numpy().ravel()
    return np.concatenate([theta, flow]) if coupled else theta.copy()


def _points(program: Program) -> list[np.ndarray]:
    """Return unconstrained points about draws from the prior."""
    return [sign * program.draw(seed) for seed, sign in enumerate((1.0, -1.0, 2.0))]


def _agree(program: Program, eager: Compiled, fast: Compiled, coupled: bool) -> bool:
    """Compare two forms of a program at draws from the prior."""
    rng = np.random.default_rng(1)
    (forward, pullback), (quick, quick_pullback) = eager.stages(), fast.stages()
    for theta in _points(program):
        expected = forward(theta)
        cotangent = rng.standard_normal(expected.size)
        pairs = [(expected, quick(theta).copy()), (pullback(cotangent), quick_pullback(cotangent))]
        rows = _with_flow(program, theta, coupled)[None]
        pairs.append((eager.record(rows), fast.record(rows)))
        if eager.table is not None and fast.table is not None:
            values = program.flat_values(pairs[-1][0])
            pairs.append((eager.table(values), fast.table(values)))
        if not all(_close(a, b) for a, b in pairs):
            return False
    return True


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    size = np.abs(a[np.isfinite(a)]).max(initial=1.0)  # of what cancels in sums
    return a.shape == b.shape and np.allclose(
        a, b, rtol=AGREEMENT, atol=AGREEMENT * float(size), equal_nan=True
    )

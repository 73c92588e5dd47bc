"""Posterior draws by the No-U-Turn Sampler: nutpie by default, Pyro's own as the reference."""

import dataclasses
import functools
import secrets
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
import xarray as xr

from mfgppl._arguments import one_of, positive_int, real_between, strict_keywords
from mfgppl._kernels.bridge import NativeDensity, differentiable
from mfgppl.data.trajectories import with_rows
from mfgppl.exceptions import ConvergenceWarning
from mfgppl.inference.chains import Chain, complete_chains, run_chains
from mfgppl.inference.checks import convergence_messages
from mfgppl.inference.compiled import AnyDensity, density_of, parts_of
from mfgppl.inference.estimate import PointEstimate, point_values
from mfgppl.inference.progress import Watch
from mfgppl.inference.replication import seeds_of
from mfgppl.inference.results import fixed_datatree, parameters_of, recorded, to_datatree
from mfgppl.inference.store import append_draws, create_store, finish_store
from mfgppl.likelihood.plays import Model, check_model, plays_of
from mfgppl.reward.program import check_finite

try:
    from os import process_cpu_count as cpu_count  # type: ignore[attr-defined]
except ImportError:
    from os import cpu_count


LOOK_EVERY = 0.5  # seconds between looks at what a running chain has drawn


class _Settings(NamedTuple):
    draws: int
    tune: int
    target_accept: float
    max_treedepth: int


class _Start(NamedTuple):
    """Where a chain starts, and the step it starts with, if known."""

    theta: np.ndarray
    step_size: float | None


# what to do with the draws of a chain that are new
Keep = Callable[[Chain], None]


@strict_keywords
def nuts(
    model: Model,
    *,
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    cores: int | None = None,
    target_accept: float = 0.8,
    max_treedepth: int = 10,
    init: Mapping[str, Any] | PointEstimate | xr.DataTree | None = None,
    random_seed: int | None = None,
    sampler: str = "nutpie",
    log_likelihood: bool | None = None,
    store: str | Path | None = None,
    progressbar: bool = True,
) -> xr.DataTree:
    """Draw from the posterior of a trajectory model.

    Parameters
    ----------
    model : TrajectoryModel or Plays
        The model.
    draws, tune : int
        Draws kept and tuning steps of each chain.
    chains : int
        Number of chains.
    cores : int, optional
        Chains at a time; by default the processors at hand.
    target_accept : float in (0, 1)
        Acceptance rate that tuning aims at.
    max_treedepth : int
        At most 2 ** max_treedepth gradients a draw.
    init : mapping of str to value, PointEstimate or DataTree, optional
        Where chains start: values by site or an estimate, with a little jitter; or an earlier
        result, whose last draws and step sizes are taken up, so that a short `tune` is enough; or
        draws of `laplace` or `vi`, where each chain takes another. By default uniform in
        (-2, 2) over unconstrained parameters.
    random_seed : int, optional
        The same seed gives the same draws, whatever the cores; by default one is drawn and
        recorded.
    sampler : {"nutpie", "pyro"}
        The sampler.
    log_likelihood : bool, optional
        Whether to keep the log likelihood by trajectory; by default if the panel keeps its
        trajectories and it takes below 1 GB.
    store : path, optional
        A new zarr store, `run.zarr`, to which draws are written as they come. After the process
        was killed, `load` gives what was written, and `init` takes it up. Needs nutpie.
    progressbar : bool
        Whether to show progress on a terminal.

    Returns
    -------
    DataTree
        ArviZ groups posterior, sample_stats, log_likelihood, log_prior, posterior_predictive,
        observed_data and constant_data. An interrupt returns the finished draws.

    Warns
    -----
    ConvergenceWarning
        If the checks find a reason not to trust the draws.

    References
    ----------
    .. [1] Hoffman and Gelman (2014), *The No-U-Turn Sampler*, JMLR 15, 1593-1623.
    """
    check_model(model)
    positive_int("draws", draws)
    positive_int("tune", tune)
    positive_int("chains", chains)
    positive_int("max_treedepth", max_treedepth)
    real_between("target_accept", target_accept, above=0.0, upto=1.0, strict=True)
    one_of("sampler", sampler, ["nutpie", "pyro"])
    path = None if store is None else _check_store(store, sampler)
    if log_likelihood:
        for play in plays_of(model).values():
            with_rows(play.panel, "`log_likelihood`")
    cores = positive_int("cores", cores) if cores is not None else (cpu_count() or 1)
    if random_seed is None:
        random_seed = secrets.randbits(32)
    positive_int("random_seed", random_seed, least=0)
    began = time.perf_counter()
    density = density_of(model, progressbar=progressbar)
    compiled = time.perf_counter()
    # one stream a chain, one for predictions
    streams = seeds_of(random_seed, chains + 1)
    starts = _starts(density, init, streams[:-1])
    settings = _Settings(draws, tune, target_accept, max_treedepth)
    run_one = _nutpie_chain if sampler == "nutpie" else _pyro_chain
    if sampler == "nutpie":
        import nutpie.compile_pymc  # noqa: F401 - imports once, before the chains fork
    attrs: dict[str, Any] = {
        "sampler": sampler,
        "random_seed": int(random_seed),
        "compile_time": compiled - began,
        "tuning_steps": tune,
        "target_accept": target_accept,
        "max_treedepth": max_treedepth,
        "chains_asked": chains,
        "draws_asked": draws,
    }
    if path is not None:
        create_store(path, fixed_datatree(density, attrs))

    def keep_in_store(k: int, new: Chain) -> None:
        if path is not None and len(new.theta):
            append_draws(path, k, recorded(density, new.theta) | {"sample_stats": new.stats})

    def run(k: int, watch: Watch) -> Chain:
        keep = functools.partial(keep_in_store, k)
        return run_one(density, settings, starts[k], streams[k], watch, keep)

    found, interrupted = run_chains(
        run,
        chains,
        cores=min(cores, chains),
        draws=draws,
        tune=tune,
        threads=sampler == "nutpie" and density.is_native,
        progressbar=progressbar,
    )
    found = complete_chains(found)
    if not found:
        raise KeyboardInterrupt("interrupted before the first draw after tuning")
    attrs["sampling_time"] = time.perf_counter() - compiled
    attrs["interrupted"] = int(interrupted)
    tree = to_datatree(density, found, attrs, streams[-1], log_likelihood)
    messages = convergence_messages(tree) + tree.attrs["warnings"]
    tree.attrs["warnings"] = messages
    if path is not None:
        finish_store(path, tree)
    if messages:
        warnings.warn("\n".join(messages), ConvergenceWarning, stacklevel=3)
    return tree


def _check_store(store: str | Path, sampler: str) -> Path:
    path = Path(store)
    if path.suffix != ".zarr":
        raise ValueError(f"`store` must end in .zarr; got {path.name!r}.")
    if not path.parent.exists():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} in")
    if sampler != "nutpie":
        raise ValueError(f"`store` needs sampler='nutpie'; got {sampler!r}.")
    return path


def _starts(
    density: AnyDensity,
    init: Mapping[str, Any] | PointEstimate | xr.DataTree | None,
    seeds: Sequence[int],
) -> list[_Start]:
    """Return where each chain starts."""
    if isinstance(init, xr.DataTree):
        return _last_draws(density, init, len(seeds))
    centre = None
    if init is not None:
        values = point_values(density.program, init, argument="init")
        centre = density.program.free(values, argument="init")
    return [_Start(_start(density, centre, seed), None) for seed in seeds]


def _last_draws(density: AnyDensity, draws: xr.DataTree, n: int) -> list[_Start]:
    """Return the last draws and step sizes of a result's chains, several of one if need be."""
    posterior = parameters_of(density.program, draws, argument="init")
    n_chains, n_draws = next(iter(posterior.values())).shape[:2]
    apart = max(1, n_draws // -(-n // n_chains))  # between the draws taken of one chain
    steps = np.full((n_chains, 1), np.nan)
    if "sample_stats" in draws.children and "step_size" in draws["sample_stats"]:
        steps = draws["sample_stats"].dataset["step_size"].values
    starts = []
    for k in range(n):
        chain, draw = k % n_chains, (-1 - k // n_chains * apart) % n_draws
        values = {name: v[chain, draw] for name, v in posterior.items()}
        theta = density.program.free(values, argument="init")
        step = float(steps[chain, -1])
        starts.append(_Start(theta, step if np.isfinite(step) else None))
    return starts


def _start(density: AnyDensity, centre: np.ndarray | None, seed: int) -> np.ndarray:
    """Return where a chain starts: a point of finite density."""
    rng = np.random.default_rng(seed)
    evaluate = density.evaluator()
    for _ in range(100):
        if centre is None:
            theta = rng.uniform(-2.0, 2.0, density.n_dim)
        else:
            theta = centre + 0.05 * rng.standard_normal(density.n_dim)
        with np.errstate(all="ignore"):
            value, gradient = evaluate(theta)
        if np.isfinite(value) and np.isfinite(gradient).all():
            return theta
    first = parts_of(density)[0]
    reward = torch.as_tensor(first.rewards(first.constrained(theta[None]))[0])
    check_finite(reward.masked_fill(first.model.forbidden, 0.0), first.model.game)
    raise ValueError(
        "no starting point of finite log density in 100 tries; pass `init` with values by site."
    )


def _nutpie_chain(
    density: AnyDensity,
    settings: _Settings,
    start: _Start,
    seed: int,
    watch: Watch,
    keep: Keep,
) -> Chain:
    import nutpie

    native = density.native()
    sampled = _by_python(density, start) if native is None else _by_address(native, density, start)
    options = {} if start.step_size is None else {"initial_step": start.step_size}
    sampler = nutpie.sample(
        sampled,
        draws=settings.draws,
        tune=settings.tune,
        chains=1,
        cores=1,
        seed=seed,
        target_accept=settings.target_accept,
        maxdepth=settings.max_treedepth,
        progress_bar=False,
        return_raw_trace=True,
        blocking=False,
        **options,
    )
    n_kept = 0

    def look(trace: Any) -> Chain:
        nonlocal n_kept
        chain, n_tuning = _drawn(trace, density.n_dim)
        watch.at(len(chain.theta) + n_tuning, int(chain.stats["diverging"].sum()))
        keep(Chain(chain.theta[n_kept:], {k: v[n_kept:] for k, v in chain.stats.items()}))
        n_kept = len(chain.theta)
        return chain

    try:
        while True:
            try:
                return look(sampler.wait(timeout=LOOK_EVERY))
            except TimeoutError:
                if watch.stopped.is_set():
                    return look(sampler.abort())
                look(sampler.inspect())
                watch.show()
    except KeyboardInterrupt:
        return look(sampler.abort())


def _drawn(trace: Any, n_dim: int) -> tuple[Chain, int]:
    """Return the draws after tuning of one chain's raw trace, and how many came before."""
    draws, stats = (pa.record_batch(batches[0]) for batches in trace.get_arrow_trace())
    kept = ~stats["tuning"].to_numpy(zero_copy_only=False)
    theta = draws["theta"].flatten().to_numpy().reshape(-1, n_dim)[kept]
    names = {
        "lp": "logp",
        "energy": "energy",
        "diverging": "diverging",
        "tree_depth": "depth",
        "n_steps": "n_steps",
        "step_size": "step_size",
        "acceptance_rate": "mean_tree_accept",
        "reached_max_treedepth": "maxdepth_reached",
    }
    found = {k: stats[v].to_numpy(zero_copy_only=False)[kept] for k, v in names.items()}
    return Chain(theta, found), int((~kept).sum())


def _by_address(native: NativeDensity, density: AnyDensity, start: _Start) -> Any:
    """Return a density as a sampler's model that calls it by its address, without Python."""
    from nutpie.compile_pymc import CompiledPyMCModel

    n = density.n_dim
    known = {field.name for field in dataclasses.fields(CompiledPyMCModel)}
    by_release: dict[str, Any] = {"shared_var_keys": {}} if "shared_var_keys" in known else {}
    return CompiledPyMCModel(
        _n_dim=n,
        dims={},
        _coords={},
        _shapes={"theta": (n,)},
        compiled_logp_func=native.function,
        compiled_expand_func=native.keeper,
        initial_point_func=lambda _: start.theta,
        shared_data={},
        user_data=native.data,
        n_expanded=n,
        shape_info=(["theta"], [slice(0, n)], [(n,)]),
        logp_func=native,  # kept alive with its arrays
        expand_func=None,
        **by_release,
    )


def _by_python(density: AnyDensity, start: _Start) -> Any:
    """Return a density as a sampler's model that calls it through Python."""
    from nutpie import compiled_pyfunc

    return compiled_pyfunc.from_pyfunc(
        density.n_dim,
        lambda: _on_a_stack_of_its_own(_finite_or_reject(density.evaluator())),
        lambda *_: lambda theta: {"theta": np.array(theta)},
        [np.dtype("float64")],
        [(density.n_dim,)],
        ["theta"],
        make_initial_point_fn=lambda _: start.theta,
    )


def _on_a_stack_of_its_own(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]],
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Evaluate in a thread of Python's: the sampler's have stacks too small for LAPACK."""
    pool = ThreadPoolExecutor(1)

    def evaluated(theta: np.ndarray) -> tuple[float, np.ndarray]:
        return pool.submit(evaluate, theta).result()

    return evaluated


def _finite_or_reject(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]],
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Give a point without a finite density or gradient the log density -inf."""

    def checked(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = evaluate(theta)
        if value - value != 0.0:
            return -np.inf, np.zeros_like(theta)
        return float(value), gradient

    return checked


def _pyro_chain(
    density: AnyDensity,
    settings: _Settings,
    start: _Start,
    seed: int,
    watch: Watch,
    keep: Keep,
) -> Chain:
    from pyro.infer import NUTS

    evaluate = _finite_or_reject(density.evaluator())
    theta: list[np.ndarray] = []
    rows: list[dict[str, Any]] = []
    noted = _Noted(lambda values: -differentiable(values["theta"], evaluate))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kernel = NUTS(
            potential_fn=noted.potential,
            target_accept_prob=settings.target_accept,
            max_tree_depth=settings.max_treedepth,
        )
        values = {"theta": torch.from_numpy(start.theta.copy())}
        kernel.initial_params = values
        kernel.setup(settings.tune)
        noted.attach(kernel)
        try:
            for step in range(settings.tune + settings.draws):
                noted.begin()
                values = kernel.sample(values)
                watch.at(step + 1, len(kernel._divergences))
                watch.show()
                if step >= settings.tune:
                    theta.append(values["theta"].detach().numpy().copy())
                    rows.append(noted.row(step - settings.tune, settings.max_treedepth))
        except KeyboardInterrupt:
            pass  # what is done is kept
        kernel.cleanup()
    if not rows:
        return Chain(np.empty((0, density.n_dim)), {})
    stats = {k: np.array([row[k] for row in rows]) for k in rows[0]}
    return Chain(np.array(theta[: len(rows)]), stats)


class _Noted:
    """Notes what a step of Pyro's NUTS does and does not return."""

    def __init__(self, potential: Callable[[dict[str, torch.Tensor]], torch.Tensor]) -> None:
        self._potential = potential
        self._kernel: Any = None
        self._accepted = 0.0
        self._kinetic: float | None = None
        self.begin()

    def attach(self, kernel: Any) -> None:
        """Follow a kernel's kinetic energy: its first value in a step is the momentum drawn."""
        self._kernel = kernel
        original = kernel._kinetic_energy

        def noted(momentum: Any) -> Any:
            energy = original(momentum)
            self._kinetic = float(energy) if self._kinetic is None else self._kinetic
            return energy

        kernel._kinetic_energy = noted

    def potential(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        """Count an evaluation and pass it on."""
        self._calls += 1
        return self._potential(values)

    def begin(self) -> None:
        """Start a step."""
        self._calls, self._kinetic = 0, None
        self._before = float(self._kernel._potential_energy_last) if self._kernel else 0.0
        self._divergences = len(self._kernel._divergences) if self._kernel else 0

    def row(self, draw: int, max_treedepth: int) -> dict[str, Any]:
        """Return the statistics of the step that gave a draw."""
        kernel = self._kernel
        accepted, before = kernel._mean_accept_prob * (draw + 1), self._accepted
        self._accepted = accepted
        depth = int(np.ceil(np.log2(self._calls + 1)))
        return {
            "lp": -float(kernel._potential_energy_last),
            "energy": self._before + (self._kinetic or 0.0),
            "diverging": len(kernel._divergences) > self._divergences,
            "tree_depth": depth,
            "n_steps": self._calls,
            "step_size": float(kernel.step_size),
            "acceptance_rate": min(max(accepted - before, 0.0), 1.0),
            "reached_max_treedepth": depth >= max_treedepth,
        }

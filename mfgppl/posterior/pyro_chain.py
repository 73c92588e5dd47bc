"""One chain of Pyro's No-U-Turn Sampler: the reference."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from mfgppl._kernels.bridge import differentiable
from mfgppl._modes import double_precision, own_generator
from mfgppl._progress import Watch
from mfgppl._quasi_newton import extended_value
from mfgppl.density.protocol import LogDensity
from mfgppl.posterior.chain_starts import Start
from mfgppl.posterior.chains import Chain, Keep, Settings


def pyro_chain(
    density: LogDensity,
    settings: Settings,
    start: Start,
    seed: int,
    watch: Watch,
    keep: Keep,
) -> Chain:
    """Run a chain; an interrupt ends it and keeps the draws it has."""
    from pyro.infer import NUTS

    evaluate = extended_value(density.evaluator())
    theta: list[np.ndarray] = []
    rows: list[dict[str, Any]] = []
    record = _StepRecord(lambda values: -differentiable(values["theta"], evaluate))
    generator = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def own() -> Iterator[None]:
        with double_precision(), own_generator(generator):
            yield

    with own():
        kernel = NUTS(
            potential_fn=record.potential,
            target_accept_prob=settings.target_accept,
            max_tree_depth=settings.max_treedepth,
            full_mass=settings.mass_matrix == "dense",
        )
        values = {"theta": torch.from_numpy(start.theta.copy())}
        kernel.initial_params = values
        kernel.setup(settings.tune)
        record.attach(kernel)
    try:
        for step in range(settings.tune + settings.draws):
            record.begin()
            with own():  # other threads have their turn between steps
                values = kernel.sample(values)
            watch.at(step + 1, len(kernel._divergences))
            watch.show()
            if step >= settings.tune:
                theta.append(values["theta"].detach().numpy().copy())
                rows.append(record.row(step - settings.tune, settings.max_treedepth))
    except KeyboardInterrupt:
        pass  # what is done is kept
    kernel.cleanup()
    if not rows:
        return Chain(np.empty((0, density.n_dim)), {})
    stats = {k: np.array([row[k] for row in rows]) for k in rows[0]}
    return Chain(np.array(theta[: len(rows)]), stats)


class _StepRecord:
    """What a step of Pyro's NUTS does but does not return."""

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

        def record(momentum: Any) -> Any:
            energy = original(momentum)
            self._kinetic = float(energy) if self._kinetic is None else self._kinetic
            return energy

        kernel._kinetic_energy = record

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

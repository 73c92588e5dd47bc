"""A log density whose likelihood is summed over the workers of a Dask client.

Each worker holds one part of the panel and the reward program, compiled. At an evaluation the
parameters go out, and a value and a gradient come back from each.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from mfgppl._kernels import bridge
from mfgppl.likelihood.division import Divisible, parts_of


class Evaluated(Protocol):
    """What has a log density to evaluate."""

    def evaluator(self, *, prior: float, jacobian: float) -> bridge.Evaluator:
        """Return theta to (log density, gradient)."""


LOOK_EVERY = 5.0  # seconds between looks whether a worker that has not answered is there
Make = Callable[[Divisible], Evaluated]


class Part:
    """The log density of one part, in the process of the worker that holds it.

    Parameters
    ----------
    make : callable
        Compiles the density of a law.
    law : CausalLikelihood or KindsLikelihood
        The law of the part.
    """

    def __init__(self, make: Make, law: Divisible) -> None:
        self._density = make(law)
        self._evaluators: dict[tuple[float, float], bridge.Evaluator] = {}

    def evaluate(
        self, theta: np.ndarray, prior: float, jacobian: float
    ) -> tuple[float, np.ndarray]:
        """Return the part's log density and its gradient."""
        weights = prior, jacobian
        if weights not in self._evaluators:
            made = self._density.evaluator(prior=prior, jacobian=jacobian)
            self._evaluators[weights] = made
        value, gradient = self._evaluators[weights](np.array(theta))
        return value, gradient.copy()


class Divided:
    """The sum of parts on the workers that a client has at hand, one part each.

    Parameters
    ----------
    client : distributed.Client
        The client.
    make : callable
        Compiles the density of a law.
    law : CausalLikelihood or KindsLikelihood
        The law of all.

    Raises
    ------
    ValueError
        If the client has no workers.
    """

    def __init__(self, client: Any, make: Make, law: Divisible) -> None:
        self._client, workers = client, sorted(client.nthreads())
        if not workers:
            raise ValueError("`client` must have workers; its cluster has none: scale it up.")
        laws = parts_of(law, len(workers))
        self._workers = workers[: len(laws)]
        self._parts = self._laid_out(make, laws)

    def _laid_out(self, make: Make, laws: Sequence[Divisible]) -> list[Any]:
        """Return an actor for each part."""
        from distributed import Actor, wait

        client = self._client
        shared = client.scatter(make, workers=self._workers, broadcast=True, hash=False)
        held = []
        for law, worker in zip(laws, self._workers, strict=True):
            where = {"workers": [worker], "allow_other_workers": False}
            sent = client.scatter(law, workers=[worker], hash=False)
            held.append(client.submit(Part, shared, sent, actor=True, pure=False, **where))
        wait(held)
        for part in held:
            if part.status == "error":
                part.result()
        with client.as_current():  # a proxy calls by the current client, which may be another
            each = zip(self._workers, held, strict=True)
            return [Actor(Part, worker, part.key) for worker, part in each]

    def evaluator(self, *, prior: float, jacobian: float) -> bridge.Evaluator:
        """Return theta to (log density, gradient); the first part has prior and Jacobian."""
        weights = [(prior, jacobian), *[(0.0, 0.0)] * (len(self._parts) - 1)]

        def evaluate(theta: np.ndarray) -> tuple[float, np.ndarray]:
            each = zip(self._parts, weights, strict=True)
            if self._client.status != "running":  # its calls would wait for ever
                self._check_workers()
            try:
                asked = [part.evaluate(theta, *own) for part, own in each]
                found = [self._answer(call) for call in asked]
            except Exception as error:
                self._check_workers(error)
                raise
            value = sum(part[0] for part in found)
            return value, np.sum([part[1] for part in found], axis=0)

        return evaluate

    def _answer(self, asked: Any) -> tuple[float, np.ndarray]:
        """Return a part's answer; a call to a worker that is gone would wait for ever."""
        while True:
            try:
                answer: tuple[float, np.ndarray] = asked.result(timeout=LOOK_EVERY)
                return answer
            except TimeoutError:
                self._check_workers()

    def _check_workers(self, error: Exception | None = None) -> None:
        """Raise what to do if a part is out of reach."""
        if self._client.status != "running":
            state = f"the model's `client` is {self._client.status}"
        elif lost := sorted(set(self._workers) - set(self._client.nthreads())):
            state = f"the worker {lost[0]} of the model's `client` is gone, with its part"
        else:
            return
        raise ConnectionError(
            f"{state}. Build the model again, with a client that is connected: it shares the "
            "panel out among the workers at hand."
        ) from error

"""Groups of rows side by side, one thread each: on a CPU, threads that share a small group mostly wait.

A GPU takes the groups of a layer at once: each that is measured alone makes it wait for the host.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch

from experiments.measures.compute import Compute
from experiments.rows import Rows

Result = TypeVar("Result")


class Workers:
    """As many threads as torch has, each with its own `Compute`, for the groups of rows that a source pushes."""

    def __init__(self, *, at_once: bool = False) -> None:
        """Choose by the device of the rows, or take what comes at once as a GPU does."""
        self._at_once, self._threads = at_once, torch.get_num_threads()
        self._alone, self._own = Compute(), threading.local()
        self._pool = ThreadPoolExecutor(self._threads, initializer=self._begin)

    def _begin(self) -> None:
        torch.set_num_threads(1)
        self._own.compute = Compute()

    def __enter__(self) -> Workers:
        """Return the workers."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the threads; groups that are not begun are left."""
        self._pool.shutdown(cancel_futures=True)

    def each(
        self,
        function: Callable[[Rows, Compute, int], Result],
        groups: Sequence[Rows],
        at_once: Callable[[Sequence[Rows]], Iterable[Result] | None] = lambda _: None,
    ) -> Iterator[Result]:
        """Yield what `function` returns of each group, in order.

        Parameters
        ----------
        function
            Takes the rows, what computes for them, and how many groups share the memory.
        at_once
            Returns the same of all groups off the CPU; None where it does not serve them.
        """
        one_by_one = (function(rows, self._alone, 1) for rows in groups)
        if self._at_once or groups[0].query_RD.device.type != "cpu":
            results = at_once(groups)
            yield from one_by_one if results is None else results
        elif len(groups) < self._threads or self._threads == 1:
            yield from one_by_one
        else:

            def work(rows: Rows) -> Result:
                with torch.inference_mode():
                    return function(rows, self._own.compute, self._threads)

            yield from self._pool.map(work, groups)

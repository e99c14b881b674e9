"""Groups of rows side by side, one thread each: on a CPU, threads that share a small group mostly wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

import torch

from experiments.measures.compute import Compute
from experiments.rows import Rows

Result = TypeVar("Result")


class Workers:
    """As many threads as torch has, each with its own `Compute`, for the groups of rows that a source pushes."""

    def __init__(self) -> None:
        self._threads = torch.get_num_threads()
        self._alone = Compute()
        self._idle: SimpleQueue[Compute] = SimpleQueue()
        for _ in range(self._threads):
            self._idle.put(Compute())
        self._pool = ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> Workers:
        """Return the workers."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the threads; groups that are not begun are left."""
        self._pool.shutdown(cancel_futures=True)

    def each(self, function: Callable[[Rows, Compute, int], Result], groups: Sequence[Rows]) -> Iterator[Result]:
        """Yield what `function` returns of each group, in order.

        Parameters
        ----------
        function
            Takes the rows, what computes for them, and how many groups share the memory.
        """
        if len(groups) < self._threads or self._threads == 1 or groups[0].query_RD.device.type != "cpu":
            for rows in groups:
                yield function(rows, self._alone, 1)
            return

        def work(rows: Rows) -> Result:
            compute = self._idle.get()
            try:
                with torch.inference_mode():
                    return function(rows, compute, self._threads)
            finally:
                self._idle.put(compute)

        yield from self._pool.map(work, groups)

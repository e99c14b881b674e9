"""A model that reads by each method within each window in turn.

Shape letters: N positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from experiments.measures.compute import Compute
from experiments.models.attend import attend_by
from experiments.models.earlier import EarlierQueries
from experiments.models.probe import watch
from experiments.models.shape import head_dim
from experiments.models.windowed import densely, within
from experiments.selectors import Selector
from experiments.windows import ANY_WINDOW, DENSE_WINDOW, Windows

T = TypeVar("T")


class Reading:
    """Runs the same reading densely, and by each method within each window."""

    def __init__(
        self,
        model: Any,
        methods: Sequence[Selector],
        windows: Windows,
        *,
        layers: list[int] | None = None,
        keep_first: int = 0,
        keep_recent: int = 0,
    ) -> None:
        """Take a model, the methods and windows that it reads by, and options of `attend_by`.

        `earlier` keeps the queries of what was read, if a method looks back; else it is None.
        """
        self._model, self._methods, self._windows = model, methods, windows
        looks_back = any(method.traits.looks_back for method in methods)
        self.earlier = EarlierQueries() if looks_back else None
        self._compute = Compute()
        self._options: dict[str, Any] = {
            "layers": layers,
            "keep_first": keep_first,
            "keep_recent": keep_recent,
            "earlier": self.earlier,
        }

    def prompt(self, tokens: int, read: Callable[[], T]) -> T:
        """Return what `read` returns; what it reads densely is what methods that look back go by."""
        if self.earlier is not None:
            return self.densely(tokens, read)[1]
        with watch(self._model, lambda attention: None):  # a layer's eager attention would make whole matrices
            return read()

    def densely(self, tokens: int, read: Callable[[], T]) -> tuple[dict[str, Any], T, np.ndarray]:
        """Return the columns that name dense attention, what `read` returns, and the keys seen at each position [N]."""
        with densely(self._model, tokens, self.earlier) as seen:
            result = read()
        return {"selector": "dense", **DENSE_WINDOW}, result, seen.mean()

    def by_methods(
        self, sample: int, tokens: int, read: Callable[[], T], prompt: int | None = None, **options: Any
    ) -> Iterator[tuple[dict[str, Any], T, np.ndarray]]:
        """Yield the same for each method within each window; a method without a budget reads once.

        Parameters
        ----------
        tokens
            The longest context that is read.
        prompt
            As of `attend_by`.
        options
            Of `attend_by`, in place of those of every reading; a method without a budget heeds none.
        """
        options = self._options | {"sample": sample, "prompt": prompt} | options
        for method in self._methods:
            if not method.traits.has_budget:
                yield (
                    {"selector": method.name, **ANY_WINDOW},
                    *self.without_window(method, sample, tokens, read, prompt),
                )
                continue
            for index, name in enumerate(self._windows.names()):
                with within(self._model, method, self._windows, index, tokens, self._compute, **options) as kept:
                    result = read()
                yield {"selector": method.name, **name}, result, kept.mean()

    def without_window(
        self, method: Selector, sample: int, tokens: int, read: Callable[[], T], prompt: int | None = None
    ) -> tuple[T, np.ndarray]:
        """Return what `read` returns by a method that has no budget, and what its rows read at each position [N]."""
        options = self._options | {"sample": sample, "prompt": prompt}
        with attend_by(self._model, method, lambda exact, *_: exact.n_R, self._compute, **options):
            result = read()
        n_N = torch.arange(1, tokens + 1, dtype=torch.float64)
        width = head_dim(self._model.config.get_text_config())
        return result, method.keys_read(n_N, n_N, width).numpy()

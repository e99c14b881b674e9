"""How far the jobs of a launch are: each writes it into its own folder, the process that launched them shows it.

Files serve every launcher alike: jobs may run in this process, in others, or on the nodes of a cluster.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.durable import read_json, write_json

OUTCOME, PROGRESS = "outcome.json", "progress.json"
PAUSE = 0.5  # seconds between two writes, and between two looks
WIDTH = 62  # columns of a bar and of what stands behind it

_interrupted = False


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the jobs wherever it falls.

    Python drops a KeyboardInterrupt that is raised within a finaliser or a callback of compiled code; a flag keeps it,
    and it is raised again at the job's next group of rows.
    """
    global _interrupted

    def interrupt(*_: object) -> None:
        global _interrupted
        _interrupted = True
        raise KeyboardInterrupt

    _interrupted = False
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Progress:
    """One job's account of how far it is."""

    def __init__(self, folder: Path, label: str, groups: int, run_id: str = "") -> None:
        """Take the folder of the job, what it measures, how many groups of rows that is, and its record's name."""
        self._path = folder / PROGRESS
        self._state = {"run_id": run_id, "label": label, "done": 0, "groups": groups}
        self._written = time.monotonic()
        write_json(self._path, self._state)

    def advance(self) -> None:
        """Count one more group of rows; raises KeyboardInterrupt after a Ctrl-C that got lost."""
        if _interrupted:
            raise KeyboardInterrupt
        self._state["done"] += 1  # type: ignore[operator]
        now = time.monotonic()
        if now - self._written > PAUSE:
            self._written = now
            write_json(self._path, self._state)


class Watch:
    """Live lines at the terminal: one per running job, and the total with the time that is left."""

    def __init__(
        self,
        outcomes: Callable[[], list[Path]],
        jobs: Callable[[], int],
        console: Console,
        swept: Callable[[], set[str]] = set,
    ) -> None:
        """Take where jobs tell how they end, how many there are, and the overrides that tell them apart."""
        self._outcomes, self._jobs, self._swept = outcomes, jobs, swept
        self._started, self._console = time.monotonic(), console
        self._ended: set[Path] = set()
        self._live: Live | None = None

    def start(self) -> None:
        """Begin to show the lines, at a terminal."""
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._lines, console=self._console, refresh_per_second=1 / PAUSE, transient=True
            )
            self._live.start()

    def stop(self) -> None:
        """Stop and leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()

    def _lines(self) -> RenderableType:
        running = self._running()
        total = max(self._jobs(), len(self._ended) + len(running), 1)
        part = len(self._ended) + sum(job["done"] / max(job["groups"], 1) for job in running)
        lines, swept = Table.grid(padding=(0, 1)), self._swept()
        lines.add_column(no_wrap=True, overflow="ellipsis", max_width=max(self._console.width - WIDTH, 20))
        for job in running:
            count = f"{job['done']}/{job['groups']}"
            apart = [part for part in shlex.split(job["command"]) if part in swept]
            lines.add_row(
                Text(" ".join([job["label"], *apart])),
                ProgressBar(total=job["groups"], completed=job["done"], width=30),
                count,
            )
        left = ""
        if part > 0:
            left = f", about {clock((time.monotonic() - self._started) * (total - part) / part)} left"
        bar = ProgressBar(total=total, completed=part, width=30)
        lines.add_row(Text("all jobs", style="bold"), bar, f"{len(self._ended)}/{total}{left}")
        return lines

    def _running(self) -> list[dict[str, Any]]:
        running = []
        for path in self._outcomes():
            if path in self._ended:
                continue
            outcome = read_json(path)
            if outcome.get("status", "started") != "started":
                self._ended.add(path)
            elif job := read_json(path.with_name(PROGRESS)):
                running.append({"command": outcome.get("command", ""), **job})
        return running


def clock(seconds: float) -> str:
    """Return a time in hours and minutes, or in minutes and seconds."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"

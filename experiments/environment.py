"""The environment that make makes: a Python without its packages is told of in one line, and not in a traceback."""

import sys
from importlib.util import find_spec

NEEDED = "torch"  # one of them stands for all


def check_packages() -> None:
    """End the process if the Python that runs it lacks the project's packages."""
    if find_spec(NEEDED) is None:
        sys.exit(
            f"error: {sys.executable} lacks the packages of this project (no {NEEDED}): source .venv/bin/activate, or "
            "give .venv/bin/python instead of python; make run makes it"
        )

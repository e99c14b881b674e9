"""Ends `python -m analysis` and the commands beside it in one line on Ctrl-C, from the first import on.

Imported before anything that takes long. Where `analysis` is only used by other code, nothing is touched.
"""

import os
import signal
import sys

STATUS = 130  # of a command that Ctrl-C has ended


def _end(*_: object) -> None:
    signal.signal(signal.SIGINT, lambda *_: os._exit(STATUS))  # a second Ctrl-C waits for nothing
    os.write(sys.stderr.fileno(), b"stopped; what is made is kept, the same command continues\n")
    raise SystemExit(STATUS)  # unlike KeyboardInterrupt it leaves no traceback, wherever it is raised


if sys.argv[:1] == ["-m"]:  # so it stands while Python looks for the module that it was told to run
    signal.signal(signal.SIGINT, _end)

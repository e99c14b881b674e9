"""Where numba keeps what it compiled, if it cannot keep it beside the code: it would refuse to compile at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def choose_cache(code: Path) -> None:
    """Set numba's cache folder unless the user has, or the folder of the code can be written.

    It is then below $NC_SPARSE_CACHE or the user's cache folder; if that cannot be written either, a folder of the
    user's own below the system's temporary one.
    """
    if os.environ.get(VARIABLE) or _writable(code / "__pycache__"):
        return
    import platformdirs

    cache = Path(os.environ.get("NC_SPARSE_CACHE") or platformdirs.user_cache_dir("nc-sparse-attention")) / "numba"
    if not _writable(cache):
        cache = Path(tempfile.gettempdir()) / f"nc-sparse-attention-{os.getuid()}"
        if not _writable(cache, mode=0o700) or cache.stat().st_uid != os.getuid():  # what is in it will be run
            cache = Path(tempfile.mkdtemp(prefix="nc-sparse-attention-"))
    os.environ[VARIABLE] = str(cache)


def _writable(folder: Path, mode: int = 0o777) -> bool:
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False

"""How the heads of a measured model share KV heads, of its configuration where it lies on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.records.load import Run
from experiments.errors import UserError
from experiments.models.locate import PACKAGE, locate


def shape_of(run: Run) -> dict[str, Any]:
    """Return `heads_per_kv_head` and `head_dim` as a budget file has them; nothing if they are unknown.

    A model of a hub is not looked for: an analysis reads records, and asks no network.
    """
    source = run.config["source"]
    model = str(source.get("model"))
    if not model.startswith(PACKAGE) and not Path(model).expanduser().exists():
        return {}
    from experiments.models.load import load_config
    from experiments.models.shape import cache_dim, heads_per_kv_head

    try:
        checkpoint = locate(model, trusted=bool(source.get("trust_remote_code", False)))
        config = load_config(checkpoint)
        dim = cache_dim(config)
    except UserError:
        return {}
    return {} if dim is None else {"heads_per_kv_head": heads_per_kv_head(config), "head_dim": dim}

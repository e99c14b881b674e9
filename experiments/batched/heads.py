"""The groups of rows of several KV heads as whole tensors.

Shape letters besides those of `experiments.rows`: G groups (KV heads), M = G R rows, those of one group side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from experiments.cache import cap_, log_of_power
from experiments.rows import Rows


def alike(groups: Sequence[Rows]) -> list[list[int]]:
    """Return the places of groups that go into one tensor: they differ in their KV head alone."""
    places: dict[tuple[object, ...], list[int]] = {}
    for place, rows in enumerate(groups):
        shapes = rows.query_RD.shape, rows.key_ND.shape, rows.value_NV.shape
        logits = rows.scale, rows.power, rows.softcap, rows.causal, rows.visible_RN is None, rows.sink_S is None
        places.setdefault((rows.layer, rows.sample, rows.variant, rows.length, *shapes, *logits), []).append(place)
    return list(places.values())


def whole(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors of one shape as one [G, ...]: a view if they are evenly spaced parts of one, else a copy."""
    first, stride = parts[0], parts[0].stride()
    memory = first.untyped_storage()._cdata  # an address of numbers is none on `meta`
    starts = [part.storage_offset() for part in parts]
    step = starts[1] - starts[0] if len(parts) > 1 else 0
    even = step >= 0 and starts == [starts[0] + i * step for i in range(len(parts))]
    if even and all(part.untyped_storage()._cdata == memory and part.stride() == stride for part in parts):
        return first.as_strided((len(parts), *first.shape), (step, *stride))
    return torch.stack(list(parts))


def logits_of(groups: Sequence[Rows]) -> tuple[Tensor, Tensor]:
    """Return the scaled, masked logits [M, N] of groups that are alike, and whether all of a row's must be finite [M].

    As `Rows.logits`, but that a logit which may not be finite is told, not refused.
    """
    one = groups[0]
    dtype = torch.promote_types(one.query_RD.dtype, torch.float32)
    query_GRD = torch.stack([rows.query_RD for rows in groups]).to(dtype) * one.scale
    key_GND = whole([rows.key_ND for rows in groups]).to(dtype)
    bound_G = query_GRD.norm(dim=-1).amax(-1).double() * key_GND.norm(dim=-1).amax(-1).double()
    logits_GRN = torch.bmm(query_GRD, key_GND.mT)
    if one.power is not None:
        logits_GRN = log_of_power(logits_GRN, one.power)
    cap_(logits_GRN, one.softcap)
    if one.visible_RN is not None:
        visible = [rows.visible_RN for rows in groups if rows.visible_RN is not None]
        logits_GRN.masked_fill_(~torch.stack(visible), -torch.inf)
    elif one.causal:
        position_GR = torch.stack([rows.position_R for rows in groups])
        later_GRN = torch.arange(one.num_keys, device=position_GR.device) > position_GR[..., None]
        logits_GRN.masked_fill_(later_GRN, -torch.inf)
    finite_GR = (bound_G < torch.finfo(dtype).max)[:, None].expand(-1, len(one))
    return logits_GRN.flatten(0, 1), finite_GR.flatten()


def sinks_of(groups: Sequence[Rows]) -> Tensor | None:
    """Return the logits of the learned sinks [M]; None for none."""
    sinks = [rows.sink_R for rows in groups]
    return None if sinks[0] is None else torch.cat([sink_R for sink_R in sinks if sink_R is not None])

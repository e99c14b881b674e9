"""Attention by distance: what a key is given on average by how far before its query it stands.

Shape letters: R rows, N keys, D distances from 0 on, B ranges of distances, X entries of rows.
"""

from __future__ import annotations

import numpy as np
import torch

from experiments.cache import softmax
from experiments.rows import Rows, check_rows

Array = np.ndarray


def ranges(distances: int, per_octave: int) -> Array:
    """Return the least distance of each range [B]: 0, 1, then `per_octave` ranges per doubling; each has a distance.

    Parameters
    ----------
    distances
        Number of distances that there are: those below it.
    """
    octaves = max(distances, 2).bit_length()
    starts_B = np.unique(np.round(2.0 ** (np.arange(octaves * per_octave + 1) / per_octave)).astype(np.int64))
    return np.concatenate([[0], starts_B[starts_B < distances]])


def sums_by_distance(rows: Rows) -> tuple[Array, Array]:
    """Return the summed probability and the number of the keys that rows see at each distance [D], D up to all keys.

    Parameters
    ----------
    rows
        Causal rows, of which hidden keys do not count.

    Raises
    ------
    UserError
        If a logit is NaN or infinite, or a row sees no key.
    """
    logits_RN = rows.logits().double()
    check_rows(logits_RN.amax(-1))
    p_RN, distances = softmax(logits_RN, rows.sink_R), rows.num_keys
    key_RD = rows.position_R[:, None] - torch.arange(distances, device=p_RN.device)
    seen_RD = (key_RD >= 0) & rows.visible().gather(1, key_RD.clamp(min=0))
    sum_D = p_RN.gather(1, key_RD.clamp_(min=0)).masked_fill_(~seen_RD, 0.0).sum(0)
    return sum_D.cpu().numpy(), seen_RD.sum(0).cpu().numpy()


def means_of_ranges(sum_D: Array, count_D: Array, start_B: Array) -> Array:
    """Return the mean over the distances of each range of the mean at each [B]; NaN where no row has one of them."""
    there_D = count_D > 0
    mean_D = np.divide(sum_D, count_D, out=np.zeros(len(sum_D)), where=there_D)
    there_B = np.add.reduceat(there_D.astype(np.int64), start_B)
    summed_B = np.add.reduceat(mean_D, start_B)
    return np.divide(summed_B, there_B, out=np.full(len(start_B), np.nan), where=there_B > 0)

"""An independent reference: one row at a time, numpy float64, straight from the definitions of theory.md section 1."""

import numpy as np


def softmax(logits):
    weights = np.exp(logits - np.max(logits))
    return weights / weights.sum()


def ranked(probabilities):
    """Key indices by falling probability, ties to the lower index."""
    return np.lexsort((np.arange(len(probabilities)), -probabilities))


def k_min(probabilities, eta):
    tail = np.sort(probabilities)
    dropped = np.concatenate([[0.0], np.cumsum(tail)])  # dropped[m]: mass of the m smallest
    kept = [len(tail) - m for m in range(len(dropped)) if dropped[m] <= eta * (1 + 1e-6)]
    return max(1, min(kept))


def sparse_row(logits, values, kept):
    """Every column of windows.parquet for one row that keeps the keys `kept`."""
    p = softmax(logits)
    mask = np.zeros(len(p), bool)
    mask[list(kept)] = True
    tau, mass = p[~mask].sum(), p[mask].sum()
    truncated = np.where(mask, p, 0)
    log_kept = np.logaddexp.reduce(logits[mask])
    renormalised = np.where(mask, np.exp(logits - log_kept), 0)
    output = p @ values
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.where(mask, renormalised * np.log(renormalised / p), 0).sum()
    return {
        "dropped_mass": tau,
        "tv": np.abs(p - renormalised).sum() / 2,
        "kl": kl,
        "linf_truncated": np.abs(p - truncated).max(),
        "linf_renormalised": np.abs(p - renormalised).max(),
        "l2_truncated": np.linalg.norm(p - truncated),
        "l2_renormalised": np.linalg.norm(p - renormalised),
        "output_truncated": np.sum((output - truncated @ values) ** 2),
        "output_renormalised": np.sum((output - renormalised @ values) ** 2),
        "output": np.sum(output**2),
        "kept_mass": mass,
        "negative_mass": -np.minimum(renormalised, 0).sum(),
        "normaliser_error": abs(np.logaddexp.reduce(logits[mask]) - np.logaddexp.reduce(logits)),
        "failed": float(truncated.sum() <= 0),
    }


def statistics(logits):
    """The window-free columns of rows.parquet, from the visible logits of one row."""
    p = softmax(logits)
    shifted = logits - logits.max()
    return {
        "n": len(logits),
        "logit_mean": logits.mean(),
        "logit_std": logits.std(),
        "logit_max": logits.max(),
        "logsumexp": logits.max() + np.log(np.exp(shifted).sum()),
        "entropy": -(p[p > 0] * np.log(p[p > 0])).sum(),
        "participation": 1 / (p**2).sum(),
        "p_max": p.max(),
        "sink_mass": p[0],
        **{f"k_min_{eta}": k_min(p, eta) for eta in (0.5, 0.2, 0.1, 0.05, 0.01)},
        **{f"count_{eps}": (p > eps).sum() for eps in (0.1, 0.01, 0.001)},
    }

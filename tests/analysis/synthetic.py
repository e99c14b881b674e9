"""Writes records in the contract's layout: rows simulated by theory.md section 3, or of a known law."""

import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import save_file

from experiments.records.folder import seal
from experiments.records.identity import SCHEMA_VERSION

ETAS = (0.5, 0.2, 0.1, 0.05, 0.01)
WINDOWS = [
    *(("power", c, 1.0) for c in (0.3, 0.5, 0.7, 0.9)),
    *(("log", b, a) for b, a in ((1.0, 4.0), (2.0, 1.0))),
    *(("fixed", k, 1.0) for k in (64.0, 256.0)),
    ("linear", 0.1, 1.0),
]


def keys_kept(rule, parameter, scale, n):
    real = {
        "fixed": lambda: parameter,
        "grid": lambda: parameter,
        "log": lambda: scale * np.log(n) ** parameter,
        "power": lambda: scale * n**parameter,
        "linear": lambda: parameter * n,
    }[rule]()
    return int(np.clip(np.ceil(real * (1 - 1e-9)), 1, n))


def gaussian(lengths, rows, samples, s=None, sigma=None, seed=0, places=((0, 0),), spread=0.0, dim=16, sees=None):
    """Rows and windows of iid normal logits; `spread` varies sigma from head to head, as a real model does.

    With `sees`, rows are those of a sliding-window layer: they see so many keys at most.
    """
    draw = np.random.default_rng(seed)
    row_lines, window_lines = [], []
    for layer, head in places:
        tilt = 1 + spread * draw.uniform(-1, 1)
        for sample in range(samples):
            for length in lengths:
                n = min(length, sees or length)
                width = tilt * (sigma if s is None else s * np.sqrt(np.log(n)))
                logits = -np.sort(-draw.normal(0, width, (rows, n)), axis=1)
                p = np.exp(logits - logits.max(1, keepdims=True))
                total = p.sum(1, keepdims=True)
                p /= total
                kept, squares = np.cumsum(p, 1), np.cumsum(p**2, 1)
                values = draw.normal(size=(n, dim))
                outputs = np.cumsum(p[:, :, None] * values, 1)
                norm = np.sqrt((outputs[:, -1] ** 2).sum(1))
                place = {"layer": layer, "head": head, "sample": sample, "variant": "plain", "length": length}
                for i in range(rows):
                    line = {**place, "position": length - 1 - i, "n": n, "logit_std": logits[i].std()}
                    line |= {"p_max": p[i, 0], "sink_mass": p[i, 0], "participation": 1 / squares[i, -1]}
                    log_p = np.log(p[i] + 1e-300)
                    entropy = -(p[i] * log_p).sum()
                    line |= {"entropy": entropy, "output_norm": norm[i], "root_sum": np.sqrt(p[i]).sum()}
                    line |= {"log_p_variance": (p[i] * (log_p + entropy) ** 2).sum()}
                    line |= {f"k_min_{eta}": int((kept[i] < 1 - eta).sum()) + 1 for eta in ETAS}
                    line |= {f"count_{eps}": int((p[i] > eps).sum()) for eps in (0.1, 0.01, 0.001)}
                    row_lines.append(line)
                grid = [("grid", float(k), 1.0) for k in np.unique(np.geomspace(1, length, 14).astype(int))]
                for rule, parameter, scale in WINDOWS + grid:
                    k = keys_kept(rule, parameter, scale, n)
                    tau = np.maximum(1 - kept[:, k - 1], 1e-9)
                    cut, whole = outputs[:, k - 1], outputs[:, -1]
                    rms = np.sqrt((norm**2).mean())
                    window = {**place, "rows": rows, "selector": "oracle", "rule": rule}
                    window |= {"parameter": parameter, "scale": scale, "k": k}
                    window |= {"dropped_mass": tau.mean(), "tv": tau.mean(), "kl": -np.log1p(-tau).mean()}
                    rest, factor = p[:, k : k + 1].sum(1), tau / (1 - tau)
                    lost, inside = np.maximum(squares[:, -1] - squares[:, k - 1], 0), squares[:, k - 1]
                    window |= {"linf_truncated": rest.mean(), "l2_truncated": np.sqrt(lost).mean()}
                    window["linf_renormalised"] = np.maximum(rest, p[:, 0] * factor).mean()
                    window["l2_renormalised"] = np.sqrt(lost + factor**2 * inside).mean()
                    window["output_error_truncated"] = np.sqrt(((whole - cut) ** 2).sum(1).mean()) / rms
                    sparse = cut / (1 - tau[:, None])
                    window["output_error_renormalised"] = np.sqrt(((whole - sparse) ** 2).sum(1).mean()) / rms
                    window_lines.append(window)
    return pd.DataFrame(row_lines), pd.DataFrame(window_lines)


SETTINGS = {
    "grid": [round(2 ** (i / 4)) for i in range(60)],
    "threshold": np.geomspace(0.1, 1e-6, 30),
    "top_p": np.geomspace(0.9, 1e-3, 20),
    "relative_threshold": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
    "peak_threshold": [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0],
}


def row_rules(rows):
    """Windows of rules that look at the row, and of a grid, by brute force of sorted rows (heads, samples, rows, n)."""
    lines = []
    for n, p in rows.items():
        tail = np.maximum(1 - np.concatenate([np.zeros((*p.shape[:-1], 1)), np.cumsum(p, -1)], -1), 0)
        tail[..., -1] = 0
        keys_of = {
            "grid": lambda k, p=p: np.full(p.shape[:-1], k),
            "threshold": lambda eps, p=p: (p > eps).sum(-1),
            "top_p": lambda eta, tail=tail: (tail > eta).sum(-1),
            "relative_threshold": lambda a, p=p, n=n: (p > a / n).sum(-1),
            "peak_threshold": lambda a, p=p, n=n: (p / p[..., :1] > a / n).sum(-1),
        }
        for rule, settings in SETTINGS.items():
            for parameter in sorted({setting for setting in settings if rule != "grid" or setting <= n}):
                k = np.maximum(keys_of[rule](parameter), 1)
                dropped = np.take_along_axis(tail, k[..., None], -1)[..., 0]
                for head, sample in np.ndindex(p.shape[:2]):
                    place = {"layer": 0, "head": head, "sample": sample, "length": n, "rows": p.shape[2]}
                    means = {"k": k[head, sample].mean(), "dropped_mass": dropped[head, sample].mean()}
                    lines.append(place | {"rule": rule, "parameter": float(parameter)} | means)
    about = {"variant": "plain", "selector": "oracle", "scale": 1.0, "output_error_renormalised": 0.1}
    return pd.DataFrame(lines).assign(label="m", **about)


def thresholds(outputs, lengths=(256, 512, 1024, 2048), samples=3, heads=2):
    """Records of thresholds in 1 / n beside the rules that they are judged by."""
    rows, _ = gaussian(lengths, 4, samples, s=0.6, seed=12, places=[(0, head) for head in range(heads)])
    draw = np.random.default_rng(12)
    sorted_rows = {}
    for n in lengths:
        p = np.exp(0.6 * np.sqrt(np.log(n)) * draw.normal(size=(heads, samples, 4, n)))
        sorted_rows[n] = -np.sort(-p / p.sum(-1, keepdims=True))
    windows = row_rules(sorted_rows).drop(columns="label")
    write_run(outputs, "real_thresholds", "TinyLM-Instruct", rows, windows, source="smollm2", model="tiny")


def law(k_of_n, lengths=(512, 1024, 2048, 4096, 8192), clusters=12, rows=4, heads=1, noise=0.2, seed=0):
    """Rows whose expected k_min is k_of_n(n) at every eta, with lognormal noise per cluster and per row."""
    draw = np.random.default_rng(seed)
    n = np.array(lengths, dtype=float)
    shape = (heads, clusters, len(n), rows)
    deviates = noise * draw.normal(size=(heads, clusters, len(n), 1)) + noise * draw.normal(size=shape)
    k = k_of_n(n)[None, None, :, None] * np.exp(deviates - noise**2)
    head, sample, length, row = (axis.ravel() for axis in np.indices(shape))
    frame = pd.DataFrame({"layer": 0, "head": head, "sample": sample, "variant": "plain"})
    frame["length"] = frame["n"] = n.astype(int)[length]
    frame["position"] = frame["n"] - 1 - row
    frame["logit_std"] = 1.0
    for eta in ETAS:
        frame[f"k_min_{eta}"] = k.ravel()
    return frame


def crossed(
    exponents,
    lengths=(512, 1024, 2048, 4096, 8192),
    clusters=12,
    shared=0.1,
    own=0.3,
    seed=0,
):
    """Rows of many heads, each a power law of its own exponent and level, that all read the same clusters.

    `shared` is the deviation of ln k that a cluster gives every head, `own` that of each head in each cluster.
    """
    draw = np.random.default_rng(seed)
    n = np.array(lengths, dtype=float)
    shape = (len(exponents), clusters, len(n))
    level = 1 + draw.normal(size=(len(exponents), 1, 1))
    noise = shared * draw.normal(size=(1, *shape[1:])) + own * draw.normal(size=shape)
    log_k = level + np.asarray(exponents)[:, None, None] * np.log(n) + noise
    head, sample, length = (axis.ravel() for axis in np.indices(shape))
    frame = pd.DataFrame({"layer": 0, "head": head, "sample": sample, "variant": "plain"})
    frame["length"] = frame["n"] = n.astype(int)[length]
    frame["position"] = frame["n"] - 1
    frame["logit_std"] = 1.0
    for eta in ETAS:
        frame[f"k_min_{eta}"] = np.exp(log_k).ravel()
    return frame


def write_run(
    outputs,
    name,
    label,
    rows,
    windows=None,
    *,
    source="gaussian",
    seed=0,
    status="complete",
    matrices=None,
    unions=None,
    selector=None,
    runner=None,
    experiment="quick",
    **keys,
):
    """Write one run folder as experiments/ does, the manifest last; `keys` go into the source's configuration."""
    folder = Path(outputs, "runs", name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    defaults = {"s": None, "sigma": None, "inputs": "gaussian", "head_dim": 64} if source == "gaussian" else {}
    lengths = sorted(int(n) for n in rows["length"].unique())
    config = {
        "experiment": experiment,
        "seed": seed,
        "device": "cpu",
        "source": {
            "name": source,
            "lengths": lengths,
            "samples": int(rows["sample"].nunique()),
            **defaults,
            **keys,
        },
        "windows": {"exponents": [0.3, 0.5]},
        "selector": selector or {"name": "oracle"},
        "runner": runner or {"name": "approximation"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows.to_parquet(folder / "rows.parquet")
    if windows is None:
        place = rows.groupby(["layer", "head", "sample", "variant", "length"], as_index=False).size()
        windows = place.rename(columns={"size": "rows"}).assign(selector="oracle", rule="fixed", parameter=64.0)
        windows = windows.assign(scale=1.0, k=64.0, dropped_mass=0.5)
    windows.to_parquet(folder / "windows.parquet")
    if unions is not None:
        unions.to_parquet(folder / "unions.parquet")
    if matrices:
        index = {key: about for key, (_, about) in matrices.items()}
        arrays = {key: np.asarray(array, np.float16) for key, (array, _) in matrices.items()}
        save_file(arrays, folder / "attention.safetensors", metadata={"matrices": json.dumps(index)})
    real = source != "gaussian"
    manifest = {
        "run_id": name,
        "schema": SCHEMA_VERSION,
        "status": status,
        "label": label,
        "seconds": 1.0,
        "peak_rss_mb": 100.0,
        "seed": seed,
        "versions": {"numpy": np.__version__},
        "git_revision": "0" * 40,
        "hashes": {"model": "a" * 64 if real else None, "text": "b" * 64 if real else None},
        "command": f"python run.py source={source} seed={seed}",
        "created": "2025-01-01T00:00:00",
    }
    seal(folder, manifest)
    return folder


def causal(size, block, draw):
    """Random causal attention probabilities with a sink, pooled by `block` queries and keys."""
    logits = draw.normal(size=(size, size)) - 0.02 * np.abs(np.subtract.outer(range(size), range(size)))
    logits[:, 0] += 4
    logits[np.triu_indices(size, 1)] = -np.inf
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    cells = size // block
    return p.reshape(cells, block, cells, block).sum(3).mean(1)


def demo(outputs, lengths=(256, 512, 1024, 2048, 4096), places=((0, 0), (0, 1), (1, 0), (1, 1)), samples=4):
    """A small complete set: three Gaussian settings, one 'real' model with a few heads, two matrices."""
    for i, s in enumerate((0.3, 0.5, 0.8)):
        rows, windows = gaussian(lengths, 8, samples, s=s, seed=i)
        write_run(outputs, f"gaussian{i}", f"Gaussian, s = {s}", rows, windows, s=s)
    rows, windows = gaussian(lengths, 8, samples, s=0.6, spread=0.5, seed=9, places=places)
    draw = np.random.default_rng(5)
    matrices = {}
    for layer, head, size, block in ((0, 0, 256, 1), (1, 1, 512, 2)):
        name = f"layer{layer:02}.head{head:02}.sample0.length{size}"
        about = {"layer": layer, "head": head, "sample": 0, "length": size}
        about |= {"query_pool": block, "key_pool": block, "kind": "mean over queries of summed keys"}
        matrices[name] = (causal(size, block, draw), about)
    together = runs_of_rows(rows)
    write_run(
        outputs,
        "real",
        "TinyLM-Instruct",
        rows,
        windows,
        source="smollm2",
        matrices=matrices,
        unions=together,
        model="tiny",
    )
    rows, windows = gaussian((64, 128, 256, 4096), 8, samples, s=0.6, spread=0.5, seed=10, places=places)
    write_run(outputs, "real_long", "TinyLM-Instruct", rows, windows, source="smollm2", model="tiny")
    thresholds(outputs)
    tasks(outputs)
    selectors(outputs)
    approximators(outputs, places)
    diagnostics(outputs, places)


def runs_of_rows(rows, runs=(1, 8, 32), etas=(0.2, 0.1, 0.05)):
    """Unions as if each further row, and the other head of a pair, added a share of new keys."""
    place = rows.groupby(["layer", "head", "sample", "length"], as_index=False).mean(numeric_only=True)
    lines = []
    for _, line in place.iterrows():
        for run in runs:
            for eta in etas:
                k, n = line[f"k_min_{eta}"], line["length"]
                union = np.floor(np.minimum(k * run**0.3, n))
                common = {"layer": line["layer"], "kv_head": line["head"] // 2, "sample": line["sample"], "length": n}
                common |= {"rows": run, "eta": eta, "n": n, "k": k}
                lines.append(common | {"head": line["head"], "union": union, "fixed": np.ceil((k + union) / 2)})
                if line["head"] % 2 == 0:
                    union = np.floor(min(1.5 * union, n))
                    lines.append(common | {"head": -1, "union": union, "fixed": np.ceil((k + union) / 2)})
    return pd.DataFrame(lines).astype({name: int for name in ("layer", "kv_head", "head", "sample", "length", "rows")})


def selectors(outputs, lengths=(512, 1024, 2048), samples=3):
    """Records of three selectors on the same rows, under softmax and, for the same labels, as |x|^2."""
    for name, label, source, keys in (
        ("several", "Gaussian, s = 0.5", "gaussian", {"s": 0.5}),
        ("several_real", "TinyLM-Instruct", "smollm2", {"model": "tiny"}),
    ):
        rows, best = gaussian(lengths, 4, samples, s=0.5, seed=3)
        n = best["length"]
        tables = [best.assign(keys_read=(n + best["k"]) / 2)]
        for selector, share in (("random", 1.0), ("lev_attention", 0.5)):
            dropped = (1 - best["k"] / n) * share + best["dropped_mass"] * (1 - share)
            error = best["output_error_renormalised"] * 2
            worse = best.assign(selector=selector, dropped_mass=dropped, tv=dropped, keys_read=best["k"])
            tables.append(worse.assign(output_error_renormalised=error))
        windows = pd.concat(tables, ignore_index=True)
        for variant, power in (("plain", None), ("plain, |x|^2", 2.0)):
            write_run(
                outputs,
                f"{name}_{power}",
                label,
                rows.assign(variant=variant),
                windows.assign(variant=variant),
                source=source,
                selector={"name": "several", "parts": {}},
                runner={"name": "approximation"} | ({"score_power": power} if power else {}),
                **keys,
            )


def approximators(outputs, places, lengths=(512, 1024, 2048), samples=3):
    """Records of windows of a fixed k alone: methods that replace the row, rows of layers below, and triples."""
    rows, best = gaussian(lengths, 4, samples, s=0.6, spread=0.5, seed=11, places=places)
    best = best[best["rule"] == "fixed"]
    k, n = best["parameter"], best["length"]
    cost = {"keys_read": k, "flops": 128 * k, "negative_mass": 0.0, "normaliser_error": 0.1, "failed": 0.0}
    best = best.assign(**cost | {"keys_read": (n + k) / 2, "flops": 64 * (n + k)})

    def method(name, factor):
        error = best["output_error_renormalised"] * factor
        lines = best.assign(**cost).assign(selector=name, dropped_mass=np.nan)
        return lines.assign(tv=best["tv"] * factor, output_error_renormalised=error)

    flat = best.assign(keys_read=0.5, flops=64.0, selector="mean_value", dropped_mass=np.nan, tv=0.8)
    flat["output_error_renormalised"] = 0.9
    of_head = np.where(best["head"] == 0, 1.2, 2.0)
    parts = [best, method("sinks", 1.6), method("coreset", of_head), method("moment_tail", 1.8), flat]
    options = {"rows": rows, "source": "smollm2", "model": "tiny", "runner": {"name": "approximation"}}
    for name, tables in (
        ("real_approximators", parts),
        ("real_shared", [best, flat, method("shared_1", 2.0), method("shared_1_best", 1.5)]),
    ):
        windows = pd.concat(tables, ignore_index=True)
        write_run(outputs, name, "TinyLM-Instruct", windows=windows, selector={"name": name, "parts": {}}, **options)
    windows = pd.concat([best, *own_windows(best)], ignore_index=True)
    write_run(
        outputs, "real_own", "TinyLM-Instruct", windows=windows, selector={"name": "own_scores", "parts": {}}, **options
    )
    rows, windows = gaussian(lengths, 8, samples, s=0.5, seed=12)
    write_run(outputs, "triples", "Gaussian triples, s = 0.5", rows, windows, source="tensor", s=0.5)


def own_windows(best, ada=0.8, own=1.25, above=1.1):
    """Windows by a method's own estimate: of a fixed window's keys, with its total variation times a factor."""
    for rule, parameter, factor in (("ada", None, ada), ("own_top_p", 0.1, own), ("own_threshold", 0.01, above)):
        k = sorted(best["k"].unique())[1]
        lines = best[best["k"] == k]
        yield lines.assign(rule=rule, parameter=float(k if parameter is None else parameter), tv=lines["tv"] * factor)


def diagnostics(outputs, places, lengths=(512, 1024), samples=3):
    """What the runners of diagnostics leave: promises kept, and sketched tails over true ones."""
    covered, sketched = [], []
    for layer, head in places:
        for sample in range(samples):
            for length in lengths:
                place = {
                    "layer": layer,
                    "head": head,
                    "sample": sample,
                    "variant": "plain",
                    "length": length,
                    "rows": 8,
                }
                for selector, share in (("sinks", 0.6), ("oracle", 0.9)):
                    for base in (0.01, 0.05):
                        line = {"selector": selector, "base": base, "epsilon": 0.1, "delta": 0.1, "sampled": 5 * base}
                        covered.append(place | line | {"covered": share - 0.01 * sample, "keys": 64.0 + base * length})
                for k in (16, 64):
                    for times in (4, 16):
                        for of, ratio in (("row", 1 + 4 / times), ("matrix", 1 - 1 / times)):
                            line = {"of": of, "k": k, "width": times * k, "left": 0.2, "ratio": ratio}
                            sketched.append(place | line | {"ratio_low": ratio * 0.9, "ratio_high": ratio * 1.1})
                for k in (length // 4, length // 2):
                    none = dict.fromkeys(("ratio", "ratio_low", "ratio_high"), np.nan)
                    sketched.append(place | {"of": "column", "k": k, "width": 0, "left": 64 / k} | none)
    write_task(outputs, "coverage", "coverage", {"coverage": pd.DataFrame(covered)})
    write_task(outputs, "sketches", "sketches", {"sketches": pd.DataFrame(sketched)})
    write_task(outputs, "distance", "distance", {"distance": distances(places)})
    write_task(outputs, "columns", "columns", {"columns": columns(places)})


def columns(places, lengths=(1024, 2048), samples=4, ks=(32, 64, 256)):
    """Recall of static columns: (k / n)^.2 on the same rows, a tenth less on earlier ones, half on another text."""
    factors = {"each_row": 1.1, "same_rows": 1.0, "earlier_rows": 0.9, "other_text": 0.5}
    lines = []
    for (layer, head), sample, length, k in product(places, range(samples), lengths, ks):
        place = {"layer": layer, "head": head, "sample": sample, "variant": "plain", "length": length, "k": k}
        best = (k / length) ** 0.2 * (1 - 0.02 * sample - 0.05 * head)
        for way, factor in factors.items():
            if sample or way != "other_text":
                lines.append(place | {"chosen": way, "rows": 8, "recall": min(factor * best, 1.0)})
    return pd.DataFrame(lines)


def distances(places, lengths=(512, 4096), samples=3, exponents=(0.4, 0.8, 1.2, 1.6), rows=8):
    """Means by distance of power laws, one exponent per head; the last range lacks a row, and has a sink."""
    start_B = np.unique(np.round(2.0 ** (np.arange(104) / 8)).astype(int))
    lines = []
    for (layer, head), exponent in zip(places, exponents, strict=False):
        for sample in range(samples):
            for length in lengths:
                first_B = start_B[start_B < length]
                last_B = np.append(first_B[1:], length) - 1
                part = pd.DataFrame({"distance": first_B, "last": last_B, "rows": rows})
                part["pairs"] = rows * (last_B - first_B + 1)
                part.loc[part.index[-1], "pairs"] -= 1
                part["probability"] = 0.1 * (1 + 0.1 * sample) * np.sqrt(first_B * last_B) ** -exponent
                part.loc[part.index[-1], "probability"] = 0.5
                place = {"layer": layer, "head": head, "sample": sample, "variant": "plain", "length": length}
                lines.append(part.assign(**place))
    return pd.concat(lines, ignore_index=True)


def tasks(outputs, lengths=(256, 512, 1024), samples=3):
    """What the runners of a model leave: losses of both phases, answers and decode steps; a wider window loses less."""
    draw = np.random.default_rng(7)
    shapes = [("fixed", lambda n, k: (k, 1.0, np.minimum(k, n))), ("linear", lambda n, k: (k / 512, 1.0, k * n / 512))]
    shapes += [
        ("power", lambda n, k: (0.5, k / 16, k * np.sqrt(n / 256))),
        ("budget", lambda n, k: (0.05, k, k + 0 * n)),
    ]
    losses, answers, steps = {"decode": [], "prefill": []}, [], []
    for sample in range(samples):
        for length in lengths:
            place = {"sample": sample, "length": length}
            for phase, first in (("decode", length - 16), ("prefill", 0)):
                if phase == "prefill" and length != lengths[-1]:
                    continue
                position = np.arange(first, length - 1)
                dense = 2 + 0.1 * draw.normal(size=len(position))
                facts = place | {"phase": phase, "position": position}
                line = {"rule": "dense", "parameter": np.nan, "scale": np.nan, "keys": position + 1.0, "loss": dense}
                losses[phase].append(pd.DataFrame(facts | line))
                for rule, of in shapes:
                    for k in (8, 16, 32, 64):
                        parameter, scale, kept = of(position + 1.0, k)
                        line = {
                            "rule": rule,
                            "parameter": parameter,
                            "scale": scale,
                            "keys": kept,
                            "loss": dense + 1 / kept,
                        }
                        losses[phase].append(pd.DataFrame(facts | line))
            for depth in (0.2, 0.8):
                facts = place | {"phase": "decode", "depth": depth, "tokens": 6}
                line = {"rule": "dense", "parameter": np.nan, "scale": np.nan, "keys": float(length)}
                answers.append(facts | line | {"log_prob": -1.0, "exact": True})
                for rule, of in shapes:
                    for k in (8, 16, 32, 64):
                        parameter, scale, kept = of(np.array(float(length)), k)
                        line = {"rule": rule, "parameter": parameter, "scale": scale, "keys": float(kept)}
                        answers.append(facts | line | {"log_prob": -1 - 9 / k, "exact": k > 16})
            for rule, of in shapes:
                for k in (8, 64):
                    parameter, scale, kept = of(np.array(float(length)), k)
                    line = {"rule": rule, "parameter": parameter, "scale": scale, "k": float(kept), "phase": "decode"}
                    line |= {"repeats": 3, "bytes_dense": 512 * length, "bytes_selected": 256 * length}
                    line |= {
                        "bytes_attended": 512 * kept,
                        "dense_seconds": 1e-6 * length,
                        "select_seconds": 5e-7 * length,
                    }
                    steps.append(place | line | {"attend_seconds": 1e-6 * kept, "step_seconds": 1e-3})
    for phase, parts in losses.items():
        write_task(outputs, phase, "language", {"losses": pd.concat(parts)})
    write_task(outputs, "methods", "language", {"losses": methods(lengths[-1:])}, decode_tokens=7)
    write_task(outputs, "support", "language", {"losses": support(lengths)}, decode_tokens=8)
    write_task(outputs, "powers", "language", {"losses": powers(lengths)}, decode_tokens=9)
    write_task(outputs, "recall", "retrieval", {"retrieval": pd.DataFrame(answers)})
    write_task(outputs, "tasks", "tasks", {"tasks": answered(samples)})
    write_task(outputs, "steps", "decoding", {"decoding": pd.DataFrame(steps)})
    write_task(outputs, "indices", "decoding", {"decoding": searched()})
    write_task(outputs, "pruned", "pruning", pruned())
    write_task(outputs, "gains", "gains", {"gains": gains()})
    write_task(outputs, "shared_out", "language", {"losses": shared_out()}, decode_tokens=16)


def methods(lengths, samples=2, tokens=8):
    """Return losses of two methods beside the oracle, decoding: each loses as it and more, and agrees less."""
    draw = np.random.default_rng(8)
    lines = []
    for sample in range(samples):
        for length in lengths:
            place = {"sample": sample, "length": length, "phase": "decode"}
            position = np.arange(length - tokens, length - 1)
            dense = 2 + 0.1 * draw.normal(size=len(position))
            none = {"selector": "dense", "rule": "dense", "parameter": np.nan, "scale": np.nan, "keys": position + 1.0}
            lines.append(
                pd.DataFrame(place | none | {"position": position, "loss": dense, "agreement": 1.0, "kl": 0.0})
            )
            for selector, more in (("oracle", 0.0), ("sinks", 0.1), ("quest", 0.05)):
                for k in (8, 16, 32, 64):
                    window = {"selector": selector, "rule": "fixed", "parameter": k, "scale": 1.0, "keys": float(k)}
                    lost = 1 / k + more * (1 + 0.1 * sample)
                    quality = {"position": position, "loss": dense + lost, "agreement": 1 - lost, "kl": lost}
                    lines.append(pd.DataFrame(place | window | quality))
    return pd.concat(lines)


def support(lengths, samples=3, tokens=8):
    """Return losses of the oracle's fixed windows: sqrt(n) keys lose .1 nats and a tenth of the tokens."""
    lines = []
    for sample in range(samples):
        for length in lengths:
            position = np.arange(length - tokens, length - 1)
            facts = {"sample": sample, "length": length, "phase": "decode", "position": position}
            none = {"selector": "dense", "rule": "dense", "parameter": np.nan, "scale": np.nan, "keys": position + 1.0}
            lines.append(pd.DataFrame(facts | none | {"loss": 2.0, "agreement": 1.0, "kl": 0.0}))
            for k in (8, 16, 32, 64, 128):
                lost = 0.1 * np.sqrt(length) / k
                window = {"selector": "oracle", "rule": "fixed", "parameter": k, "scale": 1.0, "keys": float(k)}
                lines.append(
                    pd.DataFrame(facts | window | {"loss": 2 + lost, "agreement": 1 - min(lost, 1), "kl": lost})
                )
    return pd.concat(lines)


def powers(lengths, samples=3, tokens=8):
    """Return losses of the oracle's windows n^C and 4 n^C, whose KL falls as n^-C, and whose loss as n^(-C / 2)."""
    lines = []
    for sample, length in product(range(samples), lengths):
        position = np.arange(length - tokens, length - 1)
        facts = {"sample": sample, "length": length, "phase": "decode", "position": position}
        none = {"selector": "dense", "rule": "dense", "parameter": np.nan, "scale": np.nan, "keys": position + 1.0}
        lines.append(pd.DataFrame(facts | none | {"loss": 2.0, "agreement": 1.0, "kl": 0.0}))
        for power, scale in product((0.25, 0.5), (1.0, 4.0)):
            lost = (1 + 0.1 * sample) / scale * np.array([float(length) ** -power, float(length) ** (-power / 2)])
            window = {"selector": "oracle", "rule": "power", "parameter": power, "scale": scale}
            window |= {"keys": scale * float(length) ** power, "agreement": 0.9, "kl": lost[0], "loss": 2 + lost[1]}
            lines.append(pd.DataFrame(facts | window))
    return pd.concat(lines)


def answered(samples=3, lengths=(256, 512)):
    """Answers to two tasks, one beyond the model, by two methods whose windows lose 8 / k and 16 / k nats."""
    lines = []
    for sample in range(samples):
        for length in lengths:
            for task, log_prob in (("single_needle", -0.5), ("common_words", -60.0)):
                place = {
                    "task": task,
                    "sample": sample,
                    "phase": "decode",
                    "length": length,
                    "question": 0,
                    "tokens": 6,
                }
                none = {
                    "selector": "dense",
                    "rule": "dense",
                    "parameter": np.nan,
                    "scale": np.nan,
                    "keys": float(length),
                }
                exact = task == "single_needle"
                own = {"log_prob": log_prob - 0.1 * sample, "exact": exact, "recalled": float(exact)}
                lines.append(place | none | own | {"agreement": 1.0, "kl": 0.0})
                for selector, loss in (("oracle", 8.0), ("sinks", 16.0)):
                    for k in (16, 64):
                        window = {
                            "selector": selector,
                            "rule": "fixed",
                            "parameter": float(k),
                            "scale": 1.0,
                            "keys": float(k),
                        }
                        lost = {"log_prob": own["log_prob"] - loss / k, "agreement": 0.5, "kl": loss / k}
                        lines.append(place | window | own | lost)
    return pd.DataFrame(lines)


def searched(length=2048):
    """Return decode steps of two selectors: one scores all keys, one has nothing to search."""
    lines = []
    for k in (18, 60, 196):  # of the grid above
        for selector, seconds in (("oracle", 1e-6 * length), ("random", 0.0)):
            line = {"sample": 0, "length": length, "phase": "decode", "repeats": 3, "selector": selector, "k": float(k)}
            line |= {"rule": "fixed", "parameter": float(k), "scale": 1.0, "dense_seconds": 2e-6 * length}
            line |= {"bytes_dense": 512 * length, "bytes_selected": 256 * length, "bytes_attended": 512 * k}
            line |= {"select_seconds": seconds, "attend_seconds": 1e-6 * k, "step_seconds": 1e-3, "index_seconds": 0.0}
            lines.append(line)
    return pd.DataFrame(lines)


def pruned(samples=3, layers=(0, 3), heads=2, length=16):
    """Return rows and losses of two criteria: a head, a sample and fewer weights each add to what is lost."""
    lines, losses = [], []
    for sample in range(samples):
        place = {"sample": sample, "length": length}
        losses.append(place | {"criterion": "dense", "share": 1.0, "layers": len(layers), "loss": 3.0 + sample})
        for criterion, factor in (("magnitude", 2.0), ("wanda", 1.0)):
            for share in (0.5, 0.3):
                at = place | {"criterion": criterion, "share": share}
                lost = factor * (1 - share) * (1 + 0.1 * sample)
                losses.append(at | {"layers": len(layers), "loss": 3.0 + sample + lost})
                for layer in layers:
                    for head in range(heads):
                        line = at | {"layer": layer, "head": head, "rows": length, "tv": 0.1 * lost * (1 + head)}
                        line |= {"output_error": 0.2 * lost * (1 + head), "kept_query": share, "kept_key": share}
                        lines.append(line)
    return {"pruning": pd.DataFrame(lines), "pruning_losses": pd.DataFrame(losses)}


def write_task(outputs, name, runner, tables, label="TinyLM-Instruct", **options):
    """Write a run of a runner other than `approximation`; options are the runner's."""
    any_table = next(iter(tables.values()))
    rows = pd.DataFrame({"length": sorted(any_table["length"].unique()), "sample": 0, "layer": 0, "head": 0})
    folder = write_run(outputs, name, label, rows.assign(variant="plain"), source="smollm2", model="tiny")
    for left in ("rows.parquet", "windows.parquet"):
        (folder / left).unlink()
    for table, lines in tables.items():
        lines.to_parquet(folder / f"{table}.parquet")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["runner"] = {"name": runner, **options}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    seal(folder, json.loads((folder / "manifest.json").read_text()))
    return folder


def shared_out(lengths=(256, 512), samples=(3, 4, 5)):
    """Return losses within keys shared out, decoding: by gains they lose half of what keys alike lose."""
    lines = []
    for sample, length, position in product(samples, lengths, (0, 1)):
        place = {"sample": sample, "length": length, "phase": "decode", "position": length - 2 + position}
        none = {"selector": "dense", "rule": "dense", "parameter": np.nan, "scale": np.nan, "keys": float(length)}
        lines.append(place | none | {"loss": 3.0, "agreement": True, "kl": 0.0})
        for keys, (by, share) in product((32.0, 128.0), (("uniform", 1.0), ("gains", 0.5), ("pyramid", 2.0))):
            lost = share * (1 + 0.1 * sample) * 8 / keys
            window = {
                "selector": "snap_kv_prompt",
                "rule": f"budget_{by}",
                "parameter": keys,
                "scale": 1.0,
                "keys": keys,
            }
            lines.append(place | window | {"keys": keys, "loss": 3 + lost, "agreement": False, "kl": lost})
    return pd.DataFrame(lines)


def gains(lengths=(256, 512), samples=3, layers=(0, 1), selectors=("snap_kv_prompt", "oracle"), seed=5):
    """Return gains of layers, of which the last loses a tenth of what those before it do; the oracle loses half."""
    draw = np.random.default_rng(seed)
    lines = []
    for sample, length, selector, layer in product(range(samples), lengths, selectors, layers):
        for share in (0.05, 0.1, 0.25, 0.5):
            lost = (0.1 if layer == layers[-1] else 1.0) * (0.5 if selector == "oracle" else 1.0) * (1 / share - 1) / 20
            lost *= 1 + 0.05 * draw.random()
            place = {"sample": sample, "phase": "decode", "length": length, "selector": selector, "layer": layer}
            place |= {"rule": "linear", "parameter": share, "scale": 1.0, "kv_head": -1}
            facts = {"keys": share * length, "n": float(length), "tokens": 15, "loss": 3 + lost, "dense_loss": 3.0}
            shape = {"heads": 4, "kv_heads": 2, "key_dim": 8}
            lines.append(place | facts | shape | {"agreement": 0.9, "kl": lost})
    return pd.DataFrame(lines)

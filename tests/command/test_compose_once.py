"""Each job of a sweep is composed once, and jobs are counted."""

import pickle
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import Container

from experiments.command.compose_once import KEPT, ComposeOnce, ShareChoices
from experiments.launch import CONF
from experiments.options import register_options
from experiments.schema import register


class Composer:
    """Counts its calls."""

    calls = 0

    def compose(self, master, overrides):
        self.calls += 1
        return {"overrides": overrides}


def test_the_first_composition_is_handed_out_again():
    composer = Composer()
    compose = ComposeOnce(composer.compose, keep=True)
    first = [compose(None, [f"seed={i}"]) for i in range(3)]
    second = [compose(None, [f"seed={i}"]) for i in range(3)]
    assert all(a is b for a, b in zip(first, second, strict=True))
    assert composer.calls == 3
    assert compose.jobs == 3


def test_a_job_that_is_in_the_sweep_twice_gets_no_configuration_that_was_launched_with():
    compose = ComposeOnce(Composer().compose, keep=True)
    checked = [compose(None, ["seed=1"]) for _ in range(2)]
    launched = [compose(None, ["seed=1"]) for _ in range(2)]
    assert launched[0] is not launched[1]
    assert not any(one is two for one in launched for two in checked)
    assert compose.jobs == 1


def test_memory_is_bounded_and_nothing_goes_to_other_processes():
    composer = Composer()
    compose = ComposeOnce(composer.compose, keep=True)
    for i in range(KEPT + 5):
        compose(None, [f"seed={i}"])
    assert len(compose._kept) == KEPT
    assert pickle.loads(pickle.dumps(compose)).jobs == 0


def test_other_launchers_only_count():
    compose = ComposeOnce(Composer().compose, keep=False)
    compose(None, ["seed=1"])
    assert (len(compose._kept), compose.jobs) == (0, 1)


@pytest.fixture
def loaders():
    """Hydra's way of composing a job of a sweep, ours, and what counts how often ours asks Hydra."""
    register()
    register_options()
    with initialize_config_dir(version_base="1.3", config_dir=CONF):
        loader = GlobalHydra.instance().config_loader()
        hydras, counter = loader.load_sweep_config, Composer()

        def counted(master, overrides):
            counter.calls += 1
            return hydras(master, overrides)

        loader.load_sweep_config = counted
        yield loader, hydras, ShareChoices(loader), counter


def master(loader, *overrides):
    return loader.load_configuration("config", list(overrides), run_mode=RunMode.MULTIRUN)


def nodes(config, path=""):
    """Yield all that a configuration is made of: values, types and flags."""
    data = config._metadata
    flags = {name: flag for name, flag in (data.flags or {}).items() if flag is not None}
    yield path, type(config), data.ref_type, data.object_type, data.optional, flags
    content = config._content
    if isinstance(content, dict):
        for key, node in content.items():
            yield from nodes(node, f"{path}.{key}") if isinstance(node, Container) else [leaf(node, f"{path}.{key}")]
    elif isinstance(content, list):
        for i, node in enumerate(content):
            yield from nodes(node, f"{path}.{i}") if isinstance(node, Container) else [leaf(node, f"{path}.{i}")]
    else:
        yield path, content


def leaf(node, path):
    return path, type(node), node._metadata.ref_type, node._metadata.optional, repr(node._value())


SWEEPS = [
    ([], ["seed=0"], ["seed=1"]),
    ([], ["source.s=0.3", "windows.exponents=[0.3]"], ["source.s=0.5", "windows.exponents=[0.5,0.7]"]),
    (["hydra.job.name=x", "hydra/launcher=local"], ["seed=0", "outputs='a,b'"], ["seed=1", "outputs=other"]),
    (
        [],
        ["source=smollm2", "source.rows=3"],
        ["source=gaussian", "source.rows=3"],
        ["source=smollm2", "source.rows=4"],
    ),
    ([], ["selector=several", "~selector.parts.h2o"], ["selector=several", "~selector.parts.quest", "seed=3"]),
    ([], ["windows/rules=[fixed,log]", "seed=1"], ["windows/rules=[fixed]", "seed=1"]),
    ([], ["+selector@selector.parts.x=oracle", "selector=several"], ["selector=several", "seed=2"]),
    ([], ["source.rows=3", "source={rows: 4}", "seed=0"], ["source={rows: 4}", "source.rows=3", "seed=1"]),
    ([], ["experiment=heads", "seed=0"], ["experiment=adaptive", "seed=0"], ["experiment=heads", "seed=1"]),
    ([], ["++seed=4", "+source.lengths=[8]"], ["seed=5", "source.lengths=[8]"]),
    ([], ["source.text='${outputs}/x'", "source=smollm2"], ["source.text=null", "source=smollm2"]),
]


@pytest.mark.parametrize(("hydra", "jobs"), [(first, jobs) for first, *jobs in SWEEPS])
def test_a_shared_composition_is_the_one_that_hydra_makes(loaders, hydra, jobs):
    loader, hydras, ours, _ = loaders
    of_sweep = master(loader, *hydra)
    _ = of_sweep.hydra.sweep.dir  # a resolved time is the same in every job
    for job in [*jobs, *jobs]:
        mine, theirs = ours(of_sweep, job), hydras(of_sweep, job)
        assert list(nodes(mine)) == list(nodes(theirs))
        assert mine.hydra.sweep.dir == theirs.hydra.sweep.dir


@pytest.mark.long
def test_every_preset_is_composed_as_hydra_does(loaders):
    loader, hydras, ours, _ = loaders
    of_sweep = master(loader)
    for preset in sorted(path.stem for path in (Path(CONF) / "experiment").glob("*.yaml")):
        job = [f"experiment={preset}", "seed=7", "memory_gb=2"]
        assert list(nodes(ours(of_sweep, job))) == list(nodes(hydras(of_sweep, job)))


def test_hydra_composes_each_choice_once(loaders):
    loader, _, ours, counter = loaders
    of_sweep = master(loader)
    for seed in range(5):
        for selector in ("oracle", "sinks"):
            assert ours(of_sweep, [f"selector={selector}", f"seed={seed}"]).seed == seed
    assert counter.calls == 2


def test_a_job_that_is_changed_changes_no_other(loaders):
    loader, hydras, ours, _ = loaders
    of_sweep = master(loader)
    first = ours(of_sweep, ["seed=1"])
    first.source.lengths.append(5)
    first.hydra.job.num = 3
    assert list(nodes(ours(of_sweep, ["seed=1"]))) == list(nodes(hydras(of_sweep, ["seed=1"])))


@pytest.mark.parametrize("job", [["sed=1"], ["source.rows=x"], ["source=gausian"], ["seed=1,2"], ["seed=[", "seed=1"]])
def test_what_hydra_refuses_is_refused_in_its_words(loaders, job):
    loader, hydras, ours, _ = loaders
    of_sweep = master(loader)
    with pytest.raises(Exception) as theirs:  # noqa: PT011  whatever it is
        hydras(of_sweep, job)
    with pytest.raises(theirs.type) as mine:
        ours(of_sweep, job)
    assert str(mine.value) == str(theirs.value)


@pytest.mark.parametrize(
    ("hydra", "job"), [([], ["hydra.job.name=y"]), (["hydra.searchpath=[pkg://hydra]"], ["seed=1"])]
)
def test_what_is_unusual_is_left_to_hydra(loaders, hydra, job):
    loader, hydras, ours, counter = loaders
    of_sweep = master(loader, *hydra)
    for _ in range(2):
        assert list(nodes(ours(of_sweep, job))) == list(nodes(hydras(of_sweep, job)))
    assert counter.calls == 2


def test_no_composition_goes_to_other_processes(loaders):
    loader, _, ours, _ = loaders
    ours(master(loader), ["seed=1"])
    assert ours.__getstate__()["_bases"] == {}

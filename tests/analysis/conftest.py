import os
import shutil

import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from analysis import save, settings
from analysis.__main__ import main
from tests.analysis import synthetic


@pytest.fixture(scope="session", autouse=True)
def few_resamples():
    """Bootstrap less: what is tested through the command is not the width of its intervals."""
    config = OmegaConf.merge(settings.analysis(), {"resamples": 60})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "analysis", lambda: config)
        yield


@pytest.fixture(scope="session")
def analysed(tmp_path_factory, few_resamples):
    """Outputs with records, analysed once, by one of the processes that share the tests; not to be changed."""
    base = tmp_path_factory.getbasetemp()
    outputs = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "analysed"
    with FileLock(f"{outputs}.lock"):
        if not outputs.exists():
            unfinished = outputs.with_name("unfinished")
            synthetic.demo(unfinished)
            assert main(["--outputs", str(unfinished)]) == 0
            unfinished.rename(outputs)
    return outputs


@pytest.fixture
def outputs(analysed, tmp_path):
    """A copy of the analysed outputs, free to be changed."""
    return shutil.copytree(analysed, tmp_path / "outputs")


@pytest.fixture
def unsaved(monkeypatch):
    """Let figures be drawn, but their files hold a word: to save a figure is most of what it takes."""

    def write(figure, folder, name, formats=tuple(save.FORMATS)):
        for suffix in formats:
            save.write_text(folder / f"{name}.{suffix}", "drawn")

    monkeypatch.setattr(save, "write_figure", write)

import shutil

import pytest

from tests.analysis import synthetic


@pytest.fixture(scope="session")
def analysed(tmp_path_factory):
    """Outputs with records, analysed once; not to be changed."""
    from analysis.__main__ import main

    outputs = tmp_path_factory.mktemp("analysed")
    synthetic.demo(outputs)
    assert main(["--outputs", str(outputs)]) == 0
    return outputs


@pytest.fixture
def outputs(analysed, tmp_path):
    """A copy of the analysed outputs, free to be changed."""
    return shutil.copytree(analysed, tmp_path / "outputs")

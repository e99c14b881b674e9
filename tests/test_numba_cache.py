"""What numba compiles can be kept, even if the checkout is read-only."""

import os
import tempfile

import pytest

from experiments.numba_cache import VARIABLE, choose_cache


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """Return a path below which no folder can be made, whoever asks."""
    monkeypatch.setenv(VARIABLE, "")
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "below"


def test_beside_the_code_if_that_can_be_written(tmp_path, nowhere):
    choose_cache(tmp_path)
    assert os.environ[VARIABLE] == ""


def test_else_in_the_cache_of_the_user(tmp_path, nowhere, monkeypatch):
    monkeypatch.setenv("NC_SPARSE_CACHE", str(tmp_path / "mine"))
    choose_cache(nowhere)
    assert os.environ[VARIABLE] == str(tmp_path / "mine" / "numba")


def test_else_in_a_temporary_folder_that_nobody_else_can_write(tmp_path, nowhere, monkeypatch):
    monkeypatch.setenv("NC_SPARSE_CACHE", str(nowhere))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    choose_cache(nowhere)
    assert os.environ[VARIABLE] == str(tmp_path / f"nc-sparse-attention-{os.getuid()}")
    assert os.stat(os.environ[VARIABLE]).st_mode & 0o077 == 0


def test_what_the_user_chose_stays(tmp_path, nowhere, monkeypatch):
    monkeypatch.setenv(VARIABLE, "/chosen")
    choose_cache(nowhere)
    assert os.environ[VARIABLE] == "/chosen"

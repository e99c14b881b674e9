"""What tests of runners share: the command as a user gives it, and a tiny model with a text for it to read."""

import pytest

from run import main as command
from tests.models import small


@pytest.fixture
def main(monkeypatch):
    """Return what runs the command with arguments."""

    def run(arguments):
        monkeypatch.setattr("sys.argv", ["run.py", *arguments])
        return command()

    return run


def arguments_of(asked, family, folder):
    """Write a tiny model of a family and a text; return the arguments that ask for them too."""
    (folder / "text.txt").write_text(small.text())
    small.save(family, folder)
    return [*asked, f"source.model={folder}", f"source.text={folder / 'text.txt'}", f"outputs={folder / 'out'}"]

"""A stamp is the hash of what a result depends on: its import closure, its configuration, its inputs."""

import pytest

from analysis import settings, stamp

STUDY = "analysis.studies.one"


@pytest.fixture
def project(tmp_path):
    """Return a project in which a study imports a law, a relative module and, inside a function, an experiment."""
    write = {
        "analysis/__init__.py": "import analysis.report",
        "analysis/report.py": "x = 1",
        "analysis/studies/__init__.py": "",
        "analysis/studies/one.py": '"""One."""\nfrom analysis.laws import power\nfrom . import near\n\n\ndef study():\n'
        '    """Do."""\n    from experiments import ranges\n    return power, near, ranges  # all\n',
        "analysis/studies/near.py": "import numpy as np\n",
        "analysis/studies/other.py": "y = 1\n",
        "analysis/laws.py": '"""Laws."""\nimport experiments.deep.units\n\npower = 1\n',
        "experiments/__init__.py": "",
        "experiments/ranges.py": "least = 0\n",
        "experiments/deep/__init__.py": "",
        "experiments/deep/units.py": "nats = 1\n",
    }
    for name, text in write.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_closure_is_all_that_can_be_reached_and_no_more(project):
    assert list(stamp.closure(STUDY, project)) == [
        "analysis",
        "analysis.laws",
        "analysis.studies",
        "analysis.studies.near",
        "analysis.studies.one",
        "experiments",
        "experiments.deep",
        "experiments.deep.units",
        "experiments.ranges",
    ]


@pytest.mark.parametrize(
    ("path", "old", "new", "changes"),
    [
        ("analysis/laws.py", "power = 1", "power = 2", True),
        ("experiments/deep/units.py", "nats = 1", "nats = 2", True),
        ("experiments/ranges.py", "least = 0", "least = 1", True),
        ("analysis/studies/near.py", "numpy as np", "numpy as num", True),
        ("analysis/laws.py", '"""Laws."""', '"""All laws."""', False),
        ("analysis/laws.py", "power = 1", "power = 1  # of n", False),
        ("analysis/studies/one.py", '"""Do."""', '"""Do it all."""', False),
        ("analysis/studies/one.py", "  # all", "", False),
        ("analysis/studies/other.py", "y = 1", "y = 2", False),
        ("analysis/report.py", "x = 1", "x = 2", False),
    ],
)
def test_code_counts_where_it_is_reached_and_words_never(project, path, old, new, changes):
    before, file = stamp.code_of(STUDY, root=project), project / path
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert (stamp.code_of(STUDY, root=project) != before) == changes


def test_a_module_moved_to_a_folder_stays_in_the_closure(project):
    (project / "analysis/statistics").mkdir()
    (project / "analysis/statistics/__init__.py").touch()
    (project / "analysis/laws.py").rename(project / "analysis/statistics/laws.py")
    with pytest.raises(ModuleNotFoundError, match=r"analysis\.laws"):
        stamp.code_of(STUDY, root=project)
    study = project / "analysis/studies/one.py"
    study.write_text(study.read_text().replace("analysis.laws", "analysis.statistics.laws"))
    assert "analysis.statistics.laws" in stamp.closure(STUDY, project)
    before = stamp.code_of(STUDY, root=project)
    law = project / "analysis/statistics/laws.py"
    law.write_text(law.read_text().replace("power = 1", "power = 2"))
    assert stamp.code_of(STUDY, root=project) != before


@pytest.mark.parametrize("name", settings.studies())
def test_every_study_reaches_what_reads_its_records(name):
    reached = stamp.closure(f"analysis.studies.{name}")
    assert {"analysis.records.load", "analysis.records.evidence"} <= set(reached)
    assert not [module for module in reached if module.startswith(("analysis.figures", "analysis.publishing"))]


def test_a_style_is_part_of_a_figure(tmp_path):
    style = tmp_path / "paper.mplstyle"
    codes = []
    for size in (7, 8):
        style.write_text(f"font.size: {size}")
        codes.append(stamp.code_of("analysis.figures.windows", [style]))
    assert codes[0] != codes[1]

"""The name of a sweep: the same for the same work, whatever else the command says."""

from experiments.command import sweep


def test_a_name_is_of_what_is_measured_and_not_of_where_or_how():
    words = ["experiment=heads", "seed=0,1", "source.lengths=[64,128]"]
    name = sweep.name_of(words)
    assert name == "heads seed=0,1 source.lengths=[64,128]"
    elsewhere = [
        "outputs=other",
        "tracking=online",
        "tracking.project=p",
        "device=cuda",
        "threads=2",
        "memory_gb=8",
    ]
    assert sweep.name_of([*elsewhere, *words[::-1], "force=true", "plan=false"]) == name


def test_long_names_are_cut_and_stay_different():
    one, two = (sweep.name_of([f"source.s={','.join(map(str, range(99)))},{last}"]) for last in (1, 2))
    assert one != two
    assert max(len(one), len(two)) <= sweep.MOST


def test_a_job_alone_belongs_to_none(tmp_path):
    assert sweep.read(tmp_path / "0") is None
    sweep.write(tmp_path / "new", ["seed=0,1"])
    assert sweep.read(tmp_path / "new" / "0") == "seed=0,1"


def test_a_folder_that_cannot_be_made_is_left_to_the_jobs_to_report(tmp_path):
    (tmp_path / "file").touch()
    sweep.write(tmp_path / "file" / "jobs", ["seed=0,1"])

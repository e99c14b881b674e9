"""Each job of a sweep is composed once, and jobs are counted."""

import pickle

from experiments.compose_once import KEPT, ComposeOnce


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

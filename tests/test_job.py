"""The configuration of a record is written as OmegaConf writes it."""

from omegaconf import OmegaConf

from experiments.job import _yaml


def test_a_configuration_is_written_as_omegaconf_writes_it():
    config = {
        "numbers": [1, 2.5, 1e-5, 1e300, True, None],
        "texts": ["1e-3", "on", "${x}", "???", "a: b", "é ü", "two\nlines", "x" * 200 + " y" * 50],
        "empty": {"dict": {}, "list": []},
        "nested": {"b": 1, "a": {"c": "null"}},
    }
    assert _yaml(config) == OmegaConf.to_yaml(OmegaConf.create(config))
    assert OmegaConf.to_container(OmegaConf.create(_yaml(config))) == config

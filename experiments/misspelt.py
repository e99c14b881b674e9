"""A key, a group or an option that there is not: what was probably meant, and what may stand there.

Nothing here is asked, and nothing imported for it, unless something was misspelt.
"""

from __future__ import annotations

import dataclasses
import re
import traceback
from collections.abc import Iterable
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.options import GROUPS

_NO_LIST = re.compile(
    r"Error merging override (?P<key>[^=\s]+)=(?P<value>\S+)\s+Invalid value assigned: \w+ is not a ListC"
)
_KEY_OF_MESSAGE = re.compile(r"Could not (?:override|delete from config\.|delete) '(?P<key>[^'=]+)")


def meant(given: str, names: Iterable[str], said: str = "{}") -> str:
    """Return ": did you mean ...?" of the name most like `given`, as `said` has it; "" if none is like it."""
    import difflib

    near = difflib.get_close_matches(given, list(names), n=1)
    return f": did you mean {said.format(near[0])}?" if near else ""


def no_such_key(key: str, names: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """Return what is said of a key that there is not.

    Parameters
    ----------
    key
        With all parts, such as `source.lenghts`.
    names
        What may stand in the place of its last part.
    elsewhere
        Whole keys of other places, one of which may have been meant.
    """
    place, _, last = key.rpartition(".")
    names = sorted(names)
    hint = meant(last, names, f"{place}.{{}}" if place else "{}")
    of_others = [other for other in elsewhere if other.rpartition(".")[2] == last]
    hint = hint or (f": did you mean {of_others[0]}?" if of_others else _in_other_options(place, last))
    return f"{key} is no key of the configuration{hint or ':'} choose from {', '.join(names)}"


def _in_other_options(group: str, name: str) -> str:
    """Say which options of a group have a key that the chosen one has not."""
    schemas = ConfigStore.instance().repo.get("schema", {}).get(group, {})
    having = [file.removesuffix(".yaml") for file, part in schemas.items() if name in names_in(part.node)]
    return f", but of {' or '.join(f'{group}={option}' for option in sorted(having))};" if having else ""


def remedy(error: BaseException) -> str | None:
    """Return one line for an error of Hydra's that a misspelt name explains, None for any other."""
    if isinstance(error, MissingConfigException):
        return _no_such_option(error)
    if isinstance(error, OverrideParseException):
        return _cannot_be_read(error)
    if no_list := _NO_LIST.match(f"{error} {error.__cause__}"):
        return f"{no_list['key']}={no_list['value']}: give a list, {no_list['key']}=[{no_list['value']}]"
    said = _KEY_OF_MESSAGE.search(str(error)) if isinstance(error, ConfigCompositionException) else None
    config = _composed(error)
    if said is None or config is None:
        return None
    key, node = "", config
    for part in said["key"].split("."):
        key = f"{key}.{part}" if key else part
        names = names_in(node) | (set(GROUPS) if node is config else set())
        if part.partition("@")[0] in names | {"hydra"}:
            below = node._get_node(part) if part in node else None
            if not isinstance(below, DictConfig):
                return None  # Hydra has other reasons
            node = below
        else:
            return no_such_key(key, names, _whole_keys(config))
    return None


def _no_such_option(error: MissingConfigException) -> str | None:
    if not error.options or not error.missing_cfg_file:
        return None
    options = sorted(error.options)
    file = error.missing_cfg_file
    group = next((group for group in GROUPS if file.startswith(f"{group}/")), file.rpartition("/")[0])
    option = file.removeprefix(f"{group}/")
    hint = meant(option, options, f"{group}={{}}")
    return f"{group}={option}: there is no such option{hint or ':'} choose from {', '.join(options)}"


def _cannot_be_read(error: OverrideParseException) -> str:
    override = error.override
    if not override.isprintable():  # of bytes that are no text, Python makes characters that cannot be printed
        override = repr(override)
        return f"{override}: has bytes that are not UTF-8, or control characters; rename the path"
    key = override.partition("=")[0]
    return f"{override}: cannot be read; give KEY=VALUE, spaces and brackets in quotes of their own: '{key}=\"a b\"'"


def names_in(node: DictConfig) -> set[str]:
    """Return the keys that may stand in a node: its dataclass's fields, or those that are there."""
    part = OmegaConf.get_type(node)
    if dataclasses.is_dataclass(part):
        return {field.name for field in dataclasses.fields(part)}
    return set() if node._is_none() or node._is_missing() else set(map(str, node))


def _composed(error: BaseException) -> DictConfig | None:
    """Return the configuration that was composed when the error was met: Hydra's own, which it hands to nobody."""
    config: Any = getattr(error.__cause__, "parent_node", None) if error.__cause__ else None
    if isinstance(error.__cause__, OmegaConfBaseException) and isinstance(config, DictConfig):
        root = config._get_root()
        return root if isinstance(root, DictConfig) else None
    frames = (frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__))
    found = [local["cfg"] for local in frames if isinstance(local.get("cfg"), DictConfig)]
    return found[-1] if found else None


def _whole_keys(node: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for name in sorted(names_in(node)):
        keys.append(f"{prefix}{name}")
        below = node._get_node(name) if name in node else None
        if isinstance(below, DictConfig):
            keys += _whole_keys(below, f"{prefix}{name}.")
    return keys

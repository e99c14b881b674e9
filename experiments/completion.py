"""Completion of keys, groups and options in bash or zsh: `source <(python -m experiments.completion)`.

What is printed holds every word, so that no Python starts at a press of the tabulator.
"""

from __future__ import annotations

import dataclasses
import sys

from hydra.core.config_store import ConfigStore

from experiments.misspelt import names_in
from experiments.options import CONF, GROUPS
from experiments.schema import PARTS, Job, register

SCRIPT = """\
[ -z "$ZSH_VERSION" ] || {{ autoload -U +X bashcompinit && bashcompinit; }}
_nc_sparse_attention() {{
    [[ ${{COMP_WORDS[1]}} == *run.py ]] || return
    local line="${{COMP_LINE:0:COMP_POINT}}"
    local word="${{line##* }}"
    COMPREPLY=($(compgen -W "{words}" -- "$word"))
    [[ $word != *=* || $COMP_WORDBREAKS != *=* ]] || COMPREPLY=("${{COMPREPLY[@]#*=}}")
    [[ ${{#COMPREPLY[@]}} == 1 && ${{COMPREPLY[0]}} != *= ]] && COMPREPLY[0]+=" "
}}
complete -o nospace -o default -F _nc_sparse_attention python python3
"""


def words() -> list[str]:
    """Return every `group=option`, and `key=` of the job and of all parts that a group may choose."""
    register()
    options = [f"{group}={path.stem}" for group in GROUPS for path in (CONF / group).glob("*.yaml")]
    keys = {field.name for field in dataclasses.fields(Job)} - {*GROUPS}
    for group in [group for group in PARTS if group in GROUPS]:
        for schema in ConfigStore.instance().repo["schema"][group].values():
            if not isinstance(schema, dict):
                keys |= {f"{group}.{name}" for name in names_in(schema.node) - {"name"}}
    return sorted([*options, *(f"{key}=" for key in keys)])


if __name__ == "__main__":
    sys.stdout.write(SCRIPT.format(words=" ".join(words())))

"""What a record holds: every table with its columns, declared once. One file per table, which a runner names.

The record writes what is declared and nothing else, the analysis reads it, and docs/columns.md is made of it
(`python -m experiments.tables`). Nothing here needs torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cached_property, lru_cache

from experiments.lazy import np

PARQUET = "parquet"
Value = str | int | float | bool
KINDS = {"str": "U", "int32": "i", "int64": "i", "float32": "f", "float64": "f", "bool": "b"}  # of numpy


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name
        As it stands in the file.
    type
        What the file holds: of numpy, such as `int32`, or `str`. A runner may hand over a wider one of its kind.
        float32 where further digits are noise: a number below its smallest normal one, 1.2e-38, is stored as 0, which
        no logarithm is taken of. float64 where the number is a name that is joined on.
    meaning
        What a number in it says, with its formula's source.
    unit
        Such as `keys` or `nats`; empty for a plain number or a name.
    older
        What the column is in records that were made before it was; None if every record has it.
    same_as
        Another column of the table, which a line equals where the file holds null; such lines cost nothing.
    """

    name: str
    type: str
    meaning: str
    unit: str = ""
    older: Value | None = None
    same_as: str | None = None


@dataclass(frozen=True)
class Table:
    """One table of a record.

    Attributes
    ----------
    name
        The file's name without its suffix.
    line
        What one line is.
    owner
        The runner that writes it.
    keys
        Columns that together name a line.
    values
        The other columns: what was measured.
    suffix
        `parquet`, or `safetensors` for matrices, whose columns are then facts of each matrix.
    timed
        True if it holds seconds, which are those of a device and a number of threads.
    """

    name: str
    line: str
    owner: str
    keys: tuple[Column, ...]
    values: tuple[Column, ...]
    suffix: str = PARQUET
    timed: bool = False

    @property
    def file(self) -> str:
        """The file's name."""
        return f"{self.name}.{self.suffix}"

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Every column by its name, in the order of the file."""
        return {column.name: column for column in (*self.keys, *self.values)}

    @property
    def older(self) -> dict[str, Value]:
        """What columns that came later are in older records, by their names."""
        return {name: column.older for name, column in self.columns.items() if column.older is not None}

    def check(self, lines: dict[str, np.ndarray]) -> None:
        """Raise ValueError unless lines, given as columns of equal length, are those that are declared."""
        if set(lines) != set(self.columns):
            missing, unknown = sorted(set(self.columns) - set(lines)), sorted(set(lines) - set(self.columns))
            raise ValueError(f"{self.file}: lacks {missing}, does not declare {unknown}")
        for name, values in lines.items():
            wanted, kind = self.columns[name].type, values.dtype.kind
            if kind != KINDS[wanted] and not (wanted == "str" and kind == "O"):
                raise ValueError(f"{self.file}: {name} is {values.dtype}, but {wanted} is declared")


@lru_cache(maxsize=1)
def tables() -> dict[str, Table]:
    """Return every declared table by its name."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    declared = [value for module in modules for value in vars(module).values() if isinstance(value, Table)]
    return {table.name: table for table in sorted(declared, key=lambda table: table.name)}

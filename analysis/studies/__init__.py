"""One question each: all records in, stamped tables out. What a figure shows of them decides nothing here.

A study is a script here and a yaml of the same name in conf/study/, which names the records that it rests on and the
tables that it makes. The script defines `study(evidence, config, how)`, which returns these tables by name.
"""


class NothingMeasured(Exception):
    """No record answers what the study asks; the message says in one line what is missing."""

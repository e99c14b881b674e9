"""Columns that several tables share: where a line comes from, and which window it is of."""

from experiments.tables import Column

LAYER = Column("layer", "int64", "index of the layer; 0 for the Gaussian source")
HEAD = Column("head", "int64", "index of the query head; 0 for the Gaussian source")
SAMPLE = Column("sample", "int64", "number of the document or draw, from 0")
VARIANT = Column(
    "variant",
    "str",
    "`plain`; `no_sink`: key 0 is hidden; `truncated_context`: the model reads the last n tokens alone; with "
    "`, |x|^p` for attention in proportion to |q.k|^p",
)
LENGTH = Column("length", "int64", "nominal context length that the line stands for", "keys")
PHASE = Column("phase", "str", "`prefill`: all that is read attends within its window; `decode`: the last tokens alone")
SELECTOR = Column("selector", "str", "name of the method", older="oracle")
RULE = Column("rule", "str", "window rule, or `dense` for attention to all keys")
PARAMETER = Column("parameter", "float64", "C, b, beta, eta, eps or k of the rule; NaN for `dense`")
SCALE = Column("scale", "float64", "factor of the rule; NaN for `dense`")
WINDOW = (RULE, PARAMETER, SCALE)

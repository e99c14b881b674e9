"""Columns that say how near a pass of a model is to the dense one, beside its loss."""

import math

from experiments.tables import Column

AGREEMENT = Column(
    "agreement",
    "float32",
    "share of the next tokens whose most probable one is that of dense attention; of one token 0 or 1",
    older=math.nan,
)
KL = Column("kl", "float32", "KL(dense || this) of the next token, mean over tokens", "nats", older=math.nan)

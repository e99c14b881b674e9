"""All heads of a layer at once, in plain torch: what a GPU measures, without a host that waits for one head.

Nothing here reads a number of a tensor, has a shape that the data decide, or adds up floats in an order that changes
from run to run. What it gives is held to `experiments.reference` by a test.
"""

"""How many keys each head of a model is to be given: budgets, by what heads need or by what they gain."""

from analysis.budget.by_needs import budget

__all__ = ["budget"]

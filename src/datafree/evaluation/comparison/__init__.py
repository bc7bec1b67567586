"""Compares methods on one teacher under one protocol: a table over seeds, with controls."""

from .comparing import compare, plan_comparison
from .plan import ComparisonPlan
from .result import Comparison

__all__ = ["Comparison", "ComparisonPlan", "compare", "plan_comparison"]

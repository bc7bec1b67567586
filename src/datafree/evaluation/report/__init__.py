"""The report: one self-contained HTML page with each network's accuracy and size, its images and its curves."""

from .curves import curves_svg
from .images import grid_of, grid_png
from .model import Grid, Line, Match, OnlineRun, Report, Row, SimilarityTable, Timeline
from .online import online_lines, online_run
from .page import render, write
from .timelines import timeline
from .tradeoff import tradeoff_svg

__all__ = [
    "Grid",
    "Line",
    "Match",
    "OnlineRun",
    "Report",
    "Row",
    "SimilarityTable",
    "Timeline",
    "curves_svg",
    "grid_of",
    "grid_png",
    "online_lines",
    "online_run",
    "render",
    "timeline",
    "tradeoff_svg",
    "write",
]  # fmt: skip

"""The report: one self-contained HTML page of what every network is worth, and what its images look like."""

from .curves import curves_svg
from .images import grid_of, grid_png
from .model import Grid, Likeness, Line, Match, Played, Report, Row, Timeline
from .online import online_lines, played
from .page import render, write
from .timelines import timeline
from .tradeoff import tradeoff_svg

__all__ = [
    "Grid", "Likeness", "Line", "Match", "Played", "Report", "Row", "Timeline", "curves_svg", "grid_of", "grid_png",
    "online_lines", "played", "render", "timeline", "tradeoff_svg", "write",
]  # fmt: skip

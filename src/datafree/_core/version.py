"""The version and the folder of the package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FOLDER", "VERSION"]

VERSION = "0.1.0"
FOLDER = Path(__file__).resolve().parents[1]
"""The folder of the package."""

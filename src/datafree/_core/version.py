"""The version and the folder of the package."""

from __future__ import annotations

from pathlib import Path

try:  # written by hatch-vcs when the package is built or installed
    from ._version import __version__ as VERSION  # pyright: ignore[reportMissingImports]
except ImportError:  # a checkout that was never installed
    VERSION = "0.1.0.dev0"

__all__ = ["FOLDER", "VERSION"]

FOLDER = Path(__file__).resolve().parents[1]
"""The folder of the package."""

"""The version is that of the tag; a copy without git, and a checkout that was never installed, have one fallback."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from packaging.version import Version

import datafree
from datafree._core import version

ROOT = Path(__file__).resolve().parents[1]


def test_the_version_is_one_that_pip_can_compare():
    assert str(Version(datafree.__version__)) == datafree.__version__ == version.VERSION


def test_the_fallback_of_the_build_and_of_the_package_are_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tree = ast.parse((ROOT / "src" / "datafree" / "_core" / "version.py").read_text(encoding="utf-8"))
    (attempt,) = [node for node in tree.body if isinstance(node, ast.Try)]
    (statement,) = attempt.handlers[0].body
    assert isinstance(statement, ast.Assign)
    assert ast.literal_eval(statement.value) == project["tool"]["hatch"]["version"]["fallback-version"]


def test_the_written_version_is_not_in_git():
    assert "src/datafree/_core/_version.py" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()

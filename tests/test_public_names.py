"""The names of `import datafree`: the same for Python, for type checkers and for `from datafree import *`."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from importlib.resources import files

import pytest

import datafree


def typed_names() -> dict[str, str]:
    """{public name: module.name} that a type checker reads."""
    tree = ast.parse((files("datafree") / "__init__.py").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}


def test_type_checkers_see_every_name_and_the_same_object():
    names = typed_names()
    assert names.keys() | {"__version__"} == set(dir(datafree))
    for name, place in names.items():
        module, _, attribute = place.rpartition(".")
        assert getattr(datafree, name) is getattr(importlib.import_module(f"datafree.{module}"), attribute), name


def test_names_that_need_an_extra_are_left_out_of_a_star_import_alone():
    assert set(dir(datafree)) - set(datafree.__all__) == {"QuantizedNetwork", "finetune", "quantize"}
    assert datafree.__all__ == sorted(datafree.__all__)


def test_the_package_says_that_it_is_typed():
    assert (files("datafree") / "py.typed").is_file()


@pytest.mark.slow  # pyright may have to download itself first
def test_a_type_checker_knows_what_a_function_takes_and_returns(tmp_path):
    pytest.importorskip("pyright")
    (tmp_path / "use.py").write_text(
        "import datafree as df\n"
        "def made(teacher: df.Network, data: df.Dataset) -> df.Evaluation:\n"
        "    reveal_type(df.evaluate(teacher, data).accuracy)\n"
        "    reveal_type(df.load_model('teacher'))\n"
        "    df.evaluate(teacher, 3)\n"
        "    return df.evaluate(teacher, data)\n"
    )
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(tmp_path / "use.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert 'is "float"' in done.stdout and 'is "Network"' in done.stdout, done.stdout
    assert 'cannot be assigned to parameter "data"' in done.stdout and "1 error" in done.stdout, done.stdout

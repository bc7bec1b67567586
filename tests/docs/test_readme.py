"""What the README and the pages say is true: snippets run, numbers come out, links lead somewhere, commands exist."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from pathlib import Path

import pytest

from datafree.cli import VERBS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "papers").glob("*/README.md")),
]


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def snippet() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", readme(), flags=re.S)
    return found


def test_the_readme_snippet_prints_the_numbers_below_it():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(snippet(), "README.md", "exec"), {})
    said = re.search(r"^    teacher ([\d.]+) %, student without data ([\d.]+) %$", readme(), flags=re.M)
    got = re.search(r"teacher ([\d.]+) %, student without data ([\d.]+) %", printed.getvalue())
    assert said
    assert got
    assert f"    {printed.getvalue().splitlines()[0]}\n" in readme()  # bytes and leakage are exact
    for ours, theirs in zip(got.groups(), said.groups(), strict=True):
        assert abs(float(ours) - float(theirs)) <= 2  # 500 test images; processors round differently


def test_the_journey_example_is_the_readme_snippet():
    assert (ROOT / "examples" / "journey.py").read_text(encoding="utf-8") == snippet()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_picture_of_a_page_exists(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_a_page_names_exists(page):
    for verb in re.findall(r"^ {4}(?:\S+ )*?datafree ([a-z-]+)", page.read_text(encoding="utf-8"), flags=re.M):
        assert verb in VERBS, verb


def test_the_readme_says_how_to_install_before_its_first_snippet():
    text = readme()
    assert 0 < text.index("pip install") < text.index("```python")
    assert text.index("TORCH_INDEX") < text.index("```python")


def test_the_makefile_takes_torch_from_the_index_that_is_named(tmp_path):
    steps = {
        index: subprocess.run(
            ["make", "-n", "test", f"VENV={tmp_path / 'venv'}", f"TORCH_INDEX={index}"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout
        for index in ("", "https://example.invalid/cpu")
    }  # fmt: skip
    assert "--index-url" not in steps[""]
    assert re.search(
        r"pip install .*--index-url https://example.invalid/cpu torch -c constraints/cpu.txt",
        steps["https://example.invalid/cpu"],
    )


def test_the_readme_names_both_make_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in readme()
        assert re.search(rf"^{target}:", makefile, flags=re.M)

"""Builds the documentation into site/: `make docs`.

Pages are collected in build/docs: those of this folder, the papers' results, the project's files, and what is generated
from the code (the API's names, the help of every command). Links out of docs/ are rewritten, so that the same files read
well in the repository. The build is strict: a link or an anchor that leads nowhere ends it, and so does a page that
would load anything from the network.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGE = ROOT / "build" / "docs"
SITE = ROOT / "site"
PROJECT_FILES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")
EXTERNAL = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*\shref=["']?(?:https?:)?//"""
)
GROUPS = {
    "models": "Networks",
    "releases": "Releases",
    "data": "Data",
    "records": "Records",
    "synthesis": "Synthesis",
    "distillation": "Training and distillation",
    "quantization": "Quantization",
    "evaluation": "Evaluation",
    "runs": "Runs",
    "_core": "Errors and settings",
}
"""Package -> the heading of its names on the API page."""


def pages() -> dict[str, str]:
    """{page of the site: its Markdown, links as in the repository's file}."""
    papers = sorted((ROOT / "papers").glob("*/README.md"))
    return {
        **{str(path.relative_to(ROOT / "docs")): read(path) for path in sorted((ROOT / "docs").rglob("*.md"))},
        **{page: read(ROOT / file) for file, page in PROJECT_FILES.items()},
        **{f"results/{path.parent.name}.md": read(path) for path in papers},
        "results/index.md": results(papers),
    }


def sources() -> dict[str, Path]:
    """{page of the site: the file of the repository that it is made of}."""
    return {
        **{str(path.relative_to(ROOT / "docs")): path for path in sorted((ROOT / "docs").rglob("*.md"))},
        **{page: ROOT / file for file, page in PROJECT_FILES.items()},
        **{f"results/{path.parent.name}.md": path for path in sorted((ROOT / "papers").glob("*/README.md"))},
    }


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def results(papers: list[Path]) -> str:
    """The list of papers: each one's title and the paragraph below it."""
    lines = [
        "# Results",
        "",
        "One page per paper, with every row, its settings, seeds and seconds, and the failures too.",
        "",
    ]
    for path in papers:
        title, _, rest = read(path).removeprefix("# ").partition("\n")
        paragraph = rest.strip().split("\n\n")[0].replace("\n", " ")
        lines += [f"## [{title.strip()}]({path.parent.name}.md)", "", LINK.sub(r"]", paragraph), ""]
    return "\n".join(lines)


def api() -> str:
    """A mkdocstrings entry for every public name, under its package's heading."""
    import datafree

    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(dir(datafree)) - {"__version__"}):
        groups[datafree._HOMES[name].split(".")[0]].append(name)
    missing = groups.keys() - GROUPS.keys()
    if missing:
        sys.exit(f"docs/build.py: GROUPS has no heading for {', '.join(sorted(missing))}")
    lines = []
    for package, heading in GROUPS.items():
        if package in groups:
            lines += [f"## {heading}", "", *(f"::: datafree.{name}\n" for name in groups[package])]
    return "\n".join(lines)


def commands() -> str:
    """The help of every command, as it is printed."""
    from datafree.cli import VERBS
    from datafree.cli.main import run

    lines = []
    for verb in VERBS:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            run([verb, "--help"])
        lines += [
            f"## {verb}",
            "",
            "```text",
            "\n".join(line.rstrip() for line in printed.getvalue().splitlines()),
            "```",
            "",
        ]
    return "\n".join(lines)


def losses() -> str:
    """A table of every loss: its name, and the first sentence of its docstring."""
    from datafree.synthesis import losses as family

    rows = []
    for info in pkgutil.walk_packages(family.__path__, f"{family.__name__}."):
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if isinstance(value, type) and issubclass(value, family.Term) and value is not family.Term:
                sentence = " ".join((value.__doc__ or "").split()).replace("|", "\\|")
                rows.append(f"| `{module.__name__.removeprefix('datafree.')}.{name}` | {sentence} |")
    return "\n".join(["| loss | value |", "|---|---|", *rows])


def relink(page: str, text: str, source: Path, files: dict[Path, str]) -> str:
    """The text of `source` with its links as they are on `page`; files that are no pages are copied beside it."""

    def replaced(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (source.parent / target).resolve()
        if path not in files:
            if not path.is_file():
                sys.exit(f"{source.relative_to(ROOT)}: the link to {target} leads nowhere")
            below = ROOT / "docs" if ROOT / "docs" in path.parents else ROOT
            files[path] = str(path.relative_to(below))
            copy = STAGE / files[path]
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        return f"]({os.path.relpath(files[path], Path(page).parent)}{anchor})"

    return LINK.sub(replaced, text)


GENERATED = {"<!-- api -->": api, "<!-- commands -->": commands, "<!-- losses -->": losses}


def stage() -> None:
    """Writes build/docs."""
    shutil.rmtree(STAGE, ignore_errors=True)
    made = sources()
    files = {path.resolve(): page for page, path in made.items()}
    files |= {ROOT / "README.md": "index.md", ROOT / "papers": "results/index.md"}
    for page, text in pages().items():
        text = relink(page, text, made[page], files) if page in made else text
        for marker, generate in GENERATED.items():
            if marker in text:
                text = text.replace(marker, generate())
        path = STAGE / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def check_self_contained() -> None:
    """Ends the build where a page would load a script, style or picture from elsewhere."""
    for path in sorted(SITE.rglob("*.html")):
        if found := EXTERNAL.search(read(path)):
            sys.exit(f"{path.relative_to(ROOT)} loads from the network: {found[0]}")


def main() -> None:
    os.environ.setdefault("COLUMNS", "100")
    stage()
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    if subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}, check=False).returncode:
        sys.exit("the documentation was not built: see the lines above")
    check_self_contained()
    print(f"the documentation is in {SITE.relative_to(ROOT)}/index.html")


if __name__ == "__main__":
    main()

"""Online distillation at the smallest budget, and the settings of every row."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest

from datafree.distillation import replay
from datafree.distillation.online.run import PRESETS
from datafree.models.input_spec import InputSpec
from datafree.releases.load import new_model
from datafree.synthesis.generator import new_generator
from datafree.synthesis.scene import Scene
from papers import claims
from papers.binici2021 import rows as rows_2021
from papers.binici2022 import rows as rows_2022

FOLDER = Path(__file__).resolve().parents[2] / "papers"
BUDGETS = {"binici2021": rows_2021.BUDGETS, "binici2022": rows_2022.BUDGETS}
ROWS = {
    "binici2021": {
        "teacher", "kd", "generator", "bank", "bank, any ground", "mb-dfkd", "bank, random start", "mb-dfkd, random start",
    },
    "binici2022": {
        "teacher", "kd", "bank", "vae", "ema", "pre-dfkd", "generator, random start", "bank, random start",
        "vae, random start", "ema, random start",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The experiments of a paper's smallest budget, seed 0, which runs once."""

    @functools.cache
    def claims_of(paper: str) -> list[dict]:
        folder = tmp_path_factory.mktemp(paper)
        command = [sys.executable, str(FOLDER / paper / "run.py"), "--budget", "smoke", "--jobs", "1", "--seeds", "0"]
        command += ["--work", str(folder / "work"), "--out", str(folder / "claims.json")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return claims.load(folder / "claims.json")

    return claims_of


@pytest.mark.slow
@pytest.mark.parametrize("paper", sorted(ROWS))
def test_the_smoke_budget_runs_every_row_with_its_stability(smoke, paper):
    rows = means(smoke(paper))
    assert rows.keys() == ROWS[paper]
    for row in ROWS[paper] - {"teacher", "kd"}:
        for prefix in ("", "unaveraged_"):
            falls = [rows[row][prefix + name] for name in ("drop_from_best", "largest_fall", "sum_of_falls")]
            assert 0 <= falls[0] <= falls[1] <= falls[2]
            assert {prefix + name for name in ("accuracy", "mean_accuracy", "best_accuracy", "sd_of_epochs")} < rows[
                row
            ].keys()
        assert rows[row]["images_per_cpu_second"] > 0
        from_teacher = row.removesuffix(", random start")
        assert row == from_teacher or from_teacher not in ROWS[paper] or rows[row] != rows[from_teacher]
    assert claims.check(smoke(paper)) == []


def means(entries: list[dict]) -> dict[str, dict[str, float]]:
    """Row -> metric -> mean, for the only pair."""
    return {
        entry["id"].split("/", 2)[2]: {name: metric["ours"]["mean"] for name, metric in entry["metrics"].items()}
        for entry in entries
    }


SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
SHAPES |= {"cifar100": (3, 32, 32), "svhn": (3, 32, 32)}


@functools.lru_cache(maxsize=2)
def teacher_of(network, shape):
    """A teacher with random weights."""
    return new_model(network, InputSpec(shape=shape, classes=tuple("0123456789")), seed=0)


@functools.lru_cache(maxsize=2)
def generator_of(teacher, latent, width, scene):
    """One for all rows that have such a generator; nothing here changes it."""
    return new_generator(teacher, seed=0, latent=latent, width=width, scene=scene)


@pytest.mark.parametrize(
    ("paper", "budget"),
    [
        pytest.param(paper, name, marks=[pytest.mark.slow] * (name == "gpu"))
        for paper in sorted(ROWS)
        for name in BUDGETS[paper]
    ],
)
def test_every_row_of_every_budget_can_begin(paper, budget):
    for pair in BUDGETS[paper][budget].pairs:
        channels, *size = SHAPES[pair.data]
        shape = (channels, *(size if pair.size is None else (pair.size, pair.size)))
        teacher = teacher_of(pair.published.network if pair.published else pair.teacher, shape)
        for name, row in pair.rows.items():
            settings, memory = row.online(**pair.online), replay.from_dict(dict(row.replay)).bind(teacher, 0)
            scene = None if settings.scene == "none" else Scene(settings.scene)
            memory.on_new_generator(generator_of(teacher, settings.latent, settings.width, scene))
            room = dict(row.replay).get("replay_bytes", replay.BYTES)
            assert memory.nbytes() <= room and getattr(memory, "room", 0) <= room // teacher.spec.pixels, (
                pair.id,
                name,
            )
            assert settings.objective(teacher, None).parts, (pair.id, name)


@pytest.mark.parametrize("paper", sorted(ROWS))
def test_a_method_of_the_field_has_its_own_terms_and_images_and_the_pairs_length(paper):
    count = 0
    for budget in BUDGETS[paper].values():
        for pair in budget.pairs:
            for row in (each for each in pair.rows.values() if each.preset):
                settings, count = row.online(**pair.online), count + 1
                assert {name: getattr(settings, name) for name in PRESETS[row.preset][0]} == PRESETS[row.preset][0]
                assert settings.scene == "none" and settings.epochs == pair.online["epochs"]
    assert count >= 3


@pytest.mark.parametrize("budget", ["cpu", pytest.param("gpu", marks=pytest.mark.slow)])
def test_memories_have_as_many_bytes_within_a_percent(budget):
    for pair in BUDGETS["binici2022"][budget].pairs:
        shape = (SHAPES[pair.data][0], 32, 32)
        teacher = teacher_of(pair.published.network if pair.published else pair.teacher, shape)
        also = [other.rows for other in BUDGETS["binici2021"][budget].pairs if other.id == pair.id]
        rows = {**pair.rows, **{name: row for one in also for name, row in one.items() if "replay_bytes" in row.replay}}
        sizes = {}
        for name, row in rows.items():
            if row.replay["replay"] == "none":
                continue
            settings, memory = row.online(**pair.online), replay.from_dict(dict(row.replay)).bind(teacher, 0)
            memory.on_new_generator(generator_of(teacher, settings.latent, None, settings.composition()))
            sizes[name] = memory.room * teacher.spec.pixels if memory.nbytes() == 0 else memory.nbytes()
        assert len(sizes) >= 2 and max(sizes.values()) <= 1.01 * min(sizes.values()), sizes
        assert {"bank", "vae"} <= sizes.keys()


@pytest.mark.slow
def test_memories_are_compared_at_one_budget_of_bytes(smoke):
    rows = means(smoke("binici2022"))
    assert rows["bank"]["replayed_bytes"] == 4 * 64 * 64  # four batches were generated, and all of them fit
    assert all(0 < rows[row]["replayed_bytes"] <= 60_000 for row in ("vae", "ema"))

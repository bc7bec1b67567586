"""config.json and set.json: no single flipped bit changes what they mean, and those of earlier versions still open."""

from __future__ import annotations

import json
import shutil
import time
import warnings

import pytest

from datafree._core.errors import Notice, UserError
from datafree._core.files import read_json, read_sealed_json, write_json, write_sealed_json
from datafree._core.limits import EPOCHS
from datafree.models.input_spec import InputSpec
from datafree.models.zoo import build
from datafree.releases.load import load_model
from datafree.releases.release import OLDER, Release
from datafree.synthesis import synthetic_set
from datafree.synthesis.methods import from_name
from datafree.synthesis.synthetic_set import SETTINGS, SHARDS, synthesize

SPEC = InputSpec(shape=(1, 4, 4), classes=("a", "b"))


@pytest.mark.parametrize("name", ["config.json", "set.json"])
def test_every_flipped_bit_is_refused_or_without_effect(name, tmp_path):
    older = OLDER if name == "config.json" else SETTINGS
    value = {
        "format": 1,
        "architecture": "hinton8",
        "spec": SPEC.model_dump(mode="json"),
        "seed": 1.5,
        "method": {"ü": [True]},
    }
    path = tmp_path / name
    write_sealed_json(path, value)
    whole, wrong = path.read_bytes(), []
    for index in range(8 * len(whole)):
        path.write_bytes(whole[: index // 8] + bytes([whole[index // 8] ^ (1 << index % 8)]) + whole[index // 8 + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)
            try:
                got = read_sealed_json(path, older)
            except UserError:
                continue
        if got != value:
            wrong.append(index)
    assert wrong == []


def test_a_file_of_an_earlier_version_opens_with_a_notice(release, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(release, folder)
    config = read_json(folder / "config.json")
    del config["checksum"]
    write_json(folder / "config.json", config)
    with pytest.warns(Notice, match=r"config\.json has no checksum, as an earlier version wrote it"):
        assert Release.open(folder).config == config
    write_json(folder / "config.json", {**config, "checksun": "0" * 64})
    with pytest.raises(UserError, match=r"has no checksum, and a key 'checksun'; it is damaged"):
        Release.open(folder)


@pytest.mark.parametrize("further", [{}, {"fits_16_bits": True}, {"kind": "quantized", "original": "0" * 64}])
def test_removing_a_checksum_is_advised_only_where_the_file_opens_without_it(further, tmp_path):
    path = tmp_path / "config.json"
    write_sealed_json(path, {"format": 1, "architecture": "hinton8", **further})
    write_json(path, {**read_json(path), "architecture": "hinton9"})
    with pytest.raises(UserError, match=r"its checksum does not fit; get it or make it again") as caught:
        read_sealed_json(path, OLDER)
    write_json(path, {key: part for key, part in read_json(path).items() if key != "checksum"})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)
            opens = bool(read_sealed_json(path, OLDER))
    except UserError:
        opens = False
    assert opens == ("remove its checksum" in str(caught.value))
    assert opens == (further != {"fits_16_bits": True})


def test_a_command_prints_the_notice_once_and_goes_on(release, tmp_path, capsys):
    from datafree.cli.main import run

    folder = tmp_path / "older"
    shutil.copytree(release, folder)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {key: value for key, value in config.items() if key != "checksum"})
    assert run(["inspect", str(folder)]) == 0
    assert capsys.readouterr().err.count("datafree: note: ") == 1


@pytest.mark.parametrize(
    "name",
    [
        "resnet9998",
        "resnet" + "9" * 150,
        "hinton999999999",
        "hinton100000",
        "alexnet/100000",
        "alexnet/1000",
        "lenet55",
        "resnet1208",
    ],
)
def test_a_name_of_an_impossible_size_is_refused_at_once(name, release, tmp_path):
    folder = tmp_path / "release"
    shutil.copytree(release, folder)
    write_sealed_json(folder / "config.json", {**read_json(folder / "config.json"), "architecture": name})
    for use in (lambda: build(name, SPEC), lambda: load_model(str(folder))):
        began = time.process_time()
        with pytest.raises(UserError):
            use()
        assert time.process_time() - began < 1  # 0.02 s on an idle machine


def test_more_shards_than_an_index_can_list_are_refused_before_the_first(teacher, tmp_path):
    with pytest.raises(UserError, match=r"200,001 shards, expected at most 200,000.*give `chunk=2` or more"):
        synthesize(teacher, None, from_name("gaussian"), tmp_path / "set", images=SHARDS + 1, chunk=1)
    assert not (tmp_path / "set").exists()


def test_the_largest_index_that_is_written_can_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    about = {
        "format": 1, "method": {"method": "gaussian"}, "seed": 0, "unit": 1, "teacher": "0" * 64, "record": None,
        "spec": SPEC.model_dump(mode="json"), "images": SHARDS,
    }  # fmt: skip
    shards = {synthetic_set._shard_name(index): "f" * 64 for index in range(SHARDS)}
    write_sealed_json(tmp_path / "set.json", {**about, "shards": shards})
    assert len(synthetic_set.read_about(tmp_path)["shards"]) == SHARDS


def test_the_longest_history_that_is_written_can_be_read(tmp_path):
    history = {
        "loss": [1234.567891] * EPOCHS, "generator": [-12.345678] * EPOCHS, "agreement": [99.999] * EPOCHS,
        "average_agreement": [99.999] * EPOCHS, "seconds": [1234.567] * EPOCHS, "scores": [98.76543209876543] * EPOCHS,
        "average_scores": [98.76543209876543] * EPOCHS, "rollbacks": ["epoch 12345: duplicate images"] * EPOCHS,
        "health": [{"classes": 9.876, "spread": 0.12345, "duplicates": 0.0123}] * EPOCHS,
    }  # fmt: skip
    write_json(tmp_path / "run.json", {"verb": "distill", "result": {"online": history}})
    assert len(read_json(tmp_path / "run.json")["result"]["online"]["loss"]) == EPOCHS


def test_what_reading_would_refuse_is_not_written(tmp_path):
    with pytest.raises(UserError, match="expected at most"):
        write_json(tmp_path / "config.json", {"a": "x" * (4 << 20)})
    assert not json.loads("[]") and not list(tmp_path.iterdir())

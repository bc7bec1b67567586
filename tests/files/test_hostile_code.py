"""Code in a release: without `trust` none of it runs; with it, only files that config.json names, of that content."""

from __future__ import annotations

import importlib.util
import json
import os
import py_compile
import shutil
import sys
from pathlib import Path

import pytest
import torch

import datafree as df
from datafree._core.code_names import without_code
from datafree._core.files import read_json, sha256_file, write_sealed_json
from datafree.releases.release import Release
from datafree.releases.shipped_code import LARGEST_FILE, MOST_FILES

NET = """
import pathlib
from os import system
from torch import nn
from blocks import layer
pathlib.Path("ran").touch()
def build(spec, width=8):
    return nn.Sequential(nn.Flatten(), layer(spec.pixels, width), nn.ReLU(), layer(width, len(spec.classes)))
def wipe(path): pathlib.Path(path).unlink()
"""
BLOCKS = "from torch import nn\ndef layer(inputs, outputs): return nn.Linear(inputs, outputs)\n"
EVIL = "import pathlib\npathlib.Path('evil').touch()\n"
SPEC = df.InputSpec(shape=(1, 8, 8), classes=tuple("0123456789"))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    Path("mine/net.py").write_text(NET)
    Path("mine/blocks.py").write_text(BLOCKS)
    network = df.new_model("mine/net.py:build(width=6)", SPEC, seed=0)
    df.write_release("net", network, code="mine/net.py:build(width=6)")
    Path("ran").unlink()
    shutil.rmtree("mine")
    return tmp_path


def change(**entries: object) -> None:
    """Edits the entry `code` of config.json, with a new checksum; a value of None removes the entry."""
    config = {key: value for key, value in read_json("net/config.json").items() if key != "checksum"}
    code = {**config["code"], **entries}
    config["code"] = {key: value for key, value in code.items() if value is not None}
    write_sealed_json("net/config.json", config)


def put(files: dict[str, str | bytes], call: str = "net.py:build(width=6)") -> None:
    """Replaces the release's code by these files, with their hashes."""
    shutil.rmtree("net/code")
    hashes = {}
    for name, text in files.items():
        path = Path("net/code", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        hashes[name] = sha256_file(path)
    change(call=call, files=hashes)


def refused(trust: bool = True) -> str:
    """The line with which the release is refused, once it is seen that nothing of its code ran."""
    with pytest.raises(df.UserError) as caught:
        df.load_model("net", trust=trust)
    assert not Path("ran").exists()
    assert not Path("evil").exists()
    line = str(caught.value)
    assert line.isprintable(), line
    return line


@pytest.mark.usefixtures("here")
def test_without_trust_nothing_is_imported_and_the_line_names_the_file_to_read():
    before = set(sys.modules)
    assert refused(trust=False) == (
        f"net is a custom network that net.py:build(width=6) builds, and the code runs only if you trust it: read "
        f"{Path('net/code/net.py')} and give `trust=True`, name your own copy with `code='FILE.py:FUNCTION'`, or, from "
        "Python, give `module`"
    )
    Release.open("net").code()
    assert not Path("ran").exists()
    assert not {name for name in set(sys.modules) - before if "net" in name.split(".")}


@pytest.mark.usefixtures("here")
def test_with_trust_the_network_is_the_publisher_s():
    network = df.load_model("net", trust=True)
    assert network.name == "net.py:build(width=6)"
    assert network.parameters == 64 * 6 + 6 + 6 * 10 + 10
    assert Path("ran").exists()
    assert not list(Path("net").rglob("__pycache__"))
    assert not {"net", "blocks"} & sys.modules.keys()
    assert not any("net" in place and "code" in place for place in sys.path)


@pytest.mark.usefixtures("here")
def test_rerun_without_trust_stops_the_import_itself():
    with without_code():
        assert "datafree rerun does only with --trust" in refused()


@pytest.mark.usefixtures("here")
def test_edited_code_is_refused_before_anything_runs():
    path = Path("net/code/blocks.py")
    path.write_text(BLOCKS + EVIL)
    assert refused() == (
        f"{path} has other content than its sha256 in config.json states, expected "
        f"{Release.open('net').listed_code.files['blocks.py'][:12]}...; get the release again"
    )
    path.unlink()
    assert str(path) in refused()


@pytest.mark.usefixtures("here")
def test_an_edited_config_is_refused_by_its_checksum():
    config = json.loads(Path("net/config.json").read_text())
    config["code"]["call"] = "net.py:wipe(path='net/model.safetensors')"
    Path("net/config.json").write_text(json.dumps(config))
    assert "checksum" in refused()
    assert Path("net/model.safetensors").exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "call",
    [
        "os:system", "os:system(command='touch evil')", "builtins:exec", "timm:resnet18", "/bin/x.py:build",
        "../net.py:build",
        "code/net.py:build", "blocks:layer", "net.py", "net.py:", "net.py:build()()", "net.py:build(width=open('evil','w'))",
        "net.py:build(**{})", "net.py:build(6)", "net.py:build\n(width=6)", "net.py:a.b", "gone.py:build", "", 5, None,
        ["net.py:build"],
        "net.py:build(width='" + "x" * 500 + "')",
    ],
)  # fmt: skip
def test_only_a_call_of_the_release_s_own_files_can_be_named(call):
    change(call=call)
    assert "config.json: code: " in refused()
    assert "config.json: code: " in refused(trust=False)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("call", ["net.py:system(command='touch evil')", "net.py:pathlib", "net.py:nn", "net.py:gone"])
def test_a_function_from_elsewhere_is_refused_although_the_file_imports_it(call):
    change(call=call)
    with pytest.raises(df.UserError, match="function"):
        df.load_model("net", trust=True)
    assert not Path("evil").exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "name",
    [
        "../evil.py", "/tmp/evil.py", "a/../../evil.py", "./evil.py", "evil.so", "evil.pyc", "evil.pth", "evil.py\n",
        "e vil.py", "evil\n.py", "a//evil.py", "",
        ".py", "__init__.py", "__main__.py", "sitecustomize.py", "json.py",
        "json/__init__.py", "os.py", "torch.py", "datafree/__init__.py", "con.py", "NET.py", "Blocks.py",
        "évil.py", "a\\evil.py", "C:evil.py", "evil.py/x.py",
        "a/b/c/d/e/f/g/h/i.py", ".hidden.py", "a.b.py", "e\u202evil.py", "x" * 200 + ".py", "-m.py", "dash-ed.py",
    ],
)  # fmt: skip
def test_a_file_s_name_is_a_module_below_the_folder(name):
    Path("evil.py").write_text(EVIL)
    files = dict(Release.open("net").listed_code.files)
    change(files={**files, name: "0" * 64})
    assert "config.json: code: " in refused()


@pytest.mark.usefixtures("here")
def test_counts_sizes_and_hashes_have_limits():
    files = dict(Release.open("net").listed_code.files)
    for entry in (
        {}, [], "net.py", None, {**files, "blocks.py": 5}, {**files, "blocks.py": "0" * 63},
        {**files, "blocks.py": "G" * 64},
        {**files, **{f"m{index}.py": "0" * 64 for index in range(MOST_FILES)}},
        {f"m{index}.py": "0" * 64 for index in range(10_000)},
    ):  # fmt: skip
        change(files=entry)
        assert "config.json: code: " in refused()
    change(files=files, extra="x")
    assert "expected an object with call and files" in refused()
    change(extra=None)
    put({"net.py": NET, "blocks.py": "#" * (LARGEST_FILE + 1)})
    assert refused().endswith(f"expected at most {LARGEST_FILE:,} of Python; use a smaller file")
    put({"net.py": NET, **{f"blocks{index}.py": "#" * LARGEST_FILE for index in range(4)}})
    assert "expected at most 4,194,304" in refused()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x80\x04\x95", "is no UTF-8 text"),
        ("x = '\u202e'".encode(), "line 1: got the invisible character '\\u202e'"),
        (b"# nothing\rimport evil", "line 1: got the invisible character '\\r'"),
        (b"a = 1\nb = 2\x00", "line 2: got the invisible character '\\x00'"),
        (b"\x7fELF", "line 1: got the invisible character '\\x7f'"),
        ("#\u2028import evil".encode(), "line 1: got the invisible character '\\u2028'"),
    ],
)
def test_a_file_is_text_that_an_editor_shows_as_it_is(content, reason):
    put({"net.py": NET, "blocks.py": content})
    assert reason in refused()


@pytest.mark.usefixtures("here")
def test_a_stated_encoding_changes_nothing():
    hidden = "# coding: utf-7\n# +AAo-import pathlib; pathlib.Path('evil').touch()+AAo-\n"
    put({"net.py": hidden + NET, "blocks.py": BLOCKS})
    df.load_model("net", trust=True)
    assert not Path("evil").exists()


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_are_refused(here):
    shutil.copytree("net/code", "outside")
    path = Path("net/code/blocks.py")
    path.unlink()
    path.symlink_to(here / "outside" / "blocks.py")
    assert "is a link; expected a regular file" in refused()
    shutil.rmtree("net/code")
    Path("net/code").symlink_to(here / "outside", target_is_directory=True)
    assert "'net/code' is a link, expected a folder with the release's code" in refused()
    Path("net/code").unlink()
    os.mkfifo("net/code")
    assert "'net/code' is a file, expected a folder" in refused()


@pytest.mark.usefixtures("here")
def test_files_that_config_does_not_name_never_run():
    code = Path("net/code")
    for name in ("__init__.py", "sitecustomize.py", "json.py", "torch.py", "typing.py", "nn.py", "extra.py"):
        (code / name).write_text(EVIL)
    (code / "evil.pth").write_text("import pathlib; pathlib.Path('evil').touch()")
    (code / "blocks").mkdir()
    (code / "blocks" / "__init__.py").write_text(EVIL)
    Path("net/blocks.py").write_text(EVIL)
    Path("hidden.py").write_text(EVIL + BLOCKS)
    for name in ("net", "blocks"):  # python would take these for compiled files of the sources beside them
        compiled = importlib.util.cache_from_source(str(code / f"{name}.py"))
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile("hidden.py", compiled, invalidation_mode=mode, doraise=True)
    df.load_model("net", trust=True)
    assert not Path("evil").exists()
    put({"net.py": NET.replace("from blocks", "import extra\nfrom blocks"), "blocks.py": BLOCKS})
    (code / "extra.py").write_text(EVIL)
    with pytest.raises(df.UserError, match=r"no module 'extra' for model 'net\.py:build"):
        df.load_model("net", trust=True)
    assert not Path("evil").exists()


@pytest.mark.usefixtures("here")
def test_other_weights_or_other_code_of_the_same_shape_are_refused():
    put({"net.py": NET.replace("nn.ReLU()", "nn.Tanh()"), "blocks.py": BLOCKS})
    with pytest.raises(df.UserError, match="gives other logits than its publisher's network"):
        df.load_model("net", trust=True)


@pytest.mark.usefixtures("here")
def test_trust_stands_alone_and_has_no_effect_without_code():
    for other in ({"code": "net/code/net.py:build"}, {"module": torch.nn.Flatten()}):
        with pytest.raises(df.UserError, match=f"trust: got it beside {next(iter(other))}, expected one of them"):
            df.load_model("net", trust=True, **other)
    zoo = df.new_model("hinton8", SPEC, seed=0)
    df.write_release("zoo", zoo)
    assert df.load_model("zoo", trust=True).fingerprint() == zoo.fingerprint()
    with pytest.raises(df.UserError, match="zoo holds no code, expected a release with a folder 'code'"):
        Release.open("zoo").code()
    config = {key: value for key, value in read_json("zoo/config.json").items() if key != "checksum"}
    write_sealed_json("zoo/config.json", config | {"code": read_json("net/config.json")["code"]})
    with pytest.raises(df.UserError, match="code: got it for hinton8, a network of the zoo"):
        df.load_model("zoo", trust=True)


@pytest.mark.usefixtures("here")
def test_code_that_could_not_be_written_completely_is_taken_away_again(monkeypatch):
    network, code = df.load_model("net", trust=True), Release.open("net").code()
    from datafree.releases import release, shipped_code

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(release, "write_sealed_json", full)
        with pytest.raises(OSError, match="No space"):
            df.write_release("copy", network, code=code)
    assert not Path("copy/code").exists()
    written = shipped_code.write_bytes

    def second_fails(path: Path, data: bytes) -> None:
        full() if path.name == "blocks.py" else written(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(shipped_code, "write_bytes", second_fails)
        with pytest.raises(OSError, match="No space"):
            df.write_release("copy", network, code=code)
    assert not Path("copy/code").exists()
    df.write_release("copy", network, code=code)
    assert Release.open("copy").listed_code == code.listed


@pytest.mark.usefixtures("here")
def test_ten_thousand_other_files_cost_nothing():
    for index in range(10_000):
        Path("net/code", f"x{index}.py").touch()
    df.load_model("net", trust=True)
    Release.open("net").code()
    network = df.load_model("net", trust=True)
    df.write_release("net", network)
    assert len(list(Path("net/code").iterdir())) == 10_000


@pytest.mark.parametrize("place", ["net", "net/code"])
@pytest.mark.parametrize("found", ["extra.py", "extra/__init__.py", "extra/part.py"])
def test_the_working_directory_may_be_the_release(place, found, here, monkeypatch):
    put({"net.py": NET.replace("from blocks", "import extra.part\nfrom blocks"), "blocks.py": BLOCKS})
    Path(place, found).parent.mkdir(exist_ok=True)
    Path(place, found).write_text(EVIL)
    Path("net/code/torch.py").write_text(EVIL)
    monkeypatch.chdir(here / place)
    monkeypatch.syspath_prepend("")  # as python -m datafree does
    with pytest.raises(df.UserError, match="no module 'extra"):
        df.load_model(here / "net", trust=True)
    assert not list(here.rglob("evil"))

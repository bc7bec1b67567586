"""Every file that version 0.1.0 wrote still opens, and the runs that it left unfinished go on.

`0.1.0/files.tar.xz` holds one of every kind, as `make.py` made them with that version; `0.1.0/said.json` what it printed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import datafree as df

OLD = Path(__file__).parent / "0.1.0"
SAID = json.loads((OLD / "said.json").read_text(encoding="utf-8"))
"""The commands that were stopped, by folder; and what `inspect` and `evaluate` printed, by their arguments."""
CODE = {
    "net": "normed.py:build", "record-batch-norm": "normed.py:build", "packed": "tiny.py:build",
    "student-own": "tiny.py:build",
}  # fmt: skip
"""What builds the networks that are not of the zoo."""
QUANTIZED = ("int8", "w4a4")
FLAGS = "--threads 1 --quiet"
WITHDRAWN = "--kind batch-norm"
"""What version 0.1.0 recorded and no later version does; such records still open."""


def run_words(words: list[str]) -> int:
    """Exit code of a command line of version 0.1.0."""
    from datafree.cli.main import run

    return run(words)


@dataclass(frozen=True)
class Done:
    """One command's end."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys) -> Callable[[str], Done]:
    def one(line: str) -> Done:
        threads = torch.get_num_threads()
        capsys.readouterr()
        try:
            code = run_words(shlex.split(line))
        finally:
            torch.set_num_threads(threads)
        text = capsys.readouterr()
        return Done(code, text.out, text.err)

    return one


@pytest.fixture
def done(command) -> Callable[[str], Done]:
    """A command that has to end well."""

    def one(line: str) -> Done:
        end = command(line)
        assert end.code == 0, (line, end)
        return end

    return one


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """All of the archive; never written to."""
    folder = tmp_path_factory.mktemp("compat")
    with tarfile.open(OLD / "files.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def bring(files, tmp_path, monkeypatch) -> Callable[..., Path]:
    """Copies what a command line names, and the logs beside it, into the working directory, which is empty at first."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DATAFREE_DATA", raising=False)

    def one(*lines: str) -> Path:
        words = {re.split("[/:]", word)[0] for line in lines for word in shlex.split(line)}
        for path in files.iterdir():
            name = path.name.removesuffix(".run.json").removesuffix(".recording")
            if (path.name in words or name in words) and not (folder / path.name).exists():
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, folder / path.name)
        return folder

    return one


def tree(folder: Path) -> dict[str, str]:
    """Every file of a result, with its content's hash: not the card and the log, which may be rewritten."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("README.md", "run.json") and "__pycache__" not in path.parts
    }


def facts(text: str) -> list[str]:
    """The words with a digit in them: counts, sizes, settings, hashes; and the method of a set."""
    words = [word.strip(",;:()[]") for word in text.split()]
    return [word for word in words if re.search(r"\d", word)] + re.findall(r"method (\S+)", text)


def missing(old: str, new: str) -> list[str]:
    """Facts of the one text that are not in the other. A forecast may be another in its last digit on another processor."""
    there = facts(new)
    rounded = [float(word) for word in there if re.fullmatch(r"\d+\.\d+", word)]
    return [
        fact for fact in facts(old)
        if fact not in there
        and not (re.fullmatch(r"\d+\.\d+", fact) and any(abs(float(fact) - own) < 0.0015 for own in rounded))
    ]  # fmt: skip


def leaves(value: object) -> set[str]:
    """The values in a JSON text, whatever their keys are called."""
    if isinstance(value, (dict, list)):
        parts = value.values() if isinstance(value, dict) else value
        return set().union(*map(leaves, parts))
    return {str(value)}


def percents(text: str) -> list[float]:
    return [float(value) for value in re.findall(r"(\d+\.\d+) %", text)]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """What is in a file; of a program its answers to fixed images."""
    if path.suffix == ".onnx":
        import onnxruntime

        pixels = torch.randint(256, (64, 1, 4, 4), generator=torch.Generator().manual_seed(0)).float()
        (logits,) = onnxruntime.InferenceSession(path).run(None, {"pixels": pixels.numpy()})
        return {"logits": torch.from_numpy(logits)}
    from safetensors.torch import load_file

    return load_file(path)


def apart(one: Path, other: Path) -> float:
    """Mean difference of the numbers in two files, as a share of their size. Another seed makes it 0.04 to 1.5."""
    old, new = tensors(one), tensors(other)
    assert {key: own.shape for key, own in old.items()} == {key: own.shape for key, own in new.items()}
    pairs = [(own.double(), new[key].double()) for key, own in old.items()]
    return float(sum((a - b).abs().sum() for a, b in pairs) / sum(a.abs().sum() for a, _ in pairs))


def alike(one: Path, other: Path) -> bool:
    """Whether two files differ by the rounding of two processors: 1e-5 in weights, 0.012 in images, at most, as measured."""
    rounded = one.name.startswith("unit-") or one.suffix == ".onnx"
    return apart(one, other) < (0.1 if rounded else 1e-3)


def network(name: str) -> df.Network:
    return df.load_model(name, code=CODE.get(name))


def coded(name: str) -> str:
    return f"{name} --code {CODE[name]}" if name in CODE else name


def names(*, holding: str) -> list[str]:
    """Folders with such a file."""
    return [name for name, own in SAID["folders"].items() if holding in own["files"]]


RELEASES = names(holding="model.safetensors")
SETS = [name for name in names(holding="set.json") if name not in SAID["stopped"]]
CONDENSED = names(holding="condensed.safetensors")
RECORDED = names(holding="record.safetensors")


@pytest.mark.parametrize("name", SAID["inspect"])
def test_inspect_says_the_same(bring, done, name):
    bring(name)
    old = SAID["inspect"][name]
    if name in CODE:  # version 0.1.0 listed the tensors of its record, and not what they are of
        old = re.sub(r"^    \S+: (int|float)\d+ .*\n", "", old, flags=re.MULTILINE)
    assert missing(old, done(f"inspect {name}").out) == []


@pytest.mark.parametrize("name", ["teacher", "online", "int8", "few", "set", "measured", "page.html"])
def test_logs_in_and_beside_a_folder_are_shown(bring, done, name):
    here = bring(name)
    for path in (here / f"{name}.run.json", here / name / "run.json"):
        if path.is_file():
            said = done(f"inspect {path.relative_to(here)}").out
            assert leaves(json.loads(path.read_text())) - leaves(json.loads(said)) == set()


@pytest.mark.parametrize("line", SAID["evaluate"])
def test_networks_answer_as_they_did(bring, done, line):
    if line in QUANTIZED:
        pytest.importorskip("onnxruntime")
    bring(line)
    new, old = percents(done(f"evaluate {line} --data digits {FLAGS}").out), percents(SAID["evaluate"][line])
    assert abs(new[0] - old[0]) < 1 and len(new) == len(old)
    assert max(abs(one - other) for one, other in zip(new, old, strict=True)) < 5  # two images of a class


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_opens_from_python(bring, name):
    bring(name, CODE.get(name, ""))
    opened = network(name)
    assert opened.predict(torch.zeros(2, *opened.spec.shape)).shape == (2, len(opened.spec.classes))
    if name in SAID["inspect"] and name not in CODE:
        assert opened.fingerprint() in SAID["inspect"][name]


@pytest.mark.parametrize("name", RECORDED)
def test_a_record_opens_from_python_with_all_its_entries(bring, name):
    bring(name, CODE.get(name, ""))
    known = df.Record.load(f"{name}/record.safetensors", network(name))
    held = {f"{entry}/{key}" for entry, own in known.entries.items() for key in own.summary}
    said = re.findall(r"^    (\S+): ", SAID["inspect"][f"{name}/record.safetensors"], re.MULTILINE)
    assert held | {"probes/answers"} == set(said)


@pytest.mark.parametrize("name", SETS)
def test_a_set_opens_from_python(bring, name):
    teacher = "net" if "bns" in name else "teacher"
    bring(name, teacher, CODE.get(teacher, ""))
    opened = df.SyntheticSet.open(name, network(teacher))
    pixels, labels, logits = opened.load()
    assert len(pixels) == len(labels) == len(logits) == len(opened) >= 20


@pytest.mark.parametrize("name", CONDENSED)
def test_a_condensed_set_opens_from_python(bring, name):
    bring(name, "teacher")
    opened = df.Condensed.open(name, network("teacher"))
    assert set(opened.classes.tolist()) == set(range(10))


@pytest.mark.parametrize(
    "name", ["set", "set-cut", "set-bns-inception", "expanded", "python-set", "few-dm", "few-imported"]
)
def test_a_set_teaches_a_student(bring, done, name):
    teacher = "net" if "bns" in name else "teacher"
    bring(name, teacher, CODE.get(teacher, ""))
    images = f"--condensed {name} --epoch-images 20" if name in CONDENSED else f"--images {name}"
    done(f"distill {coded(teacher)} hinton4 {images} --epochs 1 --out a {FLAGS}")
    assert df.load_model("a").spec == network(teacher).spec


def test_few_images_are_expanded(bring, done):
    bring("few", "teacher")
    done(f"expand teacher few --images 10 --unit 10 --steps 1 --workers 1 --out a {FLAGS}")
    assert len(df.SyntheticSet.open("a", network("teacher"))) == 10


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("record-small", "top"), ("record-safe", "distribution"), ("record-sharp", "matched"),
        ("record-paper", "all-dropout"), ("record-paper", "spectral-all"), ("record-paper", "spectral-pairs"),
        ("net", "bns"),
    ],
)  # fmt: skip
def test_images_are_made_from_a_record(bring, done, name, method):
    bring(coded(name))
    steps = "" if method == "distribution" else "--steps 1"
    done(f"synthesize {coded(name)} --method {method} {steps} --images 20 --unit 20 --workers 1 --out a {FLAGS}")
    assert df.SyntheticSet.open("a", network(name)).about["record"] is not None


def test_a_record_in_a_file_of_its_own_belongs_to_its_teacher(bring, done):
    bring("teacher python-record.safetensors")
    known = df.Record.load("python-record.safetensors", network("teacher"))
    done(
        "synthesize teacher --record python-record.safetensors --method top --steps 1 --images 10 --unit 10 --out a "
        f"{FLAGS}"
    )
    assert df.SyntheticSet.open("a").about["record"] == known.digest()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        pytest.param(name, line, id=f"{name}-{line.split()[0]}")
        for name, own in SAID["folders"].items() if name not in SAID["stopped"]
        for line in own["lines"] if WITHDRAWN not in line
    ],
)  # fmt: skip
def test_the_same_command_again_changes_nothing(bring, done, name, line):
    if name in QUANTIZED:
        pytest.importorskip("torchao")
    here = bring(line, name)
    before = tree(here)
    assert done(line).out.splitlines()[-1].startswith("already complete: ")
    assert tree(here) == before


@pytest.mark.parametrize("name", ["teacher", "student", "set", "few", "expanded", "online", "likeness"])
def test_another_run_in_a_finished_folder_is_refused(bring, command, name):
    line = SAID["folders"][name]["lines"][0].replace(" --seed 1", "")
    here = bring(line)
    before = tree(here)
    end = command(f"{line} --seed 7")
    assert end.code == 2 and re.search(r"--seed [01], not 7", end.err), end
    assert tree(here) == before


@pytest.mark.parametrize(("name", "images"), [("set-cut", 40), ("set-bns", 30), ("expanded", 30)])
def test_a_set_grows(bring, done, name, images):
    (line,) = SAID["folders"][name]["lines"]
    here = bring(line)
    before = {path.name: path.read_bytes() for path in (here / name).glob("unit-*")}
    done(re.sub(r"--images \d+", f"--images {images}", line))
    opened = df.SyntheticSet.open(name, network("net" if "bns" in name else "teacher"))
    assert len(opened) == images == len(opened.load()[0])
    assert {path.name: path.read_bytes() for path in (here / name).glob("unit-*") if path.name in before} == before


def test_a_record_is_added_to_and_the_logs_of_before_are_kept(bring, done):
    here = bring("net normed.py")
    old = {place: json.loads((here / place).read_text()) for place in ("net.run.json", "net/run.json")}
    held = set(df.Record.load("net/record.safetensors", network("net")).entries)
    done(f"record net --code {CODE['net']} --kind input --add --data digits {FLAGS}")
    assert set(df.Record.load("net/record.safetensors", network("net")).entries) == held | {"input-moments"}
    for place, log in old.items():
        assert leaves(log["before"]) <= leaves(json.loads((here / place).read_text()))


@pytest.mark.parametrize(
    "name", ["of-arrays", "student-mixed", "record-best", "set-matched", "expanded", "few-dm", "measured"]
)
def test_a_run_is_repeated_from_its_log(bring, done, name):
    (line,) = SAID["folders"][name]["lines"]
    here = bring(line, name)
    said = done(f"rerun {name} --out again")
    assert "that command was given in /home/publisher/models" in said.out
    assert "is not what that run read" not in said.out
    assert sorted(path.name for path in (here / "again").iterdir()) == SAID["folders"][name]["files"]
    for path in (here / name).glob("*.safetensors"):
        assert alike(path, here / "again" / path.name), path.name


@pytest.mark.parametrize(
    "line", [line for line in SAID["flags"] if WITHDRAWN not in line], ids=lambda line: line.partition(" --out")[0]
)
def test_every_flag_in_a_log_is_understood(bring, command, line):
    """The last of them, a count of threads that there cannot be, ends the run before it begins."""
    if line.startswith("quantize"):
        pytest.importorskip("torchao")
    here = bring(line, "of-arrays")
    log = json.loads((here / "of-arrays.run.json").read_text())
    log |= {"argv": shlex.split(line), "verb": line.split()[0], "settings": {"target_cpu": "any"}, "inputs": {}}
    (here / "new.run.json").write_text(json.dumps(log))
    end = command("rerun new.run.json")
    assert end.code == 2 and "--threads: got 0" in end.err, end


def test_a_kind_of_record_that_is_no_longer_made_is_refused_with_the_reason(bring, command):
    (line,) = SAID["folders"]["record-batch-norm"]["lines"]
    bring(line, "record-batch-norm")
    end = command(line)
    assert end.code == 2 and "no longer recorded: its numbers are in the network itself" in end.err, end


def test_code_in_a_log_is_not_run_without_trust(bring, command):
    bring("net normed.py")
    end = command("rerun net.run.json --out again")
    assert end.code == 2 and "--trust" in end.err


def test_a_page_shows_what_the_logs_say(bring, done):
    runs = "teacher baseline student student-own online set likeness net int8 w4a4"
    here = bring(runs)
    done(f"report {runs} --out page.html {FLAGS}")
    page = (here / "page.html").read_text()
    for name in ("teacher", "baseline", "student", "online", "net", "int8"):
        log = json.loads((here / name / "run.json").read_text())
        assert f"{log.get('before', log)['result']['evaluation']['accuracy']:.2f}" in page, name
    likeness = json.loads((here / "likeness" / "run.json").read_text())["result"]["similarity"]
    assert all(f"{own['total']:.4g}" in page for own in likeness)
    assert "a synthetic set of distribution" in page and "real data, digits" in page
    (here / "online" / "generated.safetensors").unlink()
    done(f"report online --out less.html {FLAGS}")
    assert page.count("data:image") == 2 and "data:image" not in (here / "less.html").read_text()


def test_networks_are_measured_for_a_page(bring, done):
    bring("teacher student online set net normed.py python-release")
    done(
        f"report teacher student online set net python-release --code {CODE['net']} --data digits --out page.html {FLAGS}"
    )
    accuracy = percents(SAID["evaluate"]["teacher"])[0]
    shown = [float(value) for value in re.findall(r"\b\d\d\.\d\d\b", Path("page.html").read_text())]
    assert min(abs(value - accuracy) for value in shown) < 1


@pytest.mark.parametrize("name", SAID["stopped"])
def test_a_stopped_run_goes_on_and_ends_as_it_would_have(bring, files, done, name):
    """Within rounding: seeds, their streams and the order of steps are those of version 0.1.0, whatever the processor."""
    if "quantize" in name:
        pytest.importorskip("torchao")
    line, kept = SAID["stopped"][name], files / "ends" / name
    here = bring(line)
    shards = {path: path.stat().st_mtime_ns for path in (here / name).glob("unit-*")}
    end = done(line)
    assert "already complete" not in end.out
    assert not (here / name / "training.safetensors").exists() and not (here / f"{name}.recording").exists()
    assert all(path.stat().st_mtime_ns == before for path, before in shards.items())
    for path in kept.iterdir():
        assert alike(path, here / name / path.name), path.name


@pytest.mark.parametrize("name", ["stopped-train", "stopped-bank", "stopped-condense", "stopped-expand"])
def test_another_run_does_not_go_on_from_a_stopped_one(bring, command, name):
    here = bring(SAID["stopped"][name])
    before = tree(here)
    end = command(f"{SAID['stopped'][name]} --seed 7")
    assert end.code == 2 and "unfinished" in end.err and "--seed 0, not 7" in end.err, end
    assert tree(here) == before


@pytest.mark.parametrize("name", ["stopped-train", "stopped-condense", "stopped-synthesize", "stopped-quantize"])
def test_a_folder_without_a_result_says_so(bring, command, name):
    bring(name, "teacher")
    verb = SAID["stopped"][name].split()[0]
    for line in (f"inspect {name}", f"evaluate {name} --data digits"):
        end = command(line)
        if end.code:
            assert end.code == 2 and "unfinished" in end.err and verb in end.err, end
        else:
            assert "not finished" in end.out, end


@pytest.mark.filterwarnings("ignore:.* elsewhere")
def test_sums_of_a_stopped_recording_are_gone_on_from_in_python(bring, monkeypatch):
    here = bring("teacher stopped-record")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    data, teacher, seen = df.load_data("digits", "train"), network("teacher"), []
    df.record(
        teacher, data, df.preset("best", teacher, data),
        state=here / "stopped-record.recording", answered=lambda images, _: seen.append(images),
    )  # fmt: skip
    assert seen[0] == 600 and sum(seen) == len(data)

"""A release: the folder that a publisher shares, with everything a deployer needs. Its layout is that of the Hugging
Face hub.

`config.json` (architecture, InputSpec), `model.safetensors`, `record.safetensors` (optional), `README.md`; the code of a
custom network in `code/`, if its publisher adds it (`shipped_code.py`).
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .._core.arguments import checked
from .._core.code_names import LIBRARIES, code_name
from .._core.errors import Notice, UserError, cut
from .._core.files import (
    HEADER_CAP_RECORD,
    check_claim,
    claim_folder,
    is_format,
    locked,
    read_header,
    read_json,
    read_sealed_json,
    read_tensors,
    read_weights,
    safe_name,
    sha256_file,
    sweep,
    write_sealed_json,
    write_tensors,
    write_text,
)
from .._core.files.atomic import sync_folder
from .._core.files.paths import is_device
from .._core.files.unfinished import check_finished
from .._core.folder_kinds import is_onnx, is_release, is_zoo, no_release
from .._core.optional_packages import installed_version
from .._core.text import markdown
from .._core.version import VERSION
from ..models import hooks as tap_names
from ..models import zoo
from ..models.input_spec import InputSpec
from ..models.modes import modes_kept
from ..models.network import Network
from ..models.outputs import output_name
from ..records.forecast import forecast_auc
from ..records.record import PROBE_TOLERANCE, Record
from ..runs.output_folder import Kind, read_log
from . import library_folders
from .shipped_code import (
    FOLDER,
    ListedCode,
    ShippedCode,
    check_places,
    code_written,
    listed_in,
    opened,
    remove_code,
    shipped,
)

__all__ = [
    "CUSTOM",
    "RELEASE_FOLDER",
    "Release",
    "architecture_of",
    "is_of_zoo",
    "is_release",
    "is_zoo",
    "mend_card",
    "sweep_records",
    "write_record",
    "write_release",
]

CUSTOM = "custom:"
LONGEST_OWN = 80
"""Maximum number of characters of the name of a custom network."""
OLDER = ("format", "architecture", "spec", "datafree", "kind", "bits", "original", "sha256")
"""Keys of a config.json of a release or quantized folder, as versions without a checksum wrote it."""
LONGEST = 160
"""Maximum number of characters of an architecture's name."""
NOTES = 1000
"""Maximum number of characters of the notes on a network's origin."""
ANSWERS = 512
"""Maximum number of logits of the probe images in a release of a custom network, by which other code is recognised."""
BEING_REPLACED = """
## Activation record

The record in this folder was being replaced when this card was written: run the same `datafree record` again.
"""


@dataclass(frozen=True)
class Release:
    """An opened release folder; `config` is checked."""

    folder: Path
    config: dict[str, Any]

    @classmethod
    @checked
    def open(cls, folder: str | Path) -> Release:
        """The release in `folder`; no weights are read. Raises UserError for a folder that is no release."""
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"no folder {folder}, expected a release (config.json, model.safetensors); check the path")
        if not (folder / "config.json").is_file():
            check_finished(folder)
            raise UserError(no_release(folder))
        try:
            config = read_sealed_json(folder / "config.json", OLDER)
        except UserError:
            if (name := library_folders.name_of(folder, read_json(folder / "config.json"))) is None:
                raise
            raise UserError(
                f"{folder} is a folder of {name.partition(':')[0]}, expected a release; name it {name}"
            ) from None
        if config.get("kind") not in (None, "quantized"):
            raise UserError(
                f"{folder} is of kind {str(config['kind'])[:40]!r}, expected a release; name another folder"
            )
        if not is_format(config.get("format"), 1) or not isinstance(config.get("spec"), dict):
            raise UserError(
                f"{folder / 'config.json'} is no datafree release of format 1; make it again with this version"
            )
        name = config.get("architecture")
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= LONGEST:
            raise UserError(
                f"{folder / 'config.json'}: architecture: got {str(name)[:40]!r}, expected a name of up to {LONGEST} "
                "printable characters; get it again"
            )
        notes = config.get("notes", "")
        if not isinstance(notes, str) or not (notes == "" or notes.isprintable()) or len(notes) > NOTES:
            raise UserError(
                f"{folder / 'config.json'}: notes: got {str(notes)[:40]!r}, expected a line of up to {NOTES} printable "
                "characters; get it again"
            )
        if "output" in config and (not isinstance(config["output"], str) or not _is_output(config["output"])):
            raise UserError(
                f"{folder / 'config.json'}: output: got {str(config['output'])[:40]!r}, expected the name of an output; get "
                "it again"
            )
        if not isinstance(config.get("reduced", False), bool):
            raise UserError(
                f"{folder / 'config.json'}: reduced: got {str(config['reduced'])[:40]!r}, expected true or false; "
                "get it again"
            )
        listed_in(config, folder / "config.json")
        return cls(folder, config)

    @property
    def output(self) -> str | None:
        """Which of several tensors that the network returns are the logits; None for the only one that fits."""
        return self.config.get("output")

    @property
    def reduced(self) -> bool:
        """Whether its network has fewer channels or blocks than its code builds; see `Network.reduced`."""
        return bool(self.config.get("reduced", False))

    @property
    def notes(self) -> str:
        """The publisher's line on the network's origin; empty if there is none."""
        return str(self.config.get("notes", ""))

    @property
    def spec(self) -> InputSpec:
        path = self.folder / "config.json"
        try:
            return InputSpec.stored(self.config["spec"], path)
        except UserError as error:
            if str(path) in str(error):
                raise
            raise UserError(f"{path} holds no input spec: {error}") from None

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def listed_code(self) -> ListedCode | None:
        """The call that builds its custom network, and the files of its code with their hashes; None without code."""
        return listed_in(self.config, self.folder / "config.json")

    def code(self) -> ShippedCode:
        """The code that the release holds. Its files are compared with their hashes; nothing runs.

        Raises UserError for a release without code, and for files that are missing, damaged or no plain text.
        """
        listed = self.listed_code
        if listed is None:
            raise UserError(
                f"{self.folder} holds no code, expected a release with a folder {FOLDER!r}; name the code yourself "
                "with `code='FILE.py:FUNCTION'`"
            )
        return opened(self.folder, listed)

    def architecture(self) -> str:
        """The zoo name that builds it; code named inside a file is never imported."""
        name = str(self.config.get("architecture"))
        listed = self.listed_code
        if listed is not None:
            raise UserError(
                f"{self.folder} is a custom network that {listed.call} builds, and the code runs only if you trust it: read "
                f"{self.folder / FOLDER / listed.main} and give `trust=True`, name your own copy with "
                "`code='FILE.py:FUNCTION'`, or, from Python, give `module`"
            )
        if self.custom and is_onnx(name):
            raise UserError(
                f"{self.folder} is a network of an ONNX file ({name!r}); name it with `code='FILE.onnx'`, the file that its "
                "publisher provides with this folder"
            )
        if self.custom:
            raise UserError(
                f"{self.folder} is a custom network ({name!r}); name it with "
                "`code='FILE.py:FUNCTION'`, the Python file that its publisher provides with this folder, or the name that "
                "its README.md gives, such as timm:NAME, or, from Python, give `module`"
            )
        return name

    @property
    def public_name(self) -> str:
        """The zoo name, or the name of a custom network without `custom:`."""
        return str(self.config.get("architecture")).removeprefix(CUSTOM)

    @property
    def custom(self) -> bool:
        """Whether its publisher's code is needed to build it."""
        return not is_zoo(str(self.config.get("architecture")))

    @checked
    def record(self, network: Network, path: str | Path | None = None) -> Record | None:
        """Its record, or the one in `path`; None if there is none.

        `network` is what `load_model` returns for this folder. Raises UserError for a record that is damaged or of another
        network.
        """
        record_path = Path(path) if path is not None else self.folder / "record.safetensors"
        return Record.load(record_path, network) if path is not None or record_path.exists() else None


def _is_output(name: str) -> bool:
    try:
        return output_name(name) == name
    except UserError:
        return False


def architecture_of(network: Network) -> str:
    """Its name in config.json: the zoo name if its weights fit that architecture, otherwise `custom:` and the name of the
    function that builds it, never a path.
    """
    if is_of_zoo(network) or (network.reduced and _is_built_by_zoo(network)):
        return network.name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", _short_name(network)).strip(".-")
    name = name[:LONGEST_OWN] or "network"
    return CUSTOM + safe_name(f"{name}-network" if is_device(name) else name)


def is_of_zoo(network: Network) -> bool:
    """Whether its name is of the zoo, and its weights have the names and shapes of the zoo's network of that name."""
    if not is_zoo(network.name):
        return False
    try:
        built = zoo.on_meta(network.name, network.spec)
    except UserError:
        return False
    shapes, expected = (
        {name: tensor.shape for name, tensor in module.state_dict().items()} for module in (network.module, built)
    )
    return shapes == expected


def _is_built_by_zoo(network: Network) -> bool:
    """Whether the zoo builds a network of its name with the same class, whatever its sizes."""
    try:
        return is_zoo(network.name) and type(zoo.on_meta(network.name, network.spec)) is type(network.module)
    except UserError:
        return False


@checked
def write_release(
    folder: str | Path,
    network: Network,
    record: Record | None = None,
    *,
    notes: str = "",
    code: str | ShippedCode | None = None,
) -> Path:
    """Writes a release into `folder`, and returns its path: config.json, model.safetensors, README.md and the record.

    - `network`: its weights are written as in training mode. A custom network is written as `custom:` and its name;
      `load_model(folder, module=...)` or `code=` opens it.
    - `record`: what `record` returns for this network. Without it, an existing record of the same weights is kept.
    - `notes`: a line on the network's origin and quality, for config.json and the card.
    - `code`: the `file.py:function(width=8)` that builds this network, or the `Release.code()` of another release. The file,
      and what it imports from its folder, is written into `code/` as text, and `load_model(folder, trust=True)` runs it.
      Without it the release holds no code.

    Each file is written completely or not at all. Before anything is written, raises UserError for a folder with other
    contents, for a network that fails `Network.check`, and for code that builds another network from its files alone. No
    run.json is written, since the origin of the arguments is not known.
    """
    notes = "".join(character if character.isprintable() else " " for character in notes)[:NOTES].strip()
    if record is not None:
        record.check_teacher(network)
    check_claim(folder, kind="release")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # the user has seen it when the network was made
        network.check()
    sources = shipped(code) if isinstance(code, str) else code
    if sources is not None:
        check_sources(sources, network)
    path = claim_folder(folder, kind="release")
    with locked(path):
        _write(path, network, record, notes, sources)
    return path


def check_sources(sources: ShippedCode, network: Network) -> None:
    """Raises UserError unless the code, from its files alone, builds this very network. Runs the code."""
    from .load import built_by

    architecture = architecture_of(network)
    if not architecture.startswith(CUSTOM):
        raise UserError(
            f"code: got {cut(sources.call)} with {architecture}, a network of the zoo, expected a custom one; leave it out"
        )
    built = built_by(sources, network, _weights(network))
    with sources.running():
        expected, logits = _answers(network), _answers(built)
    if not _agree(logits, expected):
        raise UserError(
            f"code: got {cut(sources.call)}, which takes the weights but gives other logits than the network, expected the "
            "code that builds it; name that one"
        )


def _write(folder: Path, network: Network, record: Record | None, notes: str, code: ShippedCode | None) -> None:
    sweep(folder)
    architecture, listed, old = architecture_of(network), None if code is None else code.listed, _old_code(folder)
    check_places(folder, code, old)
    config = {
        "format": 1,
        "architecture": architecture,
        "spec": network.spec.model_dump(mode="json"),
        "datafree": VERSION,
        **({"notes": notes} if notes else {}),
        **({} if network.output is None else {"output": network.output}),
        **({"reduced": True} if network.reduced else {}),
        **({} if listed is None else {"code": listed.config()}),
    }
    weights = _weights(network)
    record_on_disk = record if record is not None else _kept_record(folder / "record.safetensors", network)
    header = {"answers": _answers(network)} if architecture.startswith(CUSTOM) else {}
    write_tensors(folder / "model.safetensors", weights, header, kind="weights")
    with code_written(folder, code):
        write_sealed_json(folder / "config.json", config)
    remove_code(folder, old, listed)
    if record is not None:
        _put_record(folder, network, record, notes, listed)
    write_text(folder / "README.md", model_card(network, record_on_disk, notes, listed))


def _old_code(folder: Path) -> ListedCode | None:
    """The code that the release in the folder names, which is about to be replaced; None if it names none."""
    path = folder / "config.json"
    with suppress(UserError):  # whatever it is, it is replaced
        return listed_in(read_sealed_json(path, OLDER), path) if path.is_file() else None
    return None


def _weights(network: Network) -> dict[str, Tensor]:
    """The state in training mode, in which weights are loaded: LoRA layers, for example, merge theirs in eval mode."""
    module, training = network.module, network.module.training
    with modes_kept(module):
        module.train()
        try:
            return {key: tensor.detach().cpu().contiguous().clone() for key, tensor in module.state_dict().items()}
        finally:
            module.train(training)  # merges them again


def _answers(network: Network) -> list[float]:
    return network.answers().flatten()[:ANSWERS].tolist()


def check_code(release: Release, network: Network) -> None:
    """Raises UserError if `network`, built by custom code, has the release's weights but gives other logits.

    Releases of earlier versions, and those with weights that datafree did not write, have no logits to compare with.
    """
    try:
        expected = read_header(release.weights, kind="weights")[1].get("answers")
    except UserError:
        return
    if not isinstance(expected, list) or not 0 < len(expected) <= ANSWERS:
        return
    if not all(isinstance(value, float) and math.isfinite(value) for value in expected):
        return
    logits = network.answers().flatten()[: len(expected)].double().tolist()
    if _agree(logits, expected):
        return
    raise UserError(
        f"{network.name} takes the weights in {release.folder} but gives other logits than its publisher's network; use the "
        "code that came with it, unchanged"
    )


def _agree(logits: list[float], expected: list[float]) -> bool:
    tolerance = PROBE_TOLERANCE * (1 + max(map(abs, expected)))
    return len(logits) == len(expected) and all(
        abs(logit - expected_logit) <= tolerance for logit, expected_logit in zip(logits, expected)
    )


def _kept_record(path: Path, network: Network) -> Record | None:
    """The existing record, if it is of this network.

    A record of the replaced weights is removed, because it would make the release unreadable.
    """
    if not path.is_file():
        return None
    if read_header(path, kind="record")[1].get("fingerprint") != network.fingerprint():
        path.unlink()
        return None
    return Record.load(path, network)


@checked
def write_record(folder: str | Path, network: Network, record: Record) -> Path:
    """Writes a record, and a new model card, into an existing release. Returns the record's path."""
    record.check_teacher(network)
    release = Release.open(folder)
    with locked(release.folder):
        sweep_records(release.folder)
        path = _put_record(release.folder, network, record, release.notes, release.listed_code)
        write_text(release.folder / "README.md", model_card(network, record, release.notes, release.listed_code))
    return path


def _put_record(folder: Path, network: Network, record: Record, notes: str, code: ListedCode | None) -> Path:
    """Writes record.safetensors. Its temporary file is beside the folder, because the folder may be shared after a kill.

    The card of an old record is replaced before the record is, so that a kill in between leaves no card of another record.
    """
    path, temporary = folder / "record.safetensors", _temporary_path(folder)
    try:
        record.save(temporary)
    except (UserError, OSError):  # not writable
        _remove(temporary)
    with _card_taken_down(folder, network, notes, code) if path.exists() else nullcontext():
        try:
            os.replace(temporary, path)
        except OSError:  # it was not written, or the folder is on another disk
            _remove(temporary)
            record.save(path)
    sync_folder(path)
    return path


@contextmanager
def _card_taken_down(folder: Path, network: Network, notes: str, code: ListedCode | None) -> Iterator[None]:
    """Replaces the card by one without a record while the block replaces the record; if the block fails, restores the
    old card.
    """
    card = folder / "README.md"
    try:
        old_card = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        old_card = None
    try:
        write_text(card, model_card(network, None, notes, code) + BEING_REPLACED)
        yield
    except BaseException:
        if old_card is not None:
            with suppress(OSError, UserError):
                write_text(card, old_card)
        raise


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def mend_card(folder: Path, network: Network, record: Record) -> bool:
    """Writes the card again if it is missing, describes another record, or says that the record is being replaced.

    A card that names no record, such as the publisher's own, is kept. Returns whether the card was written.
    """
    card = folder / "README.md"
    try:
        text = card.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = BEING_REPLACED
    digests = re.findall(r"^This card describes the record of the content ([0-9a-f]{16})\.$", text, re.MULTILINE)
    if BEING_REPLACED.strip() not in text and all(digest == record.digest()[:16] for digest in digests):
        return False
    release = Release.open(folder)
    write_text(card, model_card(network, record, release.notes, release.listed_code))
    return True


def sweep_records(folder: Path) -> None:
    """Removes the temporary record that a killed run left beside a release."""
    temporary = _temporary_path(folder)
    with suppress(OSError, UserError):
        temporary.unlink(missing_ok=True)
        sweep(temporary.parent, name=temporary.name)


def _temporary_path(folder: Path) -> Path:
    place = Path(os.path.realpath(folder))
    return place.with_name(f".{place.name}.datafree-record")


def _hash(record: Record) -> str:
    digest = record.made.get("sha256")
    return f", sha256 {str(digest)[:16]}" if re.fullmatch("[0-9a-f]{64}", str(digest)) else ""


def _use(network: Network, record: Record, flag: str) -> list[str]:
    """Lines on how to distill from this record, depending on its entries."""
    taps = {entry.taps for entry in record.of_kind("moments").values()}
    top = (tap_names.layers(network)[-1],)
    if (tap_names.INPUT,) in taps:
        lines = [f"`datafree distill fresh distribution THIS_FOLDER STUDENT --out student{flag}`"]
        if any(getattr(part, "running_mean", None) is not None for part in network.module.modules()):
            lines[0] += ", or with the statistics in the batch norms of the network:"
            lines += _by_images("bns-inception", flag)
        else:
            lines[0] += "."
    else:
        kinds = [kind for kind in ("spectral-pairs", "spectral-all") if record.of_kind(kind)]
        method = kinds[0] if kinds else "all" if taps - {top} else "top" if taps else None
        if method is None:
            return ["No method makes images from these entries alone."]
        lines = _by_images(method, flag)
    return [
        "A smaller network can be distilled from it without the training data:",
        *lines,
        "Its accuracy depends on the data: measure it with `datafree evaluate` if you have labelled images.",
    ]


def _code_flag(network: Network, listed: ListedCode | None) -> str:
    """The end of a command that opens the network's release: ` --trust` or ` --code FILE.py:build` for a custom network,
    else nothing.
    """
    if listed is not None:
        return " --trust"
    code = _opening_code(network)
    return "" if code is None else f" --code {shlex.quote(code)}"


def _opening_code(network: Network) -> str | None:
    """What opens a custom network, `FILE.py:build(width=8)` or `timm:resnet18`; None for one of the zoo.

    Never a path: the file has no folder, and arguments with a path are left out.
    """
    if not architecture_of(network).startswith(CUSTOM):
        return None
    if is_onnx(network.name):
        return "FILE.onnx"
    code = code_name(network.name)
    if code is not None and code.is_folder:
        return f"{code.place}:{'./' if code.place == 'timm' else ''}FOLDER"
    if code is None or not code.attribute.isascii() or not (code.is_library or code.attribute.isidentifier()):
        return "FILE.py:FUNCTION"
    arguments = "(...)" if {"/", "\\"} & set(code.arguments) else code.arguments
    return f"{code.place if code.is_library else 'FILE.py'}:{code.attribute}{arguments}"


def _how_to_open(network: Network, listed: ListedCode | None) -> list[str]:
    """Lines on how to open a custom network; none for a network of the zoo."""
    code, flag = _opening_code(network), _code_flag(network, listed)
    if listed is not None:
        return _how_to_trust(listed)
    if code is None:
        return []
    library = next((name for name in LIBRARIES if code.startswith(f"{name}:")), None)
    if is_onnx(code):
        return _how_to_open_onnx(flag)
    stands_for = (
        f"`{code}` stands for its publisher's Python file and the function or class in it that builds the network."
        if library is None
        else f"`FOLDER` stands for its publisher's folder of the package {library}, whose config.json describes it."
        if code.endswith("FOLDER")
        else f"The package {library} {installed_version(library) or ''}".rstrip() + f" builds it, by the name `{code}`."
    )
    return [
        "",
        "## Use",
        "",
        f"This folder does not contain the code of the network. {stands_for}",
        "",
        f"- `datafree inspect THIS_FOLDER{flag}`",
        f"- `datafree evaluate THIS_FOLDER --data DATA{flag}`",
        "",
        f'From Python: `datafree.load_model("THIS_FOLDER", code={json.dumps(code)})`, or with a module of that '
        'architecture, `datafree.load_model("THIS_FOLDER", module=MODULE)`.',
    ]


def _how_to_trust(listed: ListedCode) -> list[str]:
    """Lines on the code in the folder, and how to open the release with and without trust in it."""
    copied_code = f"FILE.py:{listed.call.partition(':')[2]}"
    return [
        "",
        "## Use",
        "",
        f"{markdown(listed.call, code=True)} builds the network. The folder holds its code as text. Read it first: it runs "
        "only with `--trust`.",
        "",
        "| file | sha256 |",
        "|---|---|",
        *(f"| `{FOLDER}/{name}` | `{digest}` |" for name, digest in listed.files.items()),
        "",
        "- `datafree inspect THIS_FOLDER` describes the release, and runs nothing",
        "- `datafree evaluate THIS_FOLDER --data DATA --trust`",
        "- without trust, a copy of your own builds it: "
        + markdown(f"datafree evaluate THIS_FOLDER --data DATA --code {shlex.quote(copied_code)}", code=True),
        "",
        'From Python: `datafree.load_model("THIS_FOLDER", trust=True)`, or with a module of that architecture, '
        '`datafree.load_model("THIS_FOLDER", module=MODULE)`.',
    ]


def _how_to_open_onnx(flag: str) -> list[str]:
    return [
        "",
        "## Use",
        "",
        "This folder holds the weights of the network, but not its operators. They are in its publisher's ONNX file, for "
        "which `FILE.onnx` stands. It is data and runs no code.",
        "",
        f"- `datafree inspect THIS_FOLDER{flag}`",
        f"- `datafree evaluate THIS_FOLDER --data DATA{flag}`",
        "",
        'From Python: `datafree.load_model("THIS_FOLDER", code="FILE.onnx")`.',
    ]


def _by_images(method: str, code: str) -> list[str]:
    return [
        f"`datafree synthesize {method} THIS_FOLDER --images 20000 --out set{code}`, then",
        f"`datafree distill THIS_FOLDER STUDENT --set set --out student{code}`.",
    ]


def _short_name(network: Network) -> str:
    if is_onnx(network.name):
        return Path(network.name).name
    code = code_name(network.name)
    if code is not None and code.is_folder:
        return Path(code.attribute).absolute().name
    return network.name if code is None else code.attribute


def model_card(network: Network, record: Record | None, notes: str, code: ListedCode | None = None) -> str:
    """The model card in Markdown: the network, its code, its record and its leakage, and how to use it."""
    spec, ellipsis = network.spec, " ..." if len(network.spec.classes) > 20 else ""
    lines = [
        f"# {markdown(_short_name(network))}",
        "",
        f"A classifier of {len(spec.classes)} classes: {', '.join(map(markdown, spec.classes[:20]))}{ellipsis}.",
        "",
        f"- input: {spec.shape[0]} x {spec.shape[1]} x {spec.shape[2]} pixels in [{spec.low:g}, {spec.high:g}],"
        f" normalised by mean {list(spec.mean)} and std {list(spec.std)}",
        *([] if spec.border is None else [f"- border of shifted training images: {list(spec.border)}"]),
        f"- parameters: {network.parameters:,}",
        *(["- reduced: it has fewer channels or blocks than its code builds"] * network.reduced),
        *([f"- {markdown(notes)}"] if notes else []),
        *_how_to_open(network, code),
    ]
    if record is not None:
        forecast = (
            "not known, since the class of a statistic is not loaded"
            if record.unknown()
            else f"AUC {forecast_auc(record.released_statistics(network)):.3f}"
        )
        lines += [
            "",
            "## Activation record",
            "",
            f"`record.safetensors` ({record.nbytes():,} bytes of tensors) was measured on {record.made.get('samples', 0):,} "
            f"samples of {markdown(record.made.get('data'), code=True)} "
            f"({markdown(record.made.get('split'))}{_hash(record)}).",
            f"This card describes the record of the content {record.digest()[:16]}.",
            f"Forecast of a membership attack that knows the population: {forecast} (0.5 is guessing, 1.0 identifies"
            " every training sample). It is the record's leakage only: the weights of a network also reveal something "
            "about its "
            "training samples, which was not measured.",
            "",
            "| entry | kind | layers | bytes |",
            "|---|---|---|---|",
            *(
                f"| {markdown(name, cell=True)} | {entry.statistic.kind} | {markdown(', '.join(entry.taps), cell=True)} | "
                f"{entry.nbytes():,} |"
                for name, entry in record.entries.items()
            ),
            "",
            *_use(network, record, _code_flag(network, code)),
        ]
    return "\n".join(lines) + "\n"


def _check_release(folder: Path) -> None:
    read_json(folder / "config.json")
    read_weights(folder / "model.safetensors")
    log = read_log(folder)
    if log.get("verb") == "record" and not log.get("before"):  # the record is what the folder was made for
        _check_record(folder / "record.safetensors", log.get("result"))


def _check_record(path: Path, result: Any) -> None:
    """Raises UserError if the record is missing or damaged, or not the one of its run's log."""
    read_tensors(path, kind="record", cap=HEADER_CAP_RECORD)
    expected = result.get("sha256") if isinstance(result, dict) else None  # none in an earlier version's log
    if expected is not None and sha256_file(path) != expected:
        raise UserError(f"{path} is not the record of its log; record it again")


RELEASE_FOLDER = Kind(
    "release",
    "release",
    ("model.safetensors", "config.json", "README.md", "record.safetensors", "generated.safetensors"),
    _check_release,
    tidy=sweep_records,
)
"""The folder of a release, as `runs.output_folder` takes it."""

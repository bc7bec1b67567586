"""datafree pack"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Parameter

from .._core.code_names import with_arguments
from .._core.errors import UserError
from .._core.folder_kinds import is_onnx, is_release
from ..models.input_spec import InputSpec
from ..releases.builder_names import check_name
from .arguments import Arguments, Data, Input, Model, WithCode, settings_of
from .loading import check_normalisation, code_for_release, in_words, inputs_of, load_data, say_code, spec_of, test_data

if TYPE_CHECKING:
    from ..releases.libraries import LibraryInput

__all__ = ["pack"]

T = TypeVar("T")
Values = Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="")]


def pack(
    model: str,
    /,
    *,
    weights: Path | None = None,
    key: str | None = None,
    arg: Arguments = (),
    output: str | None = None,
    shape: Annotated[tuple[int, int, int] | None, Parameter(negative="")] = None,
    classes: Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True, negative="")] = None,
    out: Path,
    mean: Values | None = None,
    std: Values | None = None,
    border: Literal["black", "mean"] | None = None,
    with_code: WithCode = False,
    data: Data | None = None,
) -> None:
    """Make a release from a network's weights alone, where there is no data to record it on.

    Example: datafree pack resnet20 --weights w.safetensors --shape 3 32 32 --classes 10 --out teacher

    Example: datafree pack net.py:build --weights w.safetensors --shape 1 28 28 --classes cat dog --out teacher

    Example: datafree pack timm:resnet18 --weights model.pth --out teacher

    Example: datafree pack classifier.onnx --mean 0.5 --std 0.25 --out teacher

    Parameters
    ----------
    model
        A zoo name, file.py:function of your own that builds the network, timm:NAME, torchvision:NAME,
        transformers:FOLDER, timm:./FOLDER, or an ONNX file.
    weights
        Weights of the network: safetensors, or a .pt or .pth file, of which no code is run. An ONNX file and a folder of
        transformers or timm have their own.
    key
        Which weights of a file of several networks, with / between nested keys, such as `ema/module`.
    arg
        Argument of the function that builds the network, NAME=VALUE; repeat it for more.
    output
        Which of several tensors that the network returns are the logits: position or name, with / between nested ones; by
        default the one named `logits`, or the only one of that shape.
    shape
        Shape of an image: channels, height and width. Networks of timm and torchvision have that of their published weights
        by default, and an ONNX file states its own. Otherwise it is that of the images of --data.
    classes
        Number of classes, or their names in the order of the network's outputs. For networks of timm and torchvision, it is
        read from the weights or the ONNX file by default. Otherwise it is that of --data.
    out
        The release folder to write.
    mean
        Mean subtracted from pixels in [0, 1]; one number, or one per channel. By default 0, and for networks of timm and
        torchvision that of their published weights.
    std
        Standard deviation that pixels are then divided by; one number, or one per channel. By default 1, and for networks of
        timm and torchvision that of their published weights.
    border
        Colour on which training shifted the images: `black`, or `mean` if they were normalised before. Without it,
        `synthesize` finds out.
    with_code
        Put the Python file that builds the network, and what it imports from its folder, into the release as text.
    """
    from ..evaluation.accuracy import doubt, evaluate
    from ..evaluation.accuracy import in_words as accuracy_in_words
    from ..evaluation.normalisation import input_doubt
    from ..releases.library_folders import check_named
    from ..releases.load import load_model, published_input, published_weights
    from ..releases.release import RELEASE_FOLDER, write_release
    from ..runs.output_folder import output_folder
    from ..runs.run_log import RunLog

    if is_release(model):
        check_named(model)
        raise UserError(
            f"{model} is a release already, expected an architecture; name one of the zoo or file.py:function"
        )
    model = with_arguments(model, arg)
    if is_onnx(model):
        shape, classes = _of_onnx(model, shape, classes)
    elif weights is None:
        check_name(model)
        weights = _given(published_weights(model), "weights")
    published = published_input(model)
    if published is not None and weights is not None:
        same = shape is None or shape[0] == published.shape[0]  # of another number of channels nothing is known
        shape = shape or published.shape
        classes = classes or _classes_of(model, published, shape, weights, key)
        mean, std = mean or (published.mean if same else None), std or (published.std if same else None)
    data = data or Data()
    if data.data is not None and (shape is None or classes is None):
        described = spec_of(load_data(data, "test", quiet=True), model, Input())
        shape, classes = shape or described.shape, classes or described.classes
    shape, classes = _given(shape, "shape"), _given(classes, "classes")
    mean, std = mean or (0.0,), std or (1.0,)
    check_normalisation(mean, std, shape[0])
    spec = InputSpec(shape=shape, mean=mean, std=std, classes=_named(classes))
    spec = spec if border is None else spec.with_border(border)
    network = load_model(model, weights=weights, key=key, spec=spec, output=output)
    if published is not None:
        print(in_words(model, published))
    code = code_for_release(model, network, with_code)
    test = test_data(network, data, complete=False)
    evaluation = None if test is None else evaluate(network, test)
    notes = "" if test is None or evaluation is None else accuracy_in_words(evaluation, test.public)
    source = Model(weights=weights, key=key, output=output)
    settings = {"model": model, **spec.model_dump(mode="json"), "border": border, **settings_of(source)}
    settings |= {"with_code": True} if with_code else {}
    settings |= {} if test is None else asdict(data)
    log = RunLog("pack", settings, inputs_of(model, source), *([] if test is None else [test]))
    with output_folder(out, RELEASE_FOLDER, log, reads=[(weights or Path(model)).parent]) as folder:
        if folder is None:
            return
        write_release(folder, network, notes=notes, code=code)
        results: dict[str, Any] = {"parameters": network.parameters, "bytes": network.nbytes()}
        log.write(folder, results | ({} if evaluation is None else {"evaluation": asdict(evaluation)}))
    print(f"{model}: {network.parameters:,} parameters; release in {folder}, fingerprint {network.fingerprint()[:12]}")
    say_code(model, code)
    _say_pixels(spec)
    if evaluation is not None:
        print(f"  {notes}")
        if (doubtful := doubt(evaluation.accuracy, evaluation.images, len(evaluation.by_class))) is not None:
            print(f"  warning: {doubtful}")
    if (doubt_of_input := input_doubt(network)) is not None:
        print(f"  warning: {doubt_of_input.text}")
        if test is not None and evaluation is not None and not doubt_of_input.better.reverses:
            better = spec.model_copy(update={"mean": doubt_of_input.better.mean, "std": doubt_of_input.better.std})
            accuracy = evaluate(replace(network, spec=better), test).accuracy
            print(
                f"  with these, accuracy on the same images is {accuracy:.2f} % instead of {evaluation.accuracy:.2f} %"
            )
    if spec.border is not None:
        print(
            f"  training images were shifted on {' '.join(f'{value:g}' for value in spec.border)} (--border {border})"
        )


def _classes_of(
    model: str, published: LibraryInput, shape: tuple[int, int, int], weights: Path, key: str | None
) -> tuple[str, ...]:
    """The classes of a network of a library: their names if the library has them, or else their number."""
    from ..releases.load import classes_in

    count = classes_in(model, shape, weights, key) or published.classes
    return published.names if len(published.names) == count else (str(count),)


def _of_onnx(
    model: str, shape: tuple[int, int, int] | None, classes: tuple[str, ...] | None
) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """The shape of the images of an ONNX file, and the classes, or else their number."""
    from ..releases.onnx_import import read_onnx

    file = read_onnx(model, shape)
    return file.shape, classes or (str(file.classes),)


def _given(value: T | None, name: str) -> T:
    if value is None:
        raise UserError(f"pack needs --{name}, which was not given. Run datafree pack --help for what it takes.")
    return value


def _say_pixels(spec: InputSpec) -> None:
    """What the network is shown; a wrong normalisation costs accuracy that nobody without data sees."""
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    if not spec.normalises:
        print(
            f"  input pixels in [{spec.low:g}, {spec.high:g}] are not normalised; if the network was trained on normalised "
            "ones, pack it again with --mean and --std"
        )
        return
    print(
        f"  input pixels in [{spec.low:g}, {spec.high:g}] are normalised as (pixels - mean) / std, mean {mean}, std {std}"
    )
    if not all(spec.low <= value <= spec.high for value in spec.mean) or max(spec.std) > spec.high - spec.low:
        print(
            f"  warning: no pixels in [{spec.low:g}, {spec.high:g}] have that mean and deviation; divide both by 255 if "
            "they are of pixels from 0 to 255"
        )


def _named(classes: tuple[str, ...]) -> tuple[str, ...]:
    """`10` means "0" to "9"; anything else is the names themselves."""
    if len(classes) != 1:
        return classes
    if not classes[0].isdecimal() or not 2 <= int(classes[0]) <= 1 << 16:
        raise UserError(f"--classes: got {classes[0]}, expected a count from 2 to 65,536, or two names; change it")
    return tuple(str(index) for index in range(int(classes[0])))

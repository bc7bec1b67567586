"""What all tests share: one thread, tiny networks, tiny data, a teacher of the digits with its record and release."""

from __future__ import annotations

import copy
import gc
import hashlib
import os
import random
import sys
from collections import OrderedDict
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pydantic
import pytest
import torch
from cyclopts import App, Argument
from sklearn import datasets
from threadpoolctl import threadpool_limits
from torch import nn

from datafree._core.progress import silent
from datafree.data import Dataset, load
from datafree.data.dataset import in_memory
from datafree.distillation.train import train
from datafree.distillation.training_loop import Schedule
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.records.record import Record, record
from datafree.records.statistics.input import InputMoments
from datafree.records.statistics.moments import Moments
from datafree.records.statistics.spectral import SpectralAll, SpectralPairs
from datafree.releases.load import new_model
from datafree.releases.release import write_release
from datafree.runs import run_log
from datafree.synthesis.methods import distribution

# The files that Python compiles are kept, whatever the environment says: of the tests, and of datafree for the processes
# that they start, which would compile it anew, each of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

THREADS = int(os.environ.get("DATAFREE_TEST_THREADS", "1"))
torch.set_num_threads(THREADS)
threadpool_limits(THREADS)  # numpy's: two threads on shared cores wait for each other


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Every test, with its fixtures, begins at the same random state, whatever ran before it in the same process."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pytest_collection_finish():
    """A tenth of the time went into looking for garbage among the objects of the imported packages."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def _onnxruntime():
    """DATAFREE_TEST_ONNXRUNTIME=unoptimized: sessions run the graph of the file as it is written (tests/portable.py)."""
    if os.environ.get("DATAFREE_TEST_ONNXRUNTIME") != "unoptimized":
        yield
        return
    import onnxruntime

    class Unoptimized(onnxruntime.InferenceSession):
        def __init__(self, source, sess_options=None, **kwargs):
            options = sess_options or onnxruntime.SessionOptions()
            if not options.optimized_model_filepath:
                options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            super().__init__(source, options, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", Unoptimized)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_seed_for_devices_that_are_missing():
    """torch keeps each seed, with the text of the whole stack, for devices that may come later: a millisecond each time."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (torch.cuda, torch.mtia, torch.xpu):
            if not kind.is_available():
                patch.setattr(kind, "manual_seed_all", lambda seed: None)  # noqa: ARG005
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    """No power cut comes between a write and the next read."""
    real = os.fsync
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses a closed file too
        yield real


@pytest.fixture
def synced(_no_waiting_for_the_disk, monkeypatch):
    """For tests of what a crash leaves: os.fsync as it is."""
    monkeypatch.setattr(os, "fsync", _no_waiting_for_the_disk)


@pytest.fixture(scope="session", autouse=True)
def _operators_read_once():
    """torch.onnx reads the signatures of its 550 operators anew for every export, and torch.export looks for composite
    operators in each of 30 namespaces: half the time of a small one.
    """
    try:
        from torch._export import utils
        from torch.export import decomp_utils, exported_program
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        find, registered = utils._materialize_cpp_cia_ops, torch._C._dispatch_get_registrations_for_dispatch_key
        collect, places = utils._collect_all_valid_cia_ops, (decomp_utils, exported_program)
        assert all(place._collect_all_valid_cia_ops is collect for place in places)
    except (
        ImportError,
        AttributeError,
        AssertionError,
    ):  # private, and elsewhere in another torch: then as slow as it is
        yield
        return
    found, collected = set(), {}

    def find_new():
        now = tuple(registered("CompositeImplicitAutograd"))
        if now not in found:
            find()
            found.add(now)

    def loaded():
        return tuple((name, len(getattr(getattr(torch.ops, name, None), "_dir", ()))) for name in torch.ops._dir)

    def collect_new():
        now = tuple(registered("CompositeImplicitAutograd"))
        if (now, loaded()) not in collected:
            operators = collect()  # which loads some of them
            collected[now, loaded()] = operators
        return collected[now, loaded()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        patch.setattr(utils, "_materialize_cpp_cia_ops", find_new)
        for place in places:
            patch.setattr(place, "_collect_all_valid_cia_ops", collect_new)
        yield


@pytest.fixture(scope="session", autouse=True)
def _options_read_once():
    """cyclopts reads a command's options anew each time that it asks for them, and pydantic their types each time that one
    is checked: most of the time of a refused command.
    """
    read, negatives, adapter = App.assemble_argument_collection, Argument.negatives, pydantic.TypeAdapter
    kept, kept_negatives = {}, {}

    def assemble(self, **how):
        key = (self.default_command, *sorted(how.items()))
        if key not in kept:
            kept[key] = read(self, **how)
        copies = {id(own): copy.copy(own) for own in kept[key]}
        for own in copies.values():
            own.tokens = []
            own.children = type(own.children)(copies[id(child)] for child in own.children)
        return type(kept[key])(copies.values())

    def negatives_of(self):
        parts = self.parameter, self.field_info
        _, found = kept_negatives.get(key := tuple(map(id, parts)), (None, None))
        if found is None:
            found = negatives.fget(self)
            kept_negatives[key] = parts, found  # the parts too, so that no other ones get their ids
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(App, "assemble_argument_collection", assemble)
        patch.setattr(Argument, "negatives", property(negatives_of))
        patch.setattr(pydantic, "TypeAdapter", cache(adapter))
        yield


@pytest.fixture(scope="session", autouse=True)
def _digits_read_once():
    """scikit-learn reads the digits from text anew each time."""
    bunch = datasets.load_digits()

    def copied():
        return type(bunch)(**{key: own.copy() if isinstance(own, np.ndarray) else own for key, own in bunch.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_digits", copied)
        yield


@pytest.fixture(scope="session", autouse=True)
def _versions_read_once():
    """Every log names the versions of the packages, which Python reads from their files anew each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_log, "_installed", cache(run_log._installed))
        yield


@pytest.fixture(scope="session", autouse=True)
def _pixels_fitted_once():
    """The distribution of the pixels is a fit of two seconds, which depends on nothing but the moments: each set, student
    and page made from one record fits it anew. Of 100 pixels at most; synthesis/test_censored.py tests the fit itself.
    """
    fit, latents = distribution.fit_censored, {}

    def fit_once(mean, covariance, *, rank=256, progress=silent, **options):
        if mean.shape[1] > 100:
            return fit(mean, covariance, rank=rank, progress=progress, **options)
        matrices = [covariance[c] for c in range(len(mean))]
        digest = hashlib.sha256(b"".join(part.cpu().contiguous().numpy().tobytes() for part in (mean, *matrices)))
        key = (digest.hexdigest(), mean.dtype, matrices[0].dtype, rank)
        if key not in latents:
            latents[key] = fit(mean, covariance, rank=rank, progress=progress, **options)
        else:
            for done in range(len(mean) + 1):
                progress(done, len(mean))
        return replace(latents[key], mean=latents[key].mean.clone(), factor=latents[key].factor.clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distribution, "fit_censored", fit_once)
        yield


def make_network(kind: str = "linear", *, shape=(1, 4, 4), classes: int = 3, seed: int = 0, **spec) -> Network:
    """`linear`: fc1, fc2, fc3; `norm`: conv, bn, fc, with batch-norm statistics of their own and dropout."""
    names = tuple("abcdefghijklmnop"[:classes])
    own, pixels = InputSpec(shape=shape, classes=names, **spec), shape[0] * shape[1] * shape[2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "linear":
            parts = [("flat", nn.Flatten()), ("fc1", nn.Linear(pixels, 7)), ("relu1", nn.ReLU())]
            parts += [("fc2", nn.Linear(7, 5)), ("relu2", nn.ReLU()), ("fc3", nn.Linear(5, classes))]
        else:
            bn = nn.BatchNorm2d(3)
            bn.running_mean.normal_()
            bn.running_var.uniform_(0.5, 2.0)
            size = 3 * (shape[1] - 2) * (shape[2] - 2)
            parts = [("conv", nn.Conv2d(shape[0], 3, 3)), ("bn", bn), ("relu", nn.ReLU()), ("flat", nn.Flatten())]
            parts += [("dropout", nn.Dropout(0.3)), ("fc", nn.Linear(size, classes))]
        module = nn.Sequential(OrderedDict(parts))
    return Network(module.eval(), own, "tiny")


def make_data(count: int = 60, *, shape=(1, 4, 4), classes: int = 3, seed: int = 0) -> Dataset:
    """Random bytes whose brightness depends on the class; every class has its share."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = rng.integers(0, 120, (count, *shape)) + 40 * labels[:, None, None, None]
    return in_memory("toy", "train", "abcdefghijklmnop"[:classes], labels, images.astype(np.uint8))


@pytest.fixture(scope="session")
def tiny():
    return make_network


@pytest.fixture(scope="session")
def toy():
    return make_data


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load("digits", "train")


@pytest.fixture(scope="session")
def teacher(digits: Dataset) -> Network:
    """Two hidden layers of 32 units, five epochs on the digits."""
    network = new_model("hinton32", InputSpec(shape=digits.shape, classes=digits.classes), seed=0)
    train(network, digits, Schedule(epochs=5, batch=32, learning_rate=5e-3))
    return network


@pytest.fixture(scope="session")
def normed(digits: Dataset) -> Network:
    """Two conv layers with batch norm, no bias, four epochs on the digits: 91 % on the test images."""
    spec = InputSpec(shape=digits.shape, classes=digits.classes, mean=(0.3,), std=(0.35,))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [("conv1", nn.Conv2d(1, 6, 3, padding=1, bias=False)), ("bn1", nn.BatchNorm2d(6)), ("relu1", nn.ReLU())]
        parts += [("conv2", nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False)), ("bn2", nn.BatchNorm2d(8))]
        parts += [("relu2", nn.ReLU()), ("pool", nn.AdaptiveAvgPool2d(2)), ("flat", nn.Flatten())]
        network = Network(nn.Sequential(OrderedDict([*parts, ("fc", nn.Linear(32, 10))])), spec, "normed")
    train(network, digits, Schedule(epochs=4, batch=32, learning_rate=5e-3))
    return network


@pytest.fixture(scope="session")
def whole_record(teacher: Network, digits: Dataset) -> Record:
    """All that any synthesis method may ask for."""
    moments = Moments(covariance="full")
    kinds = [InputMoments(), moments, (moments, ("input",)), SpectralAll(), SpectralPairs()]
    return record(teacher, digits, kinds)


@pytest.fixture(scope="session")
def release(teacher: Network, whole_record: Record, tmp_path_factory) -> Path:
    return write_release(tmp_path_factory.mktemp("release") / "teacher", teacher, whole_record)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets; skips where there is none."""
    found = Path(os.environ.get("DATAFREE_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not found.is_dir():
        pytest.skip(f"no folder {str(found)!r}; set DATAFREE_DATA to the folder of the real data sets")
    return found

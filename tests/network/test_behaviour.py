"""Networks whose answers are not an image's own are refused with the reason when they are taken, and no others."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from datafree._core.errors import Notice, UserError
from datafree.data.dataset import in_memory
from datafree.distillation.distill import Distillation, distill
from datafree.distillation.online.run import train_online
from datafree.distillation.sources import soft_labelled
from datafree.distillation.train import train
from datafree.distillation.training_loop import Schedule
from datafree.evaluation.accuracy import evaluate
from datafree.models import zoo
from datafree.models.agreement import agreement
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.quantization.onnxruntime import check as same_answers
from datafree.records.record import Record, record
from datafree.records.statistics.moments import Moments
from datafree.synthesis.methods import from_name
from datafree.synthesis.synthetic_set import synthesize

SPEC = InputSpec(shape=(3, 6, 6), classes=("a", "b", "c"))


class Net(nn.Module):
    """conv, batch norm, `middle`, fc, `last`."""

    def __init__(self, middle=lambda _, y: y, last=lambda _, z: z, **norm):
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.bn, self.drop = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, **norm), nn.Dropout(0.4)
        self.fc, self.middle, self.last = nn.Linear(128, 3), middle, last
        self.register_buffer("steps", torch.zeros(()))
        self.seen = 0

    def forward(self, x):
        return self.last(self, self.fc(self.middle(self, self.bn(self.conv(x)).relu()).flatten(1)))


def counting(own, y):
    own.steps += 1
    return y


def replacing(own, y):
    own.steps = own.steps + 1
    return y


def calls(own, y):
    own.seen += 1
    return y * (1 + 0.1 * own.seen)


def dropping(own, y):
    own.drop.train()
    return own.drop(y)


def normalised(own, y):
    own.bn.train()
    return own.bn(y)


def rare(_, y):
    return y if float(torch.rand(())) > 0.3 else 2 * y


class Sorting(Net):
    """Sorts a batch by its images' means."""

    def forward(self, x):
        return super().forward(x[x.mean((1, 2, 3)).argsort()])


RANDOM = "gives different answers to the same images in each call"
BESIDE = "gives another answer to an image in another batch"

REFUSED = {
    "F.dropout": (lambda: Net(lambda _, y: F.dropout(y, 0.3)), RANDOM, "draws random numbers (bernoulli)"),
    "F.dropout2d": (lambda: Net(lambda _, y: F.dropout2d(y, 0.3)), RANDOM, "draws random numbers"),
    "F.alpha_dropout": (lambda: Net(lambda _, y: F.alpha_dropout(y, 0.3, True)), RANDOM, "draws random numbers"),
    "noise": (lambda: Net(lambda _, y: y + 0.1 * torch.randn_like(y)), RANDOM, "draws random numbers (randn_like)"),
    "on the logits": (lambda: Net(last=lambda _, z: z + 0.01 * torch.rand_like(z)), RANDOM, "draws random numbers"),
    "far from zero": (lambda: Net(last=lambda _, z: 1e3 + F.dropout(z)), RANDOM, "draws random numbers"),
    "sometimes": (lambda: Net(rare), "", "random"),
    "rrelu": (lambda: Net(lambda _, y: F.rrelu(y - 1, training=True)), RANDOM, ""),
    "dropout in training mode": (lambda: Net(dropping), RANDOM, "dropout 'drop' stays active"),
    "calls": (lambda: Net(calls), RANDOM, "keeps state between calls"),
    "untracked": (
        lambda: Net(track_running_stats=False), BESIDE, "batch norm 'bn' keeps no running statistics"
    ),
    "batch norm in training mode": (lambda: Net(normalised), "", "batch norm 'bn' runs in training mode"),
    "F.batch_norm": (
        lambda: Net(lambda _, y: F.batch_norm(y, None, None, training=True)), BESIDE, "calls F.batch_norm with training=True"
    ),
    "batch mean": (lambda: Net(lambda _, y: y - y.mean(0)), BESIDE, "do not use statistics of the batch"),
    "place": (lambda: Net(lambda _, y: y * torch.arange(len(y)).view(-1, 1, 1, 1)), BESIDE, "order of its images"),
    "softmax": (lambda: Net(last=lambda _, z: z.softmax(0)), BESIDE, "do not use statistics of the batch"),
    "largest": (lambda: Net(last=lambda _, z: z / z.abs().max()), BESIDE, "do not use statistics of the batch"),
    "sorted": (lambda: Net(last=lambda _, z: z[z.mean(1).argsort()]), BESIDE, "order of its images"),
    "sorted images": (lambda: Sorting(), BESIDE, "order of its images"),
    "large batch": (
        lambda: Net(lambda _, y: y - y.mean(0) if len(y) > 64 else y), BESIDE, "do not use statistics of the batch"
    ),
    "larger batch": (lambda: Net(last=lambda _, z: z.flip(0) if len(z) > 128 else z), BESIDE, "order of its images"),
    "counter": (lambda: Net(counting), "changes its 'steps' in a forward pass", "only in training mode"),
    "new counter": (lambda: Net(replacing), "changes its 'steps' in a forward pass", "only in training mode"),
    "squeezed": (lambda: Net(last=lambda _, z: z.squeeze()), "shape (3,) for 1 images", "keep the dimension"),
    "one size": (lambda: Net(lambda _, y: y.view(16, -1)), "does not take 4 images at a time", "any number of images"),
    "half": (lambda: Net().half(), "the weights of net are torch.float16, and images are torch.float32", "call .float()"),
    "bfloat16": (lambda: Net().bfloat16(), "the weights of net are torch.bfloat16", "call .float()"),
    "packed": (
        lambda: nn.Sequential(nn.Flatten(), torch.ao.nn.quantized.Linear(108, 3)), "holds packed weights", "quantize"
    ),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "'1.weight' of net has no size yet", "one batch first"),
    "meta": (lambda: Net().to("meta"), "is on the meta device", "load its weights"),
    "sparse": (
        lambda: nn.ParameterList([nn.Parameter(torch.eye(3).to_sparse())]), "is torch.sparse_coo", "call to_dense()"
    ),
    "two": (lambda: Net(last=lambda _, z: (z, z)), "returns a tuple of 0 (16, 3), 1 (16, 3), expected one", "`output='0'`"),
}  # fmt: skip


def network(module: nn.Module) -> Network:
    return Network(module.eval(), SPEC, "net")


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_network_whose_answers_are_not_its_images_own_is_refused_with_the_reason(kind):
    make, *texts = REFUSED[kind]
    torch.manual_seed(0)
    with pytest.raises(UserError) as caught:
        network(make()).check()
    for text in texts:
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def rounded(_, y):
    return (y * 8).round() / 8


def half(_, y):
    return y.half().relu().float()


class Inside(nn.Module):
    """Half precision inside, float32 outside."""

    def __init__(self, kind: torch.dtype):
        super().__init__()
        self.net, self.kind = Net().to(kind), kind

    def forward(self, x):
        return self.net(x.to(self.kind)).float()


class Cast(Net):
    """Casts by itself."""

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x)


ACCEPTED = {
    "plain": Net,
    "rounded": lambda: Net(rounded),
    "signs": lambda: Net(lambda _, y: y.sign()),
    "half": lambda: Net(half),
    "half inside": lambda: Inside(torch.float16),
    "bfloat16 inside": lambda: Inside(torch.bfloat16),
    "autocast": Cast,
    "double": lambda: Net().double(),
    "constant": lambda: Net(last=lambda _, z: 0 * z),
    "far from zero": lambda: Net(last=lambda _, z: 1e4 + z),
    "large": lambda: Net(last=lambda _, z: 1e8 * z),
    "group": lambda: Net(lambda _, y: F.group_norm(y, 2)),
    "instance": lambda: Net(lambda _, y: F.instance_norm(y)),
    "random in training": lambda: Net(lambda own, y: F.dropout(y, training=own.training)),
    "unused noise": lambda: Net(lambda _, y: (torch.rand(3), y)[1]),
    "no_grad": lambda: Net(lambda _, y: y.detach()),
    **{name: lambda name=name: zoo.build(name, SPEC) for name in ("hinton16", "resnet8")},
}  # fmt: skip


@pytest.mark.parametrize("kind", ACCEPTED)
def test_a_network_that_rounds_or_is_in_another_precision_is_taken_and_left_as_it_was(kind):
    own = network(ACCEPTED[kind]())
    before, drawn = own.fingerprint(), torch.get_rng_state()
    own.check()
    if kind != "unused noise":
        assert torch.equal(torch.get_rng_state(), drawn)
    assert own.fingerprint() == before and not any(part._forward_pre_hooks for part in own.module.modules())


def test_a_network_in_double_precision_takes_images_as_they_are(toy):
    double, plain = network(Net().double()), network(Net())
    images = torch.rand(5, *SPEC.shape)
    torch.testing.assert_close(double.predict(images), plain.predict(images))
    found, expected = (record(own, toy(shape=SPEC.shape), [Moments()]) for own in (double, plain))
    for name in ("conv", "fc"):
        torch.testing.assert_close(found.entries[name].summary["mean"], expected.entries[name].summary["mean"])


def test_the_record_of_a_random_network_is_refused_for_that_reason_and_not_for_its_code(toy, tmp_path):
    own = network(Net())
    record(own, toy(shape=SPEC.shape), [Moments()]).save(tmp_path / "record.safetensors")
    own.module.middle = lambda _, y: F.dropout(y)
    with pytest.raises(UserError, match=RANDOM):
        record(own, toy(shape=SPEC.shape), [Moments()])
    with pytest.raises(UserError, match=RANDOM):
        Record.load(tmp_path / "record.safetensors", own)


class Closed(nn.Module):
    """A forward of its own within `guard`."""

    def __init__(self, guard):
        super().__init__()
        self.net, self.guard = Net(), guard

    def forward(self, x):
        with self.guard():
            return self.net(x)


def wrong_gradient(_, y):
    z = y.sigmoid()
    w = z * 2
    z.add_(1)  # the gradient of sigmoid needs what it gave
    return w + z


CUT = "runs under torch.no_grad, detaches tensors, or converts them to integers"
NO_GRADIENT = {
    "integers": (lambda: Net(last=lambda _, z: z.round().long().float()), CUT),
    "no_grad": (lambda: Closed(torch.no_grad), CUT),
    "inference_mode": (lambda: Closed(torch.inference_mode), "under torch.no"),
    "detach": (lambda: Net(last=lambda _, z: z.detach()), CUT),
    "data": (lambda: Net(last=lambda _, z: z.data), CUT),
    "numpy": (lambda: Net(last=lambda _, z: torch.from_numpy(z.detach().numpy())), CUT),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_GRADIENT)
def test_a_network_without_a_gradient_answers_and_is_refused_where_one_is_needed(kind, toy):
    make, text = NO_GRADIENT[kind]
    own = network(make())
    own.check()
    assert own.predict(torch.rand(5, *SPEC.shape)).shape == (5, 3)
    for method in ("inception", "bns"):
        with pytest.raises(UserError) as caught:
            from_name(method).bind(own, None)
        assert f"no gradient reaches the images of net, and method {method} needs one" in str(caught.value)
        assert text in str(caught.value)
    with pytest.raises(UserError, match="no gradient reaches the weights of net, so it cannot learn"):
        train(own, toy(shape=SPEC.shape), Schedule(epochs=1))
    other = network(Net())
    for players in ((own, other), (other, own)):
        with pytest.raises(UserError, match="no gradient reaches the images of net, and online distillation needs one"):
            train_online(*players)


def test_a_gradient_that_is_zero_or_cannot_be_computed_is_refused_where_one_is_needed():
    with pytest.raises(UserError, match="the gradient of net for its images is zero"):
        from_name("inception").bind(network(Net(lambda _, y: y.sign())), None)
    own = network(Net(wrong_gradient))
    own.check()
    with pytest.raises(UserError, match=r"gradients of net cannot be computed: .*; write the operation out of place"):
        from_name("inception").bind(own, None)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_checkpoint_that_allows_no_gradient_of_the_images_is_refused_with_the_argument_to_change():
    own = network(Net(last=lambda _, z: checkpoint(torch.sin, z, use_reentrant=True)))
    with pytest.raises(UserError, match=r"cannot be computed: .*; give use_reentrant=False to checkpoint"):
        from_name("inception").bind(own, None)
    from_name("inception").bind(network(Net(last=lambda _, z: checkpoint(torch.sin, z, use_reentrant=False))), None)


def test_a_network_that_is_frozen_cannot_be_trained(toy):
    with pytest.raises(UserError, match="net has no weights that can learn"):
        train(network(Net().requires_grad_(False)), toy(shape=SPEC.shape), Schedule(epochs=1))


class Kept(nn.Sequential):
    """Leaves its batch norms in eval mode."""

    def train(self, mode: bool = True):
        super().train(mode)
        return self if not mode else (self[2].eval(), self)[1]


@pytest.mark.parametrize("kind", ["batch norm", "map of one", "instance norm", "frozen", "several places"])
def test_a_batch_that_a_norm_cannot_be_trained_on_is_refused_before_the_first_step(kind, toy):
    parts = {
        "batch norm": nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)),
        "map of one": nn.Sequential(nn.Conv2d(3, 4, 6), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3)),
        "instance norm": nn.Sequential(
            nn.Conv2d(3, 4, 6), nn.InstanceNorm2d(4, track_running_stats=True), nn.Flatten(), nn.Linear(4, 3)
        ),
        "frozen": Kept(nn.Flatten(), nn.Linear(108, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)),
        "several places": nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)),
    }
    own, data = network(parts[kind]), toy(6, shape=SPEC.shape)
    before = copy.deepcopy(own.module.state_dict())
    if kind in ("frozen", "several places"):
        train(own, data, Schedule(epochs=1, batch=1))
        return
    with pytest.raises(UserError, match=r"batch: got \d+, which gives .*Norm.* one value per channel in training"):
        train(own, data, Schedule(epochs=1, batch=4 if kind == "instance norm" else 1))
    assert all(torch.equal(own, before[name]) for name, own in own.module.state_dict().items())


class Standardised(Net):
    """Standardises each image by itself, so that a blank one gives 0 / 0."""

    def forward(self, x):
        return super().forward((x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True))


def with_blanks(toy, count: int = 12, blank=(4, 7)):
    """Images of `toy`, of which some are blank."""
    images = toy(count, shape=SPEC.shape).pixels(torch.arange(count).numpy(), SPEC.shape[1:]).clone()
    images[list(blank)] = 0.5
    labels = (torch.arange(count) % 3).numpy()
    return in_memory("toy", "test", SPEC.classes, labels, (255 * images).round().to(torch.uint8).numpy())


NOT_FINITE = (
    r"the logits of net are not finite on 2 of 12 images, the first of them image 4 \(counted from 0\); use weights"
)


def test_an_image_that_gives_no_number_is_refused_wherever_logits_become_a_class(toy):
    own, data = network(Standardised()), with_blanks(toy)
    own.check()
    pixels = data.pixels(torch.arange(12).numpy(), SPEC.shape[1:])
    calls = (
        lambda: own.predict(pixels),
        lambda: evaluate(own, data),
        lambda: evaluate(network(Net()), data, own),
        lambda: record(own, data, [(Moments(), ("input",))]),
    )
    for call in calls:
        with pytest.raises(UserError, match=NOT_FINITE):
            call()
    assert bool(own.predict(pixels, finite=False)[4].isnan().all())
    with pytest.raises(UserError, match="the logits of net are not finite on 12 of 12 images of a batch"):
        train(own, data, Schedule(epochs=1, batch=12))
    nan = torch.eye(3).index_fill(0, torch.tensor(1), torch.nan)
    for pair in ((nan, torch.eye(3)), (torch.eye(3), nan)):
        with pytest.raises(UserError, match="not finite on 1 of 3 images, the first of them image 1"):
            agreement(*pair, SPEC.classes)
        with pytest.raises(UserError, match="not finite on 1 of 3 images, the first of them image 1"):
            same_answers(*pair)


def test_an_image_that_gives_no_number_is_counted_over_all_batches(toy, monkeypatch):
    monkeypatch.setattr("datafree.evaluation.accuracy.BATCH", 5)
    with pytest.raises(UserError, match=NOT_FINITE):
        evaluate(network(Standardised()), with_blanks(toy))


OTHER_OUTPUTS = {
    "maps": (
        lambda _, z: z[:, :, None, None].expand(-1, -1, 2, 2),
        r"outputs of shape \(\d+, 3, 2, 2\), expected \(images",
    ),
    "one logit": (lambda _, z: z[:, :1], r"outputs of shape \(\d+, 1\), expected \(images, 3 classes\)"),
    "no logits": (lambda _, z: z[:, 0], r"outputs of shape \(\d+,\), expected \(images, 3 classes\)"),
    "all in one": (lambda _, z: z.sum(), r"outputs of shape \(\), expected \(images, 3 classes\)"),
    "one row": (lambda _, z: z.mean(0, keepdim=True), r"outputs of shape \(1, 3\) for \d+ images"),
}


@pytest.mark.parametrize("kind", OTHER_OUTPUTS)
def test_outputs_that_are_no_logits_are_refused_by_every_function(kind, toy):
    last, text = OTHER_OUTPUTS[kind]
    own, data = network(Net(last=last)), toy(12, shape=SPEC.shape)
    pixels = data.pixels(torch.arange(12).numpy(), SPEC.shape[1:])
    for call in (
        lambda: own.predict(pixels),
        lambda: evaluate(own, data),
        lambda: evaluate(network(Net()), data, own),
        lambda: train(own, data, Schedule(epochs=1)),
        lambda: from_name("inception").bind(own, None),
        lambda: record(own, data, [Moments()]),
    ):
        with pytest.raises(UserError, match=text):
            call()


@pytest.mark.parametrize("kind", ["F.dropout", "batch mean", "counter"])
def test_a_network_whose_answers_are_not_its_images_own_is_not_evaluated(kind, toy):
    make, text, _ = REFUSED[kind]
    for players in ((network(make()), None), (network(Net()), network(make()))):
        with pytest.raises(UserError, match=text):
            evaluate(players[0], toy(shape=SPEC.shape), players[1])


PROBABILITIES = "the outputs of net are probabilities .*; give it without the softmax at its end"


@pytest.mark.parametrize("verb", ["evaluate", "record", "synthesize", "distill"])
def test_a_network_that_ends_in_a_softmax_is_said(verb, toy, tmp_path):
    own, data = network(Net(last=lambda _, z: z.softmax(1))), toy(12, shape=SPEC.shape)
    verbs = {
        "evaluate": lambda: evaluate(own, data),
        "record": lambda: record(own, data, [(Moments(), ("input",))]),
        "synthesize": lambda: synthesize(own, None, from_name("gaussian"), tmp_path / "set", images=2, chunk=2),
        "distill": lambda: distill(own, network(Net()), soft_labelled(own, data), Distillation(epochs=1)),
    }
    with pytest.warns(Notice, match=PROBABILITIES) as caught:
        verbs[verb]()
    assert len(caught) == 1


@pytest.mark.parametrize("last", [lambda _, z: z.log_softmax(1), lambda _, z: z, lambda _, z: z.sigmoid()])
def test_logits_of_any_kind_are_not_called_probabilities(last):
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        network(Net(last=last)).check()

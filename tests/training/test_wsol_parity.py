"""Training methods for weakly supervised localization, written down again in PyTorch: one step's loss and gradients.

PyTorch computes in float64, with the same weights, images and draws.
"""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from wsol_net import Staged

import camjax
from camjax.models import ConvBN, inception, resnet, vgg
from camjax.models.wsol import acol, cutmix, spg
from camjax.models.wsol.table import WSOL, with_wsol
from camjax.training import TrainState, train_step
from tests.tiny_vit import tiny_vit

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test-parity installs it")
F = torch.nn.functional

pytestmark = pytest.mark.parity

BATCH, CLASSES = 3, 4

# --------------------------------------------------------------------------------------------- networks


class Weights(dict):
    """The model's parameters by their places, as PyTorch has them."""

    def __init__(self, model, dtype=torch.float64):
        for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
            self[".".join(map(str, path))] = torch.tensor(as_torch(variable[...]), dtype=dtype, requires_grad=True)

    def conv(self, place, x, padding=1, stride=1):
        return F.conv2d(x, self[f"{place}.kernel"], self.get(f"{place}.bias"), stride, padding)

    def bn_relu(self, place, x, padding, stride=1, epsilon=1e-3, relu=True):
        x = self.conv(f"{place}.conv", x, padding, stride)
        x = F.batch_norm(x, None, None, self[f"{place}.bn.scale"], self[f"{place}.bn.bias"], True, 0.1, epsilon)
        return F.relu(x) if relu else x


def as_torch(array):
    array = np.asarray(array, np.float64)
    return np.ascontiguousarray(array.transpose({4: (3, 2, 0, 1), 3: (0, 1, 2), 2: (1, 0), 1: (0,)}[array.ndim]))


def staged(w, x, at, method):
    maps = {}
    for name, stride in (("first", 2), ("second", 1), ("last", 1)):
        x = maps[name] = at(name, F.relu(w.conv(name, x, 1, stride)))
    return maps


def vgg16(w, x, at, method, pools):
    maps = {}
    for stage, (_, repeats) in enumerate(vgg.STAGES, 1):
        for i in range(1, repeats + 1):
            x = F.relu(w.conv(f"conv{stage}_{i}", x))
        x = maps[f"conv{stage}"] = at(f"conv{stage}", x)
        if method == "acol":
            x = F.max_pool2d(x, 3, 2 if stage in pools else 1, 1)
        elif method == "spg" and stage == 4 and stage in pools:
            x = F.max_pool2d(x, 3, 2, 1)
        elif stage in pools:
            x = F.max_pool2d(x, 2)
        x = maps[f"pool{stage}"] = at(f"pool{stage}", x)
    if method == "acol":
        maps["last"] = F.avg_pool2d(x, 3, 1, 1)
    elif method == "spg":
        maps["last"] = F.relu(w.conv("conv6.1", F.relu(w.conv("conv6.0", x))))
    else:
        maps["last"] = F.relu(w.conv("conv6", x))
    return maps


def resnet50(w, x, at, method):
    maps, bn = {}, functools.partial(w.bn_relu, epsilon=1e-5)
    x = F.max_pool2d(bn("stem", x, 3, 2), 3, 2, 1)
    for stage, stride in enumerate((1, 2, 2, 1)):
        for i in range(resnet.DEPTHS[50][stage]):
            place, s = f"stages.{stage}.{i}", stride if i == 0 else 1
            y = bn(f"{place}.conv3", bn(f"{place}.conv2", bn(f"{place}.conv1", x, 0), 1, s), 0, relu=False)
            x = F.relu(y + (bn(f"{place}.downsample", x, 0, s, relu=False) if i == 0 else x))
            x = maps[f"layer{stage + 1}.{i}"] = at(f"layer{stage + 1}.{i}", x)
        x = maps[f"layer{stage + 1}"] = at(f"layer{stage + 1}", x)
    return maps


def inception_v3(w, x, at, method):
    """torchvision's, as the benchmark changes it; its blocks are those of our tables, by their names and kernels."""

    def chain(place, names, x, last_stride=1):
        for name in names:
            height, width = w[f"{place}.{name}.conv.kernel"].shape[2:]
            x = w.bn_relu(f"{place}.{name}", x, (height // 2, width // 2))
        return x

    def block(place, x, *chains):
        branches = [chain(place, names, x) for names in chains]
        if place == "Mixed_6a":
            return torch.cat([*branches, F.max_pool2d(x, 3, 1, 1)], 1)
        return torch.cat([*branches, chain(place, ["branch_pool"], F.avg_pool2d(x, 3, 1, 1))], 1)

    maps = {}
    x = w.bn_relu("Conv2d_1a_3x3", x, 1, 2)
    x = w.bn_relu("Conv2d_2b_3x3", w.bn_relu("Conv2d_2a_3x3", x, 0), 1)
    x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    x = w.bn_relu("Conv2d_4a_3x3", w.bn_relu("Conv2d_3b_1x1", x, 0), 0)
    x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    three = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
    for place in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = block(place, x, ["branch1x1"], ["branch5x5_1", "branch5x5_2"], three)
    x = maps["Mixed_5d"] = at("Mixed_5d", x)
    x = maps["pool"] = at("pool", F.max_pool2d(x, 3, 2, ceil_mode=True))
    x = block("Mixed_6a", x, ["branch3x3"], three)
    for place in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        seven = [f"branch7x7_{i}" for i in (1, 2, 3)], [f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)]
        x = block(place, x, ["branch1x1"], *seven)
    x = maps["Mixed_6e"] = at("Mixed_6e", x)
    if method != "acol":
        for name in ("SPG_A3_1b", "SPG_A3_2b"):
            x = maps[name] = at(name, F.relu(w.conv(name, x)))
    return maps


def transformer(w, x, at, method):
    """The patches' tokens after the last LayerNorm, and the mean attention that the class token pays them."""

    def norm(place, x):
        return F.layer_norm(x, x.shape[-1:], w[f"{place}.scale"], w[f"{place}.bias"], 1e-6)

    def dense(place, x):
        return F.linear(x, w[f"{place}.kernel"], w[f"{place}.bias"])

    patches = w.conv("patches", x, 0, 8)
    x = torch.cat([w["class_token"].expand(len(x), -1, -1), patches.flatten(2).mT], 1) + w["positions"]
    attention = []
    for i in range(2):
        block = f"blocks.{i}"
        qkv = dense(f"{block}.attention.qkv", norm(f"{block}.norm1", x)).unflatten(-1, (3, 2, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attention.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1))
        x = x + dense(f"{block}.attention.project", (attention[-1] @ v).transpose(1, 2).flatten(2))
        x = x + dense(f"{block}.project", F.gelu(dense(f"{block}.expand", norm(f"{block}.norm2", x))))
    side = patches.shape[2:]
    tokens = norm("norm", x)[:, 1:].mT.unflatten(-1, side)
    looks = torch.stack(attention).mean((0, 2))[:, 0, 1:].unflatten(-1, side)
    return {"attention": looks, "tokens": tokens}


# ---------------------------------------------------------------------------------------------- methods


def scaled(x):
    low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
    return (x - low) / (high - low)


def adl(x, dropped, threshold):
    attention = x.mean(1, keepdim=True)
    if dropped:
        return x * (attention < threshold * attention.amax((2, 3), keepdim=True))
    return x * torch.sigmoid(attention)


def acol_branch(w, place, x):
    x = F.relu(w.conv(f"{place}.conv2", F.relu(w.conv(f"{place}.conv1", x))))
    return w.conv(f"{place}.classes", x, 0)


def spg_mask(attention, high, low):
    """1 foreground, 0 background, 255 ignored."""
    attention = attention.detach()
    mask = torch.full_like(attention, 255.0)
    for image, of_image in zip(attention, mask, strict=True):
        above = image > high
        if above.sum() < 30:
            above = image > 0.7 * image.max()
        of_image[above] = 1
        of_image[image < low] = 0
    return mask


def spg_terms(w, maps, places, attention, size, thresholds):
    def up(x):
        return F.interpolate(x, size, mode="bilinear", align_corners=False)

    def shared(x):
        return up(w.conv("wsol.shared.1", F.relu(w.conv("wsol.shared.0", x)), 0))[:, 0]

    b1, b2 = (shared(F.relu(w.conv(f"wsol.b{i}", maps[place]))) for i, place in enumerate(places, 1))
    c = up(w.conv("wsol.c.1", F.relu(w.conv("wsol.c.0", list(maps.values())[-1])), 0))[:, 0]
    teachers = scaled(up(attention[:, None])[:, 0]), b2.sigmoid(), (b1.sigmoid() + b2.sigmoid()) / 2
    total = 0
    for logits, teacher, (high, low) in zip((b2, b1, c), teachers, thresholds, strict=True):
        mask = spg_mask(teacher, high, low)
        counted = mask < 255
        total = total + F.binary_cross_entropy_with_logits(logits[counted], mask[counted])
    return total


def torch_loss(network, model, w, x, labels, method, options, draws):
    size, at = x.shape[2:], lambda place, x: x
    other, lam = labels, 1.0
    if method == "has":
        g = options["grid_size"]
        for b, i, j in zip(*np.nonzero(draws), strict=True):
            x[b, :, i * g : (i + 1) * g, j * g : (j + 1) * g] = 0
    if method == "cutmix":
        (height, width), ratio = size, np.sqrt(1 - float(draws.lam))
        h, v = int(width * ratio) // 2, int(height * ratio) // 2
        (cy, cx), order = np.array(draws.center), np.array(draws.permutation)
        rows, columns = slice(max(cy - v, 0), min(cy + v, height)), slice(max(cx - h, 0), min(cx + h, width))
        x, other = x.clone(), labels[order]
        x[:, :, rows, columns] = x[order, :, rows, columns].clone()
        lam = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    if method == "adl":
        drawn = iter(draws)
        places = model.wsol_places.adl

        def at(place, x):
            return adl(x, next(drawn), options["threshold"]) if place in places else x

    maps = network(w, x, at, method)
    *_, features = maps.values()
    rows = torch.arange(len(labels))
    if method == "acol":
        of_a = acol_branch(w, "head.a", features)
        high = scaled(of_a[rows, labels].detach())
        of_b = acol_branch(w, "head.b", features * (high < options["threshold"])[:, None])
        logits = [of.mean((2, 3)) for of in (of_a, of_b)]
        return logits[0], sum(F.cross_entropy(of, labels) for of in logits)
    if method == "tscam":
        logits = w.conv("head.classes", features).mean((2, 3))
        return logits, F.cross_entropy(logits, labels)
    class_maps = F.conv2d(features, w["head.kernel"][:, :, None, None], w["head.bias"])
    logits = class_maps.mean((2, 3))
    loss = lam * F.cross_entropy(logits, labels) + (1 - lam) * F.cross_entropy(logits, other)
    if method == "spg":
        thresholds = [(options[f"high_{i}"], options[f"low_{i}"]) for i in (1, 2, 3)]
        loss = loss + spg_terms(w, maps, model.wsol_places.spg, class_maps[rows, labels], size, thresholds)
    return logits, loss


def draws_of_first_step(model, method, shape, options):
    """What the step draws from the model's keys."""
    if method not in ("has", "cutmix", "adl"):
        return None
    keys = [jax.random.fold_in(jax.random.fold_in(model.wsol.rngs.key[...], 0), count) for count in range(3)]
    if method == "has":
        sides = [-(-side // options["grid_size"]) for side in shape[1:3]]
        return np.array(jax.random.bernoulli(keys[0], options["drop_rate"], (len(keys), *sides)))
    if method == "cutmix":
        return cutmix.draw(keys[0], shape[:3], options["beta"], options["probability"])
    return [bool(jax.random.bernoulli(key, options["drop_rate"])) for key in keys[: len(model.wsol_places.adl)]]


def check(model, method, network, size, seed=0, deep=False, **changes):
    """Loss and gradients to 1e-5 of their scale; of deep networks, to twice the most that PyTorch's float32 is off."""
    options = {**WSOL[method].defaults, **changes}
    model = with_wsol(model, {"method": method, **options}, rngs=nnx.Rngs(seed))
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Dropout):
            module.rate = 0.0
    for _, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):  # no bias is zero
        if variable.ndim == 1:
            noise = np.random.default_rng(len(variable)).normal(0, 0.1, variable.shape)
            variable.set_value(variable[...] + noise.astype(np.float32))
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (BATCH, *size, 3), dtype=np.uint8)
    labels = np.array([0, 2, 3])

    state = TrainState(model, nnx.Optimizer(model, optax.trace(0.0), wrt=nnx.Param))
    after, metrics = jax.jit(train_step)(state, {"image": images, "label": labels})
    gradients = {
        ".".join(map(str, path)): as_torch(g[...]) for path, g in nnx.to_flat_state(after.optimizer.opt_state.trace)
    }

    x = torch.tensor((images - np.array(model.mean)) / np.array(model.std)).permute(0, 3, 1, 2).contiguous()
    draws = draws_of_first_step(model, method, images.shape, options)

    def backward(dtype):
        w = Weights(model, dtype)
        _, loss = torch_loss(network, model, w, x.to(dtype), torch.tensor(labels), method, options, draws)
        loss.backward()
        return w, loss

    w, loss = backward(torch.float64)
    rounded = backward(torch.float32)[0] if deep else w
    assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    assert gradients.keys() == w.keys()
    largest = max(weight.grad.abs().max().item() for weight in w.values())
    scales = {place: max(weight.grad.abs().max().item(), 0.1 * largest) for place, weight in w.items()}
    # Of a single place it is a matter of luck.
    rounding = max((rounded[place].grad - w[place].grad).abs().max().item() / scales[place] for place in scales)
    for place, scale in scales.items():
        error = np.abs(gradients[place] - w[place].grad.numpy()).max()
        assert error <= max(1e-5, 2 * rounding) * scale, place
    return draws


@pytest.mark.parametrize(
    ("method", "seed"), [("has", 0), ("cutmix", 0), ("cutmix", 1), ("adl", 0), ("adl", 1), ("acol", 0), ("spg", 0)]
)
def test_a_step_is_that_of_pytorch(method, seed):
    changes = {"has": {"grid_size": 5}, "cutmix": {"beta": 2.0}, "adl": {"drop_rate": 0.5}, "spg": {"high_3": 0.5}}
    model = Staged(CLASSES, rngs=nnx.Rngs(1))
    draws = check(model, method, staged, (17, 12), seed, **changes.get(method, {}))
    if method == "adl" and seed == 1:
        assert len({*draws}) == 2  # both the mask and the importance


def test_ts_cam_is_that_of_pytorch():
    """A step, and the maps of all classes."""
    check(tiny_vit(num_classes=CLASSES), "tscam", transformer, (32, 32))
    model = with_wsol(tiny_vit(num_classes=CLASSES), "tscam", rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8)
    x = torch.tensor((images - np.array(model.mean)) / np.array(model.std)).permute(0, 3, 1, 2)
    w = Weights(model)
    maps = transformer(w, x, None, "tscam")
    semantic = w.conv("head.classes", maps["tokens"])
    found = camjax.make_cam_fn(model, top_k=None)(images)
    for ours, theirs in ((found.logits, semantic.mean((2, 3))), (found.maps, semantic * maps["attention"][:, None])):
        theirs = theirs.detach().numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.fixture
def small_and_smooth(monkeypatch):
    """Branches of eight channels, and softplus in place of ReLU, at whose kink rounding decides on a gradient.

    Of the millions of activations in these networks, some are as near to it.
    """
    for network in (vgg.VGG16Wsol, resnet.ResNet, inception.InceptionV3Wsol):
        places = dataclasses.replace(network.wsol_places, acol_width=8, spg_width=8)
        monkeypatch.setattr(network, "wsol_places", places)
    monkeypatch.setattr(spg, "C_WIDTH", 8)
    monkeypatch.setattr(F, "relu", F.softplus)
    for module in (vgg, resnet, inception, acol, spg):
        monkeypatch.setattr(module, "relu", jax.nn.softplus)


def smooth(model):
    for _, module in nnx.iter_modules(model):
        if isinstance(module, ConvBN) and module.activation is not None:
            module.activation = jax.nn.softplus
    return model


@pytest.mark.parametrize(
    ("method", "large"),
    [
        ("acol", 1),
        ("spg", 0),
        *(pytest.param(*of, marks=pytest.mark.long) for of in (("adl", 0), ("acol", 0), ("spg", 1))),
    ],
)
@pytest.mark.usefixtures("small_and_smooth")
def test_vgg16_of_the_benchmark(monkeypatch, method, large):
    """With one convolution in most stages, and fewer channels."""
    monkeypatch.setattr(vgg, "STAGES", ((4, 1), (4, 1), (6, 2), (8, 1), (512, 1)))
    pools = (1, 2, 3) if large else (1, 2, 3, 4)
    model = vgg.VGG16Wsol(pools, CLASSES, rngs=nnx.Rngs(1))
    check(model, method, functools.partial(vgg16, pools=pools), (48, 32))


@pytest.mark.long
@pytest.mark.parametrize("method", ["adl", "acol", "spg"])
@pytest.mark.usefixtures("small_and_smooth")
def test_resnet50_of_the_benchmark(monkeypatch, method):
    """With one block in the stages that methods leave alone, and two in the others."""
    monkeypatch.setattr(resnet, "DEPTHS", {50: (1, 1, 2, 2)})
    model = smooth(resnet.ResNet(50, CLASSES, strides=(1, 2, 2, 1), rngs=nnx.Rngs(1)))
    check(model, method, resnet50, (48, 32), deep=True)


@pytest.mark.long
@pytest.mark.parametrize("method", ["adl", "acol", "spg"])
@pytest.mark.usefixtures("small_and_smooth")
def test_inception_v3_of_the_benchmark(method):
    model = smooth(inception.InceptionV3Wsol(False, CLASSES, rngs=nnx.Rngs(1)))
    check(model, method, inception_v3, (64, 64), deep=True)

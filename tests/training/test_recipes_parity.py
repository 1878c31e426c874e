"""A recipe's steps against those of PyTorch, on the same network from the same weights."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from camjax.models import CamModel, PooledHead
from camjax.training import Recipe, TrainState, train_step

pytestmark = pytest.mark.parity


class Net(CamModel):
    def __init__(self):
        super().__init__(input_size=(8, 8), stride=1, mean=(127.5,) * 3, std=(127.5,) * 3)
        self.conv = nnx.Conv(3, 6, (3, 3), padding=1, rngs=nnx.Rngs(1))
        self.head = PooledHead(6, 4, rngs=nnx.Rngs(2))

    def backbone(self, x):
        return nnx.relu(self.conv(x))


@pytest.mark.parametrize(
    ("algorithm", "nesterov", "accumulate"),
    [("sgd", True, 1), ("sgd", True, 2), ("sgd", False, 1), ("sgd", False, 2), ("adamw", False, 1)],
)
def test_five_steps_are_those_of_pytorch(algorithm, nesterov, accumulate):
    """Momentum, weight decay of kernels alone, a rate that steps down, new layers at ten times it, smoothed labels."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test-parity installs it")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 6, 8, 8, 3), dtype=np.uint8)
    labels = rng.integers(0, 4, (5, 6))
    recipe = Recipe(
        steps=5,
        batch_size=6,
        accumulate=accumulate,
        algorithm=algorithm,
        learning_rate=0.05,
        decay="step",
        decay_every=2,
        decay_rate=0.1,
        weight_decay=0.02,
        nesterov=nesterov,
        new_layers_factor=10.0,
        label_smoothing=0.1,
    )
    state = TrainState.create(Net(), recipe)
    model = state.model

    conv, dense = torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.Linear(6, 4)
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(np.array(model.conv.kernel[...].transpose(3, 2, 0, 1))))
        dense.weight.copy_(torch.from_numpy(np.array(model.head.kernel[...].T)))
        conv.bias.zero_()
        dense.bias.zero_()
    groups = [
        {"params": [parameter], "lr": rate, "weight_decay": decay}
        for parameter, rate, decay in (
            (conv.weight, 0.05, 0.02),
            (conv.bias, 0.05, 0.0),
            (dense.weight, 0.5, 0.02),
            (dense.bias, 0.5, 0.0),
        )
    ]
    if algorithm == "sgd":
        optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=nesterov)
    else:
        optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)

    step = jax.jit(functools.partial(train_step, label_smoothing=0.1, accumulate=accumulate))
    for number in range(5):
        state, metrics = step(state, {"image": images[number], "label": labels[number]})
        x = torch.from_numpy((images[number].astype(np.float32) - 127.5) / 127.5).permute(0, 3, 1, 2)
        logits = dense(torch.relu(conv(x)).mean((2, 3)))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[number]), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for ours, theirs in (
        (state.model.conv.kernel[...], conv.weight.permute(2, 3, 1, 0)),
        (state.model.conv.bias[...], conv.bias),
        (state.model.head.kernel[...], dense.weight.T),
        (state.model.head.bias[...], dense.bias),
    ):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-6)

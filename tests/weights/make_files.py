"""Writes the small files by PyTorch under tests/weights/files: `python tests/weights/make_files.py`.

Needs PyTorch, which the tests that read the files do not. Written with PyTorch 2.13.
"""

from pathlib import Path

import torch

FILES = Path(__file__).parent / "files"


def state_dict() -> dict[str, torch.Tensor]:
    """Every dtype, and every way in which a tensor may lie in its storage."""
    base = torch.arange(12, dtype=torch.float32)
    return {
        "float64": torch.arange(6, dtype=torch.float64).reshape(2, 3) / 4,
        "float32": torch.arange(6, dtype=torch.float32).reshape(1, 2, 3) - 2.5,
        "float16": torch.tensor([0.5, -65504.0], dtype=torch.float16),
        "bfloat16": torch.tensor([1.0, -2.0, 3.140625], dtype=torch.bfloat16),
        "int64": torch.tensor([-(2**63), 2**63 - 1]),
        "int32": torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32),
        "int16": torch.tensor([-32768, 32767], dtype=torch.int16),
        "int8": torch.tensor([-128, 127], dtype=torch.int8),
        "uint8": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "transposed": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
        "tied": base,
        "tied.rows": base.reshape(3, 4)[1:],
        "tied.every_third": base[1::3],
        "parameter": torch.nn.Parameter(torch.tensor([1.5])),
    }


def checkpoint() -> dict[str, object]:
    """What a training script with DataParallel saves."""
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
        model.bias.copy_(torch.tensor([3.0]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "arch": "linear",
        "best_acc1": torch.tensor(71.5),
        "history": [0.5, None],
        "state_dict": torch.nn.DataParallel(model).state_dict(),
        "optimizer": optimizer.state_dict(),
    }


def main() -> None:
    """Write all the files."""
    FILES.mkdir(exist_ok=True)
    torch.save(state_dict(), FILES / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(state_dict(), FILES / "zip.pth")
    torch.save(checkpoint(), FILES / "checkpoint_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(checkpoint(), FILES / "checkpoint_protocol4.pth", pickle_protocol=4)
    torch.save(torch.nn.Linear(1, 1), FILES / "module.pth")
    torch.jit.script(torch.nn.Identity()).save(str(FILES / "torchscript.pt"))


if __name__ == "__main__":
    main()

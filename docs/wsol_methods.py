"""Compares the training methods for weakly supervised localization on scenes, each with three seeds.

    PYTHONPATH=. python docs/wsol_methods.py [--out runs/wsol_methods] [--seeds 3] [--epochs N]

It runs `python -m experiments.wsol --dataset scenes --network small_gap --weights random --trials 0` for each method,
with the methods' default options, and prints the rows of a table: means and standard deviations over the seeds. The
same command continues where it stopped. All methods come first with one seed, then with the next. Cost: 18 trainings of
2.5 epochs (--epochs N for another number), and as many evaluations of a minute each.
"""

import argparse
import json
from pathlib import Path

from camjax.models.wsol.table import WSOL
from experiments.wsol.__main__ import Options, main
from experiments.wsol.tables import mean_and_deviation

CONVOLUTIONAL = [name for name in WSOL if name != "tscam"]
SHOWN = ("MaxBoxAccV2", "thresholds of train-fullsup", "MaxBoxAcc", "top-1 accuracy")


def row(method: str, out: Path, seeds: int, epochs: float | None) -> list[str]:
    """The numbers of `SHOWN`."""
    options = Options(
        dataset="scenes",
        network="small_gap",
        weights="random",
        method=(method,),
        trials=0,
        seeds=seeds,
        epochs=epochs,
        out=out / method,
    )
    main(options)
    stages = json.loads((options.out / "results.json").read_text())
    found = [stages[f"test, seed {seed}"]["results"] for seed in range(seeds)]
    return [mean_and_deviation([of_seed[name] for of_seed in found]) for name in SHOWN]


def table() -> None:
    """Trains, and prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/wsol_methods"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--methods", nargs="+", choices=CONVOLUTIONAL, default=CONVOLUTIONAL)
    options = parser.parse_args()
    for seeds in range(1, options.seeds + 1):
        rows = {method: row(method, options.out, seeds, options.epochs) for method in options.methods}
        print(f"| method | {' | '.join(SHOWN)} |\n|{'---|' * (len(SHOWN) + 1)}")
        for method, cells in rows.items():
            print(f"| `{method}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    table()

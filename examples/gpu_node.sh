#!/usr/bin/env bash
# Trains ResNet-50 on one machine with NVIDIA GPUs, all of them. Runs on that machine, in a clone of camjax:
#
#   bash examples/gpu_node.sh
#
# The machine needs the NVIDIA driver (nvidia-smi lists the GPUs) and Python 3.11 or newer; CUDA comes with JAX.
# The first start installs camjax. Every start resumes the run where it stopped.
set -euo pipefail

DATA_DIR=/data/tfds           # where `camjax prepare imagenet2012` put the data
OUT=runs/resnet50
BATCH_SIZE=1024               # over all GPUs; a multiple of their number
WORKERS=32                    # processes that read images: about one for each core

cd "$(dirname "$0")/.."
if [ ! -e .venv-gpu/ready ]; then
    python3 -m venv .venv-gpu
    .venv-gpu/bin/python -m pip install -c requirements.txt -e ".[train]" "jax[cuda13]"
    touch .venv-gpu/ready
fi
.venv-gpu/bin/python -c "import jax; print(jax.devices('gpu'))"    # an error if JAX does not find the GPUs
exec .venv-gpu/bin/python -m experiments.imagenet --recipe resnet50 --batch-size "$BATCH_SIZE" \
    --data-dir "$DATA_DIR" --out "$OUT" --workers "$WORKERS"

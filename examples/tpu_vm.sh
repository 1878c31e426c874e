#!/usr/bin/env bash
# Trains ResNet-50 on one TPU machine of Google Cloud, a virtual machine of Compute Engine.
#
# Runs on your own machine, with gcloud installed and logged in (gcloud auth login). One word says what to do:
#
#   create     makes the machine, which costs money from now on
#   install    installs camjax on it, and copies the data from the bucket to its disk
#   train      starts training, which goes on without your connection; started again, it resumes
#   log        follows the log; Ctrl-C leaves it
#   stop       ends training with a checkpoint, and whatever else still holds the TPU
#   delete     deletes the machine and its disk
#
# as in: bash examples/tpu_vm.sh create. docs/tpu_pods.md has other machines, the roles that you need, and the cost.
set -euo pipefail

PROJECT=my-project
ZONE=us-east5-a
NAME=camjax
MACHINE=ct6e-standard-4t                         # four v6e chips
IMAGE=ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e    # for TPU7x: ubuntu-accel-2404-amd64-tpu-tpu7x
BUCKET=my-bucket                                 # with the prepared data in tfds/; the run goes to runs/
REPOSITORY=https://github.com/OWNER/camjax
BATCH_SIZE=1024
WORKERS=32

on_machine() {
    gcloud compute ssh "$NAME" --project="$PROJECT" --zone="$ZONE" --command="$1"
}

case "${1:-}" in
create)
    # A machine with TPUs can't move, so maintenance ends it. For a Spot machine, which is cheaper and may be taken away
    # at any time, add --provisioning-model=SPOT --instance-termination-action=DELETE. Eight chips of v6e
    # (ct6e-standard-8t) also need --threads-per-core=1.
    gcloud compute instances create "$NAME" --project="$PROJECT" --zone="$ZONE" --machine-type="$MACHINE" \
        --image-project=ubuntu-os-accelerator-images --image-family="$IMAGE" --boot-disk-size=500GB \
        --maintenance-policy=TERMINATE --scopes=cloud-platform
    ;;
install)
    # uv brings its own Python: that of the image is too old for camjax on Ubuntu 22.04.
    on_machine "set -e
        curl -LsSf https://astral.sh/uv/install.sh | sh
        git clone $REPOSITORY camjax
        cd camjax
        ~/.local/bin/uv venv --python 3.12
        ~/.local/bin/uv pip install -c requirements.txt -e '.[train,buckets]' 'jax[tpu]'
        .venv/bin/python -c 'import jax; print(jax.devices())'
        gcloud storage cp -r gs://$BUCKET/tfds ~/"
    ;;
train)
    on_machine "cd camjax
        nohup .venv/bin/python -m experiments.imagenet --recipe resnet50 --batch-size $BATCH_SIZE \
            --data-dir ~/tfds --out gs://$BUCKET/runs/resnet50 --workers $WORKERS > ~/log.txt 2>&1 < /dev/null &"
    ;;
log)
    on_machine "tail -n 50 -f ~/log.txt"
    ;;
stop)
    # The brackets keep the pattern from matching the shell that runs this line.
    on_machine "pkill -TERM -f '[e]xperiments.imagenet' || true
        for _ in \$(seq 60); do pgrep -f '[e]xperiments.imagenet' > /dev/null || exit 0; sleep 2; done
        pkill -KILL -f '[e]xperiments.imagenet'"
    ;;
delete)
    gcloud compute instances delete "$NAME" --project="$PROJECT" --zone="$ZONE" --quiet
    ;;
*)
    echo "usage: bash $0 create | install | train | log | stop | delete" >&2
    exit 2
    ;;
esac

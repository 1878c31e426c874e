#!/usr/bin/env bash
# Trains ResNet-50 on a TPU slice, several machines that compute together, through the queue of the Cloud TPU API.
#
# Runs on your own machine, with gcloud installed and logged in (gcloud auth login). One word says what to do:
#
#   create     queues a request for the slice, which costs money from the moment that it is granted
#   state      says how far the request is: ACTIVE means that the slice is there
#   install    installs camjax and mounts the data, on every machine
#   train      starts training on every machine; it goes on without your connection. Started again, it resumes.
#   log        follows the log of the first machine; Ctrl-C leaves it
#   stop       ends training with a checkpoint, and whatever else still holds the TPUs
#   delete     deletes the slice and the request
#
# as in: bash examples/tpu_slice.sh create. For v4, v5e, v5p and v6e; TPU7x needs examples/jobset.yaml. docs/tpu_pods.md
# has other slices, the roles that you need, and the cost.
set -euo pipefail

PROJECT=my-project
ZONE=us-east5-b
NAME=camjax
ACCELERATOR=v6e-16            # 16 chips on four machines
RUNTIME=v2-alpha-tpuv6e
BUCKET=my-bucket              # with the prepared data in tfds/; the run goes to runs/
REPOSITORY=https://github.com/OWNER/camjax
BATCH_SIZE=4096
WORKERS=32                    # on each machine
CACHE_MB=180000               # memory for the data; ImageNet has 160 GB. Less on v5e, whose machines have 192 GB.

on_all() {
    gcloud compute tpus tpu-vm ssh "$NAME" --project="$PROJECT" --zone="$ZONE" --worker=all --command="$1"
}

case "${1:-}" in
create)
    # Without --spot the slice is yours until you delete it. Spot is cheaper, and may be taken away at any time.
    gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --project="$PROJECT" --zone="$ZONE" \
        --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME" --spot
    ;;
state)
    gcloud compute tpus queued-resources describe "$NAME" --project="$PROJECT" --zone="$ZONE" \
        --format='value(state.state)'
    ;;
install)
    # uv brings its own Python: that of the images is too old for camjax. gcsfuse mounts the data as a folder, and keeps
    # them in memory, since the disk has only 100 GB; records are read at random, which it caches only when told to.
    on_all "set -e
        curl -LsSf https://astral.sh/uv/install.sh | sh
        git clone $REPOSITORY camjax
        cd camjax
        ~/.local/bin/uv venv --python 3.12
        ~/.local/bin/uv pip install -c requirements.txt -e '.[train,buckets]' 'jax[tpu]'
        echo deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt \
            gcsfuse-\$(lsb_release -cs) main | sudo tee /etc/apt/sources.list.d/gcsfuse.list
        curl -sS https://packages.cloud.google.com/apt/doc/apt-key.gpg |
            sudo tee /usr/share/keyrings/cloud.google.asc > /dev/null
        sudo apt-get update -qq
        sudo apt-get install -y -qq gcsfuse
        mkdir -p ~/bucket
        gcsfuse -o ro --implicit-dirs --cache-dir=/dev/shm/bucket --file-cache-max-size-mb=$CACHE_MB \
            --file-cache-cache-file-for-range-read=true $BUCKET ~/bucket"
    ;;
train)
    on_all "cd camjax
        nohup .venv/bin/python -m experiments.imagenet --recipe resnet50 --batch-size $BATCH_SIZE \
            --data-dir ~/bucket/tfds --out gs://$BUCKET/runs/resnet50 --workers $WORKERS > ~/log.txt 2>&1 < /dev/null &"
    ;;
log)
    gcloud compute tpus tpu-vm ssh "$NAME" --project="$PROJECT" --zone="$ZONE" --worker=0 \
        --command="tail -n 50 -f ~/log.txt"
    ;;
stop)
    # All processes stop after the same step. The brackets keep the pattern from matching the shell that runs this line.
    on_all "pkill -TERM -f '[e]xperiments.imagenet' || true
        for _ in \$(seq 60); do pgrep -f '[e]xperiments.imagenet' > /dev/null || exit 0; sleep 2; done
        pkill -KILL -f '[e]xperiments.imagenet'"
    ;;
delete)
    gcloud compute tpus queued-resources delete "$NAME" --project="$PROJECT" --zone="$ZONE" --force --quiet
    ;;
*)
    echo "usage: bash $0 create | state | install | train | log | stop | delete" >&2
    exit 2
    ;;
esac

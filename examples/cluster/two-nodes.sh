#!/bin/bash
# Pretraining on two machines that see the same disk: on each of them, `FIRST=host1 bash examples/cluster/two-nodes.sh`.
# FIRST is either one's name, with its port 29500 open to the other.
set -eu

exec torchrun --nnodes 2 --nproc-per-node "${PROCESSES:-8}" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-id "${JOB:-maekit}" --rdzv-endpoint "$FIRST:29500" \
    -m maekit pretrain vit-large --data "${DATA:-/data/imagenet/train}" --out "${RUN:-runs/large}" --resume "$@"

#!/bin/bash
# Any training of maekit on several machines without a scheduler. The same on each of them, within ten minutes:
#
#     HEAD=host1 MACHINES=2 examples/cluster/torchrun.sh pretrain vit-large --data /data/shards --out /shared/runs/large
#
# HEAD: the machine on which the others find each other. MACHINES: how many, or 1:2 for as many as there are of that.
# GPUS: processes on each; as many as GPUs where it is not set. Where a process dies all begin again, up to RESTARTS
# times, from the newest sound checkpoint. --out has to lie where all machines see it.

# With torch 2.14 a machine that comes later would wait for ever.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec torchrun \
    --nnodes "${MACHINES:?how many machines}" \
    --nproc-per-node "${GPUS:-gpu}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "${HEAD:?the machine on which the others find each other}:${PORT:-29500}" \
    --rdzv-id "${JOB:-maekit}" \
    --max-restarts "${RESTARTS:-3}" \
    -m maekit "$@"

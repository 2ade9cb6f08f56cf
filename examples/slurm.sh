#!/bin/bash
# Several nodes of 8 GPUs each under Slurm: sbatch --nodes 2 examples/slurm.sh /shared/runs/mine qwen2.5-vl-7b-lora [options]
# The folder must be one that all nodes see. 300 s before its time is over the job finishes its step, and saves; with --save-every 20
# one that is cut off all the same loses at most 20 steps. It goes on by the same line with --resume at its end.
#SBATCH --job-name vergence
#SBATCH --nodes 2
#SBATCH --ntasks-per-node 1
#SBATCH --gpus-per-node 8
#SBATCH --cpus-per-task 64
#SBATCH --time 24:00:00
#SBATCH --signal TERM@300
set -euo pipefail

out=${1:?the run\'s folder, which all nodes see}
recipe=${2:?a recipe: see vergence recipes}
shift 2
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-8}"    # torchrun would give each process one thread

# srun does not take --cpus-per-task over from sbatch (since Slurm 22.05)
exec srun --kill-on-bad-exit 1 --cpus-per-task "${SLURM_CPUS_PER_TASK:-64}" torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-8}" \
    --shutdown-timeout 240 --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id "$SLURM_JOB_ID" \
    -m vergence train "$recipe" --out "$out" --device cuda "$@"

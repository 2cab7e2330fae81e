#!/usr/bin/env bash
#SBATCH --job-name=ecgtwin
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
#
# Trains on N nodes with M GPUs each under Slurm, one process per GPU.
#
#   launch/gpu_slurm.sh --nodes=N --gpus=M --time=LIMIT [options] -- ARGUMENTS
#
#   --nodes=N         machines
#   --gpus=M          GPUs of each machine; ask for all that it has
#   --time=LIMIT      time limit of one go, as sbatch takes it (4:00:00)
#   --python=FILE     interpreter with this package (default: python)
#   --sbatch=FLAG     handed to sbatch as it is, may be repeated, for instance
#                     --sbatch=--partition=NAME --sbatch=--cpus-per-task=8
#   --dry_run         print the commands instead
#
# ARGUMENTS are those of python -m ecgtwin_jax.main; --multihost is added. The
# workdir must lie where every node sees it. Without --nodes the training
# starts right here, in the Slurm job that surrounds this script: that is what
# the submitted job does, and it serves in an salloc session too.
#
# Some minutes before the time limit every process gets SIGTERM, saves and ends
# with exit code 75; the job then goes back into the queue and continues.
set -euo pipefail

die() {
  echo "error: $*" >&2
  exit 2
}

# Prints a command as one would type it.
show() {
  local word line=
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word=${word@Q}
    line+="$word "
  done
  echo "${line% }"
}

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) ||
  die "bash $BASH_VERSION is too old: 4.4 or newer is needed"
nodes='' gpus='' time='' python=python dry_run='' flags=()
while (($#)); do
  case $1 in
    --nodes=*) nodes=${1#*=} ;;
    --gpus=*) gpus=${1#*=} ;;
    --time=*) time=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --sbatch=*) flags+=("${1#*=}") ;;
    --dry_run) dry_run=yes ;;
    --help) sed -n '/^# Trains/,/^set/{/^set/!s/^# \{0,1\}//p}' "$0" && exit ;;
    --) shift && break ;;
    *) die "unknown flag $1 (see --help; the training's own go after --)" ;;
  esac
  shift
done
[[ " $*" == *" --config"[=\ ]* ]] ||
  die "-- --config=FILE is missing (see --help)"
[[ " $*" == *" --workdir"[=\ ]* ]] ||
  die "-- --workdir=DIR is missing: a folder that every node sees"

# JAX takes the process's number on its node for the number of its GPU, so
# each process must see all of them.
train=(srun --label --kill-on-bad-exit=0 --wait=180 --gpu-bind=none
  "$python" -m ecgtwin_jax.main --multihost "$@")

if [[ -n $nodes ]]; then
  [[ $nodes =~ ^[1-9][0-9]*$ ]] || die "--nodes=$nodes must be at least 1"
  [[ $gpus =~ ^[1-9][0-9]*$ ]] || die "--gpus=$gpus must be at least 1"
  [[ -n $time ]] || die "--time=LIMIT is missing"
  submit=(sbatch --nodes="$nodes" --ntasks-per-node="$gpus"
    --gpus-per-node="$gpus" --time="$time" "${flags[@]}"
    "${BASH_SOURCE[0]}" --python="$python" -- "$@")
  [[ -n $dry_run ]] || exec "${submit[@]}"
  show "${submit[@]}"
fi
if [[ -n $dry_run ]]; then
  show "${train[@]}" # what the job does
  exit
fi

[[ -n ${SLURM_JOB_ID:-} ]] || die "--nodes=N is missing (see --help)"
# srun does not take this over from sbatch.
[[ -z ${SLURM_CPUS_PER_TASK:-} ]] ||
  export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
export TQDM_MININTERVAL=${TQDM_MININTERVAL:-30}

# Slurm itself sends SIGTERM to the processes on scancel and on preemption:
# stay, for they are saving. Before the time limit it sends SIGUSR1 to this
# shell alone. scancel reaches the processes and not this shell; SIGTERM to
# srun would kill them.
trap : TERM
trap 'scancel --signal=TERM "$SLURM_JOB_ID"' USR1
"${train[@]}" &
step=$!
# Not `wait`, which can miss a signal; and the signal may end the sleep too.
while kill -0 "$step" 2>/dev/null; do sleep 0.5 || true; done
code=0
wait "$step" || code=$?

# A job that was cancelled must not come back by itself.
state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) || true
if ((code == 75)) && [[ $state == *RUNNING* ]]; then
  echo "saved and stopped: back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

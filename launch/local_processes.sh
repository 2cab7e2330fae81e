#!/usr/bin/env bash
# Several processes on this machine, joined over loopback: a pod in small.
#
#   launch/local_processes.sh N -- COMMAND [ARGUMENTS]
#   launch/local_processes.sh 2 -- python -m ecgtwin_jax.main --multihost \
#     --config=configs/vae.py:smoke --workdir=runs/two
#
# Each process gets DEVICES (default 1) fake CPU devices and learns its place
# from the variables that Slurm sets, which jax.distributed.initialize() reads
# by itself: the code is that of a cluster. SIGTERM and Ctrl-C go to all as
# SIGTERM (save and stop), a second one as SIGKILL. When one process fails the
# others have GRACE (default 20) seconds to end. Exit code: the first one that
# is neither 0 nor 75, else 75 if any process gave it, else 0.
set -euo pipefail

die() {
  echo "error: $*" >&2
  exit 2
}

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) ||
  die "bash ${BASH_VERSION} is too old: 4.4 or newer is needed"
[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || die "N=${1:-} must be a number of processes" \
  "(usage: local_processes.sh N -- COMMAND)"
count=$1
[[ ${2:-} == -- && -n ${3:-} ]] || die "the command is missing" \
  "(usage: local_processes.sh N -- COMMAND)"
shift 2
devices=${DEVICES:-1} grace=${GRACE:-20}
[[ $devices =~ ^[1-9][0-9]*$ ]] || die "DEVICES=$devices must be at least 1"

free_port='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
port=$(python3 -c "$free_port")
# Python's universal newlines also end the lines of a progress bar.
add_number='import sys
sys.stdin.reconfigure(errors="replace", newline=None)
for line in sys.stdin: print(f"[{sys.argv[1]}] {line}", end="", flush=True)'

export JAX_PLATFORMS=cpu
fake=--xla_force_host_platform_device_count
export XLA_FLAGS="${XLA_FLAGS:-} $fake=$devices"
export JAX_COORDINATOR_ADDRESS=127.0.0.1:$port
export JAX_COORDINATOR_BIND_ADDRESS=127.0.0.1:$port
export SLURM_JOB_ID=1 SLURM_STEP_NODELIST=127.0.0.1 SLURM_NTASKS=$count
export TQDM_MININTERVAL=${TQDM_MININTERVAL:-5} # a line, not a moving bar
unset OMPI_MCA_orte_hnp_uri                    # jax would look there first

# Ctrl-C does not end these: the processes' last lines pass through them.
trap '' TERM INT
outs=() printers=()
for ((i = 0; i < count; i++)); do
  exec {out}> >(exec python3 -c "$add_number" "$i")
  outs[i]=$out printers[i]=$!
done

running=() signal=TERM asked=
tell() {
  kill "-$signal" "${running[@]}" 2>/dev/null || true
  signal=KILL
}
trap 'asked=yes' TERM INT # not all of them are running yet
# Whatever ends this script ends them, a closed pipe behind it for instance.
trap 'kill -KILL "${running[@]}" 2>/dev/null || true' EXIT
for ((i = 0; i < count; i++)); do
  out=${outs[i]}
  SLURM_PROCID=$i SLURM_LOCALID=$i "$@" >&"$out" 2>&1 {out}>&- &
  running[i]=$!
  exec {out}>&-
done
trap tell TERM INT
[[ -z $asked ]] || tell

worst=0 deadline=
while ((${#running[@]})); do
  for i in "${!running[@]}"; do
    kill -0 "${running[i]}" 2>/dev/null && continue
    code=0
    wait "${running[i]}" || code=$?
    unset "running[i]"
    ((code)) || continue
    echo "process $i ended with exit code $code" >&2
    if ((worst == 0 || worst == 75)); then worst=$code; fi
    # A process that saved and stopped (75) has peers that do the same.
    if ((code != 75)); then
      kill -TERM "${running[@]}" 2>/dev/null || true
    fi
    deadline=${deadline:-$((SECONDS + grace))}
  done
  if [[ -n $deadline ]] && ((SECONDS > deadline)); then
    kill -KILL "${running[@]}" 2>/dev/null || true
  fi
  sleep 0.1 || true # Ctrl-C ends it too
done
for printer in "${printers[@]}"; do wait "$printer" || true; done
exit "$worst"

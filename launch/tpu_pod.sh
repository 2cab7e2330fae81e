#!/usr/bin/env bash
# Trains on a slice of a TPU pod in Google Cloud.
#
#   launch/tpu_pod.sh COMMAND --name=NAME --zone=ZONE [options] [-- ARGUMENTS]
#
# Commands:
#   watch   everything: create, setup, start, and again after each preemption,
#           until the training ends with exit code 0
#   create  ask for the slice and wait for it; one that is there is reused
#   setup   copy the code to all workers and install it
#   start   start the training on all workers, detached
#   logs    follow the output of worker 0
#   status  state of the slice, and of the training on each worker
#   stop    save and stop the training (exit code 75); the slice stays
#   delete  delete the slice
#
# Options:
#   --name=NAME --zone=ZONE   of the slice
#   --project=ID              default: that of gcloud
#   --type=TYPE               such as v6e-16 (create, watch)
#   --runtime=VERSION         software of the VMs; default: by type
#   --spot                    cheaper, and taken away at any time
#   --create_flag=FLAG        handed on when creating, may be repeated
#   --repo=URL --commit=ID    code to clone; default: copy the working tree
#   --max_failures=N          watch gives up after so many in a row; default 3
#   --delete_when_done        watch deletes the slice once it ends
#   --poll=SECONDS            how often to look; default 60
#   --no_check                do not compile a step for the slice beforehand
#   --dry_run                 print the commands, run none
#
# ARGUMENTS are those of python -m ecgtwin_jax.main; --multihost is added, and
# gs://BUCKET/... becomes /gcs/BUCKET/..., where each worker mounts the bucket.
set -euo pipefail

die() {
  echo "error: $*" >&2
  exit 2
}
say() { echo "$(date +%H:%M:%S) $*" >&2; }

exec 3>&1 # where dry runs print, also from within $(...)
# Runs a command, or prints it as one would type it.
run() {
  [[ -n $dry_run ]] || { "$@" </dev/null 3>&-; return; }
  local word line=
  for word; do
    if [[ ! $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then
      word="'${word//\'/\'\\\'\'}'"
    fi
    line+="$word "
  done
  echo "${line% }" >&3
}
tpus() {
  run gcloud compute tpus "$@" --zone="$zone" ${project:+"--project=$project"} \
    --quiet
}
on() { tpus tpu-vm ssh "$name" --worker="$1" --command="$2"; }

# Prints the VMs' state once they exist (READY), else that of the request for
# them (WAITING_FOR_RESOURCES, SUSPENDED, ...), nothing where there is neither.
slice_state() {
  local state same="name~(^|/)$name\$"
  state=$(tpus queued-resources list --filter="$same" \
    --format='value(state.state)') || { echo UNKNOWN && return; }
  if [[ $state == ACTIVE ]]; then
    state=$(tpus tpu-vm list --filter="$same" --format='value(state)') ||
      { echo UNKNOWN && return; }
    state=${state:-GONE}
  fi
  echo "${state:-$dry_state}"
}

# Compiles the training's step for the slice on this machine, before there is
# one: that it does not fit is known without a chip.
check() {
  [[ -z $checked && ${#train[@]} -gt 0 ]] || return 0
  checked=yes
  local here slice=${type/v5litepod/v5e}
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  local known='import sys, libtpu
from ecgtwin_jax.jobs import compile_for
compile_for.parse_slice(sys.argv[1])'
  [[ -n $dry_run ]] ||
    (cd "$here" && python3 -c "$known" "$slice" >/dev/null 2>&1) || {
    say "not checked whether a step fits $slice: it needs a slice that" \
      "--compile_for knows, and here pip install 'ecgtwin_jax[tpu]'"
    return 0
  }
  say "compiling a step for $slice, for minutes; --no_check leaves it out"
  run env "--chdir=$here" JAX_PLATFORMS=cpu python3 -m ecgtwin_jax.main \
    "${train[@]}" "--compile_for=$slice" >&2 ||
    die "a step for $slice does not compile or fit: nothing was asked for"
}

create() {
  [[ -n $type ]] || die "--type=TYPE is missing"
  case $type in
    v6e-*) : "${runtime:=v2-alpha-tpuv6e}" ;;
    v5p-*) : "${runtime:=v2-alpha-tpuv5}" ;;
    v5litepod-*) : "${runtime:=v2-alpha-tpuv5-lite}" ;;
    v[234]-*) : "${runtime:=tpu-ubuntu2204-base}" ;;
  esac
  [[ -n $runtime ]] || die "--type=$type is unknown here: add --runtime=VERSION"
  local state before=none
  while state=$(slice_state) && [[ $state != READY ]]; do
    [[ $state == "$before" ]] || say "slice $name: ${state:-absent}"
    before=$state
    case $state in
      '')
        check
        tpus queued-resources create "$name" --node-id="$name" \
          --accelerator-type="$type" --runtime-version="$runtime" \
          "${create_flags[@]}"
        [[ -z $dry_run ]] || dry_state=READY
        ;;
      FAILED) die "the request failed; why: gcloud compute tpus" \
        "queued-resources describe $name --zone=$zone" ;;
      GONE | SUSPENDED | PREEMPTED | TERMINATED | STOPPED)
        delete || sleep "$poll"
        ;;
      *) sleep "$poll" ;;
    esac
  done
}

# Copies or clones the code and installs it. The VMs come with an older Python
# than the package needs; uv brings one.
setup() {
  local get
  if [[ -n $repo ]]; then
    get="git clone --quiet ${repo@Q} ecgtwin_jax &&
  git -C ecgtwin_jax checkout --quiet ${commit@Q}"
  else
    pack && tpus tpu-vm scp "$archive" "$name:ecgtwin_jax.tgz" --worker=all ||
      return
    get='mkdir ecgtwin_jax && tar -xzf ecgtwin_jax.tgz -C ecgtwin_jax'
  fi
  on all "rm -rf ecgtwin_jax && $get &&
  cd ecgtwin_jax && python3 -m pip install --quiet --user uv &&
  python3 -m uv venv --quiet --python=3.12 .venv &&
  python3 -m uv pip install --quiet --python=.venv/bin/python -e '.[tpu]'"
}

# Packs the working tree, once: later edits must not reach a run that resumes.
pack() {
  [[ -z $archive ]] || return 0
  local here
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  archive=${TMPDIR:-/tmp}/$name.tgz
  run bash -o pipefail -c "cd ${here@Q} &&
  git ls-files -z --cached --others --exclude-standard |
  tar --null --files-from=- -czf ${archive@Q}"
}

# On a worker: true while the training's processes live.
alive="[ ! -e ecgtwin_run/exit_code ] &&
  kill -0 -- \"-\$(cat ecgtwin_run/pid 2>/dev/null)\" 2>/dev/null"

# On a worker: gcsfuse where it is missing, and one bucket mounted.
mount_command() {
  local key=/usr/share/keyrings/cloud.google.asc
  local site=https://packages.cloud.google.com/apt
  echo "{ command -v gcsfuse >/dev/null || {
    curl -fsSL $site/doc/apt-key.gpg | sudo tee $key >/dev/null &&
    echo \"deb [signed-by=$key] $site gcsfuse-\$(lsb_release -cs) main\" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null &&
    sudo apt-get -q -o DPkg::Lock::Timeout=600 update &&
    sudo apt-get -q -y -o DPkg::Lock::Timeout=600 install gcsfuse; }; } &&
  { mountpoint -q /gcs/$1 || {
    sudo mkdir -p /gcs/$1 && sudo chown \"\$(id -un)\" /gcs/$1 &&
    gcsfuse --implicit-dirs --rename-dir-limit=100000 $1 /gcs/$1; }; } &&
  "
}

start() {
  [[ " ${train[*]}" == *" --config="* ]] || die "-- --config=FILE is missing"
  [[ " ${train[*]}" == *" --workdir=gs://"?* ]] || die "-- --workdir=gs://" \
    "BUCKET/... is missing: the disks of the workers go with the slice"
  local word words='' mounts='' buckets=' ' cache=''
  for word in "${train[@]}"; do
    if [[ $word =~ gs://([a-z0-9._-]+) ]]; then
      word=${word//gs:\/\//\/gcs\/}
      [[ $buckets == *" ${BASH_REMATCH[1]} "* ]] ||
        mounts+=$(mount_command "${BASH_REMATCH[1]}")
      buckets+="${BASH_REMATCH[1]} "
    fi
    [[ $word != --workdir=* ]] || cache=$(dirname "${word#*=}")/jax_cache
    words+=" ${word@Q}"
  done
  # The shell around the training outlives SIGTERM, to note the exit code.
  # shellcheck disable=SC2016
  local keep='trap : TERM; "$@"; echo $? >../ecgtwin_run/exit_code'
  on all "${mounts}mkdir -p ecgtwin_run &&
  if $alive; then
    echo 'a training is going on here' >&2
    exit 1
  fi && rm -f ecgtwin_run/exit_code && cd ecgtwin_jax && {
    JAX_COMPILATION_CACHE_DIR=${cache@Q} TQDM_MININTERVAL=30 \\
      setsid sh -c ${keep@Q} sh \\
      .venv/bin/python -m ecgtwin_jax.main --multihost$words \\
      </dev/null >>../ecgtwin_run/log 2>&1 &
    echo \$! >../ecgtwin_run/pid
  }"
}

logs() {
  on 0 "tail -n 100 --pid=\"\$(cat ecgtwin_run/pid)\" -F ecgtwin_run/log"
}

# Prints the exit code, "running", or "none" where there is neither.
ask() {
  on "$1" "cat ecgtwin_run/exit_code 2>/dev/null ||
  { $alive && echo running; } || echo none"
}

signal_all() {
  on all "kill -$1 -- \"-\$(cat ecgtwin_run/pid 2>/dev/null)\" 2>/dev/null ||
  echo 'nothing is running here'"
}

stop() { signal_all TERM; }
delete() { tpus queued-resources delete "$name" --force; }
status() {
  echo "slice $name: $(slice_state)"
  ask all
}

# Waits for the end of the training on worker 0 and prints its exit code, or
# "lost" where the slice or the process went away without one.
follow() {
  local answer
  while sleep "$poll"; do
    if answer=$(ask 0); then
      [[ -z $dry_run ]] || answer=0
      case $answer in
        running) ;;
        none) echo lost && return ;;
        *) echo "$answer" && return ;;
      esac
    elif [[ $(slice_state) != @(READY|UNKNOWN) ]]; then
      echo lost && return
    fi
  done
}

watch() {
  local failures=0 end answer
  while true; do
    create
    end=
    answer=$(ask 0) || answer=unknown
    if [[ $answer != @(running|unknown) ]]; then
      # Processes that outlived a failed one would hold the devices.
      { signal_all KILL && setup && start; } || end='not started'
    fi
    end=${end:-$(follow)}
    say "the training on $name: $end"
    case $end in
      0) break ;;
      75) failures=0 ;; # saved and stopped
      lost) ;;
      *)
        # Processes also crash when other workers are taken away.
        sleep "$poll"
        [[ $(slice_state) != READY ]] || failures=$((failures + 1))
        ((failures < max_failures)) || break
        ;;
    esac
  done
  [[ -z $delete_when_done ]] || delete
  [[ $end =~ ^[0-9]+$ ]] || end=1
  exit "$end"
}

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) ||
  die "bash $BASH_VERSION is too old: 4.4 or newer is needed"
name='' zone='' project='' type='' runtime='' repo='' commit='' dry_run=''
dry_state='' archive='' checked='' delete_when_done='' max_failures=3 poll=60
create_flags=() train=()
command=${1:---help}
case $command in
  --help) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0" && exit ;;
  watch | create | setup | start | logs | status | stop | delete) shift ;;
  *) die "unknown command $command (see --help)" ;;
esac
while (($#)); do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --runtime=*) runtime=${1#*=} ;;
    --spot) create_flags+=(--spot) ;;
    --create_flag=*) create_flags+=("${1#*=}") ;;
    --repo=*) repo=${1#*=} ;;
    --commit=*) commit=${1#*=} ;;
    --max_failures=*) max_failures=${1#*=} ;;
    --delete_when_done) delete_when_done=yes ;;
    --poll=*) poll=${1#*=} ;;
    --no_check) checked=yes ;;
    --dry_run) dry_run=yes poll=0 ;;
    --) shift && train=("$@") && break ;;
    *) die "unknown flag $1 (see --help; the training's own go after --)" ;;
  esac
  shift
done
[[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] ||
  die "--name=$name must be lower-case letters, digits and hyphens"
[[ -n $zone ]] || die "--zone=ZONE is missing"
[[ -z $repo || -n $commit ]] || die "--repo=$repo needs --commit=ID"
[[ -n $dry_run ]] || type -P gcloud >/dev/null ||
  die "gcloud is missing: https://cloud.google.com/sdk/docs/install"
"$command"

#!/usr/bin/env bash
# Called by launch.sh on each machine of a TPU. Runs `python -m jax_ssl ARGUMENTS` so that it does not end with the
# connection, shows its output, and ends with the line "jax_ssl exit code N". Called again while it runs, it shows the
# output of the same run.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .worker
command="$(printf '%q ' "$@")"

exec 9>.worker/lock  # the run holds this lock until it ends
# A run that has written its exit code is over, and will release the lock in a moment.
if flock -n 9 || { [ -e .worker/code ] && flock -w 10 9; }; then
  rm -f .worker/code
  [ ! -e .worker/log ] || mv .worker/log .worker/log.before
  : >.worker/log  # made now, so that `tail` below finds it before the program begins
  echo "$command" >.worker/command
  # The trap keeps this shell alive when the signal stops Python, so that it can write Python's exit code.
  setsid bash -c 'trap : TERM; .venv/bin/python -m jax_ssl "$@"; echo $? >.worker/code' worker "$@" \
    >>.worker/log 2>&1 </dev/null &
  echo $! >.worker/pid
elif [ "$command" != "$(cat .worker/command)" ]; then
  echo "worker.sh: this machine is busy with: $(cat .worker/command) (stop.sh ends it)"
  echo "jax_ssl exit code 2"
  exit 2
fi
exec 9>&-

tail -n 50 -f --pid="$(cat .worker/pid)" .worker/log
code="$(cat .worker/code 2>/dev/null || echo 137)"  # no exit code: it was killed by SIGKILL
echo "jax_ssl exit code $code"
exit "$code"

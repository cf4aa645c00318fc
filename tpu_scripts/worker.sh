#!/usr/bin/env bash
# On each machine of a TPU, called by launch.sh: runs `python -m jax_ssl ARGUMENTS` so that it outlives the connection,
# shows what it says, and ends with the line "jax_ssl exit code N". Called again while it runs, it shows it again.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .worker
command="$(printf '%q ' "$@")"

exec 9>.worker/lock  # held by the run, for as long as it lives
# A run that has written its code down is over, and lets go of the lock in a moment.
if flock -n 9 || { [ -e .worker/code ] && flock -w 10 9; }; then
  rm -f .worker/code
  [ ! -e .worker/log ] || mv .worker/log .worker/log.before
  : >.worker/log  # now, so that it is there to be shown before the program begins
  echo "$command" >.worker/command
  # The trap keeps this shell alive under the signal that stops Python, so that it can write down how that ended.
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
code="$(cat .worker/code 2>/dev/null || echo 137)"  # no code: it was killed outright
echo "jax_ssl exit code $code"
exit "$code"

#!/usr/bin/env bash
# Runs one command on all machines of a Cloud TPU and shows their output; a run goes on from its last checkpoint.
#
#   tpu_scripts/launch.sh --tpu=NAME --zone=ZONE [--bucket=gs://B] [--project=ID] [--dry-run] \
#       [--until-done --type=TYPE [--spot] [--slices=N] [--runtime=NAME] [--attempts=20] [--poll=SECONDS]] \
#       -- train --config=configs/simclr.py --config.data.name=tfds:imagenet2012
#
# The command keeps running when this script or the connection ends: repeat the line to see its output again; stop.sh
# ends it. With --until-done the same command is started again until the run is done. A TPU that is missing or was taken
# back is deleted, created again and set up. A run with exit code 2 (your mistake), 3 (the data) or 4 (the run) is not
# repeated; after any other failure it is, --attempts times.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
attempts=20 failures=0
parse "--tpu= --zone= --project= --type= --runtime= --slices= --spot --bucket= --poll= --until-done --attempts=" "$@"
require tpu zone
[ -z "$until_done" ] || require type
[[ $attempts =~ ^[1-9][0-9]*$ ]] || fail "--attempts=$attempts is not a whole number of at least 1."
[ ${#arguments[@]} -gt 0 ] || fail "give the command after --, for example: -- train --config=configs/simclr.py"

if [ "${arguments[0]}" = train ]; then
  if [[ " ${arguments[*]}" != *" --workdir"* ]] && [ -n "$bucket" ]; then
    name="$(printf '%s\n' "${arguments[@]}" | sed -n 's|^--config=\(.*/\)\{0,1\}||p' | sed 's/\.py//; s/:/_/')"
    arguments+=("--workdir=${bucket%/}/runs/${name:?train needs --config=NAME}")
  fi
  [[ -z $until_done || " ${arguments[*]}" == *" --workdir"* ]] ||
    fail "a TPU that is created again has an empty disk: give --bucket=gs://..., or --workdir= to train."
  arguments+=(--stopped-exit=75)  # so that a run that was stopped and saved differs from one that is done
fi
ready="test -e jax_ssl/.worker/ready || { echo jax_ssl exit code 127: run setup.sh first; exit 127; }"
start=(gcloud compute tpus queued-resources ssh "$tpu" "${all_machines[@]}"
  --command="$ready; jax_ssl/tpu_scripts/worker.sh$(printf ' %q' "${arguments[@]}")")

if [ -z "$until_done" ]; then run "${start[@]}"; exit; fi
if [ -n "$dry_run" ]; then
  describe show
  machines show 'value(state)'
  echo "# if that says FAILED, SUSPENDED or PREEMPTED:"
  "$here/delete.sh" --dry-run
  echo "# after that, or if there is no such TPU:"
  "$here/create.sh" --dry-run
  "$here/setup.sh" --dry-run
  echo "# then this, and all of it again until the run is done:"
  show "${start[@]}"
  exit
fi

# Counts a failure that may not happen again, and waits; ends the script after --attempts of them.
count_failure() {
  failures=$((failures + 1))
  say "$*; failure $failures of $attempts"
  if [ "$failures" -ge "$attempts" ]; then
    say "too many failures; the same line goes on from the last checkpoint."
    exit 1
  fi
  sleep "$poll"
}

# Makes sure that the TPU is ACTIVE, and installs the software if it is new.
make_ready() {
  local new=''
  until wait_active; do
    case "$state" in
      FAILED | SUSPENDED | PREEMPTED)
        "$here/delete.sh" || { count_failure "$tpu could not be deleted"; continue; }
        [ "$state" != FAILED ] || count_failure "$tpu could not be created" ;;
      ABSENT) ;;
      *) count_failure "gcloud could not tell the state of $tpu"; continue ;;
    esac
    new=1
    "$here/create.sh" --no-wait || count_failure "$tpu could not be requested"
  done
  if [ -n "$new" ]; then "$here/setup.sh" || count_failure "the software could not be installed"; fi
}

said="$(mktemp)"
trap 'rm -f "$said"' EXIT
while :; do
  make_ready
  # gcloud's own exit code mixes those of all machines; each machine prints its own.
  "${start[@]}" 2>&1 | tee "$said" || true
  codes=" $(sed -n 's/.*jax_ssl exit code \([0-9][0-9]*\).*/\1/p' "$said" | sort -nu | tr '\n' ' ')"
  case "$codes" in
    *" 2 "*) say "not started again: the command is wrong, see its message above (exit code 2)."; exit 2 ;;
    *" 3 "*) say "not started again: too much of the data is broken (exit code 3)."; exit 3 ;;
    " 4 ") say "not started again: the run went wrong, see its message above (exit code 4)."; exit 4 ;;
    " 0 ") say "done. The TPU still exists: delete.sh deletes it."; exit ;;
    *" 75 "*) say "stopped and saved; it goes on." ;;
    *" 127 "*) "$here/setup.sh" || count_failure "the software could not be installed" ;;
    *) read_state && [ "$state" != ACTIVE ] || count_failure "the run ended with exit code${codes:- }"
  esac
done

#!/usr/bin/env bash
# Runs one command on all machines of a Cloud TPU and shows what they say; a run goes on from its last checkpoint.
#
#   tpu_scripts/launch.sh --tpu=NAME --zone=ZONE [--bucket=gs://B] [--project=ID] [--dry-run] \
#       [--until-done --type=TYPE [--spot] [--slices=N] [--runtime=NAME] [--attempts=20] [--poll=SECONDS]] \
#       -- train --config=configs/simclr.py --config.data.name=tfds:imagenet2012
#
# The command lives on when this script or the connection ends: repeat the line to watch it again, stop.sh ends it.
# With --until-done the same command is started again until the run is done. A TPU that is absent or was taken away is
# deleted, asked for again and set up; a run that says 2 (your mistake), 3 (the data) or 4 (the run) is not repeated;
# anything else is, --attempts times.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
attempts=20 failures=0
parse "--tpu= --zone= --project= --type= --runtime= --slices= --spot --bucket= --poll= --until-done --attempts=" "$@"
need tpu zone
[ -z "$until_done" ] || need type
[[ $attempts =~ ^[1-9][0-9]*$ ]] || fail "--attempts=$attempts is no whole number from 1."
[ ${#rest[@]} -gt 0 ] || fail "give the command after --, for example: -- train --config=configs/simclr.py"

if [ "${rest[0]}" = train ]; then
  if [[ " ${rest[*]}" != *" --workdir"* ]] && [ -n "$bucket" ]; then
    name="$(printf '%s\n' "${rest[@]}" | sed -n 's|^--config=\(.*/\)\{0,1\}||p' | sed 's/\.py//; s/:/_/')"
    rest+=("--workdir=${bucket%/}/runs/${name:?train needs --config=NAME}")
  fi
  [[ -z $until_done || " ${rest[*]}" == *" --workdir"* ]] ||
    fail "a TPU that is asked for again has an empty disk: give --bucket=gs://..., or --workdir= to train."
  rest+=(--stopped-exit=75)  # so that a run that was stopped and saved does not look like one that is done
fi
ready="test -e jax_ssl/.worker/ready || { echo jax_ssl exit code 127: run setup.sh first; exit 127; }"
start=(gcloud compute tpus queued-resources ssh "$tpu" "${everywhere[@]}"
  --command="$ready; jax_ssl/tpu_scripts/worker.sh$(printf ' %q' "${rest[@]}")")

if [ -z "$until_done" ]; then run "${start[@]}"; exit; fi
if [ -n "$dry_run" ]; then
  describe show
  machines show 'value(state)'
  echo "# if that says FAILED, SUSPENDED or PREEMPTED:"
  "$here/delete.sh" --dry-run
  echo "# if it was so, or there was none:"
  "$here/create.sh" --dry-run
  "$here/setup.sh" --dry-run
  echo "# then, and all over again until the run is done:"
  show "${start[@]}"
  exit
fi

# One more thing that went wrong by itself; too many, and it is given up.
failed() {
  failures=$((failures + 1))
  say "$*; failure $failures of $attempts"
  if [ "$failures" -ge "$attempts" ]; then say "given up; the same line goes on from the last checkpoint."; exit 1; fi
  sleep "$poll"
}

# A TPU that is ACTIVE, and has the software if it is a new one.
make_ready() {
  local new=''
  until wait_active; do
    case "$state" in
      FAILED | SUSPENDED | PREEMPTED)
        "$here/delete.sh" || { failed "$tpu could not be deleted"; continue; }
        [ "$state" != FAILED ] || failed "$tpu could not be had" ;;
      ABSENT) ;;
      *) failed "gcloud could not say how $tpu stands"; continue ;;
    esac
    new=1
    "$here/create.sh" --no-wait || failed "$tpu could not be asked for"
  done
  if [ -n "$new" ]; then "$here/setup.sh" || failed "the software could not be installed"; fi
}

said="$(mktemp)"
trap 'rm -f "$said"' EXIT
while :; do
  make_ready
  # gcloud's own status mixes up machines; each of them says its own.
  "${start[@]}" 2>&1 | tee "$said" || true
  codes=" $(sed -n 's/.*jax_ssl exit code \([0-9][0-9]*\).*/\1/p' "$said" | sort -nu | tr '\n' ' ')"
  case "$codes" in
    *" 2 "*) say "not started again: the command is wrong, see its sentence above (exit code 2)."; exit 2 ;;
    *" 3 "*) say "not started again: too much of the data is broken (exit code 3)."; exit 3 ;;
    " 4 ") say "not started again: the run went wrong, see its sentence above (exit code 4)."; exit 4 ;;
    " 0 ") say "done. The TPU stays until delete.sh."; exit ;;
    *" 75 "*) say "stopped and saved; it goes on." ;;
    *" 127 "*) "$here/setup.sh" || failed "the software could not be installed" ;;
    *) look && [ "$state" != ACTIVE ] || failed "the run ended with exit code${codes:- }"
  esac
done

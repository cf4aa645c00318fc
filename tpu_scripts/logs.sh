#!/usr/bin/env bash
# Shows the last lines of the log of one machine of a Cloud TPU; with --follow also all new ones.
#
#   tpu_scripts/logs.sh --tpu=NAME --zone=ZONE [--follow] [--lines=100] [--node=0] [--worker=0] [--project=ID]
#                       [--dry-run]
#
# Machine 0 of slice (node) 0 writes the metrics; the others write only errors: --worker=all shows all of them.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
lines=100 node=0 worker=0
parse "--tpu= --zone= --project= --lines= --node= --worker= --follow" "$@"
require tpu zone
[[ $lines =~ ^[0-9]+$ ]] || fail "--lines=$lines is no whole number."

run gcloud compute tpus queued-resources ssh "$tpu" "${location[@]}" --node="$node" --worker="$worker" \
  --batch-size=all ${ssh_flags[@]+"${ssh_flags[@]}"} --command="tail -n $lines ${follow:+-F }jax_ssl/.worker/log"

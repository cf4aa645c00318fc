#!/usr/bin/env bash
# Tells the run on a Cloud TPU to save and to end; the machines stay. A launch.sh --until-done would start it again:
# end that one first.
#
#   tpu_scripts/stop.sh --tpu=NAME --zone=ZONE [--project=ID] [--dry-run]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
parse "--tpu= --zone= --project=" "$@"
require tpu zone

# shellcheck disable=SC2016  # each machine reads its own pid file; the minus signals the whole process group
signal='kill -TERM -- -$(cat jax_ssl/.worker/pid)'
run gcloud compute tpus queued-resources ssh "$tpu" "${all_machines[@]}" --command="$signal"

#!/usr/bin/env bash
# Deletes a Cloud TPU: its machines with their disks, and its queued resource. Does not ask for confirmation.
#
#   tpu_scripts/delete.sh --tpu=NAME --zone=ZONE [--project=ID] [--dry-run]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
parse "--tpu= --zone= --project=" "$@"
require tpu zone

run gcloud compute tpus queued-resources delete "$tpu" "${location[@]}" --force

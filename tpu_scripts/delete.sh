#!/usr/bin/env bash
# Gives a Cloud TPU back: its machines with their disks, and its place in the queue. Asks nothing.
#
#   tpu_scripts/delete.sh --tpu=NAME --zone=ZONE [--project=ID] [--dry-run]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
parse "--tpu= --zone= --project=" "$@"
need tpu zone

run gcloud compute tpus queued-resources delete "$tpu" "${where[@]}" --force

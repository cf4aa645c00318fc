#!/usr/bin/env bash
# Shows the state of a Cloud TPU: of the queued resource, and of each of its machines.
#
#   tpu_scripts/status.sh --tpu=NAME --zone=ZONE [--project=ID] [--dry-run]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
parse "--tpu= --zone= --project=" "$@"
require tpu zone

describe run
machines run 'table(name.basename(),acceleratorType,state,health)'

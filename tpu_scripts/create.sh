#!/usr/bin/env bash
# Creates a Cloud TPU, as a queued resource, and waits until it is ready.
#
#   tpu_scripts/create.sh --tpu=NAME --zone=ZONE --type=v5litepod-16 [--spot] [--slices=2] [--project=ID] [--no-wait]
#                         [--runtime=NAME] [--poll=SECONDS] [--dry-run]
#
# The same can be set in the environment: see common.sh. TPU7x exists on GKE only: see jobset.yaml.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
parse "--tpu= --zone= --project= --type= --runtime= --slices= --spot --no-wait --poll=" "$@"
require tpu zone type

if [ -z "$runtime" ]; then
  # docs.cloud.google.com/tpu/docs/runtimes, as of November 2026
  case "$type" in
    v2-* | v3-* | v4-*) runtime="tpu-ubuntu2204-base" ;;
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *) fail "no runtime is known for --type=$type: give --runtime=NAME, or a type such as v6e-8." ;;
  esac
fi
nodes=(--node-id="$tpu")
[ "$slices" = 1 ] || nodes=(--node-count="$slices" --node-prefix="$tpu")
read -ra more <<<"${TPU_CREATE_FLAGS:-}"
run gcloud compute tpus queued-resources create "$tpu" "${location[@]}" --accelerator-type="$type" \
  --runtime-version="$runtime" "${nodes[@]}" ${spot:+--spot} ${more[@]+"${more[@]}"}

if [ -n "$no_wait" ]; then exit; fi
if [ -n "$dry_run" ]; then describe show; exit; fi
wait_active || { say "$tpu could not be created; status.sh says more, delete.sh removes it."; exit 1; }

#!/usr/bin/env bash
# Copies this checkout to every worker of a Cloud TPU and installs it there with the [tpu] extra.
#
#   tpu_scripts/setup.sh --tpu=NAME --zone=ZONE [--project=ID] [--dry-run]
set -euo pipefail

tpu="${TPU_NAME:-}" zone="${TPU_ZONE:-}" project="${TPU_PROJECT:-}" dry=
for flag in "$@"; do
  case "$flag" in
    --tpu=*) tpu="${flag#*=}" ;;
    --zone=*) zone="${flag#*=}" ;;
    --project=*) project="${flag#*=}" ;;
    --dry-run) dry=1 ;;
    *) echo "setup.sh: unknown flag $flag" >&2; exit 2 ;;
  esac
done
[ -n "$tpu" ] && [ -n "$zone" ] || { echo "setup.sh: give --tpu and --zone, or set TPU_NAME and TPU_ZONE" >&2; exit 2; }

root="$(cd "$(dirname "$0")/.." && pwd)"
where=(--zone="$zone" ${project:+--project="$project"} --worker=all)
install="cd $(basename "$root") && python3 -m venv .venv && .venv/bin/pip install -q -e '.[tpu]'"
run() { if [ -n "$dry" ]; then printf '%q ' "$@"; echo; else "$@"; fi; }
run gcloud compute tpus tpu-vm scp --recurse "$root" "$tpu:" "${where[@]}"
run gcloud compute tpus tpu-vm ssh "$tpu" "${where[@]}" --command="$install"

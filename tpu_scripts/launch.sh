#!/usr/bin/env bash
# Runs one training command on every worker of a Cloud TPU; repeating it goes on from the last checkpoint.
#
#   tpu_scripts/launch.sh --tpu=NAME --zone=ZONE [--project=ID] [--dry-run] -- train --config=simclr --workdir=gs://...
set -euo pipefail

tpu="${TPU_NAME:-}" zone="${TPU_ZONE:-}" project="${TPU_PROJECT:-}" dry=
while [ $# -gt 0 ]; do
  case "$1" in
    --tpu=*) tpu="${1#*=}" ;;
    --zone=*) zone="${1#*=}" ;;
    --project=*) project="${1#*=}" ;;
    --dry-run) dry=1 ;;
    --) shift; break ;;
    *) echo "launch.sh: unknown flag $1" >&2; exit 2 ;;
  esac
  shift
done
[ -n "$tpu" ] && [ -n "$zone" ] || { echo "launch.sh: give --tpu and --zone, or set TPU_NAME and TPU_ZONE" >&2; exit 2; }
[ $# -gt 0 ] || { echo "launch.sh: give the command after --, for example: -- train --config=simclr:paper" >&2; exit 2; }

folder="$(basename "$(cd "$(dirname "$0")/.." && pwd)")"
arguments="$(printf '%q ' "$@")"
command=(gcloud compute tpus tpu-vm ssh "$tpu" --zone="$zone" ${project:+--project="$project"} --worker=all
  --command="cd $folder && .venv/bin/python -m jax_ssl $arguments")
if [ -n "$dry" ]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi

#!/usr/bin/env bash
# Copies this checkout to every machine of a Cloud TPU and installs it there with the [tpu] extra.
#
#   tpu_scripts/setup.sh --tpu=NAME --zone=ZONE [--project=ID] [--dry-run]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
parse "--tpu= --zone= --project=" "$@"
require tpu zone

folder="${TMPDIR:-/tmp}"
if [ -z "$dry_run" ]; then folder="$(mktemp -d)"; trap 'rm -rf "$folder"' EXIT; fi
archive="$folder/jax_ssl.tar.gz"
# The machines' own Python is 3.10; uv installs a newer one. launch.sh looks for the file `ready`.
install="mkdir -p jax_ssl/.worker && tar -xzf jax_ssl.tar.gz -C jax_ssl && cd jax_ssl && rm -f .worker/ready \
&& python3 -m pip install -q --user uv && { [ -d .venv ] || python3 -m uv venv -q --python=3.12 .venv; } \
&& python3 -m uv pip install -q -e .[tpu] && touch .worker/ready"

run tar -czf "$archive" --exclude=./.git --exclude=./.venv --exclude=./.worker --exclude=./runs -C "$here/.." .
run gcloud compute tpus queued-resources scp "$archive" "$tpu:jax_ssl.tar.gz" "${all_machines[@]}"
run gcloud compute tpus queued-resources ssh "$tpu" "${all_machines[@]}" --command="$install"

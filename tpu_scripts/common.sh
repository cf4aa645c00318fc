# shellcheck shell=bash disable=SC2034  # what is set here is read by the scripts that source it
# What the scripts of this folder share. A flag can also be set in the environment, for all scripts at once:
#
#   --tpu=NAME        TPU_NAME     the queued resource, and the machines in it
#   --zone=ZONE       TPU_ZONE
#   --project=ID      TPU_PROJECT  default: gcloud's own
#   --type=TYPE       TPU_TYPE     v5litepod-16, v6e-8: chips; v3-32, v4-32, v5p-32: cores, as Google counts them
#   --runtime=NAME    TPU_RUNTIME  what is installed on the machines; default: what Google names for the type
#   --slices=N        TPU_SLICES   default 1; more are joined over the data-centre network
#   --spot            TPU_SPOT=1   cheaper, but Google may take it back at any time
#   --bucket=gs://B   TPU_BUCKET   runs without a --workdir are saved in B/runs
#   --poll=SECONDS    TPU_POLL     between two checks of the state; default 30
#   --dry-run                      print the commands, run none
#
# TPU_CREATE_FLAGS and TPU_SSH_FLAGS are more flags for gcloud, such as "--network=mine --internal-ips" and
# "--tunnel-through-iap". gcloud handles the login: these scripts ask for and store no secret.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
tpu="${TPU_NAME:-}" zone="${TPU_ZONE:-}" project="${TPU_PROJECT:-}" type="${TPU_TYPE:-}" runtime="${TPU_RUNTIME:-}"
slices="${TPU_SLICES:-1}" spot="${TPU_SPOT:-}" bucket="${TPU_BUCKET:-}" poll="${TPU_POLL:-30}"
dry_run='' no_wait='' until_done='' follow='' arguments=()

say() { echo "$(basename "$0"): $*" >&2; }
fail() { say "$*"; exit 2; }

# Sets a variable for each flag. $1: the flags of the script, with a = after those that have a value. Arguments after
# -- go to `arguments`.
parse() {
  local known=" $1 --dry-run --help " flag name
  shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    flag="$1" name="${1%%=*}"
    shift
    if [ "$flag" = --help ]; then sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0; fi
    if [[ $known == *" $name= "* ]]; then
      [[ $flag == *=?* ]] || fail "$name needs a value: $name=VALUE."
      name="${name#--}"; printf -v "${name//-/_}" %s "${flag#*=}"
    elif [[ $known == *" $flag "* ]]; then
      name="${name#--}"; printf -v "${name//-/_}" 1
    else
      fail "there is no flag $flag; there are:${known% }."
    fi
  done
  if [ $# -gt 0 ]; then shift; arguments=("$@"); fi
  check_values
  # For scripts that are called by this one.
  export TPU_NAME="$tpu" TPU_ZONE="$zone" TPU_PROJECT="$project" TPU_TYPE="$type" TPU_RUNTIME="$runtime"
  export TPU_SLICES="$slices" TPU_SPOT="$spot" TPU_POLL="$poll"
  read -ra ssh_flags <<<"${TPU_SSH_FLAGS:-}"
  location=(--zone="$zone" ${project:+--project="$project"} --quiet)
  # By default gcloud connects to 64 machines at a time, and the first 64 would wait for the others for ever.
  all_machines=("${location[@]}" --node=all --worker=all --batch-size=all ${ssh_flags[@]+"${ssh_flags[@]}"})
}

check_values() {
  [[ $slices =~ ^[1-9][0-9]*$ ]] || fail "--slices=$slices is not a whole number of at least 1."
  [[ $poll =~ ^[0-9]+([.][0-9]+)?$ ]] || fail "--poll=$poll is not a number of seconds."
  [[ -z $bucket || $bucket == gs://?* ]] || fail "--bucket=$bucket does not begin with gs://."
  [[ -z $tpu || $tpu =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || fail "--tpu=$tpu: a name has a-z, 0-9 and - only."
  type="${type/#v5e-/v5litepod-}"  # the name that people use
}

# require NAME...: each of these flags has a value.
require() {
  local name variable
  for name in "$@"; do
    variable="TPU_$(tr '[:lower:]' '[:upper:]' <<<"$name")"
    [ -n "${!name}" ] || fail "give --$name=VALUE, or set ${variable/TPU_TPU/TPU_NAME}."
  done
}

# Prints a command so that it can be pasted.
show() {
  local word line='' quote="'" escaped="'\\''"
  for word in "$@"; do
    [[ $word =~ ^[-[:alnum:]_./:=@,+%]+$ ]] || word=\'${word//$quote/"$escaped"}\'
    line+="$word "
  done
  echo "${line% }"
}

run() { if [ -n "$dry_run" ]; then show "$@"; else "$@"; fi; }

# The commands that ask for its state. $1: run, show or command.
describe() { "$1" gcloud compute tpus queued-resources describe "$tpu" "${location[@]}" --format='value(state.state)'; }
machines() {
  "$1" gcloud compute tpus tpu-vm list "${location[@]}" --filter="name~\"/$tpu(-[0-9]+)?\$\"" --format="$2"
}

# Sets `state`: ABSENT, or Google's name, or PREEMPTED if it is ACTIVE but one of its machines is gone.
read_state() {
  local gone
  if ! state="$(describe command 2>&1)"; then
    [[ $state == *NOT_FOUND* ]] || { say "$state"; return 1; }
    state=ABSENT
  fi
  state="$(sed -n '/^[A-Z][A-Z_]*$/p' <<<"$state" | tail -n 1)"  # without gcloud's own messages
  [ "$state" = ACTIVE ] || return 0
  gone="$(machines command 'value(state)')" || return 1
  [[ ! $gone =~ PREEMPTED|TERMINATED|STOPPED ]] || state=PREEMPTED
}

# Waits while Google is still creating or deleting it; false if it is then not ACTIVE.
wait_active() {
  local before=''
  while :; do
    read_state || return 1
    [ "$state" = "$before" ] || say "$tpu is $state"
    before="$state"
    case "$state" in
      ACTIVE) return 0 ;;
      ABSENT | FAILED | SUSPENDED | PREEMPTED | '') return 1 ;;
    esac
    sleep "$poll"
  done
}

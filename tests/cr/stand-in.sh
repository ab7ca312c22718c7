#!/usr/bin/env bash
# Writes the status of MLflow resource `mlflow` as the MLflow operator does.
#
# usage: stand-in.sh a|b [STATE]
#
# a is the operator for MLflow 3.10.1, whose address is the origin; b the one for 3.14.0, whose address ends in /mlflow.
# STATE (default: ready), each with the address, which appears at once and says nothing about readiness:
#   starting           a first start; also what a missing serving certificate looks like, for ever
#   deploying          the database is ready, the pods are not yet
#   ready
#   scaling-down       an upgrade begins: the old pods are being ended
#   migrating          an upgrade's migration runs
#   retrying           it failed for a reason that may pass
#   migration-failed   it failed for good: 0 replicas until somebody annotates the resource
#   none               no status at all, as before the operator has seen the resource
#
# ADDRESS and URL in the environment replace status.address.url and status.url; empty leaves them out.
set -euo pipefail

usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }

ORIGIN=https://mlflow.redhat-ods-applications.svc:8443

main() {
  local generation=${1-} state=${2:-ready} version address
  case $generation in
    a) version=3.10.1 address=$ORIGIN ;;
    b) version=3.14.0 address=$ORIGIN/mlflow ;;
    -h | --help) usage; return ;;
    *) usage >&2; exit 2 ;;
  esac
  address=${ADDRESS-$address}
  if [[ $state == none ]]; then
    kubectl patch mlflow mlflow --subresource=status --type=merge -p '{"status": null}'
    return
  fi
  kubectl get mlflow mlflow -o json | jq --arg state "$state" --arg version "$version" --arg address "$address" \
    --arg url "${URL-https://rh-ai.apps.bank.example/mlflow}" "$PROGRAM" | kubectl replace --subresource=status -f -
}

# `lastTransitionTime` moves only with a condition's status, and only `Migration` has an `observedGeneration`.
# The version stays what it was until the new server is about to be ready.
# shellcheck disable=SC2016 # jq's variables
PROGRAM='
  (.status.version // "") as $had
  | .metadata.generation as $generation
  | (.status.conditions // []) as $old
  | (if $had == "" then "status.version is empty during bootstrap"
     else "status.version=\"\($had)\" does not match supported version \($version)" end) as $why
  | "mlflow-mg-\($version | gsub("[.]"; ""))-g\($generation)" as $job
  | "migration failed because Alembic could not resolve the schema revision graph. After fixing the issue, add the mlflow.opendatahub.io/force-migrate annotation to the MLflow resource to force a rerun." as $terminal
  | def migration($reason; $message):
      [["Available", "False", $reason, $message], ["Progressing", "True", $reason, $message], ["Migration", "Unknown", $reason, $message]];
    def migrated: ["Migration", "True", "MigrationSucceeded", "Migration for generation \($generation) completed successfully"];
  {
    "starting": migration("MigrationRunning"; "Created migration Job \($job) because \($why)"),
    "migrating": migration("MigrationRunning"; "Waiting for migration Job \($job) to finish because \($why)"),
    "scaling-down": migration("MigrationScalingDown"; "Waiting for MLflow pods to quiesce before migration: 1 replicas remain because \($why)"),
    "retrying": migration("MigrationRetrying"; "migration failed due to a retryable database or migration error Retrying automatically after \(now + 120 | todate). If you want to rerun immediately after fixing the issue, add the mlflow.opendatahub.io/force-migrate annotation."),
    "migration-failed": [["Available", "Progressing", "Migration"][] | [., "False", "MigrationFailed", $terminal]],
    "deploying": [["Available", "False", "DeploymentNotReady", "MLflow deployment not ready: 0/1 replicas ready"],
                  ["Progressing", "True", "Reconciling", "Reconciling MLflow resources"], migrated],
    "ready": [["Available", "True", "DeploymentReady", "MLflow deployment is ready and available"],
              ["Progressing", "False", "ReconcileComplete", "MLflow reconciliation completed successfully"], migrated]
  }[$state] as $new
  | if $new == null then error("no such state: \($state)") else . end
  | .status = ({
      conditions: [$new[] as [$type, $status, $reason, $message]
        | {type: $type, status: $status, reason: $reason, message: $message,
           lastTransitionTime: (first($old[] | select(.type == $type and .status == $status) | .lastTransitionTime) // (now | todate))}
          + (if $type == "Migration" then {observedGeneration: $generation} else {} end)]
    }
    + (if $address == "" then {} else {address: {url: $address}} end)
    + (if $url == "" then {} else {url: $url} end)
    + (if $state == "ready" or $state == "deploying" then {version: $version}
       elif $had != "" then {version: $had} else {} end))
'

main "$@"

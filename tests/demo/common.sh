# shellcheck shell=bash
# What both demos need. Sourced after lib.sh.

k() { "$KUBECTL" "$@"; }

title() { printf '\n%s\n' "$1"; }

# our_cluster IMAGE…: a node with the operator's image and these. Built while nothing else runs.
our_cluster() {
  local image archives=()
  "$CLUSTER/prereq.sh"
  "$CLUSTER/binaries.sh" api node
  "$CLUSTER/images.sh" "$@"
  "$CLUSTER/operator-image.sh"
  "$CLUSTER/node.sh" up
  for image; do archives+=("$("$CLUSTER/images.sh" path "$image")"); done
  step 'images into the node' "$CLUSTER/node.sh" load "$("$CLUSTER/operator-image.sh" path)" "${archives[@]}"
  KUBECONFIG=$("$CLUSTER/node.sh" host-kubeconfig)
  KUBECTL=$BIN/kubectl
  export KUBECONFIG
}

# forget_other_mode MODE NAMESPACE: what the other demo left; the mode of an AgentTracing cannot be changed.
forget_other_mode() {
  local mode
  mode=$(k get agenttracing tracing -n "$2" --ignore-not-found -o 'jsonpath={.spec.mlflow.mode}')
  [[ -z $mode || $mode == "$1" ]] || step "kubectl delete agenttracing tracing -n $2" k delete agenttracing tracing -n "$2"
}

# until_condition TYPE NAMESPACE: polls to a verdict; on failure the last word of the operator is in the log.
until_condition() {
  local end=$((SECONDS + 300))
  until [[ $(condition "$@" status) == True ]]; do
    if ((SECONDS > end)); then
      k get agenttracing tracing -n "$2" -o yaml
      k get pods,events -n "$2"
      return 1
    fi
    printf '%s: %s\n' "$1" "$(condition "$@" message)"
    sleep 1
  done
}

# condition TYPE NAMESPACE FIELD
condition() {
  k get agenttracing tracing -n "$2" -o "jsonpath={.status.conditions[?(@.type=='$1')].$3}"
}

#!/usr/bin/env bash
# A site of the internet that agents use: HTTPS by a certificate whose authority no private CA bundle holds. A second
# private CA stands for the public ones.
#
# usage: site.sh NAMESPACE
#
# Makes there: Service `site` (port 443; any GET is 200), and ConfigMap `corporate-cas` (key `ca.crt`) with its authority. And
# on the node: image demo/corporate-agent:1, which is demo/langgraph-agent:1 with that authority in its own system bundle.
#
# Needs KUBECONFIG, and the images langgraph and llm in the cluster.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/cluster/lib.sh
source tests/cluster/lib.sh
# shellcheck source=tests/cluster/pki.sh
source tests/cluster/pki.sh

AGENT=docker.io/demo/langgraph-agent:1
CORPORATE=docker.io/demo/corporate-agent:1
BUNDLE=etc/ssl/certs/ca-certificates.crt

main() {
  (($# == 1)) || { usage "$0" >&2; exit 2; }
  DIR=$(mktemp -d)
  trap 'rm -rf "$DIR"' EXIT
  local host=site.$1.svc
  pki_create "$DIR/pki" "DNS:$host"
  pki_leaf "$DIR/pki" site "/CN=$host" "DNS:$host"
  kubectl create configmap corporate-cas -n "$1" --from-file="ca.crt=$DIR/pki/ca.crt"
  kubectl create secret tls site -n "$1" --cert="$DIR/pki/site.crt" --key="$DIR/pki/site.key"
  kubectl apply -n "$1" -f - <<<"$SITE"
  corporate_image
  kubectl rollout status deployment/site -n "$1" --timeout=60s
}

SITE='
apiVersion: v1
kind: Service
metadata: {name: site}
spec:
  selector: {app: site}
  ports: [{port: 443, targetPort: 8443}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: site, labels: {agenttracing.dev/inject: "false"}}
spec:
  selector: {matchLabels: {app: site}}
  template:
    metadata: {labels: {app: site}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: site
        image: demo/openai-stand-in:1
        imagePullPolicy: IfNotPresent
        command:
        - python
        - -c
        - |
          import http.server, ssl
          class Site(http.server.BaseHTTPRequestHandler):
              def do_GET(self):
                  self.send_response(200)
                  self.send_header("Content-Length", "0")
                  self.end_headers()
          tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
          tls.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
          server = http.server.ThreadingHTTPServer(("", 8443), Site)
          server.socket = tls.wrap_socket(server.socket, server_side=True)
          server.serve_forever()
        readinessProbe: {tcpSocket: {port: 8443}, periodSeconds: 1}
        resources: {requests: {cpu: 5m, memory: 32Mi}}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: tls, mountPath: /tls}]
      volumes: [{name: tls, secret: {secretName: site}}]
'

# One layer more, of one file, upon those that the node has: nothing else is imported.
corporate_image() {
  local manifest config layer
  mkdir -p "$DIR/blobs/sha256" "$DIR/layer/${BUNDLE%/*}"
  manifest=$(ctr images ls "name==$AGENT" | awk 'NR == 2 { print $3 }')
  manifest=$(ctr content get "$manifest")
  config=$(ctr content get "$(jq -r .config.digest <<<"$manifest")")
  ctr content get "$(jq -r '.layers[0].digest' <<<"$manifest")" | tar -xO "./$BUNDLE" >"$DIR/layer/$BUNDLE"
  cat "$DIR/pki/ca.crt" >>"$DIR/layer/$BUNDLE"
  layer=$(tar -C "$DIR/layer" --owner=0 --group=0 --numeric-owner -c etc | blob)
  config=$(jq --argjson layer "$layer" '.rootfs.diff_ids += [$layer.digest] | del(.history)' <<<"$config" | blob)
  manifest=$(jq --argjson config "$config" --argjson layer "$layer" \
    '.config += $config | .layers += [.layers[0] + $layer]' <<<"$manifest")
  jq --argjson blob "$(blob <<<"$manifest")" --arg name "$CORPORATE" '{schemaVersion: 2, manifests: [
    $blob + {mediaType: .mediaType, annotations: {"io.containerd.image.name": $name}}]}' <<<"$manifest" >"$DIR/index.json"
  echo '{"imageLayoutVersion": "1.0.0"}' >"$DIR/oci-layout"
  tar -C "$DIR" -cf "$DIR/image.tar" oci-layout index.json blobs
  ctr images import "$DIR/image.tar"
}

ctr() { tests/cluster/node.sh ctr "$@"; }

# blob: keeps what comes in under its hash, and prints hash and size as JSON.
blob() {
  local digest
  cat >"$DIR/new"
  digest=$(sha256sum "$DIR/new" | cut -d' ' -f1)
  mv "$DIR/new" "$DIR/blobs/sha256/$digest"
  printf '{"digest": "sha256:%s", "size": %d}' "$digest" "$(stat -c %s "$DIR/blobs/sha256/$digest")"
}

main "$@"

# shellcheck shell=bash
# Certificates, service-account key and kubeconfigs of a cluster; sourced, after lib.sh.
#
# One CA signs everything. Both key identifiers and `keyUsage` are present everywhere: Python 3.13
# refuses a chain without them.

# pki_create DIR SERVER-SAN…: the CA, the API server's certificate and the service-account key.
pki_create() {
  local dir=$1
  shift
  mkdir -p "$dir"
  cat >"$dir/openssl.cnf" <<-'CNF'
		[req]
		distinguished_name = name
		prompt = no
		[name]
		[ca]
		basicConstraints = critical, CA:TRUE
		keyUsage = critical, keyCertSign, cRLSign, digitalSignature
		subjectKeyIdentifier = hash
		[leaf]
		basicConstraints = critical, CA:FALSE
		keyUsage = critical, digitalSignature
		extendedKeyUsage = serverAuth, clientAuth
		subjectKeyIdentifier = hash
		authorityKeyIdentifier = keyid
	CNF
  pki_key "$dir/ca.key"
  openssl req -x509 -new -config "$dir/openssl.cnf" -extensions ca -days 365 \
    -subj /CN=agent-tracing-test-ca -key "$dir/ca.key" -out "$dir/ca.crt"
  openssl genrsa -out "$dir/service-accounts.key" 2048
  pki_leaf "$dir" apiserver /CN=kube-apiserver "$(IFS=,; printf '%s' "$*")"
}

pki_key() { (umask 077 && openssl ecparam -name prime256v1 -genkey -noout -out "$1"); }

# pki_leaf DIR NAME SUBJECT [SAN,SAN…]
pki_leaf() {
  local dir=$1 name=$2 subject=$3 sans=${4:-}
  pki_key "$dir/$name.key"
  openssl req -x509 -new -config "$dir/openssl.cnf" -extensions leaf -days 365 -subj "$subject" \
    ${sans:+-addext "subjectAltName=$sans"} -CA "$dir/ca.crt" -CAkey "$dir/ca.key" \
    -key "$dir/$name.key" -out "$dir/$name.crt"
}

# pki_kubeconfig DIR NAME SERVER FILE: everything embedded, so that the one file is enough.
pki_kubeconfig() {
  local dir=$1 name=$2 server=$3 file=$4
  (umask 077 && cat >"$file.new") <<-YAML
		apiVersion: v1
		kind: Config
		current-context: agent-tracing-test
		contexts:
		  - {name: agent-tracing-test, context: {cluster: agent-tracing-test, user: $name}}
		clusters:
		  - name: agent-tracing-test
		    cluster: {server: "$server", certificate-authority-data: $(base64 -w0 "$dir/ca.crt")}
		users:
		  - name: $name
		    user: {client-certificate-data: $(base64 -w0 "$dir/$name.crt"), client-key-data: $(base64 -w0 "$dir/$name.key")}
	YAML
  mv "$file.new" "$file"
}

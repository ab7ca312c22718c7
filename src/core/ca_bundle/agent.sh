# shellcheck shell=sh
# Merges certificate authorities in the agent's own image. $1, for tests: a folder that stands for /.
#
# Whatever goes wrong, it exits 0: the agent must start. Only complete blocks are copied, each on lines of its own: OpenSSL
# reads all of a file or nothing. Nothing but the shell, mv, rm and chmod is needed.
LC_ALL=C
root=${1-}
out=$root/tmp/ca-bundle/combined-ca.crt
new=$root/tmp/ca-bundle/.combined-ca.crt.new
first='-----BEGIN CERTIFICATE-----'
last='-----END CERTIFICATE-----'
cr=$(printf '\r')
nl='
'

say() { printf 'merge-ca: %s\n' "$1" >&2; }

# The certificates of the file $1, however its lines end. Sets $kept to their number.
blocks() {
  kept=0 block='' inside=
  while IFS= read -r line || [ -n "$line" ]; do
    line=${line%"$cr"}
    case $line in
      # What cat makes of a file without a final newline.
      "$last$first") [ -z "$inside" ] || emit; begin ;;
      *"$first") begin ;;
      "$last") [ -z "$inside" ] || emit; inside= ;;
      # A block of another kind, a private key for one, or text: what has begun is broken.
      *[!A-Za-z0-9+/=]*) inside= ;;
      *) block=$block$line$nl before=$end end=$line ;;
    esac
  done <"$1"
}

# Nothing stays of what stood before: it may have been a key.
begin() { inside=1 block='' before='' end=''; }

emit() {
  [ -n "$block" ] || return 0
  printf '%s\n%s%s\n' "$first" "$block" "$last" && kept=$((kept + 1))
  [ -z "$ours" ] || name
}

# By these lines `check` knows which certificates a running pod has: each ends in its signature.
name() {
  given=$((given + 1))
  [ "$given" -gt 500 ] || { say "holds ending $before$end" && named=$given; }
}

# take file: adds its certificates and says how many; fails when there are none.
take() {
  if ! [ -e "$1" ]; then say "$1: is not there"; return 1; fi
  if ! [ -f "$1" ]; then say "$1: is not a file"; return 1; fi
  if ! [ -r "$1" ]; then say "$1: cannot be read"; return 1; fi
  blocks "$1" >>"$new"
  if [ "$kept" = 0 ]; then say "$1: holds no certificate"; return 1; fi
  say "$1: gives $kept"
}

ours='' given=0 named=0
# In a shell of its own: some shells end when a redirection fails.
if ! (: >"$new") 2>/dev/null; then
  say "failed to write $new: agents find no new bundle there"
  exit 0
fi

public=
for file in /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/certs/ca-certificates.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
  if [ -s "$root$file" ] && take "$root$file"; then
    public=1
    break
  fi
done
if [ -z "$public" ]; then
  file=$(python3 -c 'import certifi; print(certifi.where())' 2>/dev/null) && take "$file" && public=1
fi
[ -n "$public" ] || say 'the image has no public certificate authorities: agents trust the given ones alone'

ours=1
take "$root/var/run/secrets/kubernetes.io/serviceaccount/service-ca.crt"
[ -d "$root/tmp/ca-sources" ] || say "$root/tmp/ca-sources: is not there"
for file in "$root"/tmp/ca-sources/*; do
  # Where nothing matches, the pattern itself comes.
  [ -e "$file" ] && take "$file"
done

[ -s "$new" ] || say "wrote $out without any certificate: it trusts nobody"
if ! { chmod 644 "$new" && mv -f "$new" "$out"; }; then
  rm -f "$new"
  say "failed to write $out: agents find no new bundle there"
  exit 0
fi
say "named $named of $given certificates beyond the public ones"
exit 0

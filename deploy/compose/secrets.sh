#!/bin/sh
# Makes the secrets of one installation, once: the token of NATS and the password
# of ClickHouse. Each lies in a volume of its own, which only those mount that
# need it. To change them, remove the volumes and start again.
set -eu
umask 077

coc=10001      # uid of coc, see deploy/Dockerfile
clickhouse=101 # uid of ClickHouse in its image

random() { head -c 32 /dev/urandom | sha256sum | cut -d ' ' -f 1; }

# put FILE OWNER writes standard input, whole or not at all, for one reader.
put() {
  cat >"$1.new"
  chown "$2" "$1.new"
  chmod 0400 "$1.new"
  mv "$1.new" "$1"
}

# What the servers read comes first: a token that is there means all is there.
if [ ! -e /secrets/nats/token ]; then
  token=$(random)
  chmod 0755 /secrets/nats
  printf 'authorization { token: "%s" }\n' "$token" | put /secrets/nats/authorization.conf 0
  printf '%s\n' "$token" | put /secrets/nats/token "$coc"
fi
if [ ! -e /secrets/clickhouse/password ]; then
  password=$(random)
  hash=$(printf '%s' "$password" | sha256sum | cut -d ' ' -f 1)
  chmod 0755 /secrets/clickhouse
  printf '<clickhouse><coc_password_sha256>%s</coc_password_sha256></clickhouse>\n' "$hash" | put /secrets/clickhouse/password.xml "$clickhouse"
  printf '%s\n' "$password" | put /secrets/clickhouse/password "$coc"
fi

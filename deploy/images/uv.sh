#!/bin/sh
# The uv that uv.lock names, in a build container: `sh uv.sh export --only-group nats`.
#
# What this machine needs to reach the package index (a proxy, a mirror, certificates of its own) comes as two optional
# secrets of the build, `network` (shell assignments) and `certificates`: it is in no layer, label or history.
set -eu

if [ -s /run/secrets/network ]; then
  set -a
  . /run/secrets/network
  set +a
fi
if [ -s /run/secrets/certificates ]; then
  export SSL_CERT_FILE=/run/secrets/certificates
fi
export UV_FROZEN=1 UV_NO_DEV=1 UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy

if ! command -v uv >/dev/null; then
  PYTHONPATH=scripts python3 -B -c 'import bootstrap; bootstrap.find_uv() or bootstrap.install_uv()' >&2
  PATH="$PATH:$PWD/.tools/bin"
fi
exec uv --quiet "$@"

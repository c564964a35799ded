#!/bin/sh
# Make a virtual environment with pip.  Debian ships Python without what `venv` needs, so that is installed if it can be.
set -eu
python=$1
venv=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed; try: make PYTHON=python3.12" >&2
    exit 1
}
"$python" -m venv "$venv" >/dev/null 2>&1 && exit 0

echo "Installing python3-venv, which this Python lacks ..." >&2
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
$as_root apt-get update -qq >&2
$as_root apt-get install -y -qq python3-venv >&2
"$python" -m venv --clear "$venv"

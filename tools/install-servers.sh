#!/bin/sh
# Install the servers and the compiler that the tests start or need, where they are missing and this is Debian.
set -eu
missing=

need() { # need PACKAGE PATTERN...: install PACKAGE unless a file of one of the patterns exists
    package=$1
    shift
    for pattern in "$@"; do
        for file in $pattern; do
            [ -e "$file" ] && return 0
        done
    done
    missing="$missing $package"
}

need postgresql '/usr/lib/postgresql/*/bin/postgres'
need mariadb-server /usr/sbin/mariadbd /usr/bin/mariadbd
need redis-server /usr/bin/redis-server
need rabbitmq-server /usr/sbin/rabbitmq-server
need curl /usr/bin/curl /usr/local/bin/curl
need gcc /usr/bin/gcc /usr/local/bin/gcc
need python3-dev '/usr/include/python3*/Python.h' "$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h"

[ -z "$missing" ] && exit 0
command -v apt-get >/dev/null || {
    echo "The tests need these programs, which apt-get would install:$missing" >&2
    exit 1
}
echo "Installing for the tests:$missing ..." >&2
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
$as_root apt-get update -qq >&2
# The tests start instances of their own; no service of the system is wanted.
DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $as_root apt-get install -y -qq --no-install-recommends $missing >&2

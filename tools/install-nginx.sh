#!/bin/sh
# Install nginx, a yardstick of `make bench`, where it is missing and this is Debian.  Without it the rest is measured.
[ -x /usr/sbin/nginx ] || command -v nginx >/dev/null && exit 0
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
if command -v apt-get >/dev/null; then
    echo "Installing nginx for the benchmark ..." >&2
    $as_root apt-get update -qq >&2
    # No service of the system is wanted: the benchmark starts one of its own.
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $as_root apt-get install -y -qq --no-install-recommends nginx-light >&2 && exit 0
fi
echo "nginx cannot be had; the benchmark goes on without that yardstick" >&2

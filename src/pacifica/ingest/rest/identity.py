"""Who a request comes from.

We authenticate nobody.  A proxy in front of the service does, and names the user in a header; so the header counts only
when it comes from such a proxy, and only when it names one user.  It is read from the WSGI environment: what a proxy wrote
and compared must be what is taken, and CherryPy decodes encoded words, and lets a header pass for the peer's address.
Knows neither CherryPy nor jobs.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from pacifica.ingest.config import UNIX, IngestSection, Peer
from pacifica.ingest.core.errors import BadRequest, UntrustedPeer

__all__ = ["user_of"]

#: What servers say in place of the address of a peer on a Unix socket: CherryPy and gunicorn, uWSGI, nginx.
_UNIX: Final = frozenset({"", "0.0.0.0", "unix:"})  # noqa: S104 (nothing is bound)
_MAX_NAME: Final = 255


def user_of(environ: Mapping[str, Any], ingest: IngestSection) -> str:
    """The user of a request.

    Args:
        environ: the WSGI environment; a header that came twice is joined in it, with a comma.
        ingest: the settings.

    Returns:
        what the header says, or the default user when it says nothing.

    Raises:
        UntrustedPeer: the header comes from somebody who is no proxy of ours; not retryable.
        BadRequest: it names no user, or several; not retryable.

    """
    header = ingest.auth_header
    name = str(environ.get(f"HTTP_{header.upper().replace('-', '_')}", "")).strip()
    if not name:
        return ingest.default_user
    peer = environ.get("REMOTE_ADDR")
    if not _is_trusted(peer, ingest.trusted_proxies):
        raise UntrustedPeer(header, "" if peer is None else str(peer))
    if "," in name:
        msg = f"{header}: expected one user; a comma stands between two."
        raise BadRequest(msg)
    if len(name) > _MAX_NAME or any(char < " " or char == "\x7f" for char in name):
        msg = (
            f"{header}: expected the name of a user, of {_MAX_NAME} characters at most and without control characters."
        )
        raise BadRequest(msg)
    return name


def _is_trusted(peer: object, trusted: Sequence[Peer]) -> bool:
    """Whether a peer is one of the trusted; one that cannot be understood is not."""
    if peer in _UNIX:
        return UNIX in trusted
    try:
        address = ip_address(str(peer))
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in trusted if isinstance(network, IPv4Network | IPv6Network))

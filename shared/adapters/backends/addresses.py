"""Which addresses a backend may have: none that belongs to the machine which calls it.

An endpoint's configuration names the address. Inside a function, link-local addresses give away the role's credentials,
and loopback is Lambda's own runtime API. Private addresses are allowed: servers in the stack's network have these.
"""

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from time import monotonic
from typing import Final

_LOOPBACK_NAMES: Final = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
# What an instance reaches over IPv6 by itself: metadata, time, DNS. Source: Amazon EC2 User Guide, "Instance metadata".
_AMAZON_LOCAL: Final = IPv6Network("fd00:ec2::/32")
# An IPv4 address behind a gateway. Source: RFC 6052, section 2.1.
_NAT64: Final = IPv6Network("64:ff9b::/96")


class ForbiddenAddress(Exception):
    """A name stands for an address that no backend may have."""


def problem_with(host: str, *, allow_loopback: bool) -> str:
    """Why a host as it is written may not be a backend's; empty if it may, or if that is seen by resolving it only.

    Nothing is resolved. The forms of an IPv4 address that resolvers take for one (`127.1`, `0x7f000001`) are known.
    """
    name = host.strip("[]").rstrip(".").lower()
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return "" if allow_loopback else "is a loopback address, which is this function's own"
    address = _address(name)
    return "" if address is None else _problem(address, allow_loopback)


def dial(host: str, port: int, timeout_s: float, *, allow_loopback: bool) -> socket.socket:
    """A connection to the first address of a host that takes one, within `timeout_s` seconds after it was resolved.

    ForbiddenAddress if one of the addresses may not be a backend's; OSError, TimeoutError among them, if none answers.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, address in found:
        if problem := problem_with(str(address[0]), allow_loopback=allow_loopback):
            raise ForbiddenAddress(problem)
    end = monotonic() + timeout_s
    failure = OSError(f"{host} has no address")
    for number, (family, kind, protocol, _, address) in enumerate(found):
        left_s = end - monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(left_s / (len(found) - number))  # one that is silent leaves time for the others
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def _address(name: str) -> IPv4Address | IPv6Address | None:
    """The address that a text is; None for a name."""
    try:
        address = ip_address(name)
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(name))
        except OSError:
            return None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _problem(address: IPv4Address | IPv6Address, allow_loopback: bool) -> str:
    if address.is_link_local or (isinstance(address, IPv6Address) and address in _AMAZON_LOCAL):
        return "is a link-local address, which instance metadata and credentials have"
    # To connect to no address at all is to connect to this machine.
    if (address.is_loopback or address.is_unspecified) and not allow_loopback:
        return "is a loopback address, which is this function's own"
    return ""

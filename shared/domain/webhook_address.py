"""Where webhooks may go: to public HTTPS servers, and nowhere near the machine that sends them.

An address is checked as it is written when a webhook is made, and each that its name stands for before every attempt.
What is not known to be public is forbidden.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from shared.domain.webhooks import MAX_URL

# Source: the IANA registries of special-purpose addresses (RFC 6890 and its updates), and RFC 7526 for 192.88.99.0/24.
_FORBIDDEN_V4: Final = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# All that is routed in public. Outside of it are loopback, private (fd00:ec2::254, instance metadata, too), link-local
# and multicast addresses, IPv4 ones in IPv6 (::ffff:0:0/96), and what NAT64 gateways turn into any IPv4 (64:ff9b::/96).
_PUBLIC_V6: Final = IPv6Network("2000::/3")
# Within it: protocol assignments with Teredo (2001::/32), examples, and 6to4, which holds an IPv4 address.
_FORBIDDEN_V6: Final = tuple(IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?][A-Za-z0-9._~!$&'()*+,;=:@/?%-]*)?",
    re.IGNORECASE,
)
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Names that are never public. Source: IANA's special-use domain names, and ICANN's reservation of `internal`.
_LOCAL_NAMES: Final = (
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "lan",
    "home.arpa",
    "test",
    "invalid",
)
_FIRST_FREE_PORT: Final = 1024


class ForbiddenAddress(ValueError):
    """No webhook may go there; the text says why, and has nothing of the address that was found."""


@dataclass(frozen=True, slots=True)
class Target:
    """A webhook's address, taken apart: `host` is a name or an address, `path` has the query."""

    tls: bool
    host: str
    port: int
    path: str

    @property
    def literal(self) -> IPv4Address | IPv6Address | None:
        """The address, if the host is one."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @property
    def authority(self) -> str:
        """The value of `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def target_of(url: str, *, allow_loopback: bool = False) -> Target:
    """The parts of a webhook's address; ForbiddenAddress if it may not be one, as far as its text shows.

    `allow_loopback` is for the local runtime alone: 127.0.0.1 and ::1 may be written, then, with http, too.
    """
    if len(url) > MAX_URL:
        raise ForbiddenAddress(f"must have at most {MAX_URL} characters")
    match = _URL.fullmatch(url)
    if match is None:
        raise ForbiddenAddress(
            "must be an address such as https://example.com/hooks: no user, no fragment, nothing but ASCII"
        )
    tls = match["scheme"].lower() == "https"
    host = match["host"].strip("[]").lower()
    path = match["target"] or "/"
    port = int(match["port"] or (443 if tls else 80))
    target = Target(tls, host, port, path if path.startswith("/") else f"/{path}")
    address = _literal(match["host"])
    if allow_loopback and is_own_loopback(address) and 0 < port < 65_536:
        return target
    if not tls:
        raise ForbiddenAddress("must begin with https://")
    if port != 443 and not _FIRST_FREE_PORT <= port < 65_536:
        raise ForbiddenAddress(f"must have the port 443 or one from {_FIRST_FREE_PORT} to 65535")
    if address is None:
        _check_name(host)
    elif problem := problem_with(address):
        raise ForbiddenAddress(problem)
    return target


def problem_with(address: IPv4Address | IPv6Address, *, allow_loopback: bool = False) -> str:
    """Why nothing may be sent to an address; empty if it may."""
    if allow_loopback and is_own_loopback(address):
        return ""
    if isinstance(address, IPv4Address):
        public = not any(address in block for block in _FORBIDDEN_V4)
    else:
        public = address in _PUBLIC_V6 and not any(address in block for block in _FORBIDDEN_V6)
    # Python's own view of the registries as well, which newer versions bring up to date.
    if not public or not address.is_global or address.is_multicast:
        return "must be a public address: no private, loopback, link-local or otherwise reserved one"
    return ""


def is_own_loopback(address: IPv4Address | IPv6Address | None) -> bool:
    """Whether an address is 127.0.0.1 or ::1, which the local runtime may allow."""
    return str(address) in {"127.0.0.1", "::1"}


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        if host.startswith("["):
            raise ForbiddenAddress("must have an IPv6 address between its brackets") from None
        return None


def _check_name(name: str) -> None:
    """Whether a name may be a public server's, as far as its text says."""
    labels = name.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise ForbiddenAddress("must have a domain name of letters, digits and hyphens")
    # Resolvers take 127.1, 0x7f.1 or 2130706433 for IPv4 addresses. Source: WHATWG URL, "ends in a number".
    if labels[-1].isdecimal() or re.fullmatch(r"0x[0-9a-f]*", labels[-1]):
        raise ForbiddenAddress("must have a domain name, or an address in its usual form")
    if len(labels) == 1 or any(name == local or name.endswith(f".{local}") for local in _LOCAL_NAMES):
        raise ForbiddenAddress("must have a public domain name")

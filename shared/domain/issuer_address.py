"""From where a token issuer's documents may be fetched."""

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_trusted_url(url: str) -> bool:
    """Whether an issuer's documents may be fetched from `url`: HTTPS, or HTTP on this machine; no user, no fragment."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

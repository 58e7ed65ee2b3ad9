"""Which addresses of the internet a device may reach: the public ones, and nothing else. Pure.

IPv4: everything but the special-purpose ranges of IANA's registry (RFC 6890 and what was added since), multicast, class
E, and one address outside those ranges where a cloud keeps the keys of its machines. IPv6: global unicast (2000::/3)
without its special ranges. An IPv4 address within an IPv6 one (mapped, NAT64) is judged as that IPv4 address;
6to4, Teredo and the like, which lead through somebody's relay, are not reached at all.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NOT_PUBLIC_4 = tuple(
    (ipaddress.IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "no address of a machine"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "of a provider's own network"),
        ("127.0.0.0/8", "this machine"),
        ("169.254.0.0/16", "link-local, where clouds keep the keys of their machines"),
        ("168.63.129.16/32", "where a cloud keeps the keys of its machines"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "for protocols"),
        ("192.0.2.0/24", "for examples"),
        ("192.88.99.0/24", "a relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for measurements"),
        ("198.51.100.0/24", "for examples"),
        ("203.0.113.0/24", "for examples"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    (ipaddress.IPv6Network(network), what)
    for network, what in (
        ("::1/128", "this machine"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "for protocols and relays"),
        ("2001:db8::/32", "for examples"),
        ("2002::/16", "a relay"),
        ("3fff::/20", "for examples"),
    )
)
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")


def embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for (mapped, or through NAT64), else the address itself."""
    if isinstance(address, ipaddress.IPv6Address) and (address in _MAPPED or address in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def why_not(address: Address, private: Sequence[Network] = ()) -> str:
    """What an address is when it is not public; empty for one that may be reached. `private`: what may be, too.

    Link-local and multicast addresses are never reached, whatever `private` says.
    """
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return "link-local"
    real = embedded(address)
    if any(real in network for network in private) and not (real.is_link_local or real.is_multicast):
        return ""
    if isinstance(real, ipaddress.IPv4Address):
        return next((what for network, what in _NOT_PUBLIC_4 if real in network), "")
    for network, what in _NOT_PUBLIC_6:
        if real in network:
            return what
    return "" if real in _PUBLIC_6 else "reserved"


def literal(host: str) -> Address | None:
    """The address that a host's text is; None for a name. Raises ValueError for a number in another spelling.

    `0x7f.1`, `2130706433` and `0177.0.0.1` are addresses to some programs and names to others: they are neither here.
    """
    if ":" in host:
        return ipaddress.IPv6Address(host)
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        return ipaddress.IPv4Address(host)
    return None

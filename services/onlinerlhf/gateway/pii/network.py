"""Public IP addresses. Private, loopback, documentation and multicast ranges, netmasks and versions are none. Pure."""

import ipaddress
import re
from collections.abc import Iterator

from onlinerlhf.gateway.pii.contact import Span
from onlinerlhf.gateway.pii.cues import Budget, last_before, words
from onlinerlhf.gateway.pii.findings import Kind
from onlinerlhf.gateway.pii.offsets import View

MAX_CHECKS = 200
MAX_MAJOR = 30
"""Of a version. The first number of most addresses is larger."""

_RESOLVER = [8, 8, 4, 4]
"""Of small numbers throughout, and named more often than any version like it."""

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(
    rf"(?:(?<![0-9A-Za-z_])|(?<=[Ii][Pp])(?<![A-Za-z_][Ii][Pp]))(?<![0-9A-Za-z]\.)(?:{_OCTET}\.){{3}}{_OCTET}"
    r"(?![0-9A-Za-z_])(?!\.[0-9])(?!-[A-Za-z0-9])(?!\+[a-z])"
)
_DEFANGED = re.compile(rf"(?<![0-9A-Za-z_.])(?:{_OCTET}(?:\[\.\]|\(\.\)|\[dot\])){{3}}{_OCTET}(?![0-9A-Za-z_.])")
_IPV6 = re.compile(r"(?<![0-9A-Za-z_])[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}(?![0-9A-Za-z_]|:[0-9A-Za-z:])")
# Cheap to search for: they begin with a plain class.
_QUAD = re.compile(r"[0-9](?:\.|\[\.\]|\(\.\)|\[dot\])[0-9]{1,3}[.\[(]")
_HEXTET = re.compile(r":[0-9A-Fa-f]{0,4}:")
_FULL_IPV6 = re.compile(r"(?<![0-9A-Za-z_])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){7}(?![0-9A-Za-z_:])")
# A colon before belongs to an address, unless a word is before it: "ip:2a00:1450::1".
_GROUP_BEFORE = re.compile(r"(?:(?<![0-9A-Za-z])[0-9A-Fa-f]{1,4}|:):\Z")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_DOCUMENTATION = (ipaddress.IPv6Network("2001:db8::/32"), ipaddress.IPv6Network("3fff::/20"))

_ADDRESS_CUE = words(
    r"ips?(?:v4)?(?![a-z])", "address", "host", "server", "ping", "ssh", "dns", "connect", "login", "log in", "from",
    "http", "client", "visitor", "remote", "curl", "blocked", "traceroute", "whois", "attack", "firewall",
    "adresse", "dirección", "endereço", "地址", "服务器", "サーバ", "アドレス", r"-h", "@", "nmap", "resolve",
    "scan", "request", "refused", "denied?", "deny", "allow", "block", "ban(?:ned)?(?![a-z])", "proxy", "upstream",
    "vpn", "source", "src", "dst", "destination", "peer", "node", "endpoint", "route", "tcp", "udp", "iptables", "ufw",
    "port(?![a-z])", "listen", "user", "session", "location", "geoip", "lookup", "servidor", "serveur", "rechner",
    "封", "访问", "攻击", "来源", "解析", "登录", "主机", "网关", "ホスト", "接続",
)  # fmt: skip
_CUE_AFTER = re.compile(
    r"(?::[0-9]{2,5}|/(?:8|16|2[0-9]|3[0-2]))(?![0-9.])|[^0-9a-z\n]{1,3}-[ ]-|"
    r"[^\n]{0,16}?(?:(?<![a-z])(?:ips?|addr(?:ess)?|servers?|hosts?|port|domain|adresse)(?![a-z])|地址|服务器|归属地|アドレス)"
)
_NAME_BEFORE = re.compile(
    r"(?:(?<![A-Za-z])(?!(?:[A-Z][a-z]?|The|My|Our|You|Why|Can|Did|Does|Has|Was|Are|And|But|For|Got|Get|Set|Use|Try|Add|"
    r"Who|What|Where|When|Which|With|This|That|Then|Only|Also|Not|See|Visit|Check|Open|Found|Using|Target|Das|Die|Der|"
    r"Mein|Ist|Est|Les|Mon|Que|Por|Con)[ ])[A-Z][A-Za-z0-9+#]{1,20}[ \-]|[a-z]-)\Z"
)
_VERSION_CUE = words(
    "version", r"ver\.?(?![a-z])", r"v\.?(?![a-z])", "release", r"build", "section", "chapter", "clause", "figure",
    "table", "step", "firmware", "driver", "upgrade[d]?(?: to| from)?", "update[d]?(?: to| from)?", "==", ">=",
    "<=", "~=", "§", "版本", "バージョン", r"oid(?![a-z])", "article", "paragraph", "revision", r"rev(?![a-z])",
    "patch", "sdk", "kernel", r"/", "requirement", "heading", "item", "netmask", "mask", "absatz", "kapitel",
    "abschnitt", "assembly", "chrome", "dll", "nuget", "install", "bios", r"fw(?![a-z])", "teil",
    "part", "norm", "standard", "bluetooth", "mod(?:s|el)(?![a-z])", "apk", r"app(?![a-z])", "plugin",
)  # fmt: skip


def ip_addresses(view: View) -> Iterator[Span]:
    """Addresses that belong to somebody out there."""
    budget = Budget(MAX_CHECKS)
    if _QUAD.search(view.text) is not None:
        for pattern in (_IPV4, _DEFANGED):
            for match in pattern.finditer(view.text):
                if not budget.spend() or _is_public_ipv4(view, match):
                    yield Kind.IP_ADDRESS, match.start(), match.end()
    if _HEXTET.search(view.text) is not None:
        for pattern, is_public in ((_IPV6, _is_public_ipv6), (_FULL_IPV6, _is_public_full_ipv6)):
            for match in pattern.finditer(view.text):
                if _GROUP_BEFORE.search(view.text, max(0, match.start() - 6), match.start()) is not None:
                    continue
                if not budget.spend() or is_public(match.group()):
                    yield Kind.IP_ADDRESS, match.start(), match.end()


def _is_public_ipv4(view: View, match: re.Match[str]) -> bool:
    octets = [int(part) for part in re.findall("[0-9]+", match.group())]
    address = ipaddress.IPv4Address(bytes(octets))
    # 224.0.0.0 and up: multicast, reserved, netmasks.
    if not address.is_global or octets[0] >= 224 or octets[0] == 0 or octets[:3] == [192, 0, 0]:
        return False
    start = match.start()
    version = last_before(view, start, _VERSION_CUE, width=16)
    cued = last_before(view, start, _ADDRESS_CUE, width=32)
    slash = view.text[max(0, start - 2) : start]
    if slash == "//":
        return True
    if version >= 0 and version >= cued:
        return False
    if (
        cued >= 0
        or octets == _RESOLVER
        or octets[0] > MAX_MAJOR
        or len(set(octets)) == 1
        or sum(octet >= 100 for octet in octets) >= 2
    ):
        return True
    # Small numbers throughout are rather a version or a section; so is a small one after a name: Firefox 9.0.4.80.
    return not _is_version(view, match, octets)


def _is_version(view: View, match: re.Match[str], octets: list[int]) -> bool:
    if _CUE_AFTER.match(view.lower, match.end()) is not None:
        return False
    start = match.start()
    return max(octets) <= MAX_MAJOR or _NAME_BEFORE.search(view.text, max(0, start - 24), start) is not None


def _is_public_ipv6(written: str) -> bool:
    try:
        address = ipaddress.IPv6Address(written.rstrip(":") if not written.endswith("::") else written)
    except ipaddress.AddressValueError:
        return False
    return address in _GLOBAL_UNICAST and not any(address in network for network in _DOCUMENTATION)


def _is_public_full_ipv6(written: str) -> bool:
    """All eight groups written out are an address in any range but the private, local and documented ones.

    Groups of two digits throughout are a hardware address.
    """
    address = ipaddress.IPv6Address(written)
    if address.is_private or address.is_link_local or address.is_multicast:
        return False
    long_groups = sum(len(group) >= 3 for group in written.split(":"))
    return long_groups >= 3 and not any(address in network for network in _DOCUMENTATION)

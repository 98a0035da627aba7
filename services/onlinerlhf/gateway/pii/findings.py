"""What a scanner reports: a kind and where it stands. Never the text itself, so that a finding may be logged."""

from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What was found. The value is what metrics, records and placeholders show."""

    EMAIL = "email"
    PHONE = "phone"
    CARD = "card"
    IBAN = "iban"
    US_SSN = "us_ssn"
    CN_RESIDENT_ID = "cn_resident_id"
    UK_NI_NUMBER = "uk_ni_number"
    ES_DNI = "es_dni"
    """Spanish DNI of citizens and NIE of foreigners."""
    DE_TAX_ID = "de_tax_id"
    FR_NIR = "fr_nir"
    """French social security number."""
    FR_TAX_NUMBER = "fr_tax_number"
    NATIONAL_ID = "national_id"
    """Of any other country."""
    PASSPORT = "passport"
    BIRTH_DATE = "birth_date"
    IP_ADDRESS = "ip_address"
    CRYPTO_WALLET = "crypto_wallet"
    API_KEY = "api_key"
    JWT = "jwt"
    PRIVATE_KEY = "private_key"
    URL_CREDENTIALS = "url_credentials"
    PASSWORD = "password"  # noqa: S105 - the name of a kind
    """The value of a `password=`, `api_key:` or the like that no key format explains."""
    STREET_ADDRESS = "street_address"
    PERSON_NAME = "person_name"

    @property
    def is_structured(self) -> bool:
        """Whether it has a form that can be checked. Names and addresses have none: they are best effort."""
        return self not in (Kind.STREET_ADDRESS, Kind.PERSON_NAME)

    @property
    def placeholder(self) -> str:
        """What stands in the text in its place, like [EMAIL]."""
        return f"[{self.value.upper()}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`text[start:end]` of the original text, before any normalisation."""

    kind: Kind
    start: int
    end: int


def without_overlaps(findings: list[Finding]) -> list[Finding]:
    """Sorted by start. Of two that overlap, the more specific wins, then the longer one."""
    ranked = sorted(
        findings, key=lambda found: (_vagueness(found.kind), found.start - found.end, found.kind is Kind.PHONE)
    )
    taken: list[Finding] = []
    starts: list[int] = []
    for found in ranked:
        place = bisect_right(starts, found.start)
        is_after = place == 0 or taken[place - 1].end <= found.start
        if is_after and (place == len(taken) or found.end <= taken[place].start):
            starts.insert(place, found.start)
            taken.insert(place, found)
    return taken


def _vagueness(kind: Kind) -> int:
    """A form that can be checked, then what only a name before it betrays, then a guess."""
    if not kind.is_structured:
        return 2
    return int(kind is Kind.PASSWORD)

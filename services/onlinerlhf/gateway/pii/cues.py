"""Words that say what a number next to them is, and a bound on how often they are looked for. Pure."""

import re
from dataclasses import dataclass

from onlinerlhf.gateway.pii.offsets import View

WIDTH = 40
"""How many characters before a candidate are looked at."""


class Budget:
    """How many candidates of a text get a dear check. Those beyond are taken for findings unchecked: a hostile text
    is then flagged, not passed, and costs no more."""

    def __init__(self, num_checks: int) -> None:
        self._left = num_checks

    def spend(self) -> bool:
        """Whether one more check may be made."""
        self._left -= 1
        return self._left >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """A word that must stand before a number, and plain parts of it: one of them is in any text that has the word."""

    pattern: re.Pattern[str]
    marks: tuple[str, ...]


def words(*alternatives: str) -> re.Pattern[str]:
    """Any of these as whole words where they begin or end with an ASCII letter. For lower-case text."""
    joined = "|".join(
        ("(?<![a-z])" if alternative[0].isascii() and (alternative[0].isalpha() or alternative[0] == "(") else "")
        + alternative
        for alternative in alternatives
    )
    return re.compile(f"(?:{joined})")


def whole_words(*alternatives: str) -> re.Pattern[str]:
    """Like `words`, and nothing but a plural may follow an ASCII letter: an order, orders, but no orderly."""
    return words(
        *(
            f"{alternative}s?(?![a-z])" if alternative[-1].isascii() and alternative[-1].isalpha() else alternative
            for alternative in alternatives
        )
    )


def last_before(view: View, start: int, pattern: re.Pattern[str], width: int = WIDTH) -> int:
    """Where the last match in the `width` characters before `start` ends, or -1."""
    end = -1
    for match in pattern.finditer(view.lower, max(0, start - width), start):
        end = match.end()
    return end


def has_before(view: View, start: int, pattern: re.Pattern[str], width: int = WIDTH) -> bool:
    """Whether a match lies in the `width` characters before `start`."""
    return pattern.search(view.lower, max(0, start - width), start) is not None


def is_in_row(text: str, start: int, end: int) -> bool:
    """Whether a comma joins `text[start:end]` to another number: a list of values, or a row of a table."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return (len(before) == 2 and before[1] == "," and before[0].isdigit()) or (
        len(after) == 2 and after[0] == "," and after[1].isdigit()
    )


OTHER_NUMBER = whole_words(
    "第",
    "order", "invoice", "track(?:ing)?", "isbn", "issn", "ean", "upc", "doi", "sku", "serial", r"ref",
    "r[ée]f[ée]ren[cz][a-z]{0,4}", "rma", "cep", "plz", "post(?:al )?code",
    "ticket", r"case", "account", r"acct", r"(?:user|customer|session|device|product|item|post)?[ _]?id", "uuid",
    "commit", r"version", r"model", r"part", r"batch", r"lot", "timestamp", "epoch", "unix", "bestell[a-z]{0,12}",
    "rechnung[a-z]{0,12}", "auftrags?[a-z]{0,12}", "sendung[a-z]{0,12}", "commande", "facture", "colis", "pedido",
    "factura", "rastre[a-z]{0,6}", "订单", "快递", "运单", "单号", "编号", "流水", "注文", "伝票", "imei",
    "barcode", r"port", r"rfc", "arxiv", "pmid", "oclc", r"bug", r"seed", r"hash", r"lat", "latitude", "longitude",
    "coordinates?", "population", "price", "cost", r"(?:usd|eur|gbp|[$€£¥₹])[ ]?\Z", "lotter(?:y|ies)", "lotto",
    "sequence", r"numbers", "winning", "checksum", "score", "transaction", "confirmation", "booking", "policy",
    "licen[cs]e", "registration", "iban", "card", "credit", "routing", r"pin", r"zip", r"bank",
    r"(?:order|ref|item|part|serial|id) no\.", r"nr\.", "qq", r"fips", r"cas", r"flight", r"asin", r"pid",
    "document", "patent", "amount", r"total", r"sum", "bytes", r"pi", "constant", "steuer[a-z-]{0,20}",
    "aktenzeichen",
)  # fmt: skip
"""What numbers of things are called."""

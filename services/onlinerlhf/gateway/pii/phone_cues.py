"""What the words, units and signs around a number say about its being a telephone number. Pure."""

import re
from typing import Final

from onlinerlhf.gateway.pii.cues import words
from onlinerlhf.gateway.pii.offsets import View

CUE: Final = words(
    r"(?:tele)?phones?(?![a-z])", r"tel(?![a-z])", r"call(?:ed|ing)?(?![a-z]| of )", "mobile(?!-)", "cell",
    r"text(?:ing)?(?![a-z])", "whats ?app", "whats(?=:)", r"fax", r"sms(?![a-z])", r"ring(?![a-z])", r"dial(?![a-z])",
    r"reach (?:me|us|him|her|them)", "contact", "hotline", "rufnummer", r"handy", "telefon", r"anruf", r"ruf",
    "durchwahl", "portable", r"appell?e", r"joindre", "t[ée]l[ée]phone", r"tél", r"ll[aá]m", "m[oó]vil",
    "tel[eé]fono", "celular", r"ligue", r"ligar", r"(?:me|te|pode|só) liga(?![a-z])", r"fone", r"zap(?![a-z])",
    "telemóvel", "numero de t", "电话", "手机", "联系", "致电", "拨打", "热线", "传真", "号码是",
    "微信(?!支付|公众|小程序)", "电联", "電話", "携帯", "फोन", "मोबाइल", "नंबर",
    "☎", "📞", "📱", r"(?<!-)ph(?![a-z/])", r"mob(?![a-z])", "tfno", "tlf", r"t:", r"m:", "pager", r"wa\.me/",
    r"(?:my|his|her|our|their|mera|meu|mi|meine?|mon|new|cell|home|work|office) (?:number|nummer|n[uú]mero|"
    r"numéro)(?![a-z])",
)  # fmt: skip

CUE_AFTER: Final = re.compile(
    r"[ ,;:.)\-–]{0,3}(?:"
    r"\(?(?:cell|mobile|mob|landline)\)?(?![a-z])"
    r"|(?:is|was|are) (?:my|his|her|our|their|the) (?:[a-z]{1,10} )?(?:number|phone|cell|mobile|line|whatsapp)"
    r"|(?:please |pls |just |and )?(?:call|text|ring|whatsapp|dial) "
    r"(?:me|us|him|her|them|now|any ?time|before|after|karo)"
    r"|[^0-9a-z\n]{0,12}(?:call|text|ring|whatsapp) (?:me|us|him|her|them|karo)(?![a-z])"
    r"|(?:hai|pe|par|pr)[ ,]{1,2}(?:call|phone|whatsapp|msg)"
    r"|(?:es|é|est|ist) (?:mi|meu|mon|meine) (?:n[uú]mero|numéro|nummer|móvil|handy|celular|portable)"
    r"|(?:に|へ|まで)?(?:お)?電話|给我打|打我|打电话|随时联系|(?:微信|手机)同号"
    r")"
)

# Between a cue and its number stands nothing of weight: "my phone is", "call me at", "tel. no.:", "电话号码是".
_LINK: Final = re.compile(
    r"[a-zß-ÿ]{0,12}+(?>[^0-9a-z\u3040-\u30ff\u4e00-\u9fff]|"
    r"(?:is|moi|me|us|him|her|them|at|on|no|nr|num|number|now|my|the|to|nummer|n[uú]mero|numéro|ist|lautet|est|es|é|le|au|la|el|"
    r"al|em|na|en|unter|auf|mich|sur|com|it's|its|or|and|y|e|et|und|oder|home|work|office|cell|mobile|mobil|phone|fijo|"
    r"fixo|private|ext|direct|line|hai|ka|par|pe|whatsapp|text|call|tel|fax)(?![a-z])|"
    r"号码?|码|是|为|は|番号|を|に|へ|同号|我|请|可|或|者|人|方式|の)*+"
)

UNIT: Final = re.compile(
    r"[ ]?(?:\*{1,2}[ ]?[0-9A-Za-z(]|\^|[$€£¥₹%°]|usd|eur|gbp|people|inhabitants|habitant|einwohner|km|m²|bytes|"
    r"dollars|euros?|yen|rmb|"
    r"(?:kr|sek|nok|dkk|chf|rubles|rupees|pesos|reais|mm|cm|m|kg|g|mg|ml|gb|mb|kb|tb|px|ms|hours?|h|uhr|mah|hz|fps|ohms?|"
    r"tonn?e[sn]?|tons?|barrels?|users?|nutzer|usuarios|utilisateurs|atoms?|char(?:acter)?s|zeichen|words?|wörter|rows?|"
    r"entries|records?|copies|units?|views?|downloads?|param(?:eter)?s|samples?|tokens?|steps?|years?|jahre|times|"
    r"iterations?|rpm|votes?|shares?|cells|seconds?|minutes?)(?![a-z])|"
    r"元|円|人|件|页|次|台|个|万|亿|字|块|份|年|月|号线|個|回)"
)
DATE: Final = re.compile(
    r"[0-9]{1,2}([./\-])[0-9]{1,2}\1(?:19|20)?[0-9]{2}(?![0-9]|[./\-][0-9])"
    r"|(?:19|20)[0-9]{2}([./\- ])[0-9]{1,2}\2[0-9]{1,2}(?![0-9])|(?:(?:19|20)[0-9]{2}[ \-/]?){2,4}\Z"
    r"|(?=[0-9.]{7,11}\Z)(?:[0-9]{1,3}\.){3}[0-9]{1,3}\Z|01([ .\-/])02\3(?:03\3)?04"
    r"|(?:(?:16|32|64|128|256|512|1024|2048|4096|8192)[ .\-/]?){2,6}\Z"
)
"""Also years in a row, versions, and sizes of layers."""
THOUSANDS: Final = re.compile(r"[1-9][0-9]{0,2}(?:([ .])[0-9]{3})(?:\1[0-9]{3})*\1000")
"""A round amount: 12 000 000."""

# What a number means in source code: an operand, an argument, an index.
_OPERAND: Final = re.compile(r"(?:[0-9)][ ]?[+*/%^][ ]?|[A-Za-z0-9_][\[(]|(?:return|==|<=|>=)[ ]?)\Z")
_DECLARATION: Final = re.compile(
    r"(?:(?:let|const|var|int|long|auto|def|val) [A-Za-z_]{1,20}|(?:^|[\n;{])[ ]{0,8}[A-Za-z_]{1,12}) ?= ?\Z"
)
_FIELD: Final = re.compile(r"[,;\t|][ ]?[\"']?\Z")
HEADER_WIDTH: Final = 160
_TERM_BEFORE: Final = re.compile(r"[0-9)\]][ ]?\Z")
_TERM_AFTER: Final = re.compile(r"[ ]?(?:\*{1,2}[ ]?[0-9A-Za-z(]|\^)")
# Only a number without any separator is taken for one of a list, for a value or for a part of a link.
_LITERAL: Final = re.compile(r"(?:(?:[0-9],|=)[ ]?|[A-Za-z][./])\Z")


# A postal code with its state: MA 02110-1301.
_STATE: Final = re.compile(r"(?<![A-Za-z])[A-Z]{2}[ \n#*/]{1,8}\Z")


def is_postal_code(before: str, written: str) -> bool:
    """An American one of nine digits."""
    return len(written) == 10 and written[5] == "-" and _STATE.search(before) is not None


def is_close(view: View, cue_end: int, start: int) -> bool:
    """Whether only linking words and signs stand between a cue's end and a number's start."""
    return _LINK.fullmatch(view.lower, cue_end, start) is not None


def is_operand(before: str) -> bool:
    """Whether a number after `before` is computed with."""
    return _OPERAND.search(before) is not None


def is_field(text: str, start: int) -> bool:
    """Whether a field of a table begins at `start`."""
    return _FIELD.search(text, max(0, start - 3), start) is not None


def has_header(view: View) -> bool:
    """Whether the first line, as of a table, speaks of telephones."""
    return CUE.search(view.lower, 0, min(HEADER_WIDTH, view.lower.find("\n"))) is not None


def is_term(text: str, start: int, end: int) -> bool:
    """Whether a plus before a number adds it to something: x**2 + 4040937500*p."""
    return _TERM_BEFORE.search(text, max(0, start - 3), start) is not None or _TERM_AFTER.match(text, end) is not None


def is_code(before: str, *, is_bare: bool) -> bool:
    """Whether a number after `before` is one of source code."""
    if is_operand(before) or _DECLARATION.search(before) is not None:
        return True
    return is_bare and _LITERAL.search(before) is not None

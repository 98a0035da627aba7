"""The forms of API keys and tokens that carry a mark of their issuer. A table; `secrets` reads it.

Each form is looked for only where its mark is in the text, so the table's length costs an ordinary prompt nothing.
"""

import re
from dataclasses import dataclass

_LEFT = r"(?<![A-Za-z0-9])"
_RIGHT = r"(?![A-Za-z0-9])"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFormat:
    """One issuer's tokens."""

    mark: str
    pattern: re.Pattern[str]


def _format(mark: str, body: str) -> KeyFormat:
    return KeyFormat(mark=mark, pattern=re.compile(_LEFT + body + _RIGHT))


def _many(marks: str, body: str) -> tuple[KeyFormat, ...]:
    return tuple(_format(mark, re.escape(mark) + body) for mark in marks.split())


KEY_FORMATS = (
    # Amazon, Google, Microsoft, Alibaba, Tencent
    *_many("AKIA ASIA ABIA ACCA AROA AIDA AGPA ANPA ANVA APKA AIPA ASCA", "[A-Z0-9]{16,17}"),
    _format("amzn.mws.", r"amzn\.mws\.[0-9a-f-]{36}"),
    _format("ABSK", r"ABSK[A-Za-z0-9+/]{100,200}={0,2}"),
    _format("AIza", r"AIza[A-Za-z0-9_-]{33,39}"),
    _format("ya29.", r"ya29\.[A-Za-z0-9_-]{20,250}"),
    _format("GOCSPX-", r"GOCSPX-[A-Za-z0-9_-]{20,40}"),
    _format("1//0", r"1//0[A-Za-z0-9_-]{30,120}"),
    _format("Q~", r"[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{30,36}"),
    _format("AccountKey=", r"AccountKey=[A-Za-z0-9+/]{40,100}={0,2}"),
    _format("SharedAccessKey=", r"SharedAccessKey=[A-Za-z0-9+/]{40,100}={0,2}"),
    _format("sig=", r"sig=[A-Za-z0-9%+/]{40,80}(?:%3D|=){0,2}"),
    _format("AZDO", r"[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}"),
    _format("+AStT", r"[A-Za-z0-9+/]{33}\+AStT[A-Za-z0-9+/]{0,20}={0,2}"),
    _format("AzCa", r"[A-Za-z0-9+/]{30,60}AzCa[A-Za-z0-9+/]{0,20}={0,2}"),
    *_many("LTAI", "[A-Za-z0-9]{12,26}"),
    *_many("AKID", "[A-Za-z0-9]{32,36}"),
    # Version control and packages
    *_many("ghp_ gho_ ghu_ ghs_ ghr_", "[A-Za-z0-9]{30,255}"),
    *_many("github_pat_", "[A-Za-z0-9_]{22,255}"),
    *_many("glpat- gldt- glrt- glcbt- glptt- glft- glsoat- glimt- glagent- gloas- glffct-", r"[A-Za-z0-9_.-]{20,120}"),
    *_many("ATATT3 ATCTT3 ATBB ATOA", "[A-Za-z0-9_=-]{20,250}"),
    *_many("npm_", "[A-Za-z0-9]{30,60}"),
    *_many("pscale_tkn_ pscale_oauth_ pscale_pw_", "[A-Za-z0-9_.-]{30,60}"),
    *_many("pypi-", "[A-Za-z0-9_-]{40,300}"),
    *_many("rubygems_ dckr_pat_ dckr_oat_", "[A-Za-z0-9_-]{27,60}"),
    *_many("hvs. hvb. hvr.", "[A-Za-z0-9_-]{24,300}"),
    _format(".atlasv1.", r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70}"),
    # Chat
    *_many("xoxb- xoxp- xoxa- xoxr- xoxs- xoxe- xoxo- xoxc- xoxd-", "[A-Za-z0-9%-]{10,250}"),
    *_many("xapp- xoxe.xox", "[A-Za-z0-9-]{10,250}"),
    _format("hooks.slack.com/", r"(?:https?://)?hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9_/-]{20,120}"),
    _format("/api/webhooks/", r"(?:https?://)?(?:[a-z]{2,8}\.)?discord(?:app)?\.com/api/webhooks/[0-9]{15,20}/[A-Za-z0-9_-]{40,100}"),
    _format(".webhook.office.com/", r"(?:https?://)?[a-z0-9-]{1,60}\.webhook\.office\.com/webhookb2/[A-Za-z0-9@/_-]{50,250}"),
    _format(".", r"(?:mfa\.[A-Za-z0-9_-]{80,90}|[MNO][A-Za-z0-9_-]{22,28}\.[A-Za-z0-9_-]{5,7}\.[A-Za-z0-9_-]{25,45})"),
    _format(":", r"(?:bot)?[0-9]{8,10}:[A-Za-z0-9_-]{34,36}"),
    # Payment and mail
    *_many("sk_live_ sk_test_ rk_live_ rk_test_ pk_live_ pk_test_ sk_prod_ whsec_", "[A-Za-z0-9+/]{14,250}={0,2}"),
    *_many("sq0atp- sq0csp- sq0idp-", "[A-Za-z0-9_-]{22,60}"),
    *_many("EAAA", "[A-Za-z0-9_-]{56,64}"),
    _format("access_token$production$", r"access_token\$production\$[0-9a-z]{16}\$[0-9a-f]{32}"),
    *_many("shpat_ shpca_ shppa_ shpss_", "[A-Fa-f0-9]{32}"),
    *_many("AC SK", "[0-9a-f]{32}"),
    *_many("SG.", r"[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}"),
    *_many("key-", "[0-9a-f]{32}"),
    _format("-us", r"[0-9a-f]{32}-us[0-9]{1,2}"),
    *_many("xkeysib- xsmtpsib-", "[0-9a-f]{64}-[A-Za-z0-9]{16}"),
    *_many("re_", "[A-Za-z0-9]{8}_[A-Za-z0-9]{20,30}"),
    # Models
    *_many("sk-ant- sk-proj- sk-svcacct- sk-admin- sk-or- sk-lf- sk-None-", "[A-Za-z0-9_-]{20,250}"),
    *_many("sk-", "[A-Za-z0-9]{20,80}"),
    *_many("hf_ api_org_", "[A-Za-z0-9]{30,40}"),
    *_many("gsk_ xai- r8_ pplx- fw_ sbp_ tgp_v1_ tvly- jina_ hpka_ e2b_", "[A-Za-z0-9]{24,120}"),
    *_many("nvapi-", "[A-Za-z0-9_-]{40,120}"),
    *_many("lsv2_pt_ lsv2_sk_ wandb_v1_ ls__", "[A-Za-z0-9_]{32,90}"),
    # Operations
    *_many("dop_v1_ doo_v1_ dor_v1_", "[0-9a-f]{64}"),
    *_many("dapi dkea", "[0-9a-f]{32}(?:-[0-9])?"),
    *_many("HRKU-", "[A-Za-z0-9_-]{30,70}"),
    _format("django-insecure-", r"django-insecure-[!#-&(-_a-~]{30,80}"),
    *_many("NRAK- NRJS-", "[A-Z0-9a-f]{19,32}"),
    *_many("glsa_ glc_ sntrys_ sntryu_ dp.pt. dp.st. dp.ct. dp.sa.", "[A-Za-z0-9_.+/=-]{30,200}"),
    *_many("nfp_ tskey- pul- lin_api_ lin_oauth_", "[A-Za-z0-9-]{30,200}"),
    *_many("PMAK-", "[0-9a-f]{24}-[0-9a-f]{34}"),
    *_many("secret_ ntn_", "[A-Za-z0-9]{43,50}"),
    *_many("figd_ figo_", "[A-Za-z0-9_-]{38,80}"),
    *_many("pat", r"[A-Za-z0-9]{14}\.[0-9a-f]{64}"),
    *_many("sl.", "[A-Za-z0-9_-]{60,200}"),
    *_many("EAAC EAAG EAAB EAAD", "[A-Za-z0-9]{60,250}"),
    *_many("AGE-SECRET-KEY-1", "[A-Z0-9]{58}"),
    *_many("ops_eyJ", "[A-Za-z0-9+/=_-]{100,1000}"),
    *_many("FLWSECK- FLWSECK_TEST- rzp_live_ rzp_test_", "[A-Za-z0-9-]{14,60}"),
    *_many("vcp_ phc_ phx_", "[A-Za-z0-9]{24,200}"),
)  # fmt: skip
"""From the issuers' documentation and from the public rule sets of secret scanners; lengths with some slack."""

"""Secrets that must be found. Each is made up, and written in pieces so that no scanner complains."""

from onlinerlhf.gateway.pii import Kind

_B64 = "Q9vT2mXc7LrN4pKd8sWf1ZyHb6GjU3aEo5iRtMqPlVnBxCkSuDwJ0gFhYzAeT4Nm2Lq8RsXv6WpKc1Jd"
_HEX = "9f2c4e7a1b8d3f605c9e2a7d4b1f8036e5d2c7a9b4f10836"
_ALNUM = "aB3dE6gH9jK2mN5pQ8rS1tV4wX7yZ0cF2hJ5lM8oP1qR4sT7uW0xY3zA6bC9"

SECRETS: dict[Kind, tuple[str, ...]] = {
    Kind.API_KEY: (
        "aws_access_key_id = «AKI" + "AQ7RSTUVW2XYZ4K9J»",
        "export AWS_ACCESS_KEY_ID=«ASI" + "AY34FZKBOKMUTVV7A»",
        "maps key «AI" + f"za{_ALNUM[:35]}» leaked",
        "client secret «GOC" + f"SPX-{_ALNUM[3:31]}»",
        "token «ya" + f"29.{_B64[:60]}»",
        "azure «abc8Q~" + f"{_ALNUM[:34]}» secret",
        "DefaultEndpointsProtocol=https;AccountName=x;«AccountKey=" + f"{(_B64 + _B64)[:86]}==»;",
        "git clone with «gh" + f"p_{_ALNUM[:36]}»",
        "«github" + f"_pat_{_ALNUM[:22]}_{_B64[:59]}»",
        "GITHUB_TOKEN: «gh" + f"s_{_ALNUM[5:41]}»",
        "gitlab «gl" + f"pat-{_ALNUM[:20]}»",
        "SLACK=«xo" + f"xb-123456789012-1234567890123-{_ALNUM[:24]}»",
        "curl «https://hooks.sl" + f"ack.com/services/T0AB1CD2E/B0FG3HI4J/{_ALNUM[:24]}»",
        "discord «MTA" + f"yMzQ1Njc4OTAxMjM0NTY3OA.GaBcDe.{_B64[:38]}»",
        "«https://discord.com/api/web" + f"hooks/123456789012345678/{_B64[:68]}»",
        "telegram bot «123456789" + f":AA{_ALNUM[:33]}»",
        "stripe «sk" + f"_live_{_ALNUM[:24]}»",
        "webhook secret «wh" + f"sec_{_ALNUM[:32]}»",
        "twilio sid «A" + f"C{_HEX[:32]}»",
        "«S" + f"G.{_ALNUM[:22]}.{_B64[:43]}»",
        "OPENAI_API_KEY=«s" + f"k-proj-{_B64[:70]}»",
        "my key is «s" + f"k-{_ALNUM[:20]}T3Blb" + f"kFJ{_ALNUM[20:40]}»",
        "ANTHROPIC_API_KEY=«s" + f"k-ant-api03-{(_B64 + _B64)[:93]}AA»",
        "login with «h" + "f_aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH»",
        "//registry/:_authToken=«np" + f"m_{_ALNUM[:36]}»",
        "twine password «py" + f"pi-AgEIcHlwaS5vcmc{_B64[:70]}»",
        "gateway key «or" + "lhf_pg_xwHd82XjFy7AG3BCxJeJXmDISWhBHMp1G201kWZCWUFx4V83El»",
        "我的密钥是«or" + "lhf_pr_S6gqfRgVYruPWJiDELCrujke8PM3r804eluGRA35grOt2vMIbi»请保密",
        "mailgun «ke" + f"y-{_HEX[:32]}»",
        "«shp" + f"at_{_HEX[:32]}» for the shop",
        "«do" + f"p_v1_{_HEX}{_HEX[:16]}»",
        "databricks «da" + f"pi{_HEX[:32]}»",
    ),
    Kind.JWT: (
        "Authorization: Bearer «ey" + "JhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.ey" + f"JzdWIiOiIxMjM0NSJ9.{_B64[:43]}»",
        "cookie=«ey" + "JhbGciOiJSUzI1NiJ9.ey" + f"JpZCI6NDJ9.{_B64}»; path=/",
    ),
    Kind.PRIVATE_KEY: (
        f"«-----BEGIN RSA PRIVATE KEY-----\nMIIE{_B64[:60]}\n{_B64[:64]}\n-----END RSA PRIVATE KEY-----»\nthanks",
        "use «-----BEGIN OPENSSH PRI" + f"VATE KEY-----\nb3Bl{_B64[:60]}\n-----END OPENSSH PRI" + "VATE KEY-----»",
        '{"key": "«-----BEGIN PRI' + f"VATE KEY-----\\nMIIE{_B64[:60]}\\n-----END PRI" + 'VATE KEY-----»\\n"}',
    ),
    Kind.URL_CREDENTIALS: (
        "DATABASE_URL=«postgres://admin:s3cr" + "etPw9@db.internal:5432»/prod",
        "«https://bob:hunt" + "er2x@example.com»/repo.git",
        "redis «redis://:p4ss" + "w0rd!@cache.example.net:6379»/0",
        "«mongodb+srv://app:Zx9" + "kLm2Q@cluster0.example.mongodb.net»/test",
    ),
    Kind.PASSWORD: (
        "password=«Tr0ub4dor" + "&3»",
        "my password is «Sunsh1ne" + "!2024»",
        'db_password: "«x7$Kq' + '92mPz»"',
        "PWD := «hunt" + "er2000»",
        "密码：«Qwe12" + "3456!»",
        "mot de passe : «Citr0n" + "Vert#9»",
        "aws_secret_access_key = «wJalr" + f"{_B64[:35]}»",
        'api_key: "«' + f'{_HEX[:32]}»"',
        "client_secret='«" + f"{_ALNUM[:40]}»'",
        "Authorization: Basic «dXNlcjpw" + "YXNzd29yZDEyMzQ1Ng==»",
        "X-API-Key: «" + f"{_ALNUM[10:42]}»",
    ),
}

"""Prompts as people write them, with and without something in them, written when the patterns were done.

Two of the positives led to better patterns afterwards.
"""

from onlinerlhf.gateway.pii import Kind

BLIND_POSITIVES: dict[Kind, tuple[str, ...]] = {
    Kind.EMAIL: (
        (
            "Hi there! I need help drafting a reply to my landlord. He keeps ignoring me even though I wrote to h"
            "im twice from «tessa.vandermeer@ziggo.nl» last month. Keep it short, firm and polite."
        ),
        (
            'Traceback (most recent call last):\n  File "sync.py", line 88, in push\n    raise AuthError(user)'
            "\nAuthError: «j.okonkwo@lagosmed.ng» has no seat"
        ),
        (
            "Hallo, bitte korrigiere: 'Sehr geehrte Frau Öz, anbei meine Unterlagen. Rückfragen an «merve_oez94@t"
            "-online.de».'"
        ),
        "用python写一个脚本\uff0c每天早上给«liuyang@corp.netease.com»发一封天气邮件",
        "INSERT INTO subscribers(email, ts) VALUES ('«pierre.d@free.fr»', NOW());",
        "who owns «k8s-oncall@initech.cloud» ?? it bounced",
        "To whom it may concern,\nplease unsubscribe «grandma.jo(at)aol(dot)com» from everything",
        '{"messages":[{"role":"user","content":"my login is «ivo+test@seznam.cz»"}]}',
    ),
    Kind.PHONE: (
        ("write a classified ad: selling a 2014 Golf, 120k km, 5900 EUR, ask for Dirk, «0176 4455 6677», after 18:00"),
        "So my sister moved, her new landline is «+44 1865 270000» and I keep forgetting it",
        "Plumber: «(503) 226-4141». Electrician: TBD.",
        "Draft an out-of-office: back on Monday 14 July; urgent matters, text «917-246-3318».",
        "Rédige un SMS de relance au «07 68 21 44 90» pour la facture impayée",
        "Escribe un anuncio: se alquila piso en Lavapiés, 850 €/mes, llamar al «634 118 207» (Paqui)",
        "帮我写个租房广告\uff1a两室一厅\uff0c朝南\uff0c月租3500\uff0c联系人王女士 «17701234589»",
        "下記に折り返しお願いします。株式会社ミナト 佐藤 «045-212-7788»",
        "Translate to Hindi: 'Please deliver to Ramesh, contact «+91 99201 55478», near the temple.'",
        "Crie um convite de aniversário e coloque no fim: confirmar presença com a Bia «(21) 99871-4432»",
        'contacts = {"mum": "«+353872341190»", "gp": None}',
        "Wer hat von «040/42838-0» angerufen?",
        "BEGIN:VCARD\nVERSION:3.0\nFN:Al\nTEL;TYPE=CELL:«+1-650-253-1234»\nEND:VCARD",
        "her digits are «(212) 664-7665» ;)",
        "请短信通知 «138-1688-2255»\uff0c谢谢",
        "WhatsApp: «+55 31 99123-0099»",
        "My GP surgery, «01273 696011», never picks up the phone.",
    ),
    Kind.CARD: (
        "I tried to pay twice with «4751 3775 9458 0792» and got error 51, what does that mean?",
        "test data: name=Ann, number=«5412869411151094», exp=0629",
        "Bitte sperren Sie meine Karte «5232 5494 1348 2691»!",
        "AMEX «3714 059298 18849» 06/28",
        "我的招行卡«6225807187207430»被冻结了怎么办",
        '{"payment_method":{"card":{"number":"«6011961627186858»","cvc":"887"}}}',
    ),
    Kind.IBAN: (
        "Mein Vermieter will die Kaution auf «DE39 5001 0517 4312 1890 07». Ist das seriös?",
        "virement: titulaire Mme Roux, «FR6320041010050500013M02694», motif loyer",
        "splitwise says pay «IE76AIBK40217617666759» \u2013 do it?",
        "Bonifico a «IT51Y8589809054986247604758» entro venerdì",
        "Proszę o przelew na «PL71 7225 1444 6289 7921 7151 6939»",
    ),
    Kind.US_SSN: (
        "Fill in my W-4. Name: Dana Cole, SSN «233-92-2731», single, no dependents.",
        "the form rejects «403-69-8089» as my social, why",
        "patient_id,ssn\n77,«652-97-7157»",
    ),
    Kind.CN_RESIDENT_ID: (
        "帮我写一份委托书\uff0c委托人张伟\uff0c身份证号\uff1a«32058319911017003X»",
        "def test(): assert check('«371302200202285228»')",
    ),
    Kind.UK_NI_NUMBER: (
        "HMRC keeps asking for my NI, it's «XX540674A», is it safe to give over phone?",
        "Employee: Bob; NINO: «SB 48 02 91 A»; tax code 1257L",
    ),
    Kind.ES_DNI: (
        "Redacta un contrato de alquiler: arrendatario Luis Pérez, DNI «87670782A»",
        "autónoma con NIE «Y2974347R», ¿qué modelo presento?",
    ),
    Kind.DE_TAX_ID: (
        "Hilf mir bei ELSTER, IdNr «82065910735», Steuerklasse I",
        "Meine steuerliche Identifikationsnummer lautet «75 493 201 963».",
    ),
    Kind.FR_NIR: ("Je remplis ma feuille de soins, n° «2 71 08 59 397 273 39»",),
    Kind.FR_TAX_NUMBER: ("identifiant fiscal «3708924465106» impots.gouv ne marche pas",),
    Kind.IP_ADDRESS: (
        "My minecraft server «46.4.119.203» keeps timing out after 30 s, config below",
        "Failed password for invalid user admin from «218.92.0.34» port 38212 ssh2",
        "dig +short example.org\n«93.184.215.14»",
        "iptables -A INPUT -s «45.155.205.233» -j DROP",
        "is «2a01:4f8:c17:2a::1» a Hetzner address?",
        "upstream backend { server «18.194.77.21»:8080; }",
        "幫我查«114.34.82.190»在哪個城市",
    ),
    Kind.CRYPTO_WALLET: (
        "scammer asked me to send 0.2 BTC to «bc1qhxtv6k2u30uuv8zawh2kly792d7c20ff4my0eu», can I trace it?",
        "mapping: {owner: '«0x52abb45deb93f1f4aEfBB6E04f47729FA283962C»'}",
        "转 USDT 到 «TLwTrMwz23KtQCiCgs7Q2wbD6vjJQUykmZ» 手续费多少",
        "tip jar: «DJg77JwhWDKNtEsnetUSam6dyYdfKUHzZS» (doge)",
        "legacy addr «16tGHf3SL8WNPkbfYzTQ7Y1p64tDUKUjXq»",
    ),
    Kind.API_KEY: (
        (
            'I get 401 with\n\nimport openai\nclient = openai.OpenAI(api_key="«sk-'
            'proj-8woxM-WwMeZ4swstab2_lxwX6mRcVIpwQl2qjqDTMBlphf1VZrcriyIc4LFg»")'
        ),
        ".env\nPORT=8080\nAWS_ACCESS_KEY_ID=«AKI" + "AWOTYVJ4XR3PX5AJK»\nDEBUG=1",
        ('curl -H "Authorization: token «ghp' + '_bpTVAxCQ4gaw6SUamxQpBumi2Ye9xT0rYiXa»" https://api.github.com/user'),
        "remote: HTTP Basic: Access denied, used «glp" + "at-bM6NsQUSbDnojvhmEZNQ»",
        (
            "const stripe = require('stripe')('«sk_"
            "live_VrWyU4TZqlF1ee8wLsWLp58kmjjyNtbv86s6kZXSMHyoS6saRb1W3OIcxcPLlBl3AFbyNKs0AD9d7v3AehVXzZ0IowQfFkw"
            "0ABw»');"
        ),
        "WebClient(token='«xo" + "xp-276102998943-775281936911-477635757391-67ae2779b93f7d8490cabecdcf9314f3»')",
        "from huggingface_hub import login; login('«hf_" + "YYmzShizwrAeqVoEVXTgOjvQSzzQlVnquS»')",
        "my orlhf key is «orl" + "hf_pg_uneYQIRVxHvcJeCWZXI2kAVuCCWuWR74tf5cGhKzHPNM1XJNDl»; why 429?",
        "bot = telebot.TeleBot('«176" + "0944515:AAWoW5WjqFFn3SFEZxH7JtwREk3xldBrwRN»')",
        'terraform: access_key = "«LTA' + 'IJTHzbnPNyjBO7wEW8BmI»"',
        "SENDGRID «SG." + "aXqphP7ZLWmuLGq7Nf5XFV.7IgA5vB6bdBctiDYnESg4NhtdFZutReYbul8AxjNZfg»",
    ),
    Kind.PASSWORD: (
        "application.yml:\n  datasource:\n    username: svc\n    password: «qZ7" + "$kP!93xvT»",
        "headers = {'X-Api-Key': '«38f" + "247c45576e85d68272726b12d922e42b6c2cf»'}",
        "wifi password is «Sun" + "flower!2291», make a QR code",
    ),
    Kind.JWT: (
        (
            "why is this token invalid? «eyJ"
            "hbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiAiNzEyNTQ1ODMiLCAiaWF0IjogMTcxNjIzOTAyMiwgImV4cCI6IDE3MD"
            "AwMDAwMDB9.JtYsZ9UtftSX4DICmulchKjDXLRPNHZ7SlJt2O9uu2Y»"
        ),
    ),
    Kind.PRIVATE_KEY: (
        (
            "ssh says 'invalid format':\n«---"
            "--BEGIN OPENSSH PRIVATE KEY-----\nJRSR7d5S7aoUovwyUo9NJX35YhM5UXUADjLD0lUjtWmve0DhJ9yZnQiJaPReDTgl\n"
            "2/last3ekeynMIdbDpMwJw7XU/+TNHmVkyuUc0nByZifiPpS38EOmTQgVpwOkVKH\ncxs7xAG1DqHp2crr7WZj//PIaDKztOF9Tm"
            "L91PW8yzJJbZGYoPqTlDN1bZ4SWWwy\nGYyyLtWGGEJutUsWwsShiYEvOyPaxRkzsWd/6YcSKs9TU5JWJjAZig+tYV8HxHil\n8Y"
            "mga1mfQ7KY0lruR9e+mir/ioOfYO61wCzBNlSB6zXVRZghPZcEpkmmlytIaNb4\nkjeH3kaDCDkywuQTn6zRk7jOyvlbC9pFMxSS"
            "RFebgzNk1zfOLIanQb8SvICyy/9E\n7jpdskaCq3F5kAbxOH+FnHFWvo5oOQJ3bmWPwiQlDm0bxyIQWBxTGGm5ZAaKtgC9\n----"
            "-END OPENSSH PRIVATE KEY-----»\nplease fix"
        ),
    ),
    Kind.URL_CREDENTIALS: ("DATABASE_URL=«pos" + "tgresql://crm_app:9vXq-kk21@db.eu-1.internal:5432/crm»",),
}

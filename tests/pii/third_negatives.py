"""A third list of what is none: code, logs, tables, links. Three of these led to better patterns."""

THIRD_NEGATIVES: tuple[str, ...] = (
    "def test_view_leads_back_2(self): pass",
    "live_update_manager_config_v2_final",
    "fw_update_configuration_manager_version_2",
    "npm_config_cache_directory_location_2",
    (
        "import numpy as np\n"
        "import torch\n"
        "\n"
        "class Model(torch.nn.Module):\n"
        "    def __init__(self, vocab_size: int = 151936, hidden: int = 2048):\n"
        "        self.key = torch.nn.Linear(hidden, 3 * hidden)\n"
        "        self.token_embedding = torch.nn.Embedding(50257, 768)\n"
        "        self.password_hash = None\n"
    ),
    (
        "CREATE TABLE users (id BIGINT PRIMARY KEY, password VARCHAR(255) NOT NULL, token CHAR(64));\n"
        "INSERT INTO t VALUES (1234567890, '2024-01-01 00:00:00');"
    ),
    (
        "const apiKey = process.env.API_KEY; const token = await getToken(user); fetch(`https://api.example.c"
        "om/v1/users/${id}?token=${token}`)"
    ),
    (
        'version: "3.9"\n'
        "services:\n"
        "  db:\n"
        "    image: postgres:15.4\n"
        "    environment:\n"
        "      POSTGRES_PASSWORD: ${POSTGRES_PASSWORD}\n"
        '    ports: ["5432:5432"]'
    ),
    (
        '{"name": "left-pad", "version": "1.3.0", "integrity": "sha512-XI5MPzVNApjAyhQzphX8BkmKsKUxD4LdyK24iZ'
        'eQGinBN9yTQT3bFlCBy/aVx2HrNcqQGsdot8ghrjyrvMCoEA=="}'
    ),
    "requests==2.31.0 --hash=sha256:58cd2187c01e70e6e26505bca751777aa9f2ee0b7f4300988b709f44e013003f",
    ('curl -X POST https://api.example.com/v1/items -H "Authorization: Bearer <token>" -d \'{"id": 12345678}\' '),
    ("The derivative of x^2 is 2x; the integral of 1/x from 1 to e is 1. 123456789 * 987654321 = 121932631112635269"),
    (
        "| id | value | ts |\n"
        "|---|---|---|\n"
        "| 1001 | 3.14159 | 2024-01-01T00:00:00 |\n"
        "| 1002 | 2.71828 | 2024-01-02T00:00:00 |"
    ),
    ("1,2024-01-01,1000000,3.5\n2,2024-01-02,2000000,4.5\n3,2024-01-03,3000000,5.5"),
    "Jan 12 10:15:32 host kernel: [12345.678901] usb 1-1.2: new high-speed USB device number 5",
    "at com.example.App.main(App.java:123) ~[app-1.2.3.jar:1.2.3.4]",
    'Traceback: File "/usr/lib/python3.11/site-packages/foo/bar.py", line 1234, in <module>',
    "0x7ffee4bff6a8 0x00007fff5fbff8b8",
    "5f4dcc3b5aa765d61d8327deb882cf99 is an MD5",
    "MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA=",
    (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9aw"
        "AAAABJRU5ErkJggg=="
    ),
    "https://www.youtube.com/watch?v=dQw4w9WgXcQ&t=1234s",
    "https://docs.google.com/document/d/1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms/edit",
    "https://en.wikipedia.org/wiki/Special:Permalink/1234567890",
    "https://example.com/order/112-1234567-1234567?ref=abc",
    "s3://my-bucket/path/2024/01/15/part-00000-12345678-abcd.snappy.parquet",
    "arn:aws:iam::123456789012:role/Admin",
    "gs://bucket/file_20240115_103000.csv",
    "projects/my-project-123456/secrets/my-secret/versions/1",
    "ghcr.io/org/image@sha256:9b2a3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f809",
    "Mersenne primes: 3, 7, 31, 127, 8191, 131071, 524287, 2147483647",
    "The secret: practice daily. The key is 30 minutes per day.",
    'token: "hello world", key: "some value here", secret: "santa"',
    "My password manager is 1Password 8.10.23",
    "password123 is a weak password",
    "the password is incorrect; password is required",
    '"passwords": ["a", "b"], "num_passwords": 12345678',
    "Bearer bonds were common in the 1980s",
    "Basic understanding of calculus",
    '@dataclass(frozen=True) class A: key: str = "default_key_name_1"',
    "token_type_ids=[0,0,0,1,1,1]",
    ("<|im_start|>user\nhello<|im_end|>"),
    "Call the function foo(1234567890) twice",
    "phone: str | None = None",
    "phone_number = models.CharField(max_length=20)",
    "The contact lens was 14.2 mm, 8.6 base curve",
    "contact number of a graph; mobile 3D gaming at 120 fps",
    "text 1234 for size 12345 bytes",
    "call 1234567 times",
    "In mobile Safari 17.2.1 (21C66)",
    "Model 415-555 and model 2671-1234",
    "Figure 3.2.1.4 shows results; Table 12.1.2.3 too.",
    "My GPA is 3.85, SAT 1520",
    "The Dow fell 1,175.21 points to 24,345.75",
    "Flight time 12:34:56, distance 12,345.67 km",
    "Isaiah 40:28-31, John 3:16",
    "1 Corinthians 13:4-8:13",
    "3:2:1 ratio 2001:2002:2003",
    "Dear Sir,",
    "Dear all,",
    "Dear Professor, I hope",
    "Best regards,\n",
    "Sincerely yours",
    "The name is Bond",
    "My name is not important.",
    'I wrote "my name is" twice',
    "What's the ETH price? 0.0523 BTC = 1,234 USDT",
    "bc1 addresses start with bc1q",
    "abcdefghijklmnopqrstuvwxyzabcdef",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "3J is not a wallet",
    "passport control at gate 12",
    "passport photos are 35x45 mm, 20240101",
    "My passport expires on 2027-05-01",
    "DOB field is required (YYYY-MM-DD)",
    "she was born on a Monday",
    "生日快乐！2024",
    "身份证号码由18位数字组成",
    "手机型号是iPhone 15 Pro Max 256",
    "电话会议在10:30开始",
    "联系方式见第12345678页",
    "邮编100084",
    "车牌京A12345",
    "SSN is a 9-digit number like AAA-GG-SSSS",
    "social distancing 6 feet, 123-45 rule",
    "tax year 2023-2024: 12,345.67",
    "VAT no. DE 12 345",
    "UTC+0100 and GMT+01:00",
    "+12345",
    "+ 1 234 567",
    "x += 1234567890",
    "a+1234567890+b",
    "1+1=2",
    "(123) 456 items",
    "(2024) 123-4567 is the docket",
    "100-200-3000",
    "2-3-4 defence, 4-4-2",
    "USB 3.2.1.0",
    "1.1.1",
    "127.0.0.1",
    "ipv4 0.0.0.0",
    "255.255.255.255",
    "1.2.3.4/5",
    "v8.0.33.1",
    "python-3.11.4.post1",
    "8.8.8",
    "Java 1.8.0_392",
    "Postgres 15.4.1.2",
    "1.0.0.0-beta",
    "openssl 1.1.1.23",
)

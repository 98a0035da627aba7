import pytest

from onlinerlhf.gateway.pii import Kind, find


def kinds(text: str) -> list[Kind]:
    return [found.kind for found in find(text)]


@pytest.mark.parametrize(
    "text",
    [
        "name,phone\nAl,4155552671\n",
        "6505551234 is my cell",
        "9876543210, call me",
        "https://wa.me/5511987654321",
        "tel=%2B4915123456789",
        "77,+14155552671,34",
        "appelle-moi au 0252131797",
        "1,415-867-5309,2",
    ],
)
def test_a_word_before_or_after_or_in_the_header_makes_digits_a_telephone_number(text: str) -> None:
    assert kinds(text) == [Kind.PHONE]


@pytest.mark.parametrize(
    "text",
    [
        "the text has 1234567 characters",
        "手机销量12345678台",
        "Telefon 12 000 000 Nutzer",
        "Call of Duty 2003-2007-2010",
        "Boston, MA 02110-1301",
        "id,views\n1,4155552671,30\n",
        "x**2 + 4040937500*p",
        "RMA 650-253-0000-A",
    ],
)
def test_a_word_of_telephones_does_not_make_every_number_one(text: str) -> None:
    assert kinds(text) == []


@pytest.mark.parametrize(
    ("text", "is_address"),
    [
        ("BIOS 1.27.0.45 fixed the fan", False),
        ("note 13.107.42.14", True),
        ("BIOS server 1.27.0.45", True),
        ("Zabbix 6.4.12.101", False),
        ("whois 6.4.12.101", True),
        ("(see 24.12.75.123)", True),
    ],
)
def test_a_quad_after_a_name_is_a_version_and_after_a_word_of_hosts_an_address(text: str, is_address: bool) -> None:
    assert kinds(text) == ([Kind.IP_ADDRESS] if is_address else [])


@pytest.mark.parametrize(
    "text",
    ["shop at walmart dot com", "ssh deploy@web.example.com", "scp a deploy@web.example.com:/srv", "A@B.shape"],
)
def test_a_shop_a_login_and_a_product_are_no_address(text: str) -> None:
    assert kinds(text) == []


def test_a_table_of_cards_says_so_in_its_header() -> None:
    assert kinds("id,card\n7,4111111111111111,9") == [Kind.CARD]
    assert kinds("7,4111111111111111,9") == []


def test_the_login_of_an_example_is_none() -> None:
    assert kinds("postgres://user:password@localhost/db") == []
    assert kinds("postgres://crm:9vXq-kk21@localhost/db") == [Kind.URL_CREDENTIALS]

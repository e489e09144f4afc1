"""EMVCo codes made up and damaged at random: nothing crashes, and nothing altered passes for what it was.

A code is built as a list of data objects, so that the test knows what it says without reading it.
"""

from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schemas.money import Money, exponent
from schemas.recognition import PayeeCode
from streams.sightings.emvco import parse
from streams.sightings.payee_codes import NotAPayeesCode, is_payers_code, read
from tests.support.payee_codes import crc, sealed, tlv

CASES = settings(max_examples=1500, deadline=None)

PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
CURRENCIES = {"156": "CNY", "392": "JPY", "978": "EUR", "414": "KWD", "702": "SGD", "986": "BRL"}


@dataclass(frozen=True)
class Built:
    """A valid code, object by object, without its checksum."""

    objects: tuple[tuple[str, str], ...]
    amount: Money | None
    accounts: tuple[tuple[str, str], ...]

    @property
    def body(self) -> str:
        return "".join(tlv(id, value) for id, value in self.objects)

    @property
    def text(self) -> str:
        return sealed(self.body)

    def value(self, id: str) -> str | None:
        return dict(self.objects).get(id)


def words(chance: Random, longest: int) -> str:
    return "".join(chance.choices(PRINTABLE, k=chance.randint(1, longest)))


def template(chance: Random) -> str:
    sub = {f"{id:02}": words(chance, 12) for id in chance.sample(range(1, 100), chance.randint(1, 2))}
    return tlv("00", words(chance, 16)) + "".join(tlv(id, value) for id, value in sub.items())


def build(seed: int) -> Built:
    """Any valid code; by a seed, for hypothesis would need most of its time to draw so many parts one by one."""
    chance = Random(seed)
    number = chance.choice(sorted(CURRENCIES))
    objects = {"52": f"{chance.randrange(10000):04}", "53": number, "58": chance.choice(["CN", "DE", "SG"])}
    objects |= {"59": words(chance, 25), "60": words(chance, 15)}
    accounts = {f"{id:02}": words(chance, 19) for id in chance.sample(range(2, 26), chance.randint(0, 1))}
    accounts |= {str(id): template(chance) for id in chance.sample(range(26, 52), chance.randint(0 if accounts else 1, 2))}
    amount = None
    if chance.random() < 0.5:
        amount = Money.of(chance.randint(1, 10**9), CURRENCIES[number])
        objects["54"] = f"{amount.major:.{exponent(amount.currency)}f}"
    if chance.random() < 0.5:
        objects["01"] = chance.choice(["11", "12"])
    if chance.random() < 0.5:
        objects["62"] = tlv("01", words(chance, 25)) + tlv("07", words(chance, 8))
    if chance.random() < 0.5:
        objects["64"] = tlv("00", "ZH") + tlv("01", "".join(chance.choices("最佳运输市場の本屋😀", k=chance.randint(1, 8))))
    order = [*objects.items(), *accounts.items()]
    chance.shuffle(order)
    return Built((("00", "01"), *order), amount, tuple(sorted(accounts.items())))


def codes() -> st.SearchStrategy[Built]:
    return st.integers(0, 2**64).map(build)


def outcome(text: str) -> PayeeCode | None:
    """What a frame would tell of it. Anything but an answer or a refusal is a crash, and fails the test."""
    is_payers_code(text)
    try:
        return read(text)
    except NotAPayeesCode:
        return None


def holds(text: str) -> bool:
    """By the test's own arithmetic."""
    return len(text) > 8 and text[-8:-4] == "6304" and text.isprintable() and text[-4:] == crc(text[:-4])


@CASES
@given(codes())
def test_what_is_valid_is_read_as_it_was_built(built: Built) -> None:
    code, parsed = read(built.text), parse(built.text)
    assert code.amount == built.amount
    assert (code.name, code.dynamic) == (built.value("59"), built.value("01") == "12")
    assert code.currency == CURRENCIES[built.value("53") or ""]
    assert parsed.accounts == built.accounts
    assert (parsed.category, parsed.country, parsed.city) == (built.value("52"), built.value("58"), built.value("60"))
    again = sealed("".join(tlv(id, value) for id, value in reversed(built.objects[1:])).join(["000201", ""]))
    assert read(again) == code, "the order means nothing"


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Built, str]:
    """A valid code, and the same altered in up to three places, its checksum left alone."""
    built = draw(codes())
    text = built.text
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text) - 1))
        character = draw(st.sampled_from(PRINTABLE + "0123456789é０水\x00\n\ud800"))
        match draw(st.sampled_from(["flip", "insert", "delete", "cut", "repeat", "swap"])):
            case "flip":
                text = text[:at] + character + text[at + 1 :]
            case "insert":
                text = text[:at] + character + text[at:]
            case "delete":
                text = text[:at] + text[at + 1 :]
            case "cut":
                text = text[:at]
            case "repeat":
                text += text[at:]
            case "swap":
                other = draw(st.integers(0, len(text) - 1))
                low, high = sorted((at, other))
                text = text[:low] + text[high:] + text[low:high]
        assume(text)
    return built, text


@CASES
@given(damaged())
def test_nothing_damaged_is_read_unless_its_checksum_holds(case: tuple[Built, str]) -> None:
    built, text = case
    if text == built.text:
        return
    code = outcome(text)
    assert code is None or holds(text)


@CASES
@given(damaged())
def test_what_is_altered_and_sealed_anew_is_another_code_or_none(case: tuple[Built, str]) -> None:
    """Whoever alters a code can compute a checksum. What then passes says the altered thing: the payee's key and the amount have
    changed with the objects that say them, and nothing else in the code can move them."""
    built, text = case
    assume("\ud800" not in text)
    altered = sealed(text[:-8])
    original, code = read(built.text), outcome(altered)
    if code is None:
        return
    said = dict(root_objects(altered))
    accounts = tuple(sorted((id, value) for id, value in said.items() if "02" <= id <= "51"))
    assert (code.key == original.key) == (accounts == built.accounts)
    assert code.dynamic == (said.get("01") == "12") and code.name == said["59"]
    number = said["53"]
    if "54" not in said:
        assert code.amount is None
    else:
        assert code.amount is not None and code.amount.major == Decimal(said["54"].rstrip("."))
        assert number not in CURRENCIES or code.amount.currency == CURRENCIES[number]
    assert "55" not in said


def root_objects(text: str) -> list[tuple[str, str]]:
    """The test's own reading of what has passed; an object that comes twice fails here."""
    found, at = [], 0
    while at < len(text):
        length = int(text[at + 2 : at + 4])
        found.append((text[at : at + 2], text[at + 4 : at + 4 + length]))
        at += 4 + length
    assert at == len(text) and len({id for id, _ in found}) == len(found)
    return found


@st.composite
def doubled(draw: st.DrawFn) -> Built:
    """A code in which one object comes twice, anywhere, the same or altered, sealed properly."""
    built = draw(codes())
    id, value = draw(st.sampled_from(built.objects))
    if draw(st.booleans()):
        value = words(Random(draw(st.integers(0, 2**32))), len(value))
    objects = list(built.objects)
    objects.insert(draw(st.integers(1, len(objects))), (id, value))
    return replace(built, objects=tuple(objects))


@CASES
@given(doubled())
def test_an_object_that_comes_twice_is_refused_however_it_is_sealed(built: Built) -> None:
    assert outcome(built.text) is None


@CASES
@given(codes(), st.data())
def test_a_code_that_is_cut_or_goes_on_is_refused(built: Built, data: st.DataObject) -> None:
    text = built.text
    cut = data.draw(st.integers(0, len(text) - 1))
    assert outcome(text[:cut]) is None
    assert outcome(text + data.draw(st.text(min_size=1, max_size=20))) is None
    body = sealed(built.body[: data.draw(st.integers(0, len(built.body) - 1))])
    boundaries = {sum(len(tlv(*item)) for item in built.objects[:count]) for count in range(len(built.objects))}
    assert len(body) - 8 in boundaries or outcome(body) is None


@CASES
@given(st.one_of(st.text(max_size=200), st.text("0123456789", max_size=200).map(lambda digits: sealed("000201" + digits))))
def test_no_text_at_all_crashes(text: str) -> None:
    outcome(text)


@pytest.mark.parametrize(
    "texts", [("https://qr.alipay.com/fkx01234abcdefghijk5678", "wxp://f2f0AbCdEfGhIjKlMnOpQrStUvWxYz-_0123")]
)
def test_every_other_character_of_a_wallets_code_makes_another_payee_or_none(texts: tuple[str, ...]) -> None:
    for text in texts:
        keys = [read(text).key]
        for at in range(len(text)):
            changed = outcome(text[:at] + ("z" if text[at] != "z" else "y") + text[at + 1 :])
            keys += [changed.key] if changed else []
        assert len(set(keys)) == len(keys)
        assert all(one != other for one, other in pairwise(keys))

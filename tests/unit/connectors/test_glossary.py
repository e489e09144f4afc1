"""The translator that is always there."""

import csv
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.conformance.translators import TranslatorConformance
from connectors.ports import Translator
from connectors.translators.glossary import GlossaryTranslator

LANGUAGES = ["en", "de", "sv", "zh", "ja", "fr", "es"]


class TestGlossary(TranslatorConformance):
    @pytest.fixture
    def connector(self) -> Translator:
        return GlossaryTranslator()

    @pytest.fixture(params=[("Organic whole milk", "en", "de"), ("有机全脂牛奶", "zh", "en-GB"), ("Lait entier bio", "fr", "ja")])
    def known(self, request: pytest.FixtureRequest) -> tuple[str, str, str]:
        found: tuple[str, str, str] = request.param
        return found


async def translated(text: str, source: str, target: str, **glossary: str) -> str | None:
    """None where it came back as it was."""
    (found,) = await GlossaryTranslator().translate([text], source, target, glossary)
    if found.language == source:
        assert found.text == text
        return None
    return found.text


@pytest.mark.parametrize(
    ("text", "source", "target", "expected"),
    [
        ("Organic whole milk 1 l", "en", "de", "Bio Vollmilch 1 l"),
        ("Organic whole milk 1 l", "en", "sv", "Eko standardmjölk 1 l"),
        ("Organic whole milk 1 l", "en", "fr", "Lait entier bio 1 l"),
        ("Organic whole milk 1 l", "en", "es", "Leche entera bio 1 l"),
        ("Organic whole milk 1 l", "en", "zh", "有机全脂牛奶 1 l"),
        ("Organic whole milk 1 l", "en", "ja", "有機成分無調整牛乳 1 l"),
        ("Ekologisk mellanmjölk 1,5 l", "sv", "en", "Organic semi-skimmed milk 1,5 l"),
        ("Bio-Vollmilch 3,5 %", "de", "en", "Organic whole milk 3,5 %"),
        ("Zartbitterschokolade 70 %, 100 g", "de", "fr", "Chocolat noir 70 %, 100 g"),
        ("GLUTENFREE PASTA", "en", "de", None),
        ("gluten free pasta 6 x 500 g", "en", "de", "Nudeln glutenfrei 6 x 500 g"),
        ("有机牛奶500ml", "zh", "en", "Organic milk 500ml"),
        ("Huile d’olive vierge extra", "fr", "en", "Extra virgin olive oil"),
        ("12 eggs", "en", "de", "12 Eier"),
        ("Café moulu décaféiné, 250 g", "fr", "en", "Decaffeinated ground coffee, 250 g"),
        ("Orange juice", "en-GB", "de-AT", "Orangensaft"),
    ],
)
async def test_titles(text: str, source: str, target: str, expected: str | None) -> None:
    assert await translated(text, source, target) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Superb whole milk",  # an unknown word
        "Apple cake",  # two nouns: a compound that is not in the list
        "Milk for coffee",
        "Milky",  # part of a word is not the word
        "Buttermilks",
        "Hofgut",
        "750 g",  # nothing to translate
        "100 %",
        "牛奶",
        "Milk 🥛",
    ],
)
async def test_titles_that_stay_as_they_are(text: str) -> None:
    for target in LANGUAGES[1:]:
        assert await translated(text, "en", target) is None


async def test_a_compound_is_not_its_parts() -> None:
    assert await translated("Milk chocolate", "en", "de") == "Vollmilchschokolade"
    assert await translated("Milk, chocolate", "en", "de") == "Milch, Schokolade"


async def test_brands_are_kept_where_they_are() -> None:
    assert await translated("Arla organic milk 1 l", "en", "fr", Arla="Arla") == "Arla lait bio 1 l"
    assert await translated("Organic milk Arla", "en", "fr", Arla="Arla") == "Lait bio Arla"
    assert await translated("ARLA milk", "en", "de", Arla="Arla") == "ARLA Milch"
    assert await translated("organic Arla milk", "en", "fr", Arla="Arla") is None


async def test_the_callers_words_win() -> None:
    assert await translated("Milk", "en", "de", milk="Weidemilch") == "Weidemilch"


@pytest.mark.parametrize(("source", "target"), [("en", "en"), ("en", "en-GB"), ("en", "pt"), ("pt", "en"), ("", "")])
async def test_languages_it_does_not_know(source: str, target: str) -> None:
    (found,) = await GlossaryTranslator().translate(["Milk"], source, target)
    assert (found.text, found.language) == ("Milk", source)


def test_the_list_is_complete_and_clear() -> None:
    table = files("connectors.translators.glossary").joinpath("terms.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(table.splitlines()))
    assert len(rows) > 150
    for row in rows:
        assert set(row) == {"kind", *LANGUAGES}
        assert row["kind"] in {"noun", "modifier"}
        for language in LANGUAGES:
            for spelling in row[language].split("|"):
                assert spelling == spelling.strip() != ""
                assert ("~" in spelling) == (row["kind"] == "modifier")
    for language in LANGUAGES:
        written = [spelling.casefold() for row in rows for spelling in set(row[language].split("|"))]
        twice = {spelling for spelling in written if written.count(spelling) > 1}
        # One word for two things (or for singular and plural) is a fact of the language; English, the usual source, has none.
        assert language != "en" or not twice, twice


@given(st.text(max_size=40), st.sampled_from(LANGUAGES), st.sampled_from(LANGUAGES))
async def test_any_text_is_answered(text: str, source: str, target: str) -> None:
    (found,) = await GlossaryTranslator().translate([text], source, target)
    assert found.text == text or found.language == target

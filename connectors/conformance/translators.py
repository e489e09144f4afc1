"""The suite for translators."""

import pytest

from connectors.ports import Translator

NONSENSE = "Xqzwv brlmpf"


@pytest.mark.asyncio
class TranslatorConformance:
    """Give these fixtures:

    - `connector`
    - `known`: (text, source, target), a text that it can translate"""

    async def test_translates(self, connector: Translator, known: tuple[str, str, str]) -> None:
        text, source, target = known
        (translated,) = await connector.translate([text], source, target)
        assert translated.language == target
        assert translated.text and translated.text != text
        assert translated.by == connector.name

    async def test_answers_every_text_in_order(self, connector: Translator, known: tuple[str, str, str]) -> None:
        text, source, target = known
        alone = (await connector.translate([text], source, target))[0]
        found = await connector.translate([text, NONSENSE, text], source, target)
        assert len(found) == 3
        assert found[0] == found[2] == alone
        assert NONSENSE.split(maxsplit=1)[0] in found[1].text
        assert list(await connector.translate([], source, target)) == []

    async def test_what_it_cannot_do_comes_back_as_it_is(self, connector: Translator, known: tuple[str, str, str]) -> None:
        text, source, _ = known
        (same,) = await connector.translate([text], source, source)
        assert (same.text, same.language) == (text, source)
        for nothing in ("", "   "):
            (same,) = await connector.translate([nothing], *known[1:])
            assert same.text.strip() == ""

    async def test_keeps_numbers(self, connector: Translator, known: tuple[str, str, str]) -> None:
        text, source, target = known
        (translated,) = await connector.translate([f"{text} 750 g"], source, target)
        assert "750" in translated.text

    async def test_uses_the_glossary(self, connector: Translator, known: tuple[str, str, str]) -> None:
        text, source, target = known
        (translated,) = await connector.translate([f"Hofgut {text}"], source, target, {"Hofgut": "Hofgut"})
        assert translated.language == target
        assert "Hofgut" in translated.text

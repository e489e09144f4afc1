"""The suite for shop connectors."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from connectors.ports import ShopConnector
from schemas.commerce import Offer, ProductQuery, Quote
from schemas.errors import Rejected, Retryable
from schemas.ids import MerchantId

UNKNOWN_GTIN = "00000000000000"


@pytest.mark.asyncio
class ShopConformance:
    """Give these fixtures:

    - `connector`: for a shop that has the product
    - `gtin`: the product's GTIN-14
    - `unreachable`: the same connector where the shop does not answer"""

    async def test_finds_what_it_has(self, connector: ShopConnector, gtin: str) -> None:
        offers = await connector.find(ProductQuery(gtin=gtin))
        assert offers
        for offer in offers:
            assert offer.shop == connector.name
            assert offer.product.gtin == gtin
            assert offer.price.minor > 0
            assert offer.observed_at <= datetime.now(UTC)

    async def test_the_cheapest_comes_first(self, connector: ShopConnector, gtin: str) -> None:
        offers = await connector.find(ProductQuery(gtin=gtin))
        for currency in {offer.price.currency for offer in offers}:
            prices = [offer.price.minor for offer in offers if offer.price.currency == currency]
            assert prices == sorted(prices)

    async def test_has_nothing_of_what_it_does_not_know(self, connector: ShopConnector) -> None:
        assert list(await connector.find(ProductQuery(gtin=UNKNOWN_GTIN))) == []

    @pytest.mark.parametrize("text", ["", "abc", "'; --", "1" * 500, "\x00"])
    async def test_has_nothing_of_what_is_no_product(self, connector: ShopConnector, text: str) -> None:
        for query in (ProductQuery.model_construct(gtin=text), ProductQuery()):
            assert list(await connector.find(query)) == []

    async def test_one_merchants_own_product_is_this_merchants_alone(self, connector: ShopConnector, gtin: str) -> None:
        for offer in await connector.find(ProductQuery(gtin=gtin)):
            if offer.product.product_id is not None:
                own = ProductQuery(merchant_id=offer.merchant_id, product_id=offer.product.product_id)
                assert {found.merchant_id for found in await connector.find(own)} == {offer.merchant_id}
                nobodys = own.model_copy(update={"merchant_id": MerchantId.new()})
                assert list(await connector.find(nobodys)) == []

    async def test_a_shop_that_does_not_answer_is_retryable(self, unreachable: ShopConnector, gtin: str) -> None:
        with pytest.raises(Retryable):
            await unreachable.find(ProductQuery(gtin=gtin))

    async def test_quotes_or_refuses_to(self, connector: ShopConnector, gtin: str) -> None:
        offer = (await connector.find(ProductQuery(gtin=gtin)))[0]
        if not connector.capabilities.quote:
            with pytest.raises(Rejected) as refused:
                await connector.quote(offer, 3)
            assert refused.value.problem.code == "capability-not-offered"
            return
        quote = await connector.quote(offer, 3)
        assert (quote.quantity, quote.offer.product.gtin, quote.offer.merchant_id) == (3, gtin, offer.merchant_id)
        assert quote.total.currency == quote.offer.price.currency
        assert quote.expires_at > datetime.now(UTC)

    async def test_a_quote_is_the_shops_word_not_the_offers(self, connector: ShopConnector, gtin: str) -> None:
        if not connector.capabilities.quote:
            pytest.skip("no quotes")
        offer = (await connector.find(ProductQuery(gtin=gtin)))[0]
        cheaper = offer.model_copy(update={"price": offer.price.model_copy(update={"minor": 1})})
        assert (await connector.quote(cheaper, 1)).total == (await connector.quote(offer, 1)).total

    async def test_what_is_not_offered_is_refused(self, connector: ShopConnector, gtin: str) -> None:
        offer: Offer = (await connector.find(ProductQuery(gtin=gtin)))[0]
        quote = Quote(offer=offer, quantity=1, total=offer.price, expires_at=datetime.now(UTC))
        codes = []
        if not connector.capabilities.place:
            for call in (connector.place(quote, "a"), connector.fetch("a")):
                with pytest.raises(Rejected) as refused:
                    await call
                codes.append(refused.value.problem.code)
        if not connector.capabilities.webhooks:
            with pytest.raises(Rejected) as refused:
                connector.parse_webhook({}, b"{}")
            codes.append(refused.value.problem.code)
        assert set(codes) <= {"capability-not-offered"}

    async def test_an_unsigned_webhook_is_refused(self, connector: ShopConnector) -> None:
        if not connector.capabilities.webhooks:
            pytest.skip("no webhooks")
        bodies: Sequence[bytes] = (b"", b"{}", b"\xff")
        for body in bodies:
            with pytest.raises(Rejected) as refused:
                connector.parse_webhook({}, body)
            assert refused.value.problem.code == "credentials-invalid"

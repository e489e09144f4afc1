"""The offers shown, kept so that a payment can only be for what was really offered."""

from collections.abc import Sequence

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.commerce import ShownOffer
from schemas.events import Event
from schemas.recognition import Recognition
from schemas.tables import offers


async def keep(connection: AsyncConnection, event: Event, recognition: Recognition, shown: Sequence[ShownOffer]) -> None:
    """What is there already stays as it was shown first."""
    rows = [
        {
            "id": item.offer_id,
            "journey_id": event.journeyid,
            "device_id": event.deviceid,
            "merchant_id": item.offer.merchant_id,
            "merchant_name": item.offer.merchant_name,
            "gtin": item.offer.product.gtin or recognition.gtin,
            "product_id": item.offer.product.product_id,
            "title": item.title,
            "price_minor": item.offer.price.minor,
            "price_currency": item.offer.price.currency,
            "observed_at": item.offer.observed_at,
            "expires_at": item.expires_at,
            "evidence": {
                "captured_at": event.capturedat.isoformat() if event.capturedat else None,
                "frame_digest": recognition.frame_digest,
                "sighting_id": recognition.sighting_id,
                "codes": [code.gtin for code in recognition.codes if code.gtin],
                "confidence": str(recognition.confidence),
                "evidence": recognition.evidence,
                "models": list(recognition.models),
                "shop": item.offer.shop,
                "observed_at": item.offer.observed_at.isoformat(),
            },
        }
        for item in shown
    ]
    await connection.execute(insert(offers).on_conflict_do_nothing(), rows)

"""What merchants receive: the body of a Standard Webhooks message (https://www.standardwebhooks.com)."""

from pydantic import AwareDatetime, Field

from schemas.ids import MessageId, OrderId
from schemas.payments import PaymentChanged
from schemas.recognition import Shape


class WebhookMessage(Shape):
    """`sequence` counts the order's messages from 1 without gaps: whoever sees 3 after 1 can pull 2 from
    `GET /v1/orders/{order_id}/messages?after=1`."""

    id: MessageId
    type: str = Field(description="as the event's: payment.captured, …")
    timestamp: AwareDatetime
    order_id: OrderId
    sequence: int = Field(ge=1)
    data: PaymentChanged

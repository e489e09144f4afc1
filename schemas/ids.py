"""Typed, prefixed, sortable identifiers.

Each is a TypeID (https://github.com/jetify-com/typeid): a prefix that names the kind and a UUIDv7 in Crockford base32, so
that ids sort by the time they were made and one kind is never taken for another.
"""

import re
from typing import Any, ClassVar, Self
from uuid import UUID

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema
from typeid import TypeID
from uuid_utils import UUID as TypeIDUUID

# Every event is full of ids: one pattern and one table are many times as fast as taking an id apart.
_SUFFIX = "[0-7][0-9a-hjkmnp-tv-z]{25}"
_BASE32 = str.maketrans("0123456789abcdefghjkmnpqrstvwxyz", "0123456789abcdefghijklmnopqrstuv")  # Crockford's digits → Python's


class Id(str):
    """Base of all identifiers. Construct with `new()`, or from text, which is checked (ValueError)."""

    prefix: ClassVar[str]
    _pattern: ClassVar[re.Pattern[str]]
    __slots__ = ()

    def __init_subclass__(cls, *, prefix: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.prefix = prefix
        cls._pattern = re.compile(f"{prefix}_{_SUFFIX}")

    def __new__(cls, text: str) -> Self:
        if isinstance(text, cls):
            return text
        if not cls._pattern.fullmatch(text):
            raise ValueError(f"expected an id of the form {cls.prefix}_ and 26 base32 characters")
        return super().__new__(cls, text)

    @classmethod
    def new(cls) -> Self:
        return super().__new__(cls, str(TypeID(prefix=cls.prefix)))

    @classmethod
    def from_uuid(cls, value: UUID) -> Self:
        return cls(str(TypeID.from_uuid(suffix=TypeIDUUID(bytes=value.bytes), prefix=cls.prefix)))

    @property
    def uuid(self) -> UUID:
        return UUID(int=int(self[len(self.prefix) + 1 :].translate(_BASE32), 32))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls, core_schema.str_schema(strict=True), serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": f"^{cls.prefix}_{_SUFFIX}$"}


class EventId(Id, prefix="evt"):
    """One event. Also the key under which a consumer's inbox remembers it."""


class JourneyId(Id, prefix="jrn"):
    """Everything that follows from one glance. Its UUID is also the journey's trace id."""


class MakerId(Id, prefix="mkr"):
    """A glasses maker: runs devices, or speaks for them from its own cloud."""


class DeviceId(Id, prefix="dev"):
    """One pair of glasses (with its phone), known by one Ed25519 key."""


class MerchantId(Id, prefix="mer"):
    """Whoever sells, is paid, and hears of it through webhooks."""


class OfferId(Id, prefix="off"):
    """One shop's price for one product, as shown to one wearer."""


class ProposalId(Id, prefix="prp"):
    """What the wearer is asked to approve."""


class OrderId(Id, prefix="ord"):
    """What a merchant fulfils; its webhooks are numbered."""


class PaymentId(Id, prefix="pay"):
    """What is owed, and its state."""


class AttemptId(Id, prefix="att"):
    """One call to a provider; also the idempotency key it is made with."""


class EndpointId(Id, prefix="end"):
    """A merchant's webhook address."""


class MessageId(Id, prefix="msg"):
    """One webhook message; the `webhook-id` of Standard Webhooks."""


class DeliveryId(Id, prefix="dlv"):
    """One message to one endpoint, with all its attempts."""


class DeadLetterId(Id, prefix="ded"):
    """An event that could not be handled, kept with the reason."""


class AccountId(Id, prefix="acc"):
    """A merchant's account with a payment provider."""


class PayeeId(Id, prefix="pye"):
    """A payee whose code may be paid, under the name that wearers are shown."""


class PayeeCodeId(Id, prefix="pyc"):
    """One payee's code, as seen by one pair of glasses in several frames."""

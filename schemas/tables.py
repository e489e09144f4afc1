"""The database's tables. Only migrations create them; `alembic check` holds the two together.

Money is two columns, `*_minor` and `*_currency`. Times are with time zone. What is `sealed` is encrypted (AES-GCM) by
`streams.core.sealing`. No frame, card or token is ever a column.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_TIME = DateTime(timezone=True)


def _created() -> Column[object]:
    return Column("created_at", _TIME, nullable=False, server_default=func.now())


# Who takes part.

makers = Table(
    "makers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("token_hash", LargeBinary, unique=True, comment="SHA-256 of the maker cloud's bearer token"),
    _created(),
)

devices = Table(
    "devices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("maker_id", ForeignKey("makers.id"), nullable=False),
    Column("public_key", LargeBinary, nullable=False, comment="Ed25519, 32 bytes"),
    Column("locale", Text, nullable=False, comment="BCP 47"),
    Column("currency", Text, nullable=False),
    Column("region", Text),
    Column("payer_sealed", LargeBinary, comment="the provider's references of the wearer's means of payment"),
    Column("wear_state", Text, nullable=False, server_default="link_lost"),
    Column("wear_changed_at", _TIME, comment="by the device's clock"),
    Column("link", Text, comment="the newest connection"),
    Column("revoked_at", _TIME),
    _created(),
    CheckConstraint("wear_state IN ('worn', 'doffed', 'folded', 'link_lost')", name="wear_state"),
    CheckConstraint("octet_length(public_key) = 32", name="public_key"),
)

merchants = Table(
    "merchants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("token_hash", LargeBinary, unique=True, comment="SHA-256 of the merchant's API token"),
    _created(),
)

catalogue_products = Table(
    "catalogue_products",
    metadata,
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("gtin", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("brand", Text),
    Column("price_minor", BigInteger, nullable=False),
    Column("price_currency", Text, nullable=False),
    Column("url", Text),
    Column("observed_at", _TIME, nullable=False),
    PrimaryKeyConstraint("gtin", "merchant_id"),
    CheckConstraint("price_minor > 0", name="price"),
    CheckConstraint("gtin ~ '^[0-9]{14}$'", name="gtin"),
)

# The streams' bookkeeping.

inbox = Table(
    "inbox",
    metadata,
    Column("consumer", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("handled_at", _TIME, nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("consumer", "event_id"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("bucket", Integer, nullable=False, comment="hash of the key; one relay owns a bucket at a time"),
    Column("topic", Text, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("value", LargeBinary, nullable=False),
    _created(),
    Column("published_at", _TIME),
    Index("ix_outbox_unpublished", "bucket", "id", postgresql_where=text("published_at IS NULL")),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Text, primary_key=True),
    Column("consumer", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("event_id", Text),
    Column("event_type", Text),
    Column("journey_id", Text),
    Column("reason", Text, nullable=False, comment="a code"),
    Column("detail", Text, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary, comment="null for topics whose values must not be kept"),
    Column("value_digest", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    _created(),
    UniqueConstraint("consumer", "topic", "partition", "offset"),
    Index(None, "journey_id"),
)

# A journey.

journey_hops = Table(
    "journey_hops",
    metadata,
    Column("span_id", Text, primary_key=True),
    Column("journey_id", Text, nullable=False),
    Column("parent_span_id", Text),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("started_at", _TIME, nullable=False),
    Column("duration_us", BigInteger, nullable=False),
    Column("failed", Boolean, nullable=False),
    Column("attributes", JSONB, nullable=False),
    Index(None, "journey_id", "started_at"),
    Index(None, "started_at"),
    Index("ix_journey_hops_glances", "journey_id", postgresql_where=text("name = 'glance'")),
    comment="finished spans, for the console; telemetry, not evidence",
)

receipt_entries = Table(
    "receipt_entries",
    metadata,
    Column("journey_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("content", JSONB, nullable=False),
    Column("previous_digest", Text, nullable=False),
    Column("digest", Text, nullable=False),
    _created(),
    PrimaryKeyConstraint("journey_id", "position"),
)

offers = Table(
    "offers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("journey_id", Text, nullable=False, index=True),
    Column("device_id", ForeignKey("devices.id"), nullable=False),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("merchant_name", Text, nullable=False),
    Column("gtin", Text, nullable=False),
    Column("title", Text, nullable=False, comment="as shown, in the wearer's language"),
    Column("price_minor", BigInteger, nullable=False),
    Column("price_currency", Text, nullable=False),
    Column("observed_at", _TIME, nullable=False),
    Column("expires_at", _TIME, nullable=False),
    Column("evidence", JSONB, nullable=False, comment="frame digest, recognition and source, for the receipt"),
    _created(),
    Index(None, "device_id", "journey_id"),
    Index(None, "gtin", "journey_id"),
    Index(None, "created_at"),
)

# Paying.

proposals = Table(
    "proposals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("journey_id", Text, nullable=False, index=True),
    Column("device_id", ForeignKey("devices.id"), nullable=False),
    Column("offer_id", ForeignKey("offers.id"), nullable=False, index=True),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("total_currency", Text, nullable=False),
    Column("terms", JSONB, nullable=False, comment="ProposalTerms, as shown"),
    Column("digest", Text, nullable=False),
    Column("nonce", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False, server_default="open"),
    Column("state_reason", Text),
    Column("expires_at", _TIME, nullable=False),
    _created(),
    CheckConstraint("state IN ('open', 'approved', 'declined', 'cancelled', 'expired')", name="state"),
    Index("ix_proposals_open", "device_id", postgresql_where=text("state = 'open'")),
    Index("ix_proposals_open_until", "expires_at", postgresql_where=text("state = 'open'")),
)

approvals = Table(
    "approvals",
    metadata,
    Column("proposal_id", ForeignKey("proposals.id"), primary_key=True),
    Column("nonce", Text, nullable=False, unique=True),
    Column("presence", Text, nullable=False),
    Column("signed_at", _TIME, nullable=False),
    Column("jws", Text, nullable=False),
    _created(),
)

payment_moves = Table(
    "payment_moves",
    metadata,
    Column("from_state", Text, nullable=False),
    Column("to_state", Text, nullable=False),
    PrimaryKeyConstraint("from_state", "to_state"),
    comment="the allowed moves; a trigger on payments refuses any other",
)

payments = Table(
    "payments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("proposal_id", ForeignKey("proposals.id"), nullable=False, unique=True),
    Column("order_id", Text, nullable=False, unique=True),
    Column("journey_id", Text, nullable=False, index=True),
    Column("device_id", ForeignKey("devices.id"), nullable=False),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("total_currency", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("state_reason", Text),
    Column("provider", Text, nullable=False),
    Column("provider_reference", Text),
    Column("locale", Text, nullable=False),
    Column("submit_by", _TIME, nullable=False, comment="after it nothing is submitted that was not yet"),
    _created(),
    Column("updated_at", _TIME, nullable=False, server_default=func.now()),
    UniqueConstraint("provider", "provider_reference"),
    CheckConstraint("total_minor > 0", name="total"),
    Index("ix_payments_merchant_id_created_at", "merchant_id", "created_at"),
    Index("ix_payments_approved", "updated_at", postgresql_where=text("state = 'approved'")),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Text, primary_key=True, comment="also the idempotency key"),
    Column("payment_id", ForeignKey("payments.id"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("request_digest", Text, nullable=False),
    Column("reference", Text, comment="the provider's; known before any money moves"),
    Column("outcome", Text, comment="null while nothing is known"),
    Column("detail", JSONB),
    Column("asked", Integer, nullable=False, server_default="0"),
    Column("next_ask_at", _TIME, comment="when the janitor may take it up; null once it is settled"),
    Column("trace", Text, comment="traceparent of the work that opened it"),
    _created(),
    Column("ended_at", _TIME),
    Index("ix_attempts_due", "next_ask_at", postgresql_where=text("next_ask_at IS NOT NULL")),
    # Two commands on one payment never run at once.
    Index("uq_attempts_running", "payment_id", unique=True, postgresql_where=text("ended_at IS NULL")),
)

# Telling merchants.

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("secret_sealed", LargeBinary, nullable=False),
    Column("event_types", ARRAY(Text), comment="null for all"),
    Column("disabled_at", _TIME),
    Column("disabled_reason", Text),
    _created(),
)

messages = Table(
    "messages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("order_id", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("journey_id", Text, nullable=False),
    Column("event_id", Text, nullable=False, unique=True),
    Column("body", LargeBinary, nullable=False, comment="exactly the bytes that are signed and sent"),
    Column("trace", Text),
    _created(),
    UniqueConstraint("order_id", "sequence"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("message_id", ForeignKey("messages.id"), nullable=False),
    Column("endpoint_id", ForeignKey("endpoints.id"), nullable=False),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", _TIME, comment="when it is due; moved ahead while an attempt is under way"),
    _created(),
    Column("ended_at", _TIME),
    UniqueConstraint("message_id", "endpoint_id"),
    CheckConstraint("state IN ('pending', 'delivered', 'failed', 'held')", name="state"),
    Index("ix_deliveries_due", "next_attempt_at", postgresql_where=text("state = 'pending'")),
    Index(None, "endpoint_id", "created_at"),
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("delivery_id", ForeignKey("deliveries.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("started_at", _TIME, nullable=False),
    Column("duration_us", BigInteger, nullable=False),
    Column("status", Integer, comment="HTTP status; null where no answer came"),
    Column("error", Text),
    Column("response", Text, comment="the first 1000 characters"),
    PrimaryKeyConstraint("delivery_id", "number"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("key", Text, nullable=False),
    Column("request_digest", Text, nullable=False),
    Column("status", Integer, comment="null while the request is under way"),
    Column("response", JSONB),
    _created(),
    PrimaryKeyConstraint("merchant_id", "key"),
)

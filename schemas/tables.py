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
    ForeignKeyConstraint,
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
    Column("payer_provider", Text, comment="the provider's name, which is no secret"),
    Column("key_changed_at", _TIME),
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

provider_accounts = Table(
    "provider_accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("external_id", Text, nullable=False, comment="the provider's public name of the account"),
    Column("credentials_sealed", LargeBinary, nullable=False),
    Column("currencies", ARRAY(Text), comment="null for any"),
    _created(),
    Column("updated_at", _TIME, nullable=False, server_default=func.now()),
    Column("removed_at", _TIME, comment="takes no new payments; those it took are still asked about"),
    Index("uq_provider_accounts_used", "merchant_id", "provider", unique=True, postgresql_where=text("removed_at IS NULL")),
)

payees = Table(
    "payees",
    metadata,
    Column("id", Text, primary_key=True),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False, index=True),
    Column("scheme", Text, nullable=False),
    Column("key", Text, nullable=False, comment="PayeeCode.key"),
    Column("name", Text, nullable=False, comment="as wearers are shown it"),
    Column("currency", Text, nullable=False, comment="where the code names none"),
    _created(),
    Column("removed_at", _TIME),
    Index("uq_payees_used", "scheme", "key", unique=True, postgresql_where=text("removed_at IS NULL")),
)

payment_policies = Table(
    "payment_policies",
    metadata,
    Column("subject", Text, primary_key=True, comment="a merchant's or a device's id"),
    Column("policy", JSONB, nullable=False, comment="PaymentPolicy"),
    Column("updated_at", _TIME, nullable=False, server_default=func.now()),
)

# What merchants sell. A catalogue is a row of immutable, numbered snapshots; one of them is current.

catalogue_snapshots = Table(
    "catalogue_snapshots",
    metadata,
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("number", Integer, nullable=False, comment="counted per merchant; never used twice"),
    Column("name", Text, comment="its directory of pictures' features; null where no product is recognised by picture"),
    Column("matcher", Text, comment="what made the features"),
    Column("embedder", Text, comment="null where there is none"),
    Column("sha256", Text, comment="of features.bin"),
    Column("products", Integer, nullable=False, server_default="0"),
    Column("pictures", Integer, nullable=False, server_default="0", comment="those with features"),
    _created(),
    Column(
        "published_at",
        _TIME,
        comment="null while an import is at it; nothing of it changes any more afterwards but its directory's name",
    ),
    PrimaryKeyConstraint("merchant_id", "number"),
    CheckConstraint("number > 0", name="number"),
    CheckConstraint("(name IS NULL) = (matcher IS NULL) AND (name IS NULL) = (sha256 IS NULL)", name="name"),
)

catalogues = Table(
    "catalogues",
    metadata,
    Column("merchant_id", ForeignKey("merchants.id"), primary_key=True),
    Column("current", Integer, comment="what is recognised and sold; null where nothing is"),
    Column("last_number", Integer, nullable=False, server_default="0"),
    Column("switched_at", _TIME),
    ForeignKeyConstraint(["merchant_id", "current"], ["catalogue_snapshots.merchant_id", "catalogue_snapshots.number"]),
    comment="a trigger announces every switch on the channel catalogue_switched, with the merchant's id",
)

catalogue_switches = Table(
    "catalogue_switches",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="in the order of the switches"),
    Column("merchant_id", ForeignKey("catalogues.merchant_id"), nullable=False),
    Column("snapshot", Integer, comment="null where the catalogue was withdrawn"),
    Column("live_from", _TIME, nullable=False, server_default=func.now()),
    Column("live_until", _TIME, comment="null while it is current"),
    Column("is_undone", Boolean, nullable=False, server_default="false", comment="true: a rollback went back behind it"),
    ForeignKeyConstraint(
        ["merchant_id", "snapshot"], ["catalogue_snapshots.merchant_id", "catalogue_snapshots.number"], ondelete="CASCADE"
    ),
    Index(None, "merchant_id", "snapshot"),
    Index("uq_catalogue_switches_live", "merchant_id", unique=True, postgresql_where=text("live_until IS NULL")),
    comment="what was current, one after the other; a rollback goes back along those that are not undone",
)

catalogue_products = Table(
    "catalogue_products",
    metadata,
    Column("merchant_id", Text, nullable=False),
    Column("snapshot", Integer, nullable=False),
    Column("product_id", Text, nullable=False, comment="the merchant's own name for it; its GTIN where it has no other"),
    Column("gtin", Text),
    Column("title", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("brand", Text),
    Column("item_group", Text, comment="what variants of one product have in common"),
    Column("price_minor", BigInteger, comment="null where it is recognised only, and not offered"),
    Column("price_currency", Text),
    Column("sale_minor", BigInteger, comment="instead of price_minor from sale_from until sale_until"),
    Column("sale_from", _TIME),
    Column("sale_until", _TIME),
    Column("available", Boolean, nullable=False, server_default="true", comment="false: out of stock, not offered"),
    Column("url", Text),
    Column("pictures", ARRAY(Text), nullable=False, server_default="{}", comment="SHA-256 of its pictures, the main one first"),
    Column("observed_at", _TIME, nullable=False),
    PrimaryKeyConstraint("merchant_id", "snapshot", "product_id"),
    ForeignKeyConstraint(
        ["merchant_id", "snapshot"], ["catalogue_snapshots.merchant_id", "catalogue_snapshots.number"], ondelete="CASCADE"
    ),
    CheckConstraint("price_minor > 0 AND (sale_minor IS NULL OR 0 < sale_minor AND sale_minor < price_minor)", name="price"),
    CheckConstraint(
        "(price_minor IS NULL) = (price_currency IS NULL) AND (sale_minor IS NULL OR price_minor IS NOT NULL)",
        name="price_currency",
    ),
    CheckConstraint("gtin ~ '^[0-9]{14}$'", name="gtin"),
    Index(
        "uq_catalogue_products_gtin", "gtin", "merchant_id", "snapshot", unique=True, postgresql_where=text("gtin IS NOT NULL")
    ),
    comment="a trigger refuses to change what is in a published snapshot; only a whole snapshot can be deleted",
)

catalogue_pictures = Table(
    "catalogue_pictures",
    metadata,
    Column("sha256", Text, primary_key=True, comment="of the file as the merchant gave it"),
    Column("thumbnail", LargeBinary, nullable=False, comment="JPEG, at most 256 pixels a side"),
    Column("width", Integer, nullable=False, comment="of the whole picture, upright"),
    Column("height", Integer, nullable=False),
    _created(),
)

catalogue_features = Table(
    "catalogue_features",
    metadata,
    Column("picture", ForeignKey("catalogue_pictures.sha256", ondelete="CASCADE"), nullable=False),
    Column("matcher", Text, nullable=False),
    Column("embedder", Text, nullable=False, comment="empty where there is none"),
    Column("features", LargeBinary, comment="opaque here; null where the picture shows too little to be recognised by"),
    Column("points", Integer, nullable=False),
    _created(),
    PrimaryKeyConstraint("picture", "matcher", "embedder"),
)

catalogue_calibrations = Table(
    "catalogue_calibrations",
    metadata,
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("matcher", Text, nullable=False),
    _created(),
    Column("thresholds", JSONB, nullable=False, comment="`streams.sightings.thresholds`, with the precision they promise"),
    Column("measured_on", JSONB, nullable=False, comment="how many pictures of what, and of which snapshot"),
    PrimaryKeyConstraint("merchant_id", "matcher", "created_at"),
    comment="the newest counts",
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
    Column("gtin", Text),
    Column("product_id", Text, comment="the merchant's own name for it"),
    Column("title", Text, nullable=False, comment="as shown, in the wearer's language"),
    Column("price_minor", BigInteger, nullable=False),
    Column("price_currency", Text, nullable=False),
    Column("observed_at", _TIME, nullable=False),
    Column("expires_at", _TIME, nullable=False),
    Column("evidence", JSONB, nullable=False, comment="frame digest, recognition and source, for the receipt"),
    _created(),
    Index(None, "device_id", "journey_id"),
    CheckConstraint("gtin IS NOT NULL OR product_id IS NOT NULL", name="product"),
    Index(None, "gtin", "journey_id"),
    Index(None, "created_at"),
)

# Paying.

payee_codes = Table(
    "payee_codes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("device_id", ForeignKey("devices.id"), nullable=False),
    Column("journey_id", Text, nullable=False),
    Column("code_digest", Text, nullable=False, comment="SHA-256 of the PayeeCode's canonical JSON"),
    Column("code", JSONB, nullable=False, comment="PayeeCode"),
    Column("frames", ARRAY(Text), nullable=False, comment="digests of the different frames it was seen in"),
    Column("payee_id", ForeignKey("payees.id"), comment="null while the payee is not registered"),
    Column("last_seen_at", _TIME, nullable=False),
    Column("expires_at", _TIME, nullable=False),
    _created(),
    Index(None, "code_digest"),
    Index(None, "device_id", "code_digest"),
    Index(None, "created_at"),
)

proposals = Table(
    "proposals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("journey_id", Text, nullable=False, index=True),
    Column("device_id", ForeignKey("devices.id"), nullable=False),
    Column("offer_id", ForeignKey("offers.id"), index=True),
    Column("payee_code_id", ForeignKey("payee_codes.id"), index=True),
    Column("merchant_id", ForeignKey("merchants.id"), nullable=False),
    Column("account_id", ForeignKey("provider_accounts.id"), comment="what will take the money"),
    Column("capture", Boolean, nullable=False, server_default="true", comment="false: the money is only reserved"),
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
    CheckConstraint("(offer_id IS NULL) <> (payee_code_id IS NULL)", name="subject"),
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
    Column("account_id", ForeignKey("provider_accounts.id"), index=True),
    Column("provider_reference", Text),
    Column("capture", Boolean, nullable=False, server_default="true", comment="false: the money is only reserved"),
    Column("captured_minor", BigInteger, nullable=False, server_default="0"),
    Column("refunded_minor", BigInteger, nullable=False, server_default="0"),
    Column("frozen_at", _TIME, comment="an answer did not fit; a person has to look"),
    Column("frozen_reason", Text),
    Column("locale", Text, nullable=False),
    Column("submit_by", _TIME, nullable=False, comment="after it nothing is submitted that was not yet"),
    _created(),
    Column("updated_at", _TIME, nullable=False, server_default=func.now()),
    UniqueConstraint("provider", "provider_reference"),
    CheckConstraint("total_minor > 0", name="total"),
    CheckConstraint("0 <= refunded_minor AND refunded_minor <= captured_minor AND captured_minor <= total_minor", name="moved"),
    CheckConstraint("(state IN ('captured', 'partially_refunded', 'refunded')) = (captured_minor > 0)", name="captured"),
    CheckConstraint(
        "CASE state WHEN 'refunded' THEN refunded_minor = captured_minor "
        "WHEN 'partially_refunded' THEN 0 < refunded_minor AND refunded_minor < captured_minor ELSE refunded_minor = 0 END",
        name="refunded",
    ),
    Index("ix_payments_device_id_created_at", "device_id", "created_at"),
    Index("ix_payments_frozen", "frozen_at", postgresql_where=text("frozen_at IS NOT NULL")),
    Index("ix_payments_merchant_id_created_at", "merchant_id", "created_at"),
    Index("ix_payments_approved", "updated_at", postgresql_where=text("state = 'approved'")),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Text, primary_key=True, comment="also the idempotency key"),
    Column("payment_id", ForeignKey("payments.id"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("amount_minor", BigInteger, comment="of a capture or refund; in the payment's currency"),
    Column("requested_by", Text, nullable=False, server_default="wearer"),
    Column("request_digest", Text, nullable=False),
    Column("reference", Text, comment="the provider's; known before any money moves"),
    Column("begun_at", _TIME, comment="when a worker first took it up"),
    Column("submitted_at", _TIME, comment="when it was last submitted again; null while it was only once"),
    Column("leased_by", Text, comment="the worker that is at it until next_ask_at"),
    Column("outcome", Text, comment="null while nothing is known"),
    Column("detail", JSONB),
    Column("asked", Integer, nullable=False, server_default="0"),
    Column("next_ask_at", _TIME, comment="when the janitor may take it up; null once it is settled"),
    Column("trace", Text, comment="traceparent of the work that opened it"),
    _created(),
    Column("ended_at", _TIME),
    Index("ix_attempts_due", "next_ask_at", postgresql_where=text("next_ask_at IS NOT NULL")),
    Index("ix_attempts_ended_at", "ended_at"),
    Index("ix_attempts_reference", "reference"),
    CheckConstraint("kind IN ('authorise', 'capture', 'cancel', 'refund')", name="kind"),
    CheckConstraint("requested_by IN ('wearer', 'merchant', 'operator')", name="requested_by"),
    CheckConstraint("amount_minor > 0", name="amount"),
    # Two commands on one payment never run at once.
    Index("uq_attempts_running", "payment_id", unique=True, postgresql_where=text("ended_at IS NULL")),
)

provider_notifications = Table(
    "provider_notifications",
    metadata,
    Column("account_id", ForeignKey("provider_accounts.id"), nullable=False),
    Column("event_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("payment_id", ForeignKey("payments.id"), index=True, comment="null where no payment of ours has the reference"),
    Column("amount_minor", BigInteger, comment="what it says was paid or given back"),
    Column("amount_currency", Text),
    Column("attempt_id", Text, comment="ours, where the provider repeats it"),
    Column("note", Text, comment="the provider's own word for what happened"),
    Column("state", Text, nullable=False, server_default="new"),
    Column("repeated", Integer, nullable=False, server_default="0"),
    Column("occurred_at", _TIME, nullable=False),
    Column("received_at", _TIME, nullable=False, server_default=func.now()),
    Column("processed_at", _TIME),
    PrimaryKeyConstraint("account_id", "event_id"),
    CheckConstraint("state IN ('new', 'processed', 'unmatched')", name="state"),
    Index("ix_provider_notifications_new", "received_at", postgresql_where=text("state <> 'processed'")),
    comment="providers' notifications, verified; without their bodies",
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

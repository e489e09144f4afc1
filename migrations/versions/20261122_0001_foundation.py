"""The first tables: who takes part, the streams' bookkeeping, journeys, paying, and telling merchants.

Revision: 0001
Follows:
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=True),
        sa.Column("event_type", sa.Text(), nullable=True),
        sa.Column("journey_id", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False, comment="a code"),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=True, comment="null for topics whose values must not be kept"),
        sa.Column("value_digest", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
        sa.UniqueConstraint(
            "consumer", "topic", "partition", "offset", name=op.f("uq_dead_letters_consumer_topic_partition_offset")
        ),
    )
    op.create_index(op.f("ix_dead_letters_journey_id"), "dead_letters", ["journey_id"], unique=False)
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("handled_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "event_id", name=op.f("pk_inbox")),
    )
    op.create_table(
        "journey_hops",
        sa.Column("span_id", sa.Text(), nullable=False),
        sa.Column("journey_id", sa.Text(), nullable=False),
        sa.Column("parent_span_id", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_us", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.Boolean(), nullable=False),
        sa.Column("attributes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("span_id", name=op.f("pk_journey_hops")),
        comment="finished spans, for the console; telemetry, not evidence",
    )
    op.create_index(
        "ix_journey_hops_glances", "journey_hops", ["journey_id"], unique=False, postgresql_where=sa.text("name = 'glance'")
    )
    op.create_index(op.f("ix_journey_hops_journey_id_started_at"), "journey_hops", ["journey_id", "started_at"], unique=False)
    op.create_index(op.f("ix_journey_hops_started_at"), "journey_hops", ["started_at"], unique=False)
    op.create_table(
        "makers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=True, comment="SHA-256 of the maker cloud's bearer token"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_makers")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_makers_token_hash")),
    )
    op.create_table(
        "merchants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=True, comment="SHA-256 of the merchant's API token"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merchants")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_merchants_token_hash")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False, comment="hash of the key; one relay owns a bucket at a time"),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index(
        "ix_outbox_unpublished", "outbox", ["bucket", "id"], unique=False, postgresql_where=sa.text("published_at IS NULL")
    )
    op.create_table(
        "payment_moves",
        sa.Column("from_state", sa.Text(), nullable=False),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("from_state", "to_state", name=op.f("pk_payment_moves")),
        comment="the allowed moves; a trigger on payments refuses any other",
    )
    op.create_table(
        "receipt_entries",
        sa.Column("journey_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("content", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("previous_digest", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("journey_id", "position", name=op.f("pk_receipt_entries")),
    )
    op.create_table(
        "catalogue_products",
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("gtin", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("price_minor", sa.BigInteger(), nullable=False),
        sa.Column("price_currency", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("gtin ~ '^[0-9]{14}$'", name=op.f("ck_catalogue_products_gtin")),
        sa.CheckConstraint("price_minor > 0", name=op.f("ck_catalogue_products_price")),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_catalogue_products_merchant_id_merchants")),
        sa.PrimaryKeyConstraint("gtin", "merchant_id", name=op.f("pk_catalogue_products")),
    )
    op.create_table(
        "devices",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("maker_id", sa.Text(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False, comment="Ed25519, 32 bytes"),
        sa.Column("locale", sa.Text(), nullable=False, comment="BCP 47"),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=True),
        sa.Column(
            "payer_sealed", sa.LargeBinary(), nullable=True, comment="the provider's references of the wearer's means of payment"
        ),
        sa.Column("wear_state", sa.Text(), server_default="link_lost", nullable=False),
        sa.Column("wear_changed_at", sa.DateTime(timezone=True), nullable=True, comment="by the device's clock"),
        sa.Column("link", sa.Text(), nullable=True, comment="the newest connection"),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("wear_state IN ('worn', 'doffed', 'folded', 'link_lost')", name=op.f("ck_devices_wear_state")),
        sa.CheckConstraint("octet_length(public_key) = 32", name=op.f("ck_devices_public_key")),
        sa.ForeignKeyConstraint(["maker_id"], ["makers.id"], name=op.f("fk_devices_maker_id_makers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_devices")),
    )
    op.create_table(
        "endpoints",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("event_types", postgresql.ARRAY(sa.Text()), nullable=True, comment="null for all"),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_endpoints_merchant_id_merchants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoints")),
    )
    op.create_index(op.f("ix_endpoints_merchant_id"), "endpoints", ["merchant_id"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True, comment="null while the request is under way"),
        sa.Column("response", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_idempotency_keys_merchant_id_merchants")),
        sa.PrimaryKeyConstraint("merchant_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("journey_id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False, comment="exactly the bytes that are signed and sent"),
        sa.Column("trace", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_messages_merchant_id_merchants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        sa.UniqueConstraint("event_id", name=op.f("uq_messages_event_id")),
        sa.UniqueConstraint("order_id", "sequence", name=op.f("uq_messages_order_id_sequence")),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "next_attempt_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when it is due; moved ahead while an attempt is under way",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'failed', 'held')", name=op.f("ck_deliveries_state")),
        sa.ForeignKeyConstraint(["endpoint_id"], ["endpoints.id"], name=op.f("fk_deliveries_endpoint_id_endpoints")),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name=op.f("fk_deliveries_message_id_messages")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("message_id", "endpoint_id", name=op.f("uq_deliveries_message_id_endpoint_id")),
    )
    op.create_index(
        "ix_deliveries_due", "deliveries", ["next_attempt_at"], unique=False, postgresql_where=sa.text("state = 'pending'")
    )
    op.create_index(op.f("ix_deliveries_endpoint_id_created_at"), "deliveries", ["endpoint_id", "created_at"], unique=False)
    op.create_table(
        "offers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("journey_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("merchant_name", sa.Text(), nullable=False),
        sa.Column("gtin", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False, comment="as shown, in the wearer's language"),
        sa.Column("price_minor", sa.BigInteger(), nullable=False),
        sa.Column("price_currency", sa.Text(), nullable=False),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "evidence",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="frame digest, recognition and source, for the receipt",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name=op.f("fk_offers_device_id_devices")),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_offers_merchant_id_merchants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_offers")),
    )
    op.create_index(op.f("ix_offers_created_at"), "offers", ["created_at"], unique=False)
    op.create_index(op.f("ix_offers_device_id_journey_id"), "offers", ["device_id", "journey_id"], unique=False)
    op.create_index(op.f("ix_offers_gtin_journey_id"), "offers", ["gtin", "journey_id"], unique=False)
    op.create_index(op.f("ix_offers_journey_id"), "offers", ["journey_id"], unique=False)
    op.create_table(
        "delivery_attempts",
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_us", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True, comment="HTTP status; null where no answer came"),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("response", sa.Text(), nullable=True, comment="the first 1000 characters"),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name=op.f("fk_delivery_attempts_delivery_id_deliveries")),
        sa.PrimaryKeyConstraint("delivery_id", "number", name=op.f("pk_delivery_attempts")),
    )
    op.create_table(
        "proposals",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("journey_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("offer_id", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("total_currency", sa.Text(), nullable=False),
        sa.Column("terms", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="ProposalTerms, as shown"),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('open', 'approved', 'declined', 'cancelled', 'expired')", name=op.f("ck_proposals_state")),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name=op.f("fk_proposals_device_id_devices")),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_proposals_merchant_id_merchants")),
        sa.ForeignKeyConstraint(["offer_id"], ["offers.id"], name=op.f("fk_proposals_offer_id_offers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposals")),
        sa.UniqueConstraint("nonce", name=op.f("uq_proposals_nonce")),
    )
    op.create_index(op.f("ix_proposals_journey_id"), "proposals", ["journey_id"], unique=False)
    op.create_index(op.f("ix_proposals_offer_id"), "proposals", ["offer_id"], unique=False)
    op.create_index("ix_proposals_open", "proposals", ["device_id"], unique=False, postgresql_where=sa.text("state = 'open'"))
    op.create_index(
        "ix_proposals_open_until", "proposals", ["expires_at"], unique=False, postgresql_where=sa.text("state = 'open'")
    )
    op.create_table(
        "approvals",
        sa.Column("proposal_id", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("presence", sa.Text(), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("jws", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposals.id"], name=op.f("fk_approvals_proposal_id_proposals")),
        sa.PrimaryKeyConstraint("proposal_id", name=op.f("pk_approvals")),
        sa.UniqueConstraint("nonce", name=op.f("uq_approvals_nonce")),
    )
    op.create_table(
        "payments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("proposal_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("journey_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("total_currency", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("provider_reference", sa.Text(), nullable=True),
        sa.Column("locale", sa.Text(), nullable=False),
        sa.Column(
            "submit_by", sa.DateTime(timezone=True), nullable=False, comment="after it nothing is submitted that was not yet"
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("total_minor > 0", name=op.f("ck_payments_total")),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name=op.f("fk_payments_device_id_devices")),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_payments_merchant_id_merchants")),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposals.id"], name=op.f("fk_payments_proposal_id_proposals")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payments")),
        sa.UniqueConstraint("order_id", name=op.f("uq_payments_order_id")),
        sa.UniqueConstraint("proposal_id", name=op.f("uq_payments_proposal_id")),
        sa.UniqueConstraint("provider", "provider_reference", name=op.f("uq_payments_provider_provider_reference")),
    )
    op.create_index(
        "ix_payments_approved", "payments", ["updated_at"], unique=False, postgresql_where=sa.text("state = 'approved'")
    )
    op.create_index(op.f("ix_payments_journey_id"), "payments", ["journey_id"], unique=False)
    op.create_index("ix_payments_merchant_id_created_at", "payments", ["merchant_id", "created_at"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("id", sa.Text(), nullable=False, comment="also the idempotency key"),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True, comment="the provider's; known before any money moves"),
        sa.Column("outcome", sa.Text(), nullable=True, comment="null while nothing is known"),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("asked", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "next_ask_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the janitor may take it up; null once it is settled",
        ),
        sa.Column("trace", sa.Text(), nullable=True, comment="traceparent of the work that opened it"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_attempts_payment_id_payments")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
    )
    op.create_index(
        "ix_attempts_due", "attempts", ["next_ask_at"], unique=False, postgresql_where=sa.text("next_ask_at IS NOT NULL")
    )
    op.create_index(op.f("ix_attempts_payment_id"), "attempts", ["payment_id"], unique=False)
    op.create_index("uq_attempts_running", "attempts", ["payment_id"], unique=True, postgresql_where=sa.text("ended_at IS NULL"))


def downgrade() -> None:
    op.drop_index("uq_attempts_running", table_name="attempts", postgresql_where=sa.text("ended_at IS NULL"))
    op.drop_index(op.f("ix_attempts_payment_id"), table_name="attempts")
    op.drop_index("ix_attempts_due", table_name="attempts", postgresql_where=sa.text("next_ask_at IS NOT NULL"))
    op.drop_table("attempts")
    op.drop_index("ix_payments_merchant_id_created_at", table_name="payments")
    op.drop_index(op.f("ix_payments_journey_id"), table_name="payments")
    op.drop_index("ix_payments_approved", table_name="payments", postgresql_where=sa.text("state = 'approved'"))
    op.drop_table("payments")
    op.drop_table("approvals")
    op.drop_index("ix_proposals_open_until", table_name="proposals", postgresql_where=sa.text("state = 'open'"))
    op.drop_index("ix_proposals_open", table_name="proposals", postgresql_where=sa.text("state = 'open'"))
    op.drop_index(op.f("ix_proposals_offer_id"), table_name="proposals")
    op.drop_index(op.f("ix_proposals_journey_id"), table_name="proposals")
    op.drop_table("proposals")
    op.drop_table("delivery_attempts")
    op.drop_index(op.f("ix_offers_journey_id"), table_name="offers")
    op.drop_index(op.f("ix_offers_gtin_journey_id"), table_name="offers")
    op.drop_index(op.f("ix_offers_device_id_journey_id"), table_name="offers")
    op.drop_index(op.f("ix_offers_created_at"), table_name="offers")
    op.drop_table("offers")
    op.drop_index(op.f("ix_deliveries_endpoint_id_created_at"), table_name="deliveries")
    op.drop_index("ix_deliveries_due", table_name="deliveries", postgresql_where=sa.text("state = 'pending'"))
    op.drop_table("deliveries")
    op.drop_table("messages")
    op.drop_table("idempotency_keys")
    op.drop_index(op.f("ix_endpoints_merchant_id"), table_name="endpoints")
    op.drop_table("endpoints")
    op.drop_table("devices")
    op.drop_table("catalogue_products")
    op.drop_table("receipt_entries")
    op.drop_table("payment_moves")
    op.drop_index("ix_outbox_unpublished", table_name="outbox", postgresql_where=sa.text("published_at IS NULL"))
    op.drop_table("outbox")
    op.drop_table("merchants")
    op.drop_table("makers")
    op.drop_index(op.f("ix_journey_hops_started_at"), table_name="journey_hops")
    op.drop_index(op.f("ix_journey_hops_journey_id_started_at"), table_name="journey_hops")
    op.drop_index("ix_journey_hops_glances", table_name="journey_hops", postgresql_where=sa.text("name = 'glance'"))
    op.drop_table("journey_hops")
    op.drop_table("inbox")
    op.drop_index(op.f("ix_dead_letters_journey_id"), table_name="dead_letters")
    op.drop_table("dead_letters")

"""Accounts with providers, commands on payments, notifications, payees, policies.

Revision: 0003
Follows: 0002
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_CHECKS = {
    "payments": {
        "moved": "0 <= refunded_minor AND refunded_minor <= captured_minor AND captured_minor <= total_minor",
        "captured": "(state IN ('captured', 'partially_refunded', 'refunded')) = (captured_minor > 0)",
        "refunded": (
            "CASE state WHEN 'refunded' THEN refunded_minor = captured_minor "
            "WHEN 'partially_refunded' THEN 0 < refunded_minor AND refunded_minor < captured_minor ELSE refunded_minor = 0 END"
        ),
    },
    "attempts": {
        "kind": "kind IN ('authorise', 'capture', 'cancel', 'refund')",
        "requested_by": "requested_by IN ('wearer', 'merchant', 'operator')",
        "amount": "amount_minor > 0",
    },
    "proposals": {"subject": "(offer_id IS NULL) <> (payee_code_id IS NULL)"},
}

# What moved never moves back by itself; a frozen payment moves only with the thaw; who takes the money is settled once.
_FUNCTION = """
CREATE OR REPLACE FUNCTION check_payment_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state NOT IN ('proposed', 'approved') THEN
            RAISE EXCEPTION 'a payment cannot begin as %', NEW.state USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NEW.state <> OLD.state
        AND NOT EXISTS (SELECT 1 FROM payment_moves WHERE from_state = OLD.state AND to_state = NEW.state)
    THEN
        RAISE EXCEPTION 'a payment cannot move from % to %', OLD.state, NEW.state USING ERRCODE = 'check_violation';
    ELSIF (NEW.total_minor, NEW.total_currency, NEW.merchant_id, NEW.proposal_id, NEW.device_id, NEW.order_id,
            NEW.journey_id, NEW.provider, NEW.capture)
        IS DISTINCT FROM (OLD.total_minor, OLD.total_currency, OLD.merchant_id, OLD.proposal_id, OLD.device_id, OLD.order_id,
            OLD.journey_id, OLD.provider, OLD.capture)
    THEN
        RAISE EXCEPTION 'what a payment is for cannot change' USING ERRCODE = 'check_violation';
    ELSIF OLD.provider_reference IS NOT NULL AND NEW.provider_reference IS DISTINCT FROM OLD.provider_reference THEN
        RAISE EXCEPTION 'the provider''s reference of a payment cannot change' USING ERRCODE = 'check_violation';
    ELSIF OLD.account_id IS NOT NULL AND NEW.account_id IS DISTINCT FROM OLD.account_id THEN
        RAISE EXCEPTION 'the account that takes a payment cannot change' USING ERRCODE = 'check_violation';
    ELSIF NEW.captured_minor < OLD.captured_minor OR NEW.refunded_minor < OLD.refunded_minor THEN
        RAISE EXCEPTION 'money that moved stays moved' USING ERRCODE = 'check_violation';
    ELSIF OLD.captured_minor > 0 AND NEW.captured_minor <> OLD.captured_minor THEN
        RAISE EXCEPTION 'a payment is captured once' USING ERRCODE = 'check_violation';
    ELSIF NEW.frozen_at IS NOT NULL
        AND ((NEW.captured_minor, NEW.refunded_minor) IS DISTINCT FROM (OLD.captured_minor, OLD.refunded_minor)
            OR NEW.state NOT IN (OLD.state, 'unknown'))
    THEN
        RAISE EXCEPTION 'a frozen payment does not move' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$
"""

# What was asked for stays what it was, and what has ended stays ended.
_ATTEMPT_FUNCTION = """
CREATE FUNCTION check_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.payment_id, NEW.kind, NEW.amount_minor, NEW.request_digest)
        IS DISTINCT FROM (OLD.id, OLD.payment_id, OLD.kind, OLD.amount_minor, OLD.request_digest)
    THEN
        RAISE EXCEPTION 'what an attempt is for cannot change' USING ERRCODE = 'check_violation';
    ELSIF OLD.ended_at IS NOT NULL AND (NEW.ended_at, NEW.outcome) IS DISTINCT FROM (OLD.ended_at, OLD.outcome) THEN
        RAISE EXCEPTION 'an attempt that has ended stays ended' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$
"""

_FORMER_FUNCTION = """
CREATE OR REPLACE FUNCTION check_payment_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state NOT IN ('proposed', 'approved') THEN
            RAISE EXCEPTION 'a payment cannot begin as %', NEW.state USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NEW.state <> OLD.state
        AND NOT EXISTS (SELECT 1 FROM payment_moves WHERE from_state = OLD.state AND to_state = NEW.state)
    THEN
        RAISE EXCEPTION 'a payment cannot move from % to %', OLD.state, NEW.state USING ERRCODE = 'check_violation';
    ELSIF (NEW.total_minor, NEW.total_currency, NEW.merchant_id, NEW.proposal_id)
        IS DISTINCT FROM (OLD.total_minor, OLD.total_currency, OLD.merchant_id, OLD.proposal_id)
    THEN
        RAISE EXCEPTION 'what a payment is for cannot change' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$
"""

# A dynamic code is one bill: of all proposals to pay it, by any glasses, one at most is approved and has not come to nothing.
# Where the code has no number by which one bill differs from the next, only what the same glasses saw at once counts as one.
_BILL_FUNCTION = """
CREATE FUNCTION check_bill() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    seen payee_codes := (SELECT payee_codes FROM payee_codes WHERE id = NEW.payee_code_id);
    numbered boolean := seen.code ->> 'scheme' <> 'emvco' OR seen.code ->> 'reference' IS NOT NULL;
BEGIN
    IF (seen.code ->> 'dynamic')::boolean THEN
        PERFORM pg_advisory_xact_lock(45329, hashtext(seen.code_digest));
        IF EXISTS (
            SELECT 1 FROM proposals JOIN payee_codes ON payee_codes.id = proposals.payee_code_id
            LEFT JOIN payments ON payments.proposal_id = proposals.id
            WHERE payee_codes.code_digest = seen.code_digest AND (numbered OR payee_codes.id = seen.id)
                AND proposals.state = 'approved' AND proposals.id <> NEW.id
                AND coalesce(payments.state, 'approved') NOT IN ('declined', 'failed', 'cancelled', 'expired')
        ) THEN
            RAISE EXCEPTION 'a bill is paid once' USING ERRCODE = 'check_violation';
        END IF;
    END IF;
    RETURN NEW;
END
$$
"""
_BILL_TRIGGER = """
CREATE TRIGGER check_bill BEFORE INSERT OR UPDATE OF state ON proposals FOR EACH ROW
WHEN (NEW.state = 'approved' AND NEW.payee_code_id IS NOT NULL) EXECUTE FUNCTION check_bill()
"""


def upgrade() -> None:
    op.create_table(
        "payment_policies",
        sa.Column("subject", sa.Text(), nullable=False, comment="a merchant's or a device's id"),
        sa.Column("policy", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="PaymentPolicy"),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_payment_policies")),
    )
    op.create_table(
        "payees",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("scheme", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="PayeeCode.key"),
        sa.Column("name", sa.Text(), nullable=False, comment="as wearers are shown it"),
        sa.Column("currency", sa.Text(), nullable=False, comment="where the code names none"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_payees_merchant_id_merchants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payees")),
    )
    op.create_index(op.f("ix_payees_merchant_id"), "payees", ["merchant_id"], unique=False)
    op.create_index("uq_payees_used", "payees", ["scheme", "key"], unique=True, postgresql_where=sa.text("removed_at IS NULL"))
    op.create_table(
        "provider_accounts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False, comment="the provider's public name of the account"),
        sa.Column("credentials_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("currencies", postgresql.ARRAY(sa.Text()), nullable=True, comment="null for any"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "removed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="takes no new payments; those it took are still asked about",
        ),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_provider_accounts_merchant_id_merchants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_accounts")),
    )
    op.create_index(
        "uq_provider_accounts_used",
        "provider_accounts",
        ["merchant_id", "provider"],
        unique=True,
        postgresql_where=sa.text("removed_at IS NULL"),
    )
    op.create_table(
        "payee_codes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("journey_id", sa.Text(), nullable=False),
        sa.Column("code_digest", sa.Text(), nullable=False, comment="SHA-256 of the PayeeCode's canonical JSON"),
        sa.Column("code", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="PayeeCode"),
        sa.Column(
            "frames", postgresql.ARRAY(sa.Text()), nullable=False, comment="digests of the different frames it was seen in"
        ),
        sa.Column("payee_id", sa.Text(), nullable=True, comment="null while the payee is not registered"),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name=op.f("fk_payee_codes_device_id_devices")),
        sa.ForeignKeyConstraint(["payee_id"], ["payees.id"], name=op.f("fk_payee_codes_payee_id_payees")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payee_codes")),
    )
    op.create_index(op.f("ix_payee_codes_code_digest"), "payee_codes", ["code_digest"], unique=False)
    op.create_index(op.f("ix_payee_codes_created_at"), "payee_codes", ["created_at"], unique=False)
    op.create_index(op.f("ix_payee_codes_device_id_code_digest"), "payee_codes", ["device_id", "code_digest"], unique=False)
    op.create_table(
        "provider_notifications",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=True, comment="null where no payment of ours has the reference"),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True, comment="what it says was paid or given back"),
        sa.Column("attempt_id", sa.Text(), nullable=True, comment="ours, where the provider repeats it"),
        sa.Column("note", sa.Text(), nullable=True, comment="the provider's own word for what happened"),
        sa.Column("amount_currency", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), server_default="new", nullable=False),
        sa.Column("repeated", sa.Integer(), server_default="0", nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("processed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('new', 'processed', 'unmatched')", name=op.f("ck_provider_notifications_state")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["provider_accounts.id"], name=op.f("fk_provider_notifications_account_id_provider_accounts")
        ),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_provider_notifications_payment_id_payments")),
        sa.PrimaryKeyConstraint("account_id", "event_id", name=op.f("pk_provider_notifications")),
        comment="providers' notifications, verified; without their bodies",
    )
    op.create_index(
        "ix_provider_notifications_new",
        "provider_notifications",
        ["received_at"],
        unique=False,
        postgresql_where=sa.text("state <> 'processed'"),
    )
    op.create_index(op.f("ix_provider_notifications_payment_id"), "provider_notifications", ["payment_id"], unique=False)
    op.add_column(
        "attempts",
        sa.Column("amount_minor", sa.BigInteger(), nullable=True, comment="of a capture or refund; in the payment's currency"),
    )
    op.add_column("attempts", sa.Column("requested_by", sa.Text(), server_default="wearer", nullable=False))
    op.add_column(
        "attempts", sa.Column("begun_at", sa.DateTime(timezone=True), nullable=True, comment="when a worker first took it up")
    )
    op.add_column(
        "attempts", sa.Column("leased_by", sa.Text(), nullable=True, comment="the worker that is at it until next_ask_at")
    )
    op.add_column(
        "attempts",
        sa.Column(
            "submitted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when it was last submitted again; null while it was only once",
        ),
    )
    op.create_index("ix_attempts_ended_at", "attempts", ["ended_at"], unique=False)
    op.create_index("ix_attempts_reference", "attempts", ["reference"], unique=False)
    op.add_column(
        "devices", sa.Column("payer_provider", sa.Text(), nullable=True, comment="the provider's name, which is no secret")
    )
    op.add_column("devices", sa.Column("key_changed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("payments", sa.Column("account_id", sa.Text(), nullable=True))
    op.add_column(
        "payments",
        sa.Column("capture", sa.Boolean(), server_default="true", nullable=False, comment="false: the money is only reserved"),
    )
    op.add_column("payments", sa.Column("captured_minor", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("payments", sa.Column("refunded_minor", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column(
        "payments",
        sa.Column("frozen_at", sa.DateTime(timezone=True), nullable=True, comment="an answer did not fit; a person has to look"),
    )
    op.add_column("payments", sa.Column("frozen_reason", sa.Text(), nullable=True))
    op.create_index(op.f("ix_payments_account_id"), "payments", ["account_id"], unique=False)
    op.create_index("ix_payments_device_id_created_at", "payments", ["device_id", "created_at"], unique=False)
    op.create_index(
        "ix_payments_frozen", "payments", ["frozen_at"], unique=False, postgresql_where=sa.text("frozen_at IS NOT NULL")
    )
    op.create_foreign_key(
        op.f("fk_payments_account_id_provider_accounts"), "payments", "provider_accounts", ["account_id"], ["id"]
    )
    op.add_column("proposals", sa.Column("payee_code_id", sa.Text(), nullable=True))
    op.add_column("proposals", sa.Column("account_id", sa.Text(), nullable=True, comment="what will take the money"))
    op.add_column(
        "proposals",
        sa.Column("capture", sa.Boolean(), server_default="true", nullable=False, comment="false: the money is only reserved"),
    )
    op.alter_column("proposals", "offer_id", existing_type=sa.TEXT(), nullable=True)
    op.create_index(op.f("ix_proposals_payee_code_id"), "proposals", ["payee_code_id"], unique=False)
    op.create_foreign_key(op.f("fk_proposals_payee_code_id_payee_codes"), "proposals", "payee_codes", ["payee_code_id"], ["id"])
    op.create_foreign_key(
        op.f("fk_proposals_account_id_provider_accounts"), "proposals", "provider_accounts", ["account_id"], ["id"]
    )
    op.execute("UPDATE payments SET captured_minor = total_minor WHERE state = 'captured'")
    op.execute("UPDATE attempts SET begun_at = created_at")
    op.execute("UPDATE devices SET payer_provider = 'stripe' WHERE payer_sealed IS NOT NULL")  # the only one there was
    for table, checks in _CHECKS.items():
        for name, condition in checks.items():
            op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
    op.execute(_FUNCTION)
    op.execute(_ATTEMPT_FUNCTION)
    op.execute("CREATE TRIGGER check_attempt BEFORE UPDATE ON attempts FOR EACH ROW EXECUTE FUNCTION check_attempt()")
    op.execute(_BILL_FUNCTION)
    op.execute(_BILL_TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER check_bill ON proposals")
    op.execute("DROP FUNCTION check_bill")
    op.execute("DROP TRIGGER check_attempt ON attempts")
    op.execute("DROP FUNCTION check_attempt()")
    op.execute(_FORMER_FUNCTION)
    for table, checks in _CHECKS.items():
        for name in checks:
            op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
    op.execute("DELETE FROM proposals WHERE offer_id IS NULL")
    op.drop_constraint(op.f("fk_proposals_account_id_provider_accounts"), "proposals", type_="foreignkey")
    op.drop_constraint(op.f("fk_proposals_payee_code_id_payee_codes"), "proposals", type_="foreignkey")
    op.drop_index(op.f("ix_proposals_payee_code_id"), table_name="proposals")
    op.alter_column("proposals", "offer_id", existing_type=sa.TEXT(), nullable=False)
    op.drop_column("proposals", "capture")
    op.drop_column("proposals", "account_id")
    op.drop_column("proposals", "payee_code_id")
    op.drop_constraint(op.f("fk_payments_account_id_provider_accounts"), "payments", type_="foreignkey")
    op.drop_index("ix_payments_frozen", table_name="payments", postgresql_where=sa.text("frozen_at IS NOT NULL"))
    op.drop_index("ix_payments_device_id_created_at", table_name="payments")
    op.drop_index(op.f("ix_payments_account_id"), table_name="payments")
    op.drop_column("payments", "frozen_reason")
    op.drop_column("payments", "frozen_at")
    op.drop_column("payments", "refunded_minor")
    op.drop_column("payments", "captured_minor")
    op.drop_column("payments", "capture")
    op.drop_column("payments", "account_id")
    op.drop_column("devices", "key_changed_at")
    op.drop_column("devices", "payer_provider")
    op.drop_index("ix_attempts_reference", table_name="attempts")
    op.drop_index("ix_attempts_ended_at", table_name="attempts")
    op.drop_column("attempts", "leased_by")
    op.drop_column("attempts", "submitted_at")
    op.drop_column("attempts", "begun_at")
    op.drop_column("attempts", "requested_by")
    op.drop_column("attempts", "amount_minor")
    op.drop_index(op.f("ix_provider_notifications_payment_id"), table_name="provider_notifications")
    op.drop_index(
        "ix_provider_notifications_new", table_name="provider_notifications", postgresql_where=sa.text("state <> 'processed'")
    )
    op.drop_table("provider_notifications")
    op.drop_index(op.f("ix_payee_codes_device_id_code_digest"), table_name="payee_codes")
    op.drop_index(op.f("ix_payee_codes_created_at"), table_name="payee_codes")
    op.drop_table("payee_codes")
    op.drop_index("uq_provider_accounts_used", table_name="provider_accounts", postgresql_where=sa.text("removed_at IS NULL"))
    op.drop_table("provider_accounts")
    op.drop_index("uq_payees_used", table_name="payees", postgresql_where=sa.text("removed_at IS NULL"))
    op.drop_index(op.f("ix_payees_merchant_id"), table_name="payees")
    op.drop_table("payees")
    op.drop_table("payment_policies")

"""The allowed moves of a payment, enforced where no code can go around them.

Revision: 0002
Follows: 0001
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# As schemas.payments.PAYMENT_MOVES stood at this revision; a test holds the database's table and the code's together.
_MOVES = {
    "proposed": "approved cancelled expired",
    "approved": "submitting cancelled",
    "submitting": "unknown action_required authorised captured declined failed cancelled",
    "unknown": "action_required authorised captured declined failed cancelled",
    "action_required": "authorised captured declined failed cancelled expired unknown",
    "authorised": "captured cancelled expired",
    "captured": "partially_refunded refunded",
    "partially_refunded": "refunded",
}

_FUNCTION = """
CREATE FUNCTION check_payment_move() RETURNS trigger LANGUAGE plpgsql AS $$
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

_APPEND_ONLY = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'check_violation';
END
$$
"""


def upgrade() -> None:
    moves = sa.table("payment_moves", sa.column("from_state", sa.Text), sa.column("to_state", sa.Text))
    op.bulk_insert(moves, [{"from_state": a, "to_state": b} for a, ends in _MOVES.items() for b in ends.split()])
    op.execute(_FUNCTION)
    op.execute(
        "CREATE TRIGGER check_payment_move BEFORE INSERT OR UPDATE ON payments FOR EACH ROW EXECUTE FUNCTION check_payment_move()"
    )
    op.execute(_APPEND_ONLY)
    op.execute(
        "CREATE TRIGGER receipts_are_append_only BEFORE UPDATE OR DELETE ON receipt_entries "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER receipts_are_append_only ON receipt_entries")
    op.execute("DROP FUNCTION refuse_change()")
    op.execute("DROP TRIGGER check_payment_move ON payments")
    op.execute("DROP FUNCTION check_payment_move()")
    op.execute("DELETE FROM payment_moves")

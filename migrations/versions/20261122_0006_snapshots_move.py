"""A published snapshot's directory may get another name: one that was damaged is made anew beside it.

Revision: 0006
Follows: 0005
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_FUNCTION = """
CREATE OR REPLACE FUNCTION check_catalogue_snapshot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF {changes} OR (NEW.merchant_id, NEW.number) <> (OLD.merchant_id, OLD.number) THEN
        RAISE EXCEPTION 'a published snapshot does not change' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$
"""
_FORMERLY = "null while an import is at it; nothing of it changes any more afterwards"
_NOW = "null while an import is at it; nothing of it changes any more afterwards but its directory's name"


def upgrade() -> None:
    op.execute(_FUNCTION.format(changes="OLD.published_at IS NOT NULL AND to_jsonb(NEW) - 'name' <> to_jsonb(OLD) - 'name'"))
    _comment(_NOW, instead_of=_FORMERLY)


def downgrade() -> None:
    op.execute(_FUNCTION.format(changes="OLD.published_at IS NOT NULL"))
    _comment(_FORMERLY, instead_of=_NOW)


def _comment(text: str, *, instead_of: str) -> None:
    op.alter_column(
        "catalogue_snapshots",
        "published_at",
        existing_type=sa.DateTime(timezone=True),
        existing_nullable=True,
        comment=text,
        existing_comment=instead_of,
    )

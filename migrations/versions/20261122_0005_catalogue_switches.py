"""What was current of each catalogue, one after the other, so that a rollback leads to what was live before.

Revision: 0005
Follows: 0004
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "catalogue_switches",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="in the order of the switches"),
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("snapshot", sa.Integer(), nullable=True, comment="null where the catalogue was withdrawn"),
        sa.Column("live_from", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("live_until", sa.DateTime(timezone=True), nullable=True, comment="null while it is current"),
        sa.Column(
            "is_undone", sa.Boolean(), server_default="false", nullable=False, comment="true: a rollback went back behind it"
        ),
        sa.ForeignKeyConstraint(
            ["merchant_id", "snapshot"],
            ["catalogue_snapshots.merchant_id", "catalogue_snapshots.number"],
            name=op.f("fk_catalogue_switches_merchant_id_snapshot_catalogue_snapshots"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["catalogues.merchant_id"], name=op.f("fk_catalogue_switches_merchant_id_catalogues")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalogue_switches")),
        comment="what was current, one after the other; a rollback goes back along those that are not undone",
    )
    op.create_index(
        op.f("ix_catalogue_switches_merchant_id_snapshot"), "catalogue_switches", ["merchant_id", "snapshot"], unique=False
    )
    op.create_index(
        "uq_catalogue_switches_live",
        "catalogue_switches",
        ["merchant_id"],
        unique=True,
        postgresql_where=sa.text("live_until IS NULL"),
    )
    # Of what was current earlier nothing is known.
    op.execute(
        "INSERT INTO catalogue_switches (merchant_id, snapshot, live_from) "
        "SELECT merchant_id, current, coalesce(switched_at, now()) FROM catalogues WHERE current IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_index("uq_catalogue_switches_live", table_name="catalogue_switches", postgresql_where=sa.text("live_until IS NULL"))
    op.drop_index(op.f("ix_catalogue_switches_merchant_id_snapshot"), table_name="catalogue_switches")
    op.drop_table("catalogue_switches")

"""Catalogues as numbered, immutable snapshots with pictures; calibrations; products and offers without a GTIN.

Revision: 0004
Follows: 0003
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# A published snapshot is what was sold and recognised at that time. It is deleted as a whole, or not at all.
_SNAPSHOT_FUNCTION = """
CREATE FUNCTION check_catalogue_snapshot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.published_at IS NOT NULL OR (NEW.merchant_id, NEW.number) <> (OLD.merchant_id, OLD.number) THEN
        RAISE EXCEPTION 'a published snapshot does not change' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$
"""
_PRODUCTS_FUNCTION = """
CREATE FUNCTION check_catalogue_products() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Of what goes with its whole snapshot, the snapshot is gone already.
    IF EXISTS (
        SELECT 1 FROM (SELECT DISTINCT merchant_id, snapshot FROM changed) AS touched
        JOIN catalogue_snapshots ON catalogue_snapshots.merchant_id = touched.merchant_id
            AND catalogue_snapshots.number = touched.snapshot AND catalogue_snapshots.published_at IS NOT NULL
    ) THEN
        RAISE EXCEPTION 'a published snapshot does not change' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END
$$
"""
_SWITCH_FUNCTION = """
CREATE FUNCTION announce_catalogue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.current IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM catalogue_snapshots
        WHERE merchant_id = NEW.merchant_id AND number = NEW.current AND published_at IS NOT NULL
    ) THEN
        RAISE EXCEPTION 'only a published snapshot can be current' USING ERRCODE = 'check_violation';
    END IF;
    PERFORM pg_notify('catalogue_switched', NEW.merchant_id);
    RETURN NULL;
END
$$
"""
_TRIGGERS = (
    """
    CREATE TRIGGER check_catalogue_snapshot BEFORE UPDATE ON catalogue_snapshots
    FOR EACH ROW EXECUTE FUNCTION check_catalogue_snapshot()
    """,
    """
    CREATE TRIGGER check_catalogue_products_added AFTER INSERT ON catalogue_products REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION check_catalogue_products()
    """,
    """
    CREATE TRIGGER check_catalogue_products_changed AFTER UPDATE ON catalogue_products REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION check_catalogue_products()
    """,
    # A row that moves in from elsewhere changes where it arrives, too.
    """
    CREATE TRIGGER check_catalogue_products_moved AFTER UPDATE ON catalogue_products REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION check_catalogue_products()
    """,
    """
    CREATE TRIGGER check_catalogue_products_removed AFTER DELETE ON catalogue_products REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION check_catalogue_products()
    """,
    """
    CREATE TRIGGER announce_catalogue_first AFTER INSERT ON catalogues
    FOR EACH ROW WHEN (NEW.current IS NOT NULL) EXECUTE FUNCTION announce_catalogue()
    """,
    """
    CREATE TRIGGER announce_catalogue AFTER UPDATE ON catalogues
    FOR EACH ROW WHEN (NEW.current IS DISTINCT FROM OLD.current) EXECUTE FUNCTION announce_catalogue()
    """,
)


def upgrade() -> None:
    op.create_table(
        "catalogue_snapshots",
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="counted per merchant; never used twice"),
        sa.Column(
            "name",
            sa.Text(),
            nullable=True,
            comment="its directory of pictures' features; null where no product is recognised by picture",
        ),
        sa.Column("matcher", sa.Text(), nullable=True, comment="what made the features"),
        sa.Column("embedder", sa.Text(), nullable=True, comment="null where there is none"),
        sa.Column("sha256", sa.Text(), nullable=True, comment="of features.bin"),
        sa.Column("products", sa.Integer(), server_default="0", nullable=False),
        sa.Column("pictures", sa.Integer(), server_default="0", nullable=False, comment="those with features"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "published_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="null while an import is at it; nothing of it changes any more afterwards",
        ),
        sa.CheckConstraint("number > 0", name=op.f("ck_catalogue_snapshots_number")),
        sa.CheckConstraint(
            "(name IS NULL) = (matcher IS NULL) AND (name IS NULL) = (sha256 IS NULL)", name=op.f("ck_catalogue_snapshots_name")
        ),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_catalogue_snapshots_merchant_id_merchants")),
        sa.PrimaryKeyConstraint("merchant_id", "number", name=op.f("pk_catalogue_snapshots")),
    )
    op.create_table(
        "catalogues",
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("current", sa.Integer(), nullable=True, comment="what is recognised and sold; null where nothing is"),
        sa.Column("last_number", sa.Integer(), server_default="0", nullable=False),
        sa.Column("switched_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["merchant_id", "current"],
            ["catalogue_snapshots.merchant_id", "catalogue_snapshots.number"],
            name=op.f("fk_catalogues_merchant_id_current_catalogue_snapshots"),
        ),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_catalogues_merchant_id_merchants")),
        sa.PrimaryKeyConstraint("merchant_id", name=op.f("pk_catalogues")),
        comment="a trigger announces every switch on the channel catalogue_switched, with the merchant's id",
    )
    op.create_table(
        "catalogue_pictures",
        sa.Column("sha256", sa.Text(), nullable=False, comment="of the file as the merchant gave it"),
        sa.Column("thumbnail", sa.LargeBinary(), nullable=False, comment="JPEG, at most 256 pixels a side"),
        sa.Column("width", sa.Integer(), nullable=False, comment="of the whole picture, upright"),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_catalogue_pictures")),
    )
    op.create_table(
        "catalogue_features",
        sa.Column("picture", sa.Text(), nullable=False),
        sa.Column("matcher", sa.Text(), nullable=False),
        sa.Column("embedder", sa.Text(), nullable=False, comment="empty where there is none"),
        sa.Column(
            "features",
            sa.LargeBinary(),
            nullable=True,
            comment="opaque here; null where the picture shows too little to be recognised by",
        ),
        sa.Column("points", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["picture"],
            ["catalogue_pictures.sha256"],
            name=op.f("fk_catalogue_features_picture_catalogue_pictures"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("picture", "matcher", "embedder", name=op.f("pk_catalogue_features")),
    )
    op.create_table(
        "catalogue_calibrations",
        sa.Column("merchant_id", sa.Text(), nullable=False),
        sa.Column("matcher", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "thresholds",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="`streams.sightings.thresholds`, with the precision they promise",
        ),
        sa.Column(
            "measured_on",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="how many pictures of what, and of which snapshot",
        ),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_catalogue_calibrations_merchant_id_merchants")),
        sa.PrimaryKeyConstraint("merchant_id", "matcher", "created_at", name=op.f("pk_catalogue_calibrations")),
        comment="the newest counts",
    )

    # What was sold until now is every merchant's first snapshot.
    op.execute(
        "INSERT INTO catalogue_snapshots (merchant_id, number, products, created_at, published_at) "
        "SELECT merchant_id, 1, count(*), max(observed_at), max(observed_at) FROM catalogue_products GROUP BY merchant_id"
    )
    op.execute(
        "INSERT INTO catalogues (merchant_id, current, last_number, switched_at) "
        "SELECT merchant_id, 1, 1, published_at FROM catalogue_snapshots"
    )
    op.drop_constraint(op.f("ck_catalogue_products_price"), "catalogue_products", type_="check")
    op.drop_constraint(op.f("pk_catalogue_products"), "catalogue_products", type_="primary")
    op.drop_constraint(op.f("fk_catalogue_products_merchant_id_merchants"), "catalogue_products", type_="foreignkey")
    # With a default they need no second pass over the rows.
    op.add_column("catalogue_products", sa.Column("snapshot", sa.Integer(), server_default="1", nullable=False))
    op.alter_column("catalogue_products", "snapshot", server_default=None)
    op.add_column(
        "catalogue_products",
        sa.Column(
            "product_id", sa.Text(), nullable=True, comment="the merchant's own name for it; its GTIN where it has no other"
        ),
    )
    op.execute("UPDATE catalogue_products SET product_id = gtin")
    op.alter_column("catalogue_products", "product_id", existing_type=sa.Text(), nullable=False)
    op.alter_column("catalogue_products", "gtin", existing_type=sa.Text(), nullable=True)
    op.add_column(
        "catalogue_products",
        sa.Column("item_group", sa.Text(), nullable=True, comment="what variants of one product have in common"),
    )
    op.alter_column(
        "catalogue_products",
        "price_minor",
        existing_type=sa.BigInteger(),
        nullable=True,
        comment="null where it is recognised only, and not offered",
    )
    op.alter_column("catalogue_products", "price_currency", existing_type=sa.Text(), nullable=True)
    op.add_column(
        "catalogue_products",
        sa.Column("sale_minor", sa.BigInteger(), nullable=True, comment="instead of price_minor from sale_from until sale_until"),
    )
    op.add_column("catalogue_products", sa.Column("sale_from", sa.DateTime(timezone=True), nullable=True))
    op.add_column("catalogue_products", sa.Column("sale_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "catalogue_products",
        sa.Column("available", sa.Boolean(), server_default="true", nullable=False, comment="false: out of stock, not offered"),
    )
    op.add_column(
        "catalogue_products",
        sa.Column(
            "pictures",
            postgresql.ARRAY(sa.Text()),
            server_default="{}",
            nullable=False,
            comment="SHA-256 of its pictures, the main one first",
        ),
    )
    op.create_primary_key(op.f("pk_catalogue_products"), "catalogue_products", ["merchant_id", "snapshot", "product_id"])
    op.create_foreign_key(
        op.f("fk_catalogue_products_merchant_id_snapshot_catalogue_snapshots"),
        "catalogue_products",
        "catalogue_snapshots",
        ["merchant_id", "snapshot"],
        ["merchant_id", "number"],
        ondelete="CASCADE",
    )
    op.create_check_constraint(
        op.f("ck_catalogue_products_price"),
        "catalogue_products",
        "price_minor > 0 AND (sale_minor IS NULL OR 0 < sale_minor AND sale_minor < price_minor)",
    )
    op.create_check_constraint(
        op.f("ck_catalogue_products_price_currency"),
        "catalogue_products",
        "(price_minor IS NULL) = (price_currency IS NULL) AND (sale_minor IS NULL OR price_minor IS NOT NULL)",
    )
    op.create_index(
        "uq_catalogue_products_gtin",
        "catalogue_products",
        ["gtin", "merchant_id", "snapshot"],
        unique=True,
        postgresql_where=sa.text("gtin IS NOT NULL"),
    )
    op.create_table_comment(
        "catalogue_products",
        "a trigger refuses to change what is in a published snapshot; only a whole snapshot can be deleted",
        existing_comment=None,
    )
    op.alter_column("offers", "gtin", existing_type=sa.Text(), nullable=True)
    op.add_column("offers", sa.Column("product_id", sa.Text(), nullable=True, comment="the merchant's own name for it"))
    op.create_check_constraint(op.f("ck_offers_product"), "offers", "gtin IS NOT NULL OR product_id IS NOT NULL")
    for statement in (_SNAPSHOT_FUNCTION, _PRODUCTS_FUNCTION, _SWITCH_FUNCTION, *_TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    for name in ("added", "changed", "moved", "removed"):
        op.execute(f"DROP TRIGGER check_catalogue_products_{name} ON catalogue_products")
    op.execute("DROP TRIGGER check_catalogue_snapshot ON catalogue_snapshots")
    op.execute("DROP TRIGGER announce_catalogue ON catalogues")
    op.execute("DROP TRIGGER announce_catalogue_first ON catalogues")
    for function in ("announce_catalogue", "check_catalogue_products", "check_catalogue_snapshot"):
        op.execute(f"DROP FUNCTION {function}()")
    op.drop_constraint(op.f("ck_offers_product"), "offers", type_="check")
    op.execute(
        "DELETE FROM offers WHERE gtin IS NULL AND NOT EXISTS (SELECT 1 FROM proposals WHERE proposals.offer_id = offers.id)"
    )
    # What was proposed stays on record, though the former tables have no word for what it was.
    op.execute("UPDATE offers SET gtin = '00000000000000' WHERE gtin IS NULL")
    op.drop_column("offers", "product_id")
    op.alter_column("offers", "gtin", existing_type=sa.Text(), nullable=False)
    # Only what is sold now stays, as far as the former table can say it.
    op.execute(
        "DELETE FROM catalogue_products WHERE gtin IS NULL OR price_minor IS NULL OR NOT available OR NOT EXISTS "
        "(SELECT 1 FROM catalogues WHERE catalogues.merchant_id = catalogue_products.merchant_id AND current = snapshot)"
    )
    op.drop_table_comment(
        "catalogue_products",
        existing_comment="a trigger refuses to change what is in a published snapshot; only a whole snapshot can be deleted",
    )
    op.drop_index("uq_catalogue_products_gtin", table_name="catalogue_products", postgresql_where=sa.text("gtin IS NOT NULL"))
    op.drop_constraint(op.f("ck_catalogue_products_price_currency"), "catalogue_products", type_="check")
    op.drop_constraint(op.f("ck_catalogue_products_price"), "catalogue_products", type_="check")
    op.drop_constraint(
        op.f("fk_catalogue_products_merchant_id_snapshot_catalogue_snapshots"), "catalogue_products", type_="foreignkey"
    )
    op.drop_constraint(op.f("pk_catalogue_products"), "catalogue_products", type_="primary")
    for column in ("pictures", "available", "sale_until", "sale_from", "sale_minor", "item_group", "product_id", "snapshot"):
        op.drop_column("catalogue_products", column)
    op.alter_column("catalogue_products", "price_currency", existing_type=sa.Text(), nullable=False)
    op.alter_column(
        "catalogue_products",
        "price_minor",
        existing_type=sa.BigInteger(),
        nullable=False,
        existing_comment="null where it is recognised only, and not offered",
        comment=None,
    )
    op.alter_column("catalogue_products", "gtin", existing_type=sa.Text(), nullable=False)
    op.create_primary_key(op.f("pk_catalogue_products"), "catalogue_products", ["gtin", "merchant_id"])
    op.create_foreign_key(
        op.f("fk_catalogue_products_merchant_id_merchants"), "catalogue_products", "merchants", ["merchant_id"], ["id"]
    )
    op.create_check_constraint(op.f("ck_catalogue_products_price"), "catalogue_products", "price_minor > 0")
    op.drop_table("catalogue_calibrations")
    op.drop_table("catalogue_features")
    op.drop_table("catalogue_pictures")
    op.drop_table("catalogues")
    op.drop_table("catalogue_snapshots")

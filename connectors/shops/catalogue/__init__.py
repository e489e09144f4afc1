"""The embedded shop: what merchants uploaded. See README.md."""

from connectors.shops.catalogue.connector import CatalogueShop

__all__ = ["CatalogueShop"]

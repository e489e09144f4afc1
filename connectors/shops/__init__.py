"""Shops, one folder each, behind `connectors.ports.ShopConnector`."""

"""Merchants' catalogues: importing product lists and pictures, numbered snapshots, and switching between them."""

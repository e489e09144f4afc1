"""Translators, one folder each, behind `connectors.ports.Translator`."""

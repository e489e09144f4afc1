"""The embedded translator: a list of product words. See README.md."""

from connectors.translators.glossary.connector import GlossaryTranslator

__all__ = ["GlossaryTranslator"]

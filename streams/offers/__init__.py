"""recognition → offers: every connected shop is asked at once; prices in the wearer's language and currency."""

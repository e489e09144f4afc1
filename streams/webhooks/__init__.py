"""Outcomes → merchants: fan-out into messages and deliveries, then signed attempts on a schedule until they are acknowledged."""

"""Shapes, on the wire and at rest. No behaviour beyond validation; imports nothing of ours."""

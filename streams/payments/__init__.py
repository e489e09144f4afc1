"""approved payments → providers → outcomes. An attempt is on record before the call, its outcome after; what is not known is
`unknown`, and the janitor asks until it is known."""

"""One trace per journey, metrics, and the names of both."""

"""One folder per outside system, behind the ports of `connectors.ports`. Imports schemas only."""

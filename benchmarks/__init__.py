"""Side-by-side measurements. Each prints its figures beside a peer's or a limit's, measured in the same run."""

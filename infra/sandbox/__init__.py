"""The outside world for demo, tests and benchmarks. Nothing of the platform imports it."""

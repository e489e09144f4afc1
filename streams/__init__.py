"""The flow: one folder per stage, in the order of `streams.core.topology`."""

"""frame → recognition. One frame is shown to Triton's models under the deadline of its capture; nothing is guessed."""

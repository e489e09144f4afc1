"""What every stage stands on: the safe consume loop, inbox and outbox, the relay, telemetry, settings and composition."""

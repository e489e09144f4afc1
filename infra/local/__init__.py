"""The embedded stack: Apache Kafka, PostgreSQL, tritonserver and Zipkin as supervised processes, without containers.

Start with `infra.local.stack.LocalStack`; each part is a `Component` in a module of its own.
"""

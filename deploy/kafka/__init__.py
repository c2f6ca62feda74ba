"""Apache Kafka itself, run from its own jars: no Docker."""

"""PostgreSQL and a Kafka-protocol broker out of wheels: what `make demo` runs on without Docker, Java or an account."""

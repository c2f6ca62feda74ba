"""PostgreSQL of an installation: who may do what in it. Tables and their changes are in `deploy/migrations`."""

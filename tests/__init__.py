"""The rules that Florin keeps, against real Postgres and RabbitMQ."""

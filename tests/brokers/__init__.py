"""Real brokers for tests: private RabbitMQ and ActiveMQ processes from Debian packages, on loopback, ended by pid."""

"""The embedded default: private Postgres and RabbitMQ instances, and a supervisor for everything.

Nothing here touches an instance that runs already: own data directory, own free loopback ports, own
Erlang node, cookie and port mapper.
"""

"""The embedded STOMP broker: for trials, tests and the demo, not for production.

`server.EmbeddedBroker` is the way in. `core`, `routing`, `state`, `headers` and `frames` do no I/O; `engine`,
`connection` and `store` are the shell around them.
"""

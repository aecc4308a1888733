"""The embedded STOMP broker: for trials, tests and the demo."""

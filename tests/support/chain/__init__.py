"""The whole chain, each link a real process: push, relay, build daemon, build, signed result, gate, deploy, reports."""

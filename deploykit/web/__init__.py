"""The web console and the webhook receiver: extra `web`. It shows what the bus tells, and takes what forges push.

Rules:

* Decisions are pure: forges, folding, diffs of pages. Views are thin.
* It calls `operations/` and `fleet/`. Of `daemons/` it uses the frame of services, never a daemon.
* Nothing is shown to a viewer who may not look at its site; nothing of a payload is believed before its signature is.
"""

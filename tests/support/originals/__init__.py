"""The original's programs, rebuilt from the notes on it alone: what they write, what they read, and where they break.

A fleet that moves in is half old and half new. These are the old half in tests, so they import nothing of ours (held by
`tests/unit/support/test_originals.py`): a mistake of ours in both a writer and its reader would otherwise go unseen.

    oldstomp.py    the STOMP client: one connection for each event, no receipts
    publishers.py  hooks, webhook sender, build helper, package cron, access form, keepalive
    hookprogram.py the hooks of git and Subversion as programs
    readers.py     daemons: what they have in common; builds, access, packages, and the bot that shows human lines
    updater.py     the daemon that updates clones and directories

A comment `[seen]` stands where the original was run and did so; the other facts were read from its sources.
"""

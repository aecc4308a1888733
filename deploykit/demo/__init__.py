"""`deploykit demo`: the main job from end to end, by the public commands, each a process of its own.

Every claim is checked with git and the file system, never with our own objects.
"""

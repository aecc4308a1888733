"""Whom to believe: SSH signatures, who may sign, what they may ask for, and the key files."""

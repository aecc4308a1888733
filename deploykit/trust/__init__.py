"""Signatures and authorization: SSH signatures, allowed signers, the policy of grants, and the key files."""
